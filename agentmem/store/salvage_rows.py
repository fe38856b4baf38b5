"""Reading what is left of a damaged index, row by row: each is taken only if it is what was written.

SQLite gives up a table at the first page it cannot make sense of; here the rest is asked for from the other end,
and then row by row. Knows tables and checksums of rows; not what a row means.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentmem.store.seals import LINK, ROW_SUM, row_sum

_FAILURES = (sqlite3.Error, UnicodeDecodeError, OverflowError)
"""What Python's sqlite3 raises for bytes that make no sense; the second in the middle of its own message."""
_OF_THE_SYSTEM = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
"""Failures of SQLite that are no row's fault: the salvage ends with them, or it would take sound rows for lost."""
_HEADER = 100
MOST_PROBES = 1 << 20
"""Rows asked for one by one between two that could be read."""


@dataclass
class SavedTable:
    """The rows of one table that could be read, as column -> value, and the numbers of those that could not."""

    name: str
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)
    unread: bool = False
    """Whether some part could not be read at all, so that more rows may be lost than are known."""

    @property
    def whole(self) -> bool:
        """Whether all of it was read."""
        return not (self.unread or self.damaged)

    def joined(self, other: SavedTable) -> SavedTable:
        """What either of two readings of the table has."""
        rows = dict(sorted((self.rows | other.rows).items()))
        damaged = (self.damaged & other.damaged) - rows.keys()
        return SavedTable(self.name, rows, damaged, self.unread and other.unread)


def mend_header(path: Path, sound: Path) -> None:
    """Give a file that SQLite does not take for a database the first 100 bytes of one that it does."""
    with closing(sqlite3.connect(path)) as conn:
        try:
            conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except _FAILURES as error:
            _pass_on(error)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_NOTADB:
                return
        else:
            return
    header = bytearray(sound.read_bytes()[:_HEADER])
    size = int.from_bytes(header[16:18], "big") or 1
    pages = path.stat().st_size // (1 << 16 if size == 1 else size)
    header[28:32] = pages.to_bytes(4, "big")
    header[32:40] = bytes(8)  # no free pages are known
    header[92:96] = header[24:28]  # or the number of pages would not be believed
    with path.open("r+b") as file:
        file.write(header)


def saved_tables(conn: sqlite3.Connection, wanted: Mapping[str, Sequence[str]]) -> dict[str, SavedTable]:
    """What is left of each wanted table (name -> columns), in a database that may be damaged anywhere."""
    return {name: _saved(conn, name, columns) for name, columns in wanted.items()}


def _saved(conn: sqlite3.Connection, name: str, wanted: Sequence[str]) -> SavedTable:
    table = SavedTable(name)
    try:
        there = [row[1] for row in conn.execute(f"PRAGMA table_info({name})")]
    except _FAILURES as error:
        _pass_on(error)
        there = []
    columns = [column for column in there if column in wanted or column in (ROW_SUM, LINK)]
    if not columns:
        table.unread = bool(wanted)
        return table
    select = f"SELECT rowid, {', '.join(columns)} FROM main.{name} NOT INDEXED"  # noqa: S608
    first, clean = _scan(conn, f"{select} ORDER BY rowid", table, columns)
    if clean:
        return table
    last, _ = _scan(conn, f"{select} ORDER BY rowid DESC", table, columns)
    low, high = first, last if last is not None else _highest(conn, name)
    start, stop = (low or 0) + 1, high if high is not None else (low or 0) + 1
    table.unread = True
    for number in range(start, min(stop, start + MOST_PROBES)):
        _scan(conn, f"{select} WHERE rowid = {number}", table, columns)
    return table


def _scan(
    conn: sqlite3.Connection, sql: str, table: SavedTable, columns: Sequence[str]
) -> tuple[int | None, bool]:
    """Take rows until there are no more (True) or SQLite fails (False); the number of the last one."""
    last = None
    try:
        for number, *values in _rows(conn, sql):
            last = number
            row = dict(zip(columns, values, strict=True))
            if _fits(table.name, row):
                table.rows[number] = row
            else:
                table.damaged.add(number)
    except _FAILURES as error:
        _pass_on(error)
        return last, False
    return last, True


def _rows(conn: sqlite3.Connection, sql: str) -> Iterator[Any]:
    cursor = conn.execute(sql)
    while (row := cursor.fetchone()) is not None:
        yield row


def _fits(table: str, row: dict[str, Any]) -> bool:
    """Whether a row is what was written; tables of an older format have no checksums and are believed."""
    sealed, seal = ROW_SUM in row, row.pop(ROW_SUM, None)
    row.pop(LINK, None)
    try:
        return not sealed or row_sum(table, *row.values()) == seal
    except (UnicodeEncodeError, TypeError):
        return False


def _highest(conn: sqlite3.Connection, name: str) -> int | None:
    try:
        rows = conn.execute(f"SELECT max(rowid) FROM main.{name}").fetchone()  # noqa: S608
        return None if rows is None or rows[0] is None else int(rows[0]) + 1
    except _FAILURES as error:
        _pass_on(error)
        return None


def _pass_on(error: Exception) -> None:
    """Raise what says nothing of the file. A page that ends too soon is the file's."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in _OF_THE_SYSTEM and code != sqlite3.SQLITE_IOERR_SHORT_READ:
        raise error
