"""Reading long texts: cut into parts, each committed as a turn of its own, going on where it stopped.

A part is at most ``PART_TOKENS`` tokens, so a crash in the middle of a book loses at most that. The parts
of one text, and observations that follow one another, form one message to the model. Knows no locking.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from datetime import datetime

from agentmem.agent.messages import dressed, user_message
from agentmem.agent.provenance import checked_source
from agentmem.agent.receipts import WriteReceipt
from agentmem.agent.turns import Asked, Turns
from agentmem.engine.model import LanguageModel
from agentmem.engine.session import Progress
from agentmem.engine.template import Delta
from agentmem.errors import InputError
from agentmem.store.base import Store, Turn
from agentmem.store.origins import default_trust

PART_TOKENS = 4064
"""With the template's own tokens at most 4,096, so that a part fills whole chunks."""
ROLES = ("user", "system")


def observe(
    turns: Turns,
    model: LanguageModel,
    store: Store,
    text: str,
    *,
    source: str | None,
    role: str,
    trust: str | None,
    when: datetime,
    on_progress: Progress | None,
    expires_at: str | None = None,
) -> WriteReceipt:
    """Read a text without answering; see ``AgentMemory.observe``."""
    started = time.perf_counter()
    if role not in ROLES:
        raise InputError(f"role={role!r}: a text can be observed as one of {', '.join(ROLES)}")
    user_message(text, role=role)
    checked_source(source)
    parts = split(model, text)
    label = source if source is not None else "text:" + _digest(text)
    done = _done(store, label, parts) if source is not None else 0
    written = prefilled = 0
    total = sum(size for _, size in parts)
    seen = sum(size for _, size in parts[:done])
    for number in range(done, len(parts)):
        piece, size = parts[number]
        message = dressed([user_message(piece, role=role)], turns.config, when)[0] if number == 0 else None
        said = [{"role": role, "content": piece}]
        asked = Asked("observe", said, when, source=label, part=number, trust=trust, expires_at=expires_at)
        delta = _delta(turns, asked, piece if message is None else message["content"], number, label)
        receipt = turns.write(asked, delta, _shifted(on_progress, seen, total))
        written += receipt.bytes_written
        prefilled += receipt.tokens_prefilled
        seen += size
    return WriteReceipt(prefilled, store.log.committed, written, time.perf_counter() - started)


def split(model: LanguageModel, text: str) -> list[tuple[str, int]]:
    """The text in parts of at most ``PART_TOKENS`` tokens, with their sizes; joined they are the text.

    Cut in front of white space where there is any, since many templates strip the end of a message.
    """
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts = [start for start, _ in encoded["offset_mapping"]]
    return [(text[low:high], tokens) for low, high, tokens in _cuts(text, starts)]


def _cuts(text: str, starts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    first = 0
    while first < len(starts):
        stop = min(first + PART_TOKENS, len(starts))
        if stop < len(starts):
            stop = _before_space(text, starts, first, stop)
        low = 0 if first == 0 else starts[first]
        high = len(text) if stop == len(starts) else starts[stop]
        yield low, high, stop - first
        first = stop


def _before_space(text: str, starts: Sequence[int], first: int, stop: int) -> int:
    """The last token at or before ``stop`` that begins with white space, within the last quarter."""
    for place in range(stop, first + 3 * (stop - first) // 4, -1):
        if text[starts[place]].isspace():
            return place
    # never inside a character: tokens of one character share its start
    while stop > first + 1 and starts[stop] == starts[stop - 1]:
        stop -= 1
    return stop


def _delta(turns: Turns, asked: Asked, text: str, number: int, label: str) -> Delta:
    """Tokens of one part: inside the open message if that is an observation of the same role and trust."""
    last, pending = turns.last, turns.pending
    role = asked.messages[0]["role"]
    trust = asked.trust or default_trust(role)
    if last is None or pending is None or last.kind != "observe":
        return turns.delta(asked, reply=False)
    if (pending.open_role, last.trust) != (role, trust):
        return turns.delta(asked, reply=False)
    goes_on = number > 0 and last.source == label and last.part == number - 1
    template = turns.template
    return template.continue_message(pending, text, **({"separator": ""} if goes_on else {}))


def _done(store: Store, source: str, parts: Sequence[tuple[str, int]]) -> int:
    """How many parts of exactly this text were committed before. Raises InputError for another text."""
    done: list[Turn] = [turn for turn in store.observed_parts(source) if not turn.forgotten]
    for number, turn in enumerate(done):
        same = number < len(parts) and turn.part == number and turn.messages[0]["content"] == parts[number][0]
        if not same:
            raise InputError(
                f"source={source!r} was observed before with another text; give the new text another source"
            )
    return len(done)


def _shifted(on_progress: Progress | None, seen: int, total: int) -> Progress | None:
    if on_progress is None:
        return None
    return lambda done, _: on_progress(min(seen + done, total), total)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
