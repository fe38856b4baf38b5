"""Asking a memory questions that it does not remember, and ranking given replies by their probability.

Stands on the public API alone: a reply is ranked by letting it be said, token by token, and writing down how likely
each token was. Knows no task, no judge and no arm.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agentmem import AgentMemory
from benchmarks.recall.items import Question


@dataclass(frozen=True)
class Spoken:
    """What a memory answered, before anyone judged it."""

    question: str
    text: str
    seconds: float
    seconds_to_first: float
    tokens_read: int
    tokens_generated: int
    tokens_reread: int
    recalled_mass: float
    blocks: tuple[tuple[int, int], ...]
    """Token ranges of the recalled blocks that the receipt names."""
    choices: tuple[float, ...] = ()
    """Mean log-probability per token of each choice."""


class Dictated:
    """A logits processor that lets exactly these tokens be said, and adds up how likely they were."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.logprobs: list[float] = []
        self._ids = ids

    @property
    def mean(self) -> float:
        """Mean log-probability of the tokens said so far."""
        return math.fsum(self.logprobs) / len(self.logprobs)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores (1, V) with one token left to choose."""
        token = self._ids[len(self.logprobs)]
        self.logprobs.append(float(scores[0].log_softmax(-1)[token]))
        only = torch.full_like(scores, -torch.inf)
        only[0, token] = 0.0
        return only


def ask_all(
    memory: AgentMemory, questions: Iterable[Question], *, rank: bool, tick: Callable[[], None]
) -> Iterator[Spoken]:
    """Ask each question from the same state; afterwards the memory is as it was."""
    for question in questions:
        yield ask(memory, question, rank=rank)
        tick()


def ask(memory: AgentMemory, question: Question, *, rank: bool) -> Spoken:
    """One question, and with ``rank`` the probability of each of its choices as the reply."""
    started = time.perf_counter()
    reply = memory.chat(question.prompt, remember=False, max_new_tokens=question.max_new_tokens)
    seconds = time.perf_counter() - started
    receipt = reply.receipt
    return Spoken(
        question=question.id,
        text=reply.text,
        seconds=seconds,
        seconds_to_first=receipt.seconds_to_first,
        tokens_read=receipt.tokens_prefilled,
        tokens_generated=receipt.tokens_generated,
        tokens_reread=receipt.tokens_reread,
        recalled_mass=receipt.recalled_mass,
        blocks=tuple((block.start, block.stop) for block in receipt.blocks),
        choices=tuple(choice_logprob(memory, question.prompt, choice) for choice in question.choices)
        if rank
        else (),
    )


def choice_logprob(memory: AgentMemory, prompt: str, choice: str) -> float:
    """Mean log-probability per token of a reply to a prompt; the memory stays as it was."""
    ids = memory.tokenizer(choice, add_special_tokens=False)["input_ids"]
    dictated = Dictated(ids)
    memory.generate(
        [{"role": "user", "content": prompt}],
        logits_processor=[dictated],
        remember=False,
        max_new_tokens=len(ids),
    )
    return dictated.mean
