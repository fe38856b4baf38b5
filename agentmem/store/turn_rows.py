"""The index's rows of turns: text, token ids and the tree. One class, bound to one index.

Knows the tables ``turns``, ``tokens`` and ``words``; nothing of slots, files or tensors.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from agentmem.errors import InputError, StateForgottenError, StateNotFoundError
from agentmem.store.base import NewTurn, Origin, Turn
from agentmem.store.branch import Branch, BranchTurn
from agentmem.store.index import Index, encode_json
from agentmem.store.origins import default_trust, role_of
from agentmem.store.schema import columns_of, has_table
from agentmem.store.search import holds_all, spoken_words, words_of

DEAD_TOKEN = -1
"""What stands in for the id of a forgotten token."""

_IDS = np.dtype("<i4")

_COLUMNS = (
    *(
        "id",
        "parent",
        "start",
        "stop",
        "state_id",
        "kind",
        "messages",
        "pending",
        "created_at",
        "source",
        "part",
    ),
    *("settings", "receipt", "forgotten", "role", "trust"),
)
"""What a turn is read from; a column that an older index lacks reads as NULL."""


class TurnRows:
    """Reads and writes turns. Writing is done within a transaction of the index."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._has_words = bool(columns_of("words", index.execute))
        self._has_set_aside = has_table("set_aside", index.execute)
        self._has_sources = has_table("sources", index.execute)
        there = columns_of("turns", index.execute)
        self._columns = ", ".join(f"t.{name}" if name in there else "NULL" for name in _COLUMNS)

    def insert(self, turn: NewTurn, parent: Turn | None, digests: tuple[str | None, int]) -> Turn:
        """Add a turn after ``parent`` and return it. Raises InputError when a field is not plain JSON."""
        start = 0 if parent is None else parent.stop
        ids = _encoded_ids(turn.token_ids)
        role = turn.role or role_of(turn.messages)
        values = (
            None if parent is None else parent.id,
            start,
            start + len(turn.token_ids),
            0 if parent is None else self.depth(parent.id),
            turn.state_id,
            turn.kind,
            encode_json(list(turn.messages)),
            encode_json(turn.pending),
            turn.created_at,
            turn.source,
            turn.part,
            encode_json(dict(turn.settings)),
            encode_json(dict(turn.receipt)),
            role,
            turn.trust or default_trust(role),
            *digests,
        )
        ((turn_id,),) = self._index.execute(
            "INSERT INTO turns (parent, start, stop, depth, state_id, kind, messages, pending, created_at, "
            "source, part, settings, receipt, role, trust, digest_kind, digest_count) "
            "VALUES (?, ?, ?, ? + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            values,
        )
        self._index.execute("INSERT INTO tokens (turn, ids) VALUES (?, ?)", (turn_id, ids))
        words = spoken_words(turn.messages)
        self._index.execute("INSERT INTO words (turn, words) VALUES (?, ?)", (turn_id, words))
        return self.get(turn_id)

    def get(self, turn_id: int) -> Turn:
        """One turn. Raises StateNotFoundError."""
        rows = self._index.execute(f"SELECT {self._columns} FROM sealed_turns t WHERE t.id = ?", (turn_id,))  # noqa: S608
        if not rows:
            self._index.require_rows("turns")
            raise StateNotFoundError(f"there is no turn {turn_id}; see the history for those there are")
        return _turn(rows[0], self._index)

    def every(self) -> list[Turn]:
        """The turns of all branches, by number."""
        self._index.require_counted("turns")
        rows = self._index.execute(f"SELECT {self._columns} FROM sealed_turns t ORDER BY t.id")  # noqa: S608
        return [_turn(row, self._index) for row in rows]

    def ids_of(self, turn_id: int) -> list[int]:
        """Token ids of one turn; those of a forgotten one are ``DEAD_TOKEN``. Raises StateNotFoundError."""
        turn = self.get(turn_id)
        return [DEAD_TOKEN] * (turn.stop - turn.start) if turn.forgotten else self.ids_left(turn_id)

    def branch(self, head: int | None) -> Branch:
        """The turns from the root to a head. Raises DamagedError when the index lacks one of them."""
        rows = self._index.execute(
            """
            WITH RECURSIVE branch (id, parent, start, stop, forgotten, depth) AS (
                SELECT id, parent, start, stop, forgotten, depth FROM linked_turns WHERE id = ?
                UNION ALL
                SELECT t.id, t.parent, t.start, t.stop, t.forgotten, t.depth
                FROM linked_turns t JOIN branch b ON t.id = b.parent AND t.depth < b.depth
            )
            SELECT id, parent, start, stop, forgotten, depth FROM branch ORDER BY depth
            """,
            (head,),
        )
        parent, length = None, 0
        for depth, row in enumerate(rows, start=1):
            if row[1] != parent or row[2] != length or row[5] != depth:
                raise self._index.damage(f"turn {row[0]}", "the turn before it is not there")
            parent, length = row[0], row[3]
        if parent != head:
            raise self._index.damage(f"turn {head}", "it is not there")
        here = {row[0] for row in rows}
        try:
            return Branch(
                (BranchTurn(row[0], row[2], row[3], bool(row[4])) for row in rows),
                [(start, stop) for turn, start, stop in self.set_aside() if turn in here],
            )
        except ValueError as error:
            raise self._index.damage("table turns", str(error)) from error

    def newest(self, branch: Branch, limit: int | None) -> list[Turn]:
        """Up to ``limit`` turns at the end of a branch, oldest first; None: all of them."""
        count = len(branch) if limit is None else limit
        return [self.get(turn_id) for turn_id in branch.newest(count)]

    def find_state(self, state_id: str, branch: Branch) -> Turn:
        """The turn of a state: on the branch if it is there, else the newest. Raises StateNotFoundError."""
        rows = self._index.execute(
            "SELECT id, forgotten FROM sealed_turns WHERE state_id = ? ORDER BY id DESC", (state_id,)
        )
        if not rows:
            self._index.require_rows("turns")
            raise StateNotFoundError(f"there is no state {state_id!r}; see checkpoint() and the history")
        living = [turn_id for turn_id, forgotten in rows if not forgotten]
        if not living:
            raise StateForgottenError(f"state {state_id!r} was forgotten and cannot be returned to")
        return self.get(next((turn_id for turn_id in living if turn_id in branch), living[0]))

    def origins(self, branch: Branch, known: int = 0) -> list[Origin]:
        """Where the words of a branch's living turns came from, oldest first, without the first ``known`` turns.

        Reads no text that it need not. Raises DamagedError when a turn is not there.
        """
        new = branch.newest(len(branch) - known)
        if not new:
            return []
        rows = [row for row in self._origin_rows("id >= ? ORDER BY id", new[0]) if row[0] in branch]
        if len(rows) != len(new):
            self._index.require_rows("turns")
            raise self._index.damage(
                "table turns", f"{len(new) - len(rows)} turns of the branch are not there"
            )
        return [_origin(*row) for row in rows if not row[-1]]

    def origins_of(self, sources: Collection[str], branch: Branch) -> list[Origin]:
        """The same of the turns that have one of these sources alone."""
        ids = sorted(
            turn_id for source in sources for turn_id in self._of_source(source) if turn_id in branch
        )
        rows = [row for turn_id in ids for row in self._origin_rows("id = ?", turn_id)]
        return [_origin(*row) for row in rows if not row[-1]]

    def observed_parts(self, source: str, branch: Branch) -> list[Turn]:
        """Turns of the branch with this source and a part number, in order."""
        turns = [self.get(turn_id) for turn_id in self._of_source(source) if turn_id in branch]
        return [turn for turn in turns if turn.part is not None]

    def search(self, query: str, branch: Branch, limit: int) -> list[Turn]:
        """Turns of the branch that hold all words of the query, newest first."""
        wanted = words_of(query)
        found: list[Turn] = []
        if not wanted:
            return found
        for turn_id in self._candidates(wanted, branch):
            if len(found) == limit:
                break
            turn = self.get(turn_id)
            if holds_all(turn.messages, wanted):
                found.append(turn)
        return found

    def token_ids(self, start: int, stop: int, branch: Branch) -> list[int]:
        """Ids of tokens [start, stop) of a branch; forgotten ones are ``DEAD_TOKEN``."""
        ids: list[int] = []
        for turn in branch.overlapping(start, stop):
            low, high = max(start, turn.start) - turn.start, min(stop, turn.stop) - turn.start
            if turn.forgotten:
                ids += [DEAD_TOKEN] * (high - low)
                continue
            rows = self._index.execute("SELECT ids FROM sealed_tokens WHERE turn = ?", (turn.id,))
            if not rows:  # given up when the index was salvaged
                self._index.require_rows("tokens")
                ids += [DEAD_TOKEN] * (high - low)
                continue
            ((blob,),) = rows
            ids += np.frombuffer(blob, dtype=_IDS)[low:high].tolist()
        return ids

    def ids_left(self, turn_id: int) -> list[int]:
        """A turn's token ids, which may be fewer than its tokens. Raises DamagedError when there are none."""
        rows = self._index.execute("SELECT ids FROM sealed_tokens WHERE turn = ?", (turn_id,))
        if not rows or len(rows[0][0]) % _IDS.itemsize:
            raise self._index.damage(f"tokens of turn {turn_id}", "its token ids are not there")
        return [int(token) for token in np.frombuffer(rows[0][0], dtype=_IDS)]

    def digest_mark(self, turn_id: int | None) -> tuple[str | None, int]:
        """(kind, blocks) of the digests there were when a turn was committed."""
        if turn_id is None:
            return None, 0
        kind, count = self._index.row(
            "SELECT digest_kind, digest_count FROM sealed_turns WHERE id = ?", (turn_id,)
        )
        return kind, count

    def forget(self, turn_ids: Sequence[int]) -> None:
        """Wipe the text, ids and settings of turns; their places in the tree and their state ids stay."""
        for turn_id in turn_ids:
            self._index.execute(
                "UPDATE turns SET forgotten = 1, messages = '[]', pending = 'null', source = NULL, part = NULL, "
                "settings = '{}', receipt = '{}' WHERE id = ?",
                (turn_id,),
            )
            self._index.execute("DELETE FROM tokens WHERE turn = ?", (turn_id,))
            self._index.execute("DELETE FROM rule_states WHERE turn = ?", (turn_id,))
            self._index.execute("DELETE FROM words WHERE turn = ?", (turn_id,))
            self._index.execute("DELETE FROM set_aside WHERE turn = ?", (turn_id,))

    def rewrite(self, turn: Turn, ids: Sequence[int], digests: tuple[str | None, int]) -> None:
        """A turn after a rebuild: its place, state, settings and ids are new; its words and its number stay."""
        depth = 0 if turn.parent is None else self.depth(turn.parent)
        self._index.execute(
            "UPDATE turns SET parent = ?, start = ?, stop = ?, depth = ? + 1, state_id = ?, settings = ?, "
            "receipt = ?, digest_kind = ?, digest_count = ? WHERE id = ?",
            (
                turn.parent,
                turn.start,
                turn.stop,
                depth,
                turn.state_id,
                encode_json(dict(turn.settings)),
                encode_json(dict(turn.receipt)),
                *digests,
                turn.id,
            ),
        )
        self._index.execute("UPDATE tokens SET ids = ? WHERE turn = ?", (_encoded_ids(ids), turn.id))
        self._index.execute("DELETE FROM rule_states WHERE turn = ?", (turn.id,))

    def remove(self, turn_ids: Sequence[int]) -> None:
        """Take turns out of the tree altogether; none of them may have a child that stays."""
        for turn_id in sorted(turn_ids, reverse=True):  # a child's id is always the higher one
            self._index.execute("DELETE FROM tokens WHERE turn = ?", (turn_id,))
            self._index.execute("DELETE FROM rule_states WHERE turn = ?", (turn_id,))
            self._index.execute("DELETE FROM words WHERE turn = ?", (turn_id,))
            self._index.execute("DELETE FROM set_aside WHERE turn = ?", (turn_id,))
            self._index.execute("DELETE FROM turn_marks WHERE turn = ?", (turn_id,))
            self._index.execute("DELETE FROM turns WHERE id = ?", (turn_id,))

    def all_ids(self) -> list[int]:
        """Ids of all turns of all branches."""
        self._index.require_counted("turns")
        return [turn_id for (turn_id,) in self._index.execute("SELECT id FROM linked_turns ORDER BY id")]

    def set_aside(self) -> list[tuple[int, int, int]]:
        """(turn, start, stop) of tokens whose K/V were lost, of any branch."""
        if not self._has_set_aside:
            return []
        rows = self._index.execute("SELECT turn, start, stop FROM sealed_set_aside")
        return [(row[0], row[1], row[2]) for row in rows]

    def depth(self, turn_id: int) -> int:
        """How many turns there are from the root to a turn, itself included."""
        (depth,) = self._index.row("SELECT depth FROM linked_turns WHERE id = ?", (turn_id,))
        return int(depth)

    def _origin_rows(self, condition: str, turn_id: int) -> list[Any]:
        there = columns_of("turns", self._index.execute)
        role, trust = (name if name in there else "NULL" for name in ("role", "trust"))
        table, text = "sealed_turns", f"CASE WHEN {role} IS NULL THEN messages END"
        if {"link", "role"} <= there:
            table, text = "linked_turns", "NULL"
        return self._index.execute(
            f"SELECT id, start, stop, source, {role}, {trust}, {text}, forgotten FROM {table} WHERE {condition}",  # noqa: S608
            (turn_id,),
        )

    def _of_source(self, source: str) -> list[int]:
        """Turns of all branches with that source, by number. Raises DamagedError when one of them is not found."""
        if not self._has_sources:
            self._index.require_counted("turns")
            rows = self._index.execute("SELECT id, source FROM linked_turns ORDER BY id")
            return [turn_id for turn_id, name in rows if name == source]
        counts = self._index.execute("SELECT turns FROM sealed_sources WHERE source = ?", (source,))
        query = "SELECT id, source FROM linked_turns WHERE source = ? ORDER BY id"
        # SQLite believes its index: an entry may have the number of another turn, of this source or of none
        found = {turn_id: None for turn_id, name in self._index.execute(query, (source,)) if name == source}
        if len(found) != sum(count for (count,) in counts):
            self._index.require_rows("turns")
            raise self._index.damage("table sources", "it names another number of turns than there are")
        return list(found)

    def _candidates(self, wanted: Sequence[str], branch: Branch) -> list[int]:
        if not self._has_words:
            return branch.ids[::-1]
        self._index.require_counted("words")
        fits = " AND ".join("instr(words, ?)" for _ in wanted)  # not a condition: every row shall be checked
        rows = self._index.execute(
            f"SELECT turn, {fits} FROM sealed_words ORDER BY turn DESC",  # noqa: S608
            [f" {word}" for word in wanted],
        )
        return [turn_id for turn_id, fit in rows if fit and turn_id in branch]


def _origin(
    turn: int,
    start: int,
    stop: int,
    source: str | None,
    role: str | None,
    trust: str | None,
    messages: str | None,
    _: int,
) -> Origin:
    """A row of ``_origin_rows``."""
    whose = role or role_of(json.loads(messages or "[]"))
    return Origin(turn, start, stop, whose, source, trust or default_trust(whose))


def _encoded_ids(token_ids: Sequence[int]) -> bytes:
    try:
        return np.asarray(token_ids, dtype=_IDS).tobytes()
    except (OverflowError, ValueError, TypeError) as error:
        raise InputError(f"token ids must be integers of 32 bits: {error}") from error


def _turn(row: Any, index: Index) -> Turn:
    """A row of ``turns``, in the order of ``_COLUMNS``. Raises DamagedError."""
    found = dict(zip(_COLUMNS, row, strict=True))
    for name in ("messages", "pending", "settings", "receipt"):
        found[name] = index.decoded(found[name], f"{name} of turn {found['id']}")
    messages = found["messages"]
    role = found["role"] or role_of(messages)
    return Turn(
        **{name: found[name] for name in ("id", "parent", "start", "stop", "state_id", "kind", "created_at")},
        messages=messages,
        pending=found["pending"],
        source=found["source"],
        part=found["part"],
        settings=found["settings"],
        receipt=found["receipt"],
        forgotten=bool(found["forgotten"]),
        role=role,
        trust=found["trust"] or default_trust(role),
    )
