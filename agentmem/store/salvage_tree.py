"""Making the turns that were saved into a tree again: what a lost turn leaves is put where it was.

A turn whose row is lost is known by its token ids, its extents, or by the turn that goes on from it. It comes
back without its words; where its keys and values lie, and its token ids if they were saved, stay. Turns
that hang in the air for good are given up. Plain rows in, plain rows out; knows no SQLite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]

_BYTES_PER_ID = 4


def lost_turns(turns: Mapping[int, Row], tokens: Iterable[int], extents: Iterable[Row]) -> set[int]:
    """Numbers of turns that are known of, but whose rows are not there."""
    known = {row["parent"] for row in turns.values()} - {None}
    return (known | set(tokens) | {row["turn"] for row in extents}) - set(turns)


def stand_in(
    number: int, turns: Mapping[int, Row], ids: bytes | None, extents: Sequence[Row], missing: set[int]
) -> Row | None:
    """A turn without words in the place of a lost one; None when nothing says where it was."""
    children = [row for row in turns.values() if row["parent"] == number]
    own = [row for row in extents if row["turn"] == number]
    stop = children[0]["start"] if children else None
    start = min((row["start"] for row in own), default=None)
    if start is None and stop is not None and ids is not None:
        start = stop - len(ids) // _BYTES_PER_ID
    if start is None and stop is not None:
        start = max(
            (row["stop"] for row in turns.values() if row["id"] < number and row["stop"] <= stop), default=0
        )
    if stop is None and start is not None:
        stop = start + sum(row["count"] for row in own)
    if start is None or stop is None or not 0 <= start <= stop:
        return None
    parent = _parent(number, start, turns, missing)
    if start and parent is None:
        return None
    near = turns.get(parent) if parent is not None else None
    when = near or (children[0] if children else None)
    return {
        "id": number,
        "parent": parent,
        "start": start,
        "stop": stop,
        "depth": 0,
        "state_id": f"lost-{number}",
        "kind": "append",
        "messages": "[]",
        "pending": '{"ids":[],"open_role":"assistant","call_id":null}',
        "created_at": when["created_at"] if when is not None else "1970-01-01T00:00:00+00:00",
        "source": None,
        "part": None,
        "settings": near["settings"] if near is not None else "{}",
        "receipt": "{}",
        "digest_kind": None,
        "digest_count": 0,
        "forgotten": 0,
        "role": "user",
        "trust": "user",
    }


def rooted(turns: Mapping[int, Row]) -> dict[int, Row]:
    """The turns that a chain of parents, each ending where the next begins, leads back from; depths made anew."""
    kept: dict[int, Row] = {}
    for number in sorted(turns):  # a parent always has the lower number
        row = turns[number]
        parent = kept.get(row["parent"]) if row["parent"] is not None else None
        at = 0 if parent is None else parent["stop"]
        if (row["parent"] is None or parent is not None) and row["start"] == at and row["stop"] >= at:
            kept[number] = {**row, "depth": 1 if parent is None else parent["depth"] + 1}
    return kept


def gaps(row: Row, extents: Iterable[Row]) -> list[tuple[int, int]]:
    """Tokens [start, stop) of a turn that no extent says where they lie. Overlapping extents are no map at all."""
    found, at = [], row["start"]
    for one in sorted(extents, key=lambda one: one["start"]):
        if one["start"] < at or one["start"] + one["count"] > row["stop"]:
            return [(row["start"], row["stop"])] if row["stop"] > row["start"] else []
        if one["start"] > at:
            found.append((at, one["start"]))
        at = one["start"] + one["count"]
    if at < row["stop"]:
        found.append((at, row["stop"]))
    return found


def _parent(number: int, start: int, turns: Mapping[int, Row], missing: set[int]) -> int | None:
    """The newest earlier turn that ends where the lost one starts."""
    ending = [other for other, row in turns.items() if other < number and row["stop"] == start]
    return max(ending, default=None) if start or ending else None
