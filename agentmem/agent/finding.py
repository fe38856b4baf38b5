"""Which turns are meant: by number, words, source, time, or all of them; on every branch of the tree.

Words are compared without case, in one Unicode form, and any white space counts as one space. A phrase that is
split between two parts of one long observation belongs to both. Changes nothing, and knows no model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from agentmem.agent.places import moment
from agentmem.errors import InputError
from agentmem.store.base import Store, Turn


@dataclass(frozen=True)
class Wanted:
    """What shall be found: turns that fit every condition given. See ``AgentMemory.forget``."""

    turn: int | None = None
    match: str | None = None
    source: str | None = None
    before: datetime | str | None = None
    after: datetime | str | None = None
    everything: bool = False

    @property
    def why(self) -> str:
        """The names of the conditions, for the audit; never what they say."""
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ", ".join(name for name, value in given if value is not None and value is not False)

    def check(self) -> None:
        """Raise InputError when nothing, or too little, is said."""
        if not self.why:
            raise InputError("say what to forget: turn=, match=, source=, before=, after= or everything=True")
        if self.everything and self.why != "everything":
            raise InputError(
                f"everything=True leaves nothing to choose: drop {self.why.removesuffix(', everything')}"
            )
        for name, kind, kind_name in (
            ("turn", int, "number"),
            ("match", str, "text"),
            ("source", str, "text"),
        ):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise InputError(f"{name}={value!r}: give a {kind_name}")
        if self.match is not None and not folded(self.match):
            raise InputError("match is empty; give the text that shall be forgotten")


def find(store: Store, wanted: Wanted, *, forgotten: bool = False) -> list[Turn]:
    """The turns of all branches that are meant, by number; with ``forgotten`` those that were dropped before, too."""
    wanted.check()
    early = None if wanted.before is None else moment(wanted.before)
    late = None if wanted.after is None else moment(wanted.after)
    every = store.every_turn()
    if wanted.turn is not None:
        store.turn(wanted.turn)  # an unknown one is an error
        every = [one for one in every if one.id == wanted.turn]
    said = None if wanted.match is None else _saying(store.every_turn(), folded(wanted.match))
    return [
        one
        for one in every
        if (forgotten or not one.forgotten)
        and (wanted.source is None or one.source == wanted.source)
        and (said is None or one.id in said)
        and (early is None or datetime.fromisoformat(one.created_at) < early)
        and (late is None or datetime.fromisoformat(one.created_at) > late)
    ]


def folded(text: str) -> str:
    """A text as it is compared: one Unicode form, no case, runs of white space as one space."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(plain.split())


def _saying(turns: Sequence[Turn], phrase: str) -> set[int]:
    """Numbers of the turns that hold the phrase, or a part of it."""
    found = {turn.id for turn in turns if any(phrase in folded(text) for text in _texts_of(turn))}
    by_id = {turn.id: turn for turn in turns}
    for turn in turns:
        before = by_id.get(turn.parent or -1)
        if before is not None and _goes_on(before, turn) and _spans(by_id, before, turn, phrase):
            found |= {before.id, turn.id}
    return found


def _goes_on(before: Turn, turn: Turn) -> bool:
    """Whether a turn is the next part of the same observation."""
    parts = before.part, turn.part
    return None not in parts and before.source == turn.source and parts[1] == (parts[0] or 0) + 1


def _spans(by_id: Mapping[int, Turn], before: Turn, turn: Turn, phrase: str) -> bool:
    """Whether the phrase begins at or before the end of one part and ends in the next one."""
    reach = 4 * len(phrase) + 16  # a character may fold into several, and white space into one
    left, at = "", before
    while True:
        left = _content(at) + left
        earlier = by_id.get(at.parent or -1)
        if len(left) >= reach or earlier is None or not _goes_on(earlier, at):
            break
        at = earlier
    right = _content(turn)
    following, last = {one.parent: one for one in by_id.values() if one.part}, turn
    while len(right) < reach and (after := following.get(last.id)) is not None and _goes_on(last, after):
        right, last = right + _content(after), after
    left, right = left[-reach:], right[:reach]
    return _count(left + right, phrase) > _count(left, phrase) + _count(right, phrase)


def _count(text: str, phrase: str) -> int:
    """Places where the phrase is, overlapping ones too."""
    return len(re.findall(f"(?={re.escape(phrase)})", folded(text)))


def _content(turn: Turn) -> str:
    return "".join(str(message.get("content") or "") for message in turn.messages)


def _texts_of(turn: Turn) -> Iterator[str]:
    for message in turn.messages:  # its metadata nobody said
        yield from _texts({key: value for key, value in message.items() if key != "metadata"}, "")


def _texts(value: Any, name: str) -> Iterator[str]:
    """All text in a message, at any depth; a role is no text, nor are the names of fields."""
    if isinstance(value, str):
        if name != "role":
            yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts(part, str(key))
    elif isinstance(value, Sequence):
        for part in value:
            yield from _texts(part, name)
