"""The token ids of a turn behind another turn than it was written behind, because what stood between was forgotten.

A turn's first ids depend on the turn before it: what that one left pending, and how the template closes its last
message. Those are written anew; everything from the turn's own last message on stays as it was sampled or read.
Knows the template and records of turns; no store and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from agentmem.agent.messages import ROLES, dressed
from agentmem.config import MemoryConfig
from agentmem.engine.template import ChatTemplate, Pending
from agentmem.engine.template_messages import BLANK_LINE
from agentmem.errors import InputError, TemplateError
from agentmem.store.base import Turn

_MOST_PENDING = 8
"""Ids that an earlier forgotten turn may have left at the start of the one after it."""


def rejoined(
    template: ChatTemplate,
    config: MemoryConfig,
    turn: Turn,
    ids: Sequence[int],
    before: Sequence[Turn],
    new: Turn | None,
) -> list[int]:
    """The ids of ``turn`` as they are behind ``new`` (None: it is the first).

    ``before``: the turns it was written behind, nearest first; those that were forgotten say nothing of what they
    left. Where the template cannot tell which ids depend on the turn before, such as with tools, only pending ids
    are exchanged.
    """
    if (before[0].id if before else None) == (None if new is None else new.id):
        return list(ids)
    left = _left_by(new)
    for old, pending in _candidates(before, ids):
        for separator in (BLANK_LINE, ""):
            written = _written(template, config, turn, old, pending, separator)
            if written is not None and list(ids[: len(written)]) == written:
                fresh = _written(template, config, turn, new, left, _separator(turn, new))
                if fresh is not None:
                    return [*fresh, *ids[len(written) :]]
    known: list[int] = next((one.pending["ids"] for one in before if not one.forgotten), [])
    cut = len(known) if list(ids[: len(known)]) == known else 0
    return [*(() if left is None else left.ids), *ids[cut:]]


def _written(
    template: ChatTemplate,
    config: MemoryConfig,
    turn: Turn,
    before: Turn | None,
    pending: Pending | None,
    separator: str,
) -> list[int] | None:
    """The ids that a turn's own messages begin with behind another turn; None: the template cannot say."""
    asked = list(turn.messages[:-1] if turn.kind == "chat" else turn.messages)
    plain = config.changed(stamp=None) if turn.part else config
    messages = dressed(asked, plain, datetime.fromisoformat(turn.created_at))
    try:
        if (
            turn.kind == "observe"
            and _continues(messages[0]["role"], before, pending)
            and pending is not None
        ):
            return list(template.continue_message(pending, messages[0]["content"], separator=separator).ids)
        delta = template.delta(pending, messages, reply=turn.kind == "chat")
    except (TemplateError, InputError):
        return None
    return list(delta.ids[: delta.reply_start])


def _continues(role: str, before: Turn | None, pending: Pending | None) -> bool:
    """Whether an observation goes on with the message that is open."""
    return (
        before is not None and before.kind == "observe" and pending is not None and pending.open_role == role
    )


def _separator(turn: Turn, before: Turn | None) -> str:
    goes_on = (
        before is not None and turn.part and (before.source, before.part) == (turn.source, turn.part - 1)
    )
    return "" if goes_on else BLANK_LINE


def _left_by(turn: Turn | None) -> Pending | None:
    return None if turn is None else Pending.from_json(turn.pending)


def _candidates(before: Sequence[Turn], ids: Sequence[int]) -> Iterator[tuple[Turn | None, Pending | None]]:
    """Behind which turn, leaving what, the ids may have been written: a forgotten one left anything, or was gone."""
    living = next((one for one in before if not one.forgotten), None)
    yield living, _left_by(living)
    for old in before:
        if not old.forgotten:
            break
        for count in range(min(_MOST_PENDING, len(ids)) + 1):
            for role in ROLES:
                yield old, Pending(tuple(ids[:count]), role)
