"""Where each fact lies in the token log, and what two other ways of attending make of the same transcript.

Reads the token log through the store, below the public API, since it compares token by token. Knows
nothing of the days and prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from multi_day_story import Fact
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from agentmem import AgentMemory, MemoryConfig, RecalledBlock, Reply
from agentmem.engine.loading import load, resolve
from agentmem.engine.session import Progress
from agentmem.engine.template import ChatTemplate, Pending
from agentmem.memory.blocks import BlockGrid
from agentmem.store import DiskHome, Store, Turn

LEAST_HISTORY = 6400
"""Tokens of history this example promises."""
CHUNK = 512
"""Tokens forwarded at once when everything is read again."""


@dataclass(frozen=True)
class Place:
    """Where a fact was told: its tokens [start, stop) in the log, in which turn, and when."""

    fact: Fact
    start: int
    stop: int
    turn: int
    told: str

    def answer(self, reply: Reply) -> dict[str, Any]:
        """A reply judged, with the part of its receipt that concerns this fact; plain JSON values."""
        receipt = reply.receipt
        return {
            **judged(self.fact, reply.text),
            "tokens_held": receipt.tokens_held,
            "tokens_reread": receipt.tokens_reread,
            "seconds_to_first": receipt.seconds_to_first,
            "seconds": receipt.seconds,
            "recalled_mass": receipt.recalled_mass,
            "block": self.recalled(receipt.blocks),
        }

    def recalled(self, blocks: Sequence[RecalledBlock]) -> dict[str, Any] | None:
        """The recalled block that holds the fact, and its rank by share; None when there is none."""
        for rank, block in enumerate(blocks, start=1):
            if block.start < self.stop and self.start < block.stop:
                found = {"day": self.told[:10], "turn": self.turn, "rank": rank}
                return {**found, "share": block.share, "text": block.text}
        return None


def judged(fact: Fact, answer: str) -> dict[str, Any]:
    """The answer, and whether the fact's key stands in it, upper or lower case."""
    recalled = fact.key.lower() in answer.lower()
    return {"question": fact.question, "key": fact.key, "answer": answer, "recalled": recalled}


def check(holds: bool, otherwise: str) -> None:  # noqa: FBT001  (reads like assert, but is never optimised away)
    """End the process with a message unless a claim of this example holds."""
    if not holds:
        raise SystemExit(f"error: {otherwise}")


# -- where the facts are ------------------------------------------------------------------------------


def find_facts(
    home: Path, agent: str, facts: Sequence[Fact], tokenizer: PreTrainedTokenizerBase
) -> list[Place]:
    """The tokens that spell each fact's key in the user's message that told it."""
    store = DiskHome(home).open(agent, read_only=True)
    try:
        return [_find(store, fact, tokenizer) for fact in facts]
    finally:
        store.close()


def _find(store: Store, fact: Fact, tokenizer: PreTrainedTokenizerBase) -> Place:
    told = [turn for turn in store.turns() if _tells(turn, fact)]
    check(bool(told), f"nobody has told {fact.key!r}; live the first days before the last one")
    turn = told[0]
    ids = store.token_ids(turn.start, turn.stop)
    stop = next(n for n in range(1, len(ids) + 1) if fact.key in _text(tokenizer, ids[:n]))
    start = next(n for n in range(stop - 1, -1, -1) if fact.key in _text(tokenizer, ids[n:stop]))
    return Place(fact, turn.start + start, turn.start + stop, turn.id, turn.created_at)


def _tells(turn: Turn, fact: Fact) -> bool:
    return any(message["role"] == "user" and fact.key in message["content"] for message in turn.messages)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids)))


def check_out_of_sight(
    home: Path, agent: str, places: Sequence[Place], config: MemoryConfig, tokenizer: PreTrainedTokenizerBase
) -> int:
    """Check that every fact's tokens, and every copy of its key, are outside sinks and window.

    Returns the tokens held.
    """
    store = DiskHome(home).open(agent, read_only=True)
    try:
        length = store.log.committed
        split = BlockGrid(config.sink_tokens, config.block_tokens).split(length, config.window_tokens)
        sinks = _text(tokenizer, store.token_ids(0, split.sink_stop))
        window = _text(tokenizer, store.token_ids(split.window_start, length))
    finally:
        store.close()
    check(length > LEAST_HISTORY, f"the history has {length} tokens, not more than {LEAST_HISTORY}")
    check(length > config.dense_limit, f"{length} tokens are all attended to; nothing would be recalled")
    for place in places:
        key, where = place.fact.key, f"[{place.start}, {place.stop})"
        check(place.start >= split.sink_stop, f"{key!r} at {where} is in the {split.sink_stop} sinks")
        check(place.stop <= split.window_start, f"{key!r} at {where} is in the window {split.window_start}..")
        for name, text in (("sinks", sinks), ("window", window)):
            check(key.lower() not in text.lower(), f"{key!r} stands in the {name}: somebody repeated it")
    return length


# -- the two other ways -------------------------------------------------------------------------------


def window_only(
    home: Path, agent: str, model: str, facts: Sequence[Fact], max_new_tokens: int, progress: Progress
) -> list[dict[str, Any]]:
    """The questions put to a fork that recalls nothing: same K/V, only sinks and window attended to."""
    name = f"{agent}-window-only"
    with AgentMemory.resume(agent, model=model, home=home) as memory:
        config = memory.config.changed(recall_tokens=0)
        if all(info.agent_id != name for info in AgentMemory.list(home)):
            memory.fork(name).close()
    with AgentMemory.resume(name, model=model, home=home, config=config) as memory:
        answers = []
        for fact in facts:
            reply = memory.chat(fact.question, remember=False, max_new_tokens=max_new_tokens)
            answers.append(judged(fact, reply.text))
            progress(len(answers), len(facts))
    AgentMemory.delete(name, home=home)
    return answers


def full_attention(
    home: Path, agent: str, model: str, facts: Sequence[Fact], max_new_tokens: int, progress: Progress
) -> tuple[list[dict[str, Any]], float]:
    """The same token ids through stock transformers; also the seconds that reading them again took."""
    store = DiskHome(home).open(agent, read_only=True)
    try:
        head = store.head
        check(head is not None, f"agent {agent!r} has no history")
        ids = store.token_ids(0, store.log.committed)
        pending = Pending.from_json(store.turns()[-1].pending)
    finally:
        store.close()
    loaded = load(resolve(model))
    reader = FullAttention(loaded.model)
    seconds = reader.read(ids, progress)
    template = ChatTemplate(loaded.tokenizer, eos_ids=reader.eos_ids)
    answers = []
    for fact in facts:
        asked = template.delta(pending, [{"role": "user", "content": fact.question}], reply=True)
        said = reader.answer(asked.ids, template.stop_ids, max_new_tokens)
        answers.append(judged(fact, _text(loaded.tokenizer, said)))
    return answers, seconds


class FullAttention:
    """A stock model with its stock cache: reads a history once, then answers several questions from it."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)

    @property
    def eos_ids(self) -> list[int]:
        """Ids that end a reply according to the model."""
        eos = self._model.generation_config.eos_token_id if self._model.generation_config else None
        return eos if isinstance(eos, list) else [] if eos is None else [eos]

    def read(self, ids: Sequence[int], progress: Progress) -> float:
        """Forward the history in chunks; returns the seconds it took."""
        started = time.perf_counter()
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            self._forward(chunk)
            progress(start + len(chunk), len(ids))
        return time.perf_counter() - started

    def answer(self, ids: Sequence[int], stop_ids: frozenset[int], max_new_tokens: int) -> list[int]:
        """Decode greedily behind the history and ``ids``, then forget both question and answer."""
        history = self._cache.get_seq_length()
        logits = self._forward(ids)
        said: list[int] = []
        while len(said) < max_new_tokens:
            token = int(logits.argmax())
            if token in stop_ids:
                break
            said.append(token)
            logits = self._forward([token])
        self._cache.crop(history - self._cache.get_seq_length())
        return said

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int]) -> torch.Tensor:
        row = torch.tensor([list(ids)], device=self._model.device)
        logits: torch.Tensor = self._model(row, past_key_values=self._cache, logits_to_keep=1).logits
        return logits[0, -1]
