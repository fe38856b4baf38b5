"""How SQLite is used: every transaction that writes is IMMEDIATE, settings are read back, one connection writes."""

from __future__ import annotations

import ast
import re
import sqlite3
from pathlib import Path

import pytest

import agentmem
from agentmem.errors import DamagedError, StoreError
from agentmem.store import DiskHome, connection
from agentmem.store.connection import apply_settings, connect
from support.flipping import live
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, add_turn, create

WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER")


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home with tiny segments."""
    return DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)


def traced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, str]]:
    """(in a transaction that was begun IMMEDIATE, statement) of everything that SQLite runs on files from now on."""
    seen: list[tuple[bool, str]] = []
    make = connection.connect

    def connecting(path: Path, *, read_only: bool) -> connection.IndexConnection:
        conn = make(path, read_only=read_only)
        state = {"immediate": False}

        def trace(sql: str) -> None:
            if sql.startswith("BEGIN"):
                state["immediate"] = "IMMEDIATE" in sql
            elif sql.startswith(("COMMIT", "ROLLBACK")) and " TO " not in sql:
                state["immediate"] = False
            seen.append((state["immediate"], sql))

        conn.set_trace_callback(trace)
        return conn

    monkeypatch.setattr("agentmem.store.schema.connect", connecting)
    return seen


def test_everything_that_writes_is_immediate(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A life with every verb: no table of the file is written to outside a transaction begun with BEGIN IMMEDIATE."""
    seen = traced(monkeypatch)
    store = create(home)
    seen.clear()  # a new agent's index is nobody else's yet
    live(store)
    store.collect(prune=True)
    store.close()
    store = home.open("ada")
    add_turn(store, 9, 3)
    store.close()

    assert sum(sql == "BEGIN IMMEDIATE" for _, sql in seen) > 10
    bare = [
        sql
        for immediate, sql in seen
        if sql.upper().startswith(WRITES) and " TEMP " not in sql and not immediate
    ]
    assert bare == []


def test_a_reader_writes_nothing(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is mode=ro and never checkpoints: the race of two that do cannot happen."""
    create(home).close()
    seen = traced(monkeypatch)
    reader = home.open("ada", read_only=True)
    reader.turns()
    reader.close()

    assert seen
    assert [sql for _, sql in seen if sql.upper().startswith(WRITES) and " TEMP " not in sql] == []
    assert "PRAGMA wal_autocheckpoint = 0" in [sql for _, sql in seen]
    conn = connect(home._folder("ada") / "agent.db", read_only=True)
    for statement in ("UPDATE state SET epoch = 9", "DELETE FROM notes"):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            conn.execute(statement)
    conn.close()


def test_no_other_way_to_begin() -> None:
    """In the source of the package there is no deferred BEGIN but that of a snapshot, and no implicit transaction."""
    begins = []
    for path in Path(agentmem.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and re.match(r"BEGIN\b(?! IMMEDIATE)", text):
                begins.append((path.name, text))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "sqlite3.connect":
                assert path.parent.name == "store", path

    assert begins
    assert {name for name, _ in begins} <= {"index.py", "seals.py", "encrypted_index.py"}


def test_a_setting_that_was_not_taken(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SQLite that does not do as it is told is refused, with the setting's name."""
    create(home).close()
    conn = connect(home._folder("ada") / "agent.db", read_only=False)
    monkeypatch.setattr(connection, "_SETTINGS", {"synchronous": 9})
    with pytest.raises(StoreError, match=r"did not take synchronous = 9 \(it says"):
        apply_settings(conn, "ada", read_only=False)
    conn.close()


def test_a_file_in_another_journal_mode(home: DiskHome) -> None:
    """An index that is not in WAL mode any more is not as it was made: a writer does not go on with it."""
    create(home).close()
    conn = sqlite3.connect(home._folder("ada") / "agent.db")
    conn.execute("PRAGMA journal_mode = DELETE")
    conn.close()

    with pytest.raises(DamagedError, match="journal_mode is 'delete'"):
        home.open("ada")
