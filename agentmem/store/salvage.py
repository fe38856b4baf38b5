"""Salvage: a new index from whatever can still be read of a damaged one.

Works on a copy; the old index is replaced in one step when the new one is whole and synced. Rows that are not
what was written are left out, and what that means is said: turns without words, tokens whose K/V cannot be
checked any more. Only Python's sqlite3 is used, and the rows' own checksums. Knows no model.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agentmem.config import MemoryConfig
from agentmem.errors import DamagedError
from agentmem.memory.source import KVLayout
from agentmem.store.extents import Extent
from agentmem.store.failures import typed
from agentmem.store.files import make_folder
from agentmem.store.keys import MemoryKey
from agentmem.store.layout_text import layout_of
from agentmem.store.mark import CommitMark
from agentmem.store.mended import SalvageReport
from agentmem.store.open_part import OpenPart
from agentmem.store.salvage_tree import Row, gaps, lost_turns, rooted, stand_in
from agentmem.store.schema import create_database
from agentmem.store.search import spoken_words
from agentmem.store.segment import nothing_live, segment_spec
from agentmem.store.staging import Staging
from agentmem.store.tensor_file import flaw_of
from agentmem.store.vault import EncryptedVault, Vault

_NEVER = ("_sqlite_migrations", "sqlite_sequence", "tallies")
_FIRST = ("identity", "turns", "segments")
"""Tables that others refer to."""
_MADE = (
    "extents",
    "pages",
    "state",
    "set_aside",
    "digest_files",
    "notes",
    "scrubs",
    "words",
    "trail",
    "sources",
)
"""Tables whose rows are not simply taken over; digests are computed anew."""


def salvage(folder: Path, agent_id: str, workshop: Path, vault: Vault, *, dry_run: bool) -> SalvageReport:
    """Replace an agent's index by what is left of it. The caller holds the lock, and has it closed.

    Args:
        folder: the agent's.
        agent_id: for messages, and to be found in it.
        workshop: a folder for the copies; made, and removed.
        vault: what its files are opened with.
        dry_run: only say what is left.

    Raises:
        DamagedError: too little is left to know whose it is; nothing was changed.
        StoreError: the disk failed; the old index is as it was, or the new one is in its place.
    """
    with typed(agent_id, "salvaging the index"):
        shutil.rmtree(workshop, ignore_errors=True)
        make_folder(workshop.parent)
        make_folder(workshop)
        try:
            work = _Salvage(folder, agent_id, workshop, vault)
            report = work.report(dry_run=dry_run)
            if not dry_run:
                work.write()
            return report
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def salvage_open_part(folder: Path, agent_id: str, workshop: Path, key: MemoryKey, *, dry_run: bool) -> Vault:
    """Make the open part of an encrypted agent anew; returns what its files are opened with.

    The caller holds the lock, and has it closed. Raises WrongKeyError, DamagedError, StoreError; nothing was changed.
    """
    with typed(agent_id, "salvaging the open part"):
        shutil.rmtree(workshop, ignore_errors=True)
        make_folder(workshop.parent)
        make_folder(workshop)
        try:
            db = create_database(workshop / "empty.db")
            columns = _columns_of(db.conn)
            db.close()
            part = OpenPart(folder, agent_id, workshop, columns, key)
            if not dry_run:
                part.put()
            return EncryptedVault(part.data_key, key)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


class _Salvage:
    """One salvage: the rows that were saved, made to fit each other."""

    def __init__(self, folder: Path, agent_id: str, workshop: Path, vault: Vault) -> None:
        self._folder = folder
        self._agent_id = agent_id
        self._vault = vault
        db = create_database(workshop / "empty.db")
        self._columns = _columns_of(db.conn)
        db.close()
        self._place = vault.salvage_place(folder, agent_id, workshop)
        self._saved = self._place.saved(self._columns)
        self._identity = self._own_identity()
        before = set(self._rows("turns"))
        self._lost = lost_turns(self._turns, self._rows("tokens"), self._rows("extents").values())
        self._stand_in()
        kept = rooted(self._turns)
        self._dropped = sorted((before | self._lost) - set(kept))
        if self._dropped and not kept:
            raise DamagedError(
                agent_id,
                "agent.db",
                "table turns",
                "no turn is left that anything leads back from; restore an export",
            )
        self._saved["turns"].rows = dict(kept)
        self._keep_those_of(kept)

    @property
    def _turns(self) -> dict[int, Row]:
        return {row["id"]: row for row in self._rows("turns").values()}

    def report(self, *, dry_run: bool) -> SalvageReport:
        """What is left, and what is not."""
        turns = self._turns
        wordless = [number for number in sorted(self._lost) if number in turns]
        ids = {row["turn"] for row in self._rows("tokens").values()}
        no_ids = [n for n, row in sorted(turns.items()) if n not in ids and not row["forgotten"]]
        losses = [
            f"table {table.name}: "
            + (
                f"rows {', '.join(map(str, sorted(table.damaged - set(table.rows))))} are damaged"
                if table.damaged
                else ""
            )
            + (" and " if table.damaged and table.unread else "")
            + ("a part cannot be read" if table.unread else "")
            for table in self._saved.values()
            if table.unread or table.damaged - set(table.rows)
        ]
        return SalvageReport(
            dry_run, [*self._place.losses, *losses], sorted(turns), wordless, no_ids, self._dropped
        )

    def write(self) -> None:
        """Make the new index and put it in the place of the old one."""
        with self._place.filling() as conn:
            extents, pages, aside = self._placed()
            conn.execute("PRAGMA foreign_keys = OFF")
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("DELETE FROM state")
            for name in (*_FIRST, *(sorted(set(self._columns) - {*_FIRST, *_MADE}))):
                self._insert(conn, name, self._rows(name).values())
            self._insert(
                conn, "segments", ({"id": n} for n in {e["segment"] for e in extents} - self._segments)
            )
            self._insert(conn, "extents", extents)
            self._insert(conn, "pages", pages)
            self._insert(conn, "set_aside", aside)
            self._insert(conn, "notes", self._notes())
            self._insert(conn, "words", self._words())
            self._insert(conn, "scrubs", self._scrubs(extents))
            self._insert(conn, "state", [self._state(extents)])
            conn.execute("COMMIT")
            for table, row, *_ in conn.execute("PRAGMA foreign_key_check").fetchall():
                raise DamagedError(
                    self._agent_id, "agent.db", f"row {row} of {table}", "it fits nothing that is left"
                )
        self._place.swap()

    # -- reading --------------------------------------------------------------------------------------

    def _own_identity(self) -> Row:
        rows = list(self._rows("identity").values())
        if len(rows) != 1 or rows[0].get("agent_id") != self._agent_id:
            raise DamagedError(
                self._agent_id,
                "agent.db",
                "table identity",
                "what is left does not say whose it is, or with which model it was made; restore an export",
            )
        return rows[0]

    def _rows(self, table: str) -> dict[int, dict[str, Any]]:
        return self._saved[table].rows

    @property
    def _layout(self) -> KVLayout:
        return layout_of(self._identity["layers"], self._identity["dtype"])

    @property
    def _segments(self) -> set[int]:
        return {row["id"] for row in self._rows("segments").values()}

    # -- making it fit --------------------------------------------------------------------------------

    def _stand_in(self) -> None:
        tokens = {row["turn"]: row["ids"] for row in self._rows("tokens").values()}
        extents = list(self._rows("extents").values())
        for number in sorted(self._lost):
            row = stand_in(number, self._turns, tokens.get(number), extents, self._lost)
            if row is not None:
                self._rows("turns")[number] = row

    def _keep_those_of(self, turns: Mapping[int, Row]) -> None:
        """Drop the rows of turns that are not there, and of token ids that are not as many as tokens."""
        for name, table in self._saved.items():
            if "turn" in self._columns[name]:
                table.rows = {n: row for n, row in table.rows.items() if row["turn"] in turns}
        for number, row in list(self._rows("tokens").items()):
            turn = turns[row["turn"]]
            if turn["forgotten"] or len(row["ids"]) != 4 * (turn["stop"] - turn["start"]):
                del self._rows("tokens")[number]

    def _placed(self) -> tuple[list[Row], list[Row], list[Row]]:
        """Extents that cover every turn, checksums of pages, and tokens set aside since their place is lost."""
        layout, capacity = self._layout, int(self._identity["segment_tokens"])
        pages = [row for row in self._rows("pages").values() if row["segment"] in self._segments]
        aside = list(self._rows("set_aside").values())
        extents: list[Row] = []
        segments = self._vault.segments(
            self._folder / "kv", layout, capacity, self._agent_id, lambda _: (), nothing_live
        )
        try:
            staging = Staging(layout, segments, self._next_segment())
            own: dict[int, list[Row]] = {}
            for row in self._rows("extents").values():
                own.setdefault(row["turn"], []).append(row)
            for number, turn in self._turns.items():
                missing = gaps(turn, own.get(number, ()))
                whole = missing == [(turn["start"], turn["stop"])]
                extents += [] if whole else own.get(number, [])
                for start, stop in missing:
                    extents += [_extent_row(number, one) for one in staging.zeros(start, stop)]
                    if not turn["forgotten"]:
                        aside.append({"turn": number, "start": start, "stop": stop, "segment": -1, "slot": 0})
            pages += [
                {"segment": segment, "page": page.page, "filled": page.filled, "sums": page.sums}
                for (segment, _), page in staging.pages.items()
            ]
        finally:
            segments.close()
        return extents, pages, aside

    def _next_segment(self) -> int:
        """A number that no segment ever had, as far as anything tells."""
        said = [row["next_segment"] for row in self._rows("state").values()]
        named = [row["segment"] + 1 for row in self._rows("extents").values()]
        files = [
            int(path.stem) + 1 for path in (self._folder / "kv").glob("*.safetensors") if path.stem.isdigit()
        ]
        most: int = max([0, *said, *named, *(number + 1 for number in self._segments), *files])
        return most

    def _state(self, extents: Iterable[Row]) -> Row:
        """The single row of where the agent stands; digests are computed anew."""
        saved = next(iter(self._rows("state").values()), {})
        turns, head = self._turns, saved.get("head")
        if not saved or (head is not None and head not in turns):
            head = max(turns, default=None)
        marked = CommitMark(self._folder, self._agent_id).read()
        return {
            "id": 1,
            "head": head,
            "epoch": saved.get("epoch", 0) + 1,
            "next_segment": max([self._next_segment(), *(row["segment"] + 1 for row in extents)]),
            "digest_kind": None,
            "digest_count": 0,
            "commits": max(saved.get("commits", 0), marked) + 1,
        }

    def _notes(self) -> list[Row]:
        """The named values; a lost configuration is the one that the newest turn ran with."""
        notes = list(self._rows("notes").values())
        if any(row["key"] == "config" for row in notes) or not self._turns:
            return notes
        settings = json.loads(self._turns[max(self._turns)]["settings"])
        config = {name: value for name, value in settings.items() if name in MemoryConfig.model_fields}
        return [*notes, {"key": "config", "value": json.dumps(config)}]

    def _words(self) -> list[Row]:
        """What is searched, made anew from what was said."""
        living = [(number, turn) for number, turn in self._turns.items() if not turn["forgotten"]]
        return [
            {"turn": number, "words": spoken_words(json.loads(turn["messages"]))} for number, turn in living
        ]

    def _scrubs(self, extents: Iterable[Row]) -> list[Row]:
        """Slots still to be overwritten; if some of these are lost, those of everything that was forgotten."""
        table = self._saved["scrubs"]
        rows = list(table.rows.values())
        if table.damaged or table.unread:
            gone = {number for number, turn in self._turns.items() if turn["forgotten"]}
            rows += [
                {name: row[name] for name in ("segment", "slot", "count")}
                for row in extents
                if row["turn"] in gone
            ]
        spec = segment_spec(self._layout, int(self._identity["segment_tokens"]))
        usable = {
            number
            for number in {row["segment"] for row in rows}
            if flaw_of(self._folder / "kv" / f"{number:06d}.safetensors", spec) is None
        }
        return [
            row for row in rows if row["segment"] in usable
        ]  # an opening that cannot finish them would fail

    # -- writing --------------------------------------------------------------------------------------

    def _insert(self, conn: sqlite3.Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            known = [name for name in row if name in self._columns[table]]
            marks = ", ".join("?" for _ in known)
            conn.execute(
                f"INSERT OR REPLACE INTO {table} ({', '.join(known)}) VALUES ({marks})",  # noqa: S608
                [row[name] for name in known],
            )


def _columns_of(conn: sqlite3.Connection) -> dict[str, list[str]]:
    """Our tables and their columns, seals left out."""
    found: dict[str, list[str]] = {}
    for name, column in conn.execute(
        "SELECT m.name, p.name FROM main.sqlite_schema m JOIN pragma_table_info(m.name) p "
        "WHERE m.type = 'table' ORDER BY m.name, p.cid"
    ):
        if name not in _NEVER and not name.startswith("turn_words") and column not in ("row_sum", "link"):
            found.setdefault(name, []).append(column)
    return found


def _extent_row(turn: int, one: Extent) -> Row:
    return {"turn": turn, "start": one.start, "segment": one.segment, "slot": one.slot, "count": one.count}
