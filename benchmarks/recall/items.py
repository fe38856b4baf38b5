"""What a recall task is made of: pieces put into a memory, questions asked of it, a judge.

Knows nothing of models, memories, selectors or files: tasks build these and the runner reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Piece:
    """One thing put into the memory, in order: its text, who said it, when (ISO 8601) and from where."""

    text: str
    role: str = "user"
    at: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Question:
    """One question about a history.

    `answers`: any of them (or all, says the task's judge) as published. `evidence`: exact snippets of the
    history that hold the answer, () where the right reply is to abstain. `must_not`: what a right reply
    does not say. `choices`: replies to rank by log-probability, `choices[0]` is right.
    """

    id: str
    kind: str
    prompt: str
    answers: tuple[str, ...]
    evidence: tuple[str, ...]
    must_not: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    max_new_tokens: int = 32


@dataclass(frozen=True)
class History:
    """Pieces in order and the questions about them; `tokens` is the length asked for, `seed` its source."""

    id: str
    task: str
    tokens: int
    seed: int
    pieces: tuple[Piece, ...]
    questions: tuple[Question, ...]


class Task(Protocol):
    """A named source of histories with its published judge."""

    name: str

    def histories(
        self, tokens: int, count: int, seed: int, count_tokens: Callable[[str], int]
    ) -> Iterator[History]:
        """`count` histories of about `tokens` tokens by `count_tokens`, the same for the same seed."""
        ...

    def judge(self, question: Question, output: str) -> float:
        """How right `output` is, 0 to 1, by the task's published rule."""
        ...
