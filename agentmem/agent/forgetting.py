"""Forgetting turns for good: which ones, whether they can be dropped, and what is left of them.

``mode="drop"`` removes a turn's text, ids, keys and values: it is never attended to again, neither in
blocks nor in the window. Later turns' K/V were made while it was visible, so a trace of it stays in
them (measured: behaviour as if never seen, later keys still differ by 8 %); the receipt says so. What
lies in the sinks was attended to by every later token, and needs a rebuild. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from agentmem.agent.places import moment
from agentmem.agent.receipts import ForgetReceipt
from agentmem.errors import InputError, RebuildNeededError
from agentmem.store.base import Store, Turn

RESIDUAL = (
    "text, token ids, keys and values are gone; keys and values of later turns were computed while the "
    "turn was visible and may still carry a trace of it"
)

CUT = "; the last token of a reply that was cut short stands at the start of the turn after it"


def forget(
    store: Store,
    *,
    sink_tokens: int,
    turn: int | None,
    match: str | None,
    source: str | None,
    before: datetime | str | None,
    after: datetime | str | None,
    mode: str,
    dry_run: bool,
) -> ForgetReceipt:
    """See ``AgentMemory.forget``."""
    if mode == "rebuild":
        raise InputError('mode="rebuild" is not in this version; use mode="drop", or start a new agent')
    if mode != "drop":
        raise InputError(f'mode={mode!r} is unknown; use mode="drop"')
    if turn is None and match is None and source is None and before is None and after is None:
        raise InputError("say what to forget: turn=, match=, source=, before= or after=")
    found = _find(store, turn, match, source, before, after)
    held = [one for one in found if one.start < sink_tokens and one.stop > one.start]
    if held:
        names = ", ".join(str(one.id) for one in held)
        raise RebuildNeededError(
            f"turn {names} lies in the first {sink_tokens} tokens (the sinks), which every later token "
            "attended to; forgetting it needs a rebuild of the memory, which is not in this version"
        )
    receipt = ForgetReceipt(
        [one.id for one in found], sum(one.stop - one.start for one in found), dry_run, _residual(found)
    )
    if not dry_run and found:
        store.forget([one.id for one in found])
    return receipt


def _residual(turns: Sequence[Turn]) -> str:
    if not turns:
        return "nothing found"
    return RESIDUAL + (CUT if any(turn.pending and turn.pending["ids"] for turn in turns) else "")


def _find(
    store: Store,
    turn: int | None,
    match: str | None,
    source: str | None,
    before: datetime | str | None,
    after: datetime | str | None,
) -> list[Turn]:
    """Turns of the current branch that fit every condition given."""
    early = None if before is None else moment(before)
    late = None if after is None else moment(after)
    if match is not None and not match.strip():
        raise InputError("match is empty; give the text that shall be forgotten")
    candidates = [store.turn(turn)] if turn is not None else store.turns()
    return [
        one
        for one in candidates
        if not one.forgotten
        and (source is None or one.source == source)
        and (match is None or _says(one, match))
        and (early is None or datetime.fromisoformat(one.created_at) < early)
        and (late is None or datetime.fromisoformat(one.created_at) > late)
    ]


def _says(turn: Turn, text: str) -> bool:
    wanted = text.casefold()
    texts = (said for message in turn.messages for said in _texts(_words_of(message), ""))
    return any(wanted in said.casefold() for said in texts)


def _words_of(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message without its metadata, which nobody said."""
    return {key: value for key, value in message.items() if key != "metadata"}


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
