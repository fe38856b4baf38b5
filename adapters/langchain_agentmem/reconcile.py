"""Which messages of a caller's list are new, and which state they go on from.

LangChain sends the whole list again on every call, or the newest message only, or a list that was edited, trimmed,
summarised or taken back to an earlier point. A plan says what to do so that nothing is held twice and nothing new is
lost. Pure: no LangChain, no model, no store; linear in the list and in what is held.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agentmem.errors import HistoryChangedError, InputError
from langchain_agentmem import plan_notes
from langchain_agentmem.anchors import Anchor, Search
from langchain_agentmem.held import Held, Lookup, Said
from langchain_agentmem.thread_path import ThreadPath

Kind = Literal[
    "fresh",
    "import",
    "extend",
    "delta",
    "regenerate",
    "fork",
    "edited",
    "unrelated",
    "rebuild",
    "explicit",
    "ephemeral",
]
"""What a list turned out to be. The last two are never planned here: a caller said so."""


@dataclass(frozen=True)
class Policies:
    """What a caller wants where a list can be read in two ways."""

    on_missing: Literal["keep", "rebuild", "error"] = "keep"
    """Messages before the anchor were left out of the list, or differ: keep what is held, make the memory
    equal to the list, or refuse."""
    on_unrelated: Literal["ephemeral", "import"] = "ephemeral"
    """A list with answers, none of them known: answer without the memory, or read the list in."""


@dataclass(frozen=True)
class Plan:
    """What to do with a list."""

    kind: Kind
    after: str | None
    """Where the turn goes on from: "head", a state id, or None, before the first turn."""
    new: Sequence[int]
    """Places in the list of the messages to read, in order; ends with the last one."""
    note: str
    """What differed from what was expected, in words; "" when nothing did."""
    remember: bool = True


@dataclass(frozen=True)
class _Way:
    kind: Kind
    after: str | None
    start: int
    """The first message of the readable list that is new."""
    left: int | None
    """Where on the path the first message is that is left behind; None: none is."""


def plan(
    held: Sequence[Held],
    said: Sequence[Said],
    *,
    thread: str | None,
    lookup: Lookup,
    policies: Policies | None = None,
) -> Plan:
    """What is new in ``said``, and where it goes on from.

    Args:
        held: what the memory's current branch holds, oldest first, the turns of others included.
        said: the caller's list without its system prompt.
        thread: the conversation that the list belongs to; only its turns count, None being one as well.
        lookup: what the branch that ends at a state of another branch holds.
        policies: see :class:`Policies`.

    Raises:
        InputError: nothing in the list is to be answered.
        HistoryChangedError: the list contradicts what is held, and ``on_missing`` is "error".
    """
    chosen = policies or Policies()
    _check(said)
    stamps = frozenset(one.state_id for one in said if one.state_id is not None)
    path = ThreadPath(held, thread, stamps)
    search = Search(said, path, thread=thread, lookup=lookup, stamps=stamps)
    anchor = search.run()
    if anchor is not None:
        return _anchored(said, anchor, search, chosen)
    return _unanchored(said, path, search, chosen)


def restart(held: Sequence[Held], said: Sequence[Said], *, thread: str | None, lookup: Lookup) -> Plan:
    """The whole list once more, from where this thread began: for a system prompt that must come before it."""
    _check(said)
    path = ThreadPath(held, thread, ())
    order = _readable(
        said, path, lambda state: path.forgotten_at(state) is not None or lookup(state) == "forgotten"
    )
    after = path.before(0) if len(path) else path.end
    left = plan_notes.left_behind(*path.left_behind(0)) if len(path) else []
    return Plan("rebuild", after, order, "; ".join(["the whole list is read again", *left]))


def _check(said: Sequence[Said]) -> None:
    if not said:
        raise InputError("the list holds no message to answer; add a HumanMessage")
    if said[-1].message["role"] == "assistant":
        raise InputError(
            "the list ends with an AIMessage, so there is nothing to answer; end it with a HumanMessage or ToolMessage"
        )


def _anchored(said: Sequence[Said], anchor: Anchor, search: Search, policies: Policies) -> Plan:
    """A list whose past is known."""
    path, at, cut = anchor.path, anchor.at, anchor.cut
    newer = {one.state_id for one in said[at:]}
    order = _readable(
        said,
        path,
        lambda state: search.was_forgotten(state) if state in newer else path.forgotten_at(state) is not None,
    )
    if _differs(said, order, anchor):
        order = _readable(said, path, search.was_forgotten)  # looks states up, so only when it may matter
    listed = [said[place] for place in order]
    at = bisect_left(order, at)
    notes = []
    whole = any(
        one.message["role"] == "assistant" for one in listed
    )  # else it may be the newest messages only
    if (whole or at) and _differs(said, order, anchor):
        missing, strange = _difference(listed[:at], path.messages[:cut])
        if policies.on_missing == "error":
            raise HistoryChangedError(plan_notes.refusal(missing, strange))
        notes = plan_notes.kept(missing, strange)
        if policies.on_missing == "rebuild":
            at = cut = 0
            notes = plan_notes.rebuilt(missing, strange)
    way = _way(listed, path, at, cut)
    notes += _notes(way, path, listed, edited=search.edited)
    forgotten = _unread(said, order)
    kind = way.kind
    if path.end != "head" and kind == "extend":
        kind = "fork"
        notes.append("it goes on from a state of another branch")
    if search.edited and kind in {"extend", "fork"}:
        kind = "edited"
    new = [place for place in order[way.start :] if not said[place].blank]
    return Plan(kind, way.after, new, "; ".join([*notes, *forgotten]))


def _unanchored(said: Sequence[Said], path: ThreadPath, search: Search, policies: Policies) -> Plan:
    """A list of which nothing is known for sure."""
    order = _readable(said, path, search.was_forgotten)
    listed = [said[place] for place in order]
    forgotten = _unread(said, order)
    note = "; ".join(forgotten)
    spoken = any(one.message["role"] == "assistant" for one in listed)
    if len(path) and (search.edited or (spoken and _asked_before(listed, path))):
        return _anchored(said, Anchor(path, 0, 0), search, policies)
    if not spoken:
        known: Kind = "delta" if len(path) else "fresh"
        return Plan("extend" if forgotten else known, path.end, order, note)
    if not len(path):
        foreign = sum(one.message["role"] == "assistant" for one in listed)
        return Plan("import", path.end, order, "; ".join([plan_notes.foreign(foreign), *forgotten]))
    if policies.on_unrelated == "import":
        return Plan("unrelated", path.end, order, "nothing in the list is known here; all of it is read in")
    alone = "nothing in the list is known here; it is answered without the memory, and not kept"
    return Plan("unrelated", None, range(len(said)), alone, remember=False)


def _asked_before(listed: Sequence[Said], path: ThreadPath) -> bool:
    """Whether the list is all that the thread holds but its last answer."""
    return len(path) == len(listed) + 1 and path.shared(listed) == len(listed) and path.messages[-1].ours


def _way(listed: Sequence[Said], path: ThreadPath, at: int, cut: int) -> _Way:
    """How to go on when ``listed[:at]`` is held as ``path.messages[:cut]``.

    There are states only where turns end: to leave out one message of a turn, its whole turn is left, and the
    turn's messages that stay are read again.
    """
    same = path.shared(listed, of=at, at=cut)
    reached = cut + same
    answered = at + same == len(listed)
    if reached == len(path) and not answered:
        return _Way("extend", path.end, at + same, None)
    kind: Kind = "fork"
    if answered and (reached == len(path) or path.messages[reached].ours):
        kind = "regenerate"
    start = path.start_of(reached - 1 if answered else reached)
    return _Way(kind, path.before(start), at + start - cut, start)


# -- what can be read ------------------------------------------------------------------------------------


def _readable(said: Sequence[Said], path: ThreadPath, forgotten: Callable[[str], bool]) -> list[int]:
    """Places of the messages that may be read: none of a forgotten turn, and no answer without words.

    What a forgotten turn held is not known any more, so all between its answer and the answer before it counts.
    """
    gone: set[int] = set()
    since = 0
    for place, one in enumerate(said):
        if one.state_id is not None:
            if forgotten(one.state_id):
                gone.update(range(since, place + 1))
            since = place + 1
    return [
        place
        for place, one in enumerate(said)
        if not (place in gone and not _held_by_id(one, path)) and not (one.blank and not _on_path(one, path))
    ]


def _held_by_id(one: Said, path: ThreadPath) -> bool:
    place = None if one.id is None else path.place_of_id(one.id)
    return place is not None and path.messages[place].key == one.key


def _on_path(one: Said, path: ThreadPath) -> bool:
    return one.state_id is not None and path.place_of_state(one.state_id) is not None


# -- what differs ----------------------------------------------------------------------------------------


def _differs(said: Sequence[Said], order: Sequence[int], anchor: Anchor) -> bool:
    """Whether the list up to the anchor is something else than what is held up to it."""
    at = bisect_left(order, anchor.at)
    if at != anchor.cut:
        return True
    return any(
        said[place].key != held.key for place, held in zip(order[:at], anchor.path.messages, strict=False)
    )


def _difference(listed: Sequence[Said], held: Sequence[Held]) -> tuple[int, int]:
    """(held messages that are not in the list, messages of the list that are not held); at least one is not 0."""
    there, here = Counter(one.key for one in listed), Counter(one.key for one in held)
    missing, strange = (here - there).total(), (there - here).total()
    moved = int(not missing and not strange)
    return missing + moved, strange + moved


def _notes(way: _Way, path: ThreadPath, listed: Sequence[Said], *, edited: bool) -> list[str]:
    """What a plan does that its caller may not expect."""
    notes = []
    if edited:
        notes.append("an answer of this memory was changed in the list, and is read as it stands there")
    if way.kind == "regenerate":
        notes.append("this was asked before; it is answered again in place of what followed")
    answers = [one for one in listed[way.start :] if one.message["role"] == "assistant"]
    own = sum(one.state_id is not None and path.place_of_state(one.state_id) is not None for one in answers)
    foreign = len(answers) - max(own, int(edited))
    if foreign > 0:
        notes.append(plan_notes.foreign(foreign))
    return notes if way.left is None else [*notes, *plan_notes.left_behind(*path.left_behind(way.left))]


def _unread(said: Sequence[Said], order: Sequence[int]) -> list[str]:
    """Says what of the list will not be read because it was forgotten."""
    readable = set(order)
    count = sum(place not in readable and not one.blank for place, one in enumerate(said))
    return plan_notes.forgotten(count)
