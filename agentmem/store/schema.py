"""The index's tables, and how a connection to it is opened.

Migrations are ``sqlite_utils.Migrations``: each is one transaction together with its record. Knows
tables; how a connection works is :mod:`agentmem.store.connection`'s affair, and what the rows mean is for
:mod:`agentmem.store.index`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from sqlite_utils import Database, Migrations

from agentmem.errors import DamagedError, FormatVersionError, StoreError
from agentmem.store.connection import IndexConnection, apply_settings, connect, require_wal
from agentmem.store.failures import of_sqlite
from agentmem.store.origins import default_trust, role_of
from agentmem.store.seals import Seals, seal_all, unseal
from agentmem.store.search import spoken_words
from agentmem.store.trail_tables import TRAIL_TABLES

APPLICATION_ID = 0x41674D6D  # "AgMm", where file(1) finds it
FORMAT_VERSION = 2  # 1 knew no seals: what it writes would be taken for damage
_HEADER_BYTES = 100  # of any SQLite file

migrations = Migrations("agentmem.store")

_TABLES = (
    """CREATE TABLE identity (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        agent_id TEXT NOT NULL,
        uuid TEXT NOT NULL,
        created_at TEXT NOT NULL,
        fingerprint TEXT NOT NULL,      -- JSON object
        layers TEXT NOT NULL,           -- JSON: (Hkv, D) per layer
        dtype TEXT NOT NULL,
        model TEXT NOT NULL,
        facts TEXT NOT NULL,            -- JSON object
        segment_tokens INTEGER NOT NULL,
        digest_blocks INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE turns (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        parent INTEGER REFERENCES turns (id),
        start INTEGER NOT NULL,         -- token positions in the log
        stop INTEGER NOT NULL CHECK (stop >= start),
        depth INTEGER NOT NULL,         -- turns from the root, this one included
        state_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        messages TEXT NOT NULL,         -- JSON
        pending TEXT NOT NULL,          -- JSON
        created_at TEXT NOT NULL,
        source TEXT,
        part INTEGER,
        settings TEXT NOT NULL,         -- JSON
        receipt TEXT NOT NULL,          -- JSON
        digest_kind TEXT,               -- digests there were when the turn was committed
        digest_count INTEGER NOT NULL,
        forgotten INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    "CREATE INDEX turns_by_state ON turns (state_id)",
    "CREATE INDEX turns_by_source ON turns (source) WHERE source IS NOT NULL",
    "CREATE INDEX turns_by_parent ON turns (parent)",
    """CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        head INTEGER REFERENCES turns (id),
        epoch INTEGER NOT NULL,         -- raised by each writer; an older writer is refused
        next_segment INTEGER NOT NULL,  -- numbers are never used twice
        digest_kind TEXT,
        digest_count INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE tokens (
        turn INTEGER PRIMARY KEY REFERENCES turns (id),
        ids BLOB NOT NULL               -- little-endian int32
    ) STRICT""",
    "CREATE TABLE segments (id INTEGER PRIMARY KEY) STRICT",
    """CREATE TABLE extents (
        turn INTEGER NOT NULL REFERENCES turns (id),
        start INTEGER NOT NULL,
        segment INTEGER NOT NULL REFERENCES segments (id),
        slot INTEGER NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (turn, start)
    ) STRICT""",
    "CREATE INDEX extents_by_segment ON extents (segment)",
    """CREATE TABLE pages (
        segment INTEGER NOT NULL REFERENCES segments (id),
        page INTEGER NOT NULL,
        filled INTEGER NOT NULL,
        sums BLOB NOT NULL,             -- little-endian u64 per (layer, keys|values, KV head)
        PRIMARY KEY (segment, page)
    ) STRICT""",
    """CREATE TABLE digest_files (
        file INTEGER PRIMARY KEY,
        filled INTEGER NOT NULL,
        sums BLOB NOT NULL              -- little-endian u64 per layer
    ) STRICT""",
    """CREATE TABLE scrubs (             -- slots still to be overwritten with zeros
        segment INTEGER NOT NULL,
        slot INTEGER NOT NULL,
        count INTEGER NOT NULL
    ) STRICT""",
    "CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "INSERT INTO state (id, epoch, next_segment, digest_count) VALUES (1, 0, 0, 0)",
)

_UPKEEP = (
    """CREATE TABLE turn_marks (
        turn INTEGER PRIMARY KEY REFERENCES turns (id),
        expires_at TEXT,
        pinned INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        what TEXT NOT NULL,
        why TEXT NOT NULL,              -- never the text itself
        at TEXT NOT NULL,
        turns TEXT NOT NULL,            -- JSON: their numbers
        tokens INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE moved_states (
        old TEXT PRIMARY KEY,
        new TEXT                        -- NULL: forgotten
    ) STRICT""",
    "CREATE TABLE chores (name TEXT PRIMARY KEY) STRICT",
)


@migrations()
def m001_initial(db: Database) -> None:
    """The tables of the first format."""
    for statement in _TABLES:
        db.execute(statement)
    if has_fts5(db.conn):
        db.execute("CREATE VIRTUAL TABLE turn_words USING fts5 (words, tokenize = 'unicode61')")


@migrations()
def m002_rule_states(db: Database) -> None:
    """What selection rules with running state are committed with; most turns have none."""
    db.execute(
        """CREATE TABLE rule_states (
            turn INTEGER PRIMARY KEY REFERENCES turns (id),
            kind TEXT NOT NULL,
            start INTEGER NOT NULL,         -- the first token that running speaks of
            tokens INTEGER NOT NULL,
            running BLOB NOT NULL,          -- little-endian f32 (rows, tokens)
            first INTEGER NOT NULL,         -- the first block that closed speaks of
            blocks INTEGER NOT NULL,
            closed BLOB NOT NULL,           -- little-endian i16 (blocks, width)
            sum BLOB NOT NULL               -- little-endian u64 over the numbers above
        ) STRICT"""
    )


@migrations()
def m003_seals(db: Database) -> None:
    """Checksums of rows, how many rows there are, and how many commits there were; see :mod:`agentmem.store.seals`.

    The rows are sealed when all migrations are through.
    """
    db.execute("PRAGMA user_version = 2")
    db.execute("CREATE TABLE tallies (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT")
    db.execute("ALTER TABLE turns ADD COLUMN link BLOB")
    db.execute("ALTER TABLE state ADD COLUMN commits INTEGER NOT NULL DEFAULT 0")


@migrations()
def m004_upkeep(db: Database) -> None:
    """Pins and expiries, what was dropped and why, where rebuilt states went, and what is still to be done."""
    for statement in _UPKEEP:
        db.execute(statement)


@migrations()
def m005_origins(db: Database) -> None:
    """Every turn carries whose words it holds and how far they are trusted."""
    for name in ("role", "trust"):
        db.execute(f"ALTER TABLE turns ADD COLUMN {name} TEXT")
    for turn, text in db.execute("SELECT id, messages FROM turns").fetchall():
        role = role_of(json.loads(text))
        db.execute("UPDATE turns SET role = ?, trust = ? WHERE id = ?", (role, default_trust(role), turn))


@migrations()
def m007_set_aside(db: Database) -> None:
    """Tokens whose stored K/V were found damaged and could not be replaced yet: nothing attends to them."""
    db.execute(
        """CREATE TABLE set_aside (
            turn INTEGER NOT NULL REFERENCES turns (id),
            start INTEGER NOT NULL,         -- token positions in the log
            stop INTEGER NOT NULL,
            segment INTEGER NOT NULL,       -- where the damaged bytes lie
            slot INTEGER NOT NULL,
            PRIMARY KEY (turn, start)
        ) STRICT"""
    )


@migrations()
def m008_words(db: Database) -> None:
    """What is searched is a table like any other: SQLite's full-text index answers wrongly, or worse, when damaged."""
    db.execute(
        "CREATE TABLE words (turn INTEGER PRIMARY KEY REFERENCES turns (id), words TEXT NOT NULL) STRICT"
    )
    for turn, text in db.execute("SELECT id, messages FROM turns WHERE forgotten = 0").fetchall():
        db.execute("INSERT INTO words (turn, words) VALUES (?, ?)", (turn, spoken_words(json.loads(text))))
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'turn_words'").fetchone():
        db.execute("DROP TABLE turn_words")


@migrations()
def m009_trail(db: Database) -> None:
    """The current branch in a few rows, how many turns each source has, and indexes that spare walks over all rows.

    Triggers of the index, not of a connection: whoever changes a turn's place, or forgets it, empties the trail.
    """
    for statement in TRAIL_TABLES:
        db.execute(statement)


def has_fts5(conn: sqlite3.Connection) -> bool:
    """Whether this SQLite was built with full-text search."""
    rows = conn.execute("SELECT 1 FROM pragma_compile_options WHERE compile_options = 'ENABLE_FTS5'")
    return rows.fetchone() is not None


def columns_of(table: str, execute: Callable[[str], list[Any]]) -> set[str]:
    """The columns a table has; in an index that is only read, later ones may be missing."""
    return {name for (name,) in execute(f"SELECT name FROM pragma_table_info('{table}')")}  # noqa: S608


def has_table(table: str, execute: Callable[[str], list[Any]]) -> bool:
    """Whether an index has a table; one that is only read may be older than it."""
    return bool(execute(f"SELECT 1 FROM sqlite_schema WHERE name = '{table}'"))  # noqa: S608


def create_database(path: Path) -> Database:
    """Make the index of a new agent. Nothing is synced: the caller syncs the whole folder at the end."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # SQLite would use the umask
    db = _connect(path, read_only=False)
    apply_settings(db.conn, "", read_only=False)
    db.execute("PRAGMA synchronous = OFF")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    _migrate(db, "")
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":  # SQLite reports a disk that fails just here in no other way
        raise sqlite3.OperationalError(f"the journal mode stays {mode!r}")
    _seal(db, read_only=False)
    return db


def open_database(path: Path, agent_id: str, *, read_only: bool) -> Database:
    """Open an agent's index; a writer holds the lock, and brings older tables up to date.

    Raises:
        DamagedError: it is not an agentmem index, or cannot be read.
        FormatVersionError: a newer agentmem wrote it.
    """
    _check_begun(path, agent_id)
    db = None
    try:
        db = _connect(path, read_only=read_only)
        _check_format(db, agent_id)
        apply_settings(db.conn, agent_id, read_only=read_only)
        if not read_only:
            require_wal(db.conn, agent_id)
            _check_full_text(db, agent_id)
            _migrate(db, agent_id)
        _seal(db, read_only=read_only)
    except sqlite3.OperationalError as error:  # the disk, or somebody else; not what the file holds
        if db is not None:
            db.close()
        raise of_sqlite(agent_id, error) from error
    except (sqlite3.DatabaseError, UnicodeError) as error:
        if db is not None:
            db.close()
        raise DamagedError(agent_id, path.name, "the whole file", str(error)) from error
    except BaseException:
        if db is not None:
            db.close()
        raise
    return db


def _check_begun(path: Path, agent_id: str) -> None:
    """Raises DamagedError for an index cut off within its header: SQLite takes an empty one for new, and deletes its log."""
    try:
        size = path.stat().st_size
    except OSError:  # connecting says what is wrong
        return
    if size < _HEADER_BYTES:
        raise DamagedError(agent_id, path.name, f"bytes {size} on", f"it is {size} bytes long")


def _connect(path: Path, *, read_only: bool) -> Database:
    return Database(connect(path, read_only=read_only), recursive_triggers=True, execute_plugins=False)


def _seal(db: Database, *, read_only: bool) -> None:
    assert isinstance(db.conn, IndexConnection)
    db.conn.seals = Seals(db.conn, read_only=read_only)


def bring_up_to_date(db: Database, agent_id: str) -> bool:
    """Apply the migrations that an index in memory lacks; whether there were any. Raises DamagedError."""
    _check_format(db, agent_id)
    if not migrations.pending(db):
        return False
    _migrate(db, agent_id)
    _seal(db, read_only=False)
    return True


@cache
def _names() -> frozenset[str]:
    """The names of all migrations."""
    return frozenset(migration.name for migration in migrations.pending(Database(memory=True)))


def _applied(db: Database) -> set[str]:
    """The names of those that an index went through."""
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = '_sqlite_migrations'").fetchone():
        return set()
    return {name for (name,) in db.execute("SELECT name FROM _sqlite_migrations").fetchall()}


def _migrate(db: Database, agent_id: str) -> None:
    """Bring tables up to date, and seal every row anew: all of it or nothing. Raises DamagedError."""
    applied = _applied(db)
    if _names() <= applied:
        return
    unseal(db.conn)  # an encrypted index was sealed when it was decrypted
    if "m003_seals" in applied:
        seals = Seals(db.conn, read_only=True)  # what is damaged must not be sealed over
        for where, detail in (*seals.flaws(db.conn.execute), *seals.row_flaws(db.conn.execute)):
            raise DamagedError(agent_id, "agent.db", where, detail)
        unseal(db.conn)
    db.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(db)
        seal_all(db.conn)
        db.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.execute("ROLLBACK")
        raise


def _check_format(db: Database, agent_id: str) -> None:
    (found,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if found != APPLICATION_ID:
        raise DamagedError(agent_id, "agent.db", "the header", f"application id {found:#x} is not agentmem's")
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"agent {agent_id!r} was written in format {version}; this agentmem reads up to {FORMAT_VERSION}. "
            "Upgrade agentmem to open it."
        )


def _check_full_text(db: Database, agent_id: str) -> None:
    old = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'turn_words'").fetchone()
    if old and not has_fts5(db.conn):
        raise StoreError(
            f"agent {agent_id!r} has the full-text index of an older agentmem, which this Python's SQLite was "
            "built without (FTS5). Open it read-only, or once with a Python whose SQLite has FTS5."
        )
