"""Checksums of the index's own rows, and how many rows there are: SQLite itself would not notice a changed bit.

Each table has a column ``row_sum``: one xxh3-64 over the table's name and every other column. ``turns`` has
another, ``link``, over its short columns alone, so that a branch can be walked without its texts. ``tallies``
holds how many rows each table has, and what the table definitions hash to: a row, a table or a default that
vanished is missed. All of it is kept up by temporary triggers of the writing connection, so whoever inserts,
updates or deletes need not think of it; a table or column that a later migration adds is covered by itself.

Whoever reads selects from ``sealed_turns`` instead of ``turns``: a temporary view whose rows are checked. What
did not fit has its whole table looked at before that is called damaged, for SQLite may try a row with the very
value that a query compares it to. A condition on a column other than the key should be left to Python: SQLite may drop a row
by it before the row is checked.

Knows tables and columns; not what a row means.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from xxhash import xxh3_64_digest, xxh3_64_intdigest

ROW_SUM: Final = "row_sum"
LINK: Final = "link"
_TALLIES: Final = "tallies"
_SCHEMA: Final = "sqlite_schema"
_LINKED: Final = ("id", "parent", "start", "stop", "depth", "forgotten", "source", "role", "trust")
_FOREIGN: Final = ("sqlite_", "_sqlite_", "turn_words")
"""Tables that SQLite, sqlite-utils and FTS5 keep for themselves."""

RAISED: Final = "user-defined function raised exception"
"""What SQLite says of any exception in a function that it called, or of values that it could not hand to it."""

Execute = Callable[[str], Iterable[Any]]


def row_sum(table: str, *values: str | bytes | int | None) -> bytes:
    """The checksum of a row: 8 bytes over the table's name and the values, their types and lengths included."""
    parts: list[str | int | None] = [table]
    texts = []
    for value in values:
        if isinstance(value, str):
            data = value.encode()
            parts.append(f"t{len(data)}")
            texts.append(data)
        elif isinstance(value, bytes):
            parts.append(f"b{len(value)}")
            texts.append(value)
        else:
            parts.append(value)
    return xxh3_64_digest(repr(parts).encode() + b"".join(texts))


class Seals:
    """The seals of one open index; one that is only read may be older than they are."""

    def __init__(self, conn: sqlite3.Connection, *, read_only: bool) -> None:
        execute = _plain(conn)
        self._columns = _columns(execute)
        self._suspects: set[str] = set()
        self._interrupt: KeyboardInterrupt | None = None
        conn.create_function("agentmem_sealed", -1, self._noting(self._fits), deterministic=True)
        conn.create_function("agentmem_row_sum", -1, self._noting(row_sum), deterministic=True)
        statements = [line for table in self._columns for line in _views(table, self._columns[table])]
        if not read_only:
            statements += [line for table in self.tables() for line in _triggers(table, self._columns[table])]
        conn.executescript(";\n".join(("BEGIN", *statements, "COMMIT;")))

    @property
    def there(self) -> bool:
        """Whether this index has seals at all."""
        return _TALLIES in self._columns

    def tables(self) -> list[str]:
        """The sealed tables."""
        return [table for table, columns in self._columns.items() if ROW_SUM in columns]

    def interrupted(self) -> KeyboardInterrupt | None:
        """The Ctrl-C that came while SQLite asked for a checksum, once: SQLite makes an error of its own of it."""
        taken, self._interrupt = self._interrupt, None
        return taken

    def broken(self, execute: Execute) -> tuple[str, str] | None:
        """(where, what) of a row that was read since the last call and is not as it was written."""
        suspects, self._suspects = self._suspects, set()
        for label in suspects:
            table, _, seal = label.partition(".")
            for flaw in self._row_flaws(table, seal or ROW_SUM, execute):
                return flaw
        return None

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*values: Any) -> Any:
            try:
                return function(*values)
            except KeyboardInterrupt as interrupt:
                self._interrupt = interrupt
                raise

        return run

    def _fits(self, label: str, *row: Any) -> bool:
        fits = _fits(label, *row)
        if not fits:
            self._suspects.add(label)
        return fits

    def _row_flaws(self, table: str, seal: str, execute: Execute) -> Iterator[tuple[str, str]]:
        names = ", ".join((seal, *_covered(self._columns[table], seal)))
        for number, *row in execute(f"SELECT rowid, {names} FROM main.{table} NOT INDEXED"):  # noqa: S608
            if not _fits(_label(table, seal), *row):
                yield f"row {number} of table {table}", "the checksum differs"

    def flaws(self, execute: Execute, uncounted: Collection[str] = ()) -> Iterator[tuple[str, str]]:
        """(where, what): definitions and numbers of rows that are not as they were written.

        The rows of tables that are ``uncounted`` are not counted.
        """
        if not self.there:
            return
        tallies = self._tallies(execute)
        if tallies.pop(_SCHEMA, None) != _schema_sum(execute):
            yield "the table definitions", "they are not as they were made"
        missing = {*self.tables()} - {_TALLIES} ^ set(tallies)
        if missing:
            yield f"table {min(missing)}", "it is not as it was made"
        yield from _miscounted(tallies, {*self._columns} - {*uncounted}, execute)

    def miscounted(self, table: str, execute: Execute) -> Iterator[tuple[str, str]]:
        """(where, what): a table that has not as many rows as were written."""
        if self.there:
            yield from _miscounted(self._tallies(execute), {table} & {*self._columns}, execute)

    def _tallies(self, execute: Execute) -> dict[str, int]:
        return dict(execute(f"SELECT name, n FROM sealed_{_TALLIES}"))  # noqa: S608

    def row_flaws(self, execute: Execute, tables: Collection[str] | None = None) -> Iterator[tuple[str, str]]:
        """(where, what): rows of these tables, or of all, that are not as they were written. Reads every row."""
        for table in self._columns if tables is None else tables:
            for seal in (ROW_SUM, LINK):
                if seal in self._columns[table]:
                    yield from self._row_flaws(table, seal, execute)


def unseal(conn: sqlite3.Connection) -> None:
    """Take away what :class:`Seals` put into a connection: the tables are about to change, or it looks at them anew."""
    found = conn.execute(
        "SELECT type, name FROM temp.sqlite_schema WHERE type IN ('view', 'trigger')"
    ).fetchall()
    for kind, name in found:
        conn.execute(f"DROP {kind} temp.{name}")


def seal_all(conn: sqlite3.Connection) -> None:
    """Seal every row anew, and every table that has no seals yet; within the transaction that changed them."""
    execute = _plain(conn)
    for table, columns in _columns(execute).items():
        if ROW_SUM not in columns:
            conn.execute(f"ALTER TABLE {table} ADD COLUMN {ROW_SUM} BLOB")  # 8 bytes, see row_sum
    tables = _columns(execute)
    conn.execute("DELETE FROM tallies")
    for table in tables:
        if table != _TALLIES:
            conn.execute(f"INSERT INTO {_TALLIES} (name, n) SELECT ?, count(*) FROM {table}", (table,))  # noqa: S608
    conn.execute(f"INSERT INTO {_TALLIES} (name, n) VALUES (?, ?)", (_SCHEMA, _schema_sum(execute)))  # noqa: S608
    conn.create_function("agentmem_row_sum", -1, row_sum, deterministic=True)
    for table, columns in tables.items():
        conn.execute(f"UPDATE {table} SET {_assignments(table, columns, '')}")  # noqa: S608


def _plain(conn: sqlite3.Connection) -> Execute:
    return lambda sql: conn.execute(sql).fetchall()


def _columns(execute: Execute) -> Mapping[str, Sequence[str]]:
    """The columns of each of our tables, in order."""
    found: dict[str, list[str]] = {}
    for table, column in execute(
        "SELECT m.name, p.name FROM sqlite_schema m JOIN pragma_table_info(m.name) p "
        "WHERE m.type = 'table' ORDER BY m.name, p.cid"
    ):
        if isinstance(table, str) and not table.startswith(_FOREIGN):
            found.setdefault(table, []).append(column)
    return found


def _covered(columns: Sequence[str], seal: str) -> Sequence[str]:
    """The columns that a seal covers, in the table's order."""
    if seal == LINK:
        return [name for name in columns if name in _LINKED]
    return [name for name in columns if name not in (ROW_SUM, LINK)]


def _fits(label: str, seal: bytes | None, *row: Any) -> bool:
    try:
        return row_sum(label, *row) == seal
    except UnicodeEncodeError:
        return False


def _views(table: str, columns: Sequence[str]) -> Iterator[str]:
    """``sealed_<table>``, and for turns ``linked_turns``, whose rows are checked when they are read."""
    for seal in (ROW_SUM, LINK) if table == "turns" else (ROW_SUM,):
        names = ", ".join(_covered(columns, seal))
        call = f"agentmem_sealed('{_label(table, seal)}', {seal}, {names})"
        check = f" WHERE {call}" if seal in columns else ""
        view = f"linked_{table}" if seal == LINK else f"sealed_{table}"
        yield f"CREATE TEMP VIEW {view} AS SELECT {names} FROM main.{table}{check}"  # noqa: S608


def _label(table: str, seal: str) -> str:
    return table if seal == ROW_SUM else f"{table}.{seal}"


def _assignments(table: str, columns: Sequence[str], row: str) -> str:
    """``row_sum = ..., link = ...`` for an UPDATE; ``row``: "NEW." in a trigger."""
    return ", ".join(
        f"{seal} = agentmem_row_sum('{_label(table, seal)}', "
        f"{', '.join(row + name for name in _covered(columns, seal))})"
        for seal in (ROW_SUM, LINK)
        if seal in columns
    )


def _triggers(table: str, columns: Sequence[str]) -> Iterator[str]:
    seal = f"UPDATE {table} SET {_assignments(table, columns, 'NEW.')} WHERE rowid = NEW.rowid;"  # noqa: S608
    grown = f"UPDATE {_TALLIES} SET n = n + 1 WHERE name = '{table}';"  # noqa: S608
    shrunk = f"UPDATE {_TALLIES} SET n = n - 1 WHERE name = '{table}';"  # noqa: S608
    names = ", ".join(_covered(columns, ROW_SUM))
    yield f"CREATE TEMP TRIGGER seal_{table}_insert AFTER INSERT ON main.{table} BEGIN {seal} {grown} END"
    yield f"CREATE TEMP TRIGGER seal_{table}_update AFTER UPDATE OF {names} ON main.{table} BEGIN {seal} END"
    yield f"CREATE TEMP TRIGGER seal_{table}_delete AFTER DELETE ON main.{table} BEGIN {shrunk} END"


def _schema_sum(execute: Execute) -> int:
    """What the definitions of tables, indexes and triggers hash to; where they lie does not count."""
    rows = sorted(
        f"{kind} {name} {table} {sql}"
        for kind, name, table, sql in execute("SELECT type, name, tbl_name, sql FROM main.sqlite_schema")
        if table != "_sqlite_migrations"
    )
    return xxh3_64_intdigest("\n".join(rows).encode()) >> 1  # SQLite's integers are signed


def _miscounted(tallies: Mapping[str, int], there: set[str], execute: Execute) -> Iterator[tuple[str, str]]:
    tables = [table for table in tallies if table in there]
    if not tables:
        return
    counts = ", ".join(f"(SELECT count(*) FROM main.{table} NOT INDEXED)" for table in tables)  # noqa: S608
    for row in execute(f"SELECT {counts}"):
        for table, count in zip(tables, row, strict=True):
            if count != tallies[table]:
                yield f"table {table}", f"it has {count} rows, not {tallies[table]}"
