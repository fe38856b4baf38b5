"""A task whose published prompt is laid out as one piece and later questions, and fitted to a token budget.

The official prompt reads: words before, context, words after. In a chat memory the words before and the context
are one user message, which is injected; each question, with the words after, is a later user message. RULER's
answer prefix, which it appends to its prompt for the model to continue, ends the question. Line ends between the
context and the words after it become the end of the first message. What goes into the context is the source's
business, and a wording knows nothing of it; neither knows models or memories.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from benchmarks.recall.items import History, Piece, Question
from benchmarks.recall.tasks.lengths import TokenCount, TooShortError, largest_fitting


@dataclass(frozen=True)
class Wording:
    """The words around a context, with `{slots}` that each question fills, and the tokens an answer may take.

    `before` with the slot of a wanted key says in advance what will be asked, so its source asks one question
    a history.
    """

    before: str
    after: str
    max_new_tokens: int


@dataclass(frozen=True)
class Asked:
    """One question before it is worded: what fills the slots, and what is right (see `items.Question`)."""

    slots: Mapping[str, str]
    answers: tuple[str, ...]
    evidence: tuple[str, ...]
    must_not: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    kind: str | None = None
    """None: the task's name."""


@dataclass(frozen=True)
class Draft:
    """A context and what is asked about it, at least one question; they are asked in random order."""

    context: str
    asked: tuple[Asked, ...]


@dataclass(frozen=True)
class Place:
    """Which history is drafted: number `index` of `count`, for one length and seed, of the source named."""

    source: str
    tokens: int
    seed: int
    index: int
    count: int
    count_tokens: TokenCount

    def chance(self, what: str) -> random.Random:
        """Fresh randomness for one purpose; the same each time, in every process and for every form of a task."""
        return random.Random(f"{self.source}/{what}/{self.tokens}/{self.seed}/{self.index}")  # noqa: S311


class Source(Protocol):
    """What a context is made of."""

    @property
    def name(self) -> str:
        """Seeds are drawn from it: all forms of one task have the same contexts."""
        ...

    def draft(self, place: Place, units: int) -> Draft:
        """A context of `units` units of haystack; longer for more units, otherwise the same at each call.

        Raises ``TooShortError`` if the needles find no room among so few.
        """
        ...


class FittedTask:
    """A task: a source, the words around it, a judge.

    `History.tokens` bounds the piece, the longest question and its answer together, as in RULER; the chat
    template's own tokens are not counted. The piece falls short of that by less than one unit of haystack.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        wording: Wording,
        judged: Callable[[Question, str], float],
    ) -> None:
        self.name = name
        self._source = source
        self._wording = wording
        self._judged = judged

    def histories(
        self, tokens: int, count: int, seed: int, count_tokens: Callable[[str], int]
    ) -> Iterator[History]:
        """`count` histories of about `tokens` tokens by `count_tokens`, the same for the same seed.

        Raises ``TooShortError`` (a ``ValueError``) if `tokens` is too few for the task.
        """
        counted = TokenCount(count_tokens)
        units: int | None = None
        for index in range(count):
            place = Place(self._source.name, tokens, seed, index, count, counted)
            units = largest_fitting(partial(self._size, place), tokens, units)
            yield self._laid_out(place, self._source.draft(place, units))

    def judge(self, question: Question, output: str) -> float:
        """How right `output` is, 0 to 1, by the task's published rule."""
        return self._judged(question, output)

    def _size(self, place: Place, units: int) -> int:
        """Tokens of piece, longest question and answer; 0 where so few units have no room for the needles."""
        try:
            history = self._laid_out(place, self._source.draft(place, units))
        except TooShortError:
            return 0
        questions = max(place.count_tokens(question.prompt) for question in history.questions)
        return place.count_tokens(history.pieces[0].text) + questions + self._wording.max_new_tokens

    def _laid_out(self, place: Place, draft: Draft) -> History:
        name = f"{self.name}-{place.tokens}-{place.seed}-{place.index}"
        before = self._wording.before.format(**draft.asked[0].slots)
        shuffled = place.chance("asked").sample(draft.asked, len(draft.asked))
        return History(
            id=name,
            task=self.name,
            tokens=place.tokens,
            seed=place.seed,
            pieces=(Piece(before + draft.context),),
            questions=tuple(
                Question(
                    id=f"{name}-q{number}",
                    kind=asked.kind or self.name,
                    prompt=self._wording.after.format(**asked.slots),
                    answers=asked.answers,
                    evidence=asked.evidence,
                    must_not=asked.must_not,
                    choices=asked.choices,
                    max_new_tokens=self._wording.max_new_tokens,
                )
                for number, asked in enumerate(shuffled)
            ),
        )
