"""Indexes of past formats: the tables as earlier migrations alone make them, with an agent's rows in them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from agentmem.store import DiskHome, schema
from agentmem.store.encrypted_index import INDEX_FILE, connect_encrypted, write_encrypted
from agentmem.store.keys import unlock
from agentmem.store.seals import seal_all

_OWN = ("sqlite_", "_sqlite_", "turn_words")
"""What SQLite, sqlite-utils and FTS5 keep for themselves."""


def versions() -> list[str]:
    """Names of the migrations, oldest first."""
    return [migration.name for migration in schema.migrations._migrations]


def make_older(path: Path, before: str) -> None:
    """Put an index into the place of a closed one as it was before a migration; columns of later ones are lost."""
    old_path = path.with_name("old.db")
    db = schema._connect(_empty(old_path), read_only=False)
    db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {schema.FORMAT_VERSION}")
    schema.migrations.apply(db, stop_before=before)
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("ATTACH ? AS new", (str(path),))
    tables = [
        name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    ]
    for table in tables:
        if not table.startswith(_OWN):
            columns = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})").fetchall())
            db.execute(f"DELETE FROM main.{table}")
            db.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
    if "turn_words" in tables:
        db.execute("INSERT INTO main.turn_words (rowid, words) SELECT turn, words FROM new.words")
    db.execute("DETACH new")
    if "m003_seals" in versions()[: versions().index(before)]:
        seal_all(db.conn)
    db.close()
    path.with_name("agent.mark").unlink(missing_ok=True)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    old_path.replace(path)
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.close()


def make_older_encrypted(home: DiskHome, agent_id: str, before: str) -> None:
    """The same for a closed agent that is encrypted with the home's key."""
    folder = home.folder_of(agent_id)
    key = unlock(folder, agent_id, home.peek(agent_id).uuid, home.key)
    assert key is not None, "it is not encrypted"
    plain, path = folder / "plain.db", folder / INDEX_FILE
    with (
        closing(connect_encrypted(path, agent_id, key, read_only=True)) as now,
        closing(sqlite3.connect(plain)) as copy,
    ):
        now.backup(copy)
    make_older(plain, before)
    path.unlink()
    with closing(sqlite3.connect(plain)) as older:
        write_encrypted(path, older, key)
    plain.unlink()


def _empty(path: Path) -> Path:
    path.touch(mode=0o600)
    return path
