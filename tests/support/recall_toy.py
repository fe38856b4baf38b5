"""A toy recall task and a screen that writes down what it is told: what the runner's tests run on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome
from benchmarks.recall.cells import Cell, CellKey
from benchmarks.recall.framing import frame_for
from benchmarks.recall.items import History, Piece, Question
from benchmarks.recall.journal import Journal
from benchmarks.recall.plan import Histories, Slice
from benchmarks.recall.running import Measure, Options, Runner
from support.tiny_language_model import SMALL, language_model

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron")


class Codes:
    """Some drawers, each with a code, among lines that say nothing; every code is asked for."""

    name = "codes"

    def histories(
        self, tokens: int, count: int, seed: int, count_tokens: Callable[[str], int]
    ) -> Iterator[History]:
        """Lines until the length is reached; a drawer in every third one."""
        for number in range(count):
            chance = random.Random(seed * 1000 + number)
            codes = {word: f"{chance.randrange(1000, 9999)}" for word in chance.sample(WORDS, 4)}
            lines = [told(word, code) for word, code in codes.items()]
            while count_tokens(" ".join(lines)) < tokens - 20:
                lines.insert(1 + chance.randrange(len(lines)), f"Line {len(lines)} says nothing.")
            pieces = tuple(
                Piece(line, role="assistant" if n % 5 == 4 else "user") for n, line in enumerate(lines)
            )
            yield History(f"codes-{seed}-{number}", self.name, tokens, seed, pieces, _questions(codes))

    def judge(self, question: Question, output: str) -> float:
        """Whether the code is in the output."""
        return float(question.answers[0] in output)


class Quiet:
    """A screen that keeps what it was told."""

    def __init__(self) -> None:
        self.new: list[Cell] = []
        self.found: list[Cell] = []
        self.words: list[str] = []
        self.others: list[CellKey] = []

    def say(self, words: str) -> None:
        """Kept."""
        self.words.append(words)

    def part(self, done: int, total: int) -> None:
        """Checked."""
        assert 0 <= done
        assert total > 0

    def cell(self, cell: Cell, *, new: bool) -> None:
        """Kept."""
        (self.new if new else self.found).append(cell)

    def elsewhere(self, key: CellKey) -> None:
        """Kept."""
        self.others.append(key)


def told(word: str, code: str) -> str:
    """The line that tells a code."""
    return f"The {word} drawer opens with {code}."


def _questions(codes: dict[str, str]) -> tuple[Question, ...]:
    others = {word: tuple(code for other, code in codes.items() if other != word) for word in codes}
    return tuple(
        Question(
            id=f"code of {word}",
            kind="early" if number < 2 else "late",
            prompt=f"What opens the {word} drawer?",
            answers=(code,),
            evidence=(told(word, code),),
            choices=(code, *others[word]),
            max_new_tokens=6,
        )
        for number, (word, code) in enumerate(codes.items())
    )


def count_tokens(model: LanguageModel) -> Callable[[str], int]:
    """The model's own counter."""
    return lambda text: len(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def histories(model: LanguageModel | None = None, seed: int = 0) -> Histories:
    """The toy task within the frame of the small options."""
    counter = count_tokens(model or language_model())
    return Histories({"codes": Codes}, frame_for(SMALL, counter), seed, counter)


def one_slice(*arms: str, tokens: int = 400, number: int = 1, questions: int | None = 2) -> Slice:
    """The toy task at one length."""
    return Slice("codes", (tokens,), number, arms, questions=questions)


def runner(
    folder: Path,
    screen: Quiet,
    model: LanguageModel | None = None,
    measure: Measure | None = None,
    **options: object,
) -> Runner:
    """A runner with the small options, its journal in the folder."""
    chosen = Options(home=folder / "agents", base=SMALL, **options)  # type: ignore[arg-type]
    return Runner(model or language_model(), chosen, Journal(folder / "cells.jsonl"), screen, measure)


def agents(folder: Path) -> list[str]:
    """The agents a run left behind."""
    return [info.agent_id for info in DiskHome(folder / "agents").list()]
