"""MultiDay as a recall task: diaries as pieces and questions, its judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.recall.items import History, Piece, Question
from benchmarks.recall.multiday.cast import parts_of
from benchmarks.recall.multiday.diary import Diary
from benchmarks.recall.multiday.generator import diary
from benchmarks.recall.multiday.judge import judge
from benchmarks.recall.multiday.personas import PERSONAS
from benchmarks.recall.multiday.storylines import FORGET_PREFIX


class MultiDay:
    """Twelve people's diaries with an assistant; 440 questions of eight kinds at each length."""

    name = "multiday"

    def histories(
        self, tokens: int, count: int, seed: int, count_tokens: Callable[[str], int]
    ) -> Iterator[History]:
        """`count` diaries: one persona after the other, then their next parts, then the next seed."""
        parts, people = parts_of(tokens), len(PERSONAS)
        for number in range(count):
            rounds, persona = divmod(number, people)
            lap, part = divmod(rounds, parts)
            made = diary(persona, tokens=tokens, seed=seed + lap, count_tokens=count_tokens, part=part)
            yield history(made, tokens)

    def judge(self, question: Question, output: str) -> float:
        """1.0 when `output` is right by `judge.judge`, else 0.0."""
        return judge(question, output)


def history(made: Diary, tokens: int) -> History:
    """A diary as pieces, one for each message; those of a session share their `at`."""
    pieces = tuple(
        Piece(message.text, message.role, session.at.isoformat(), message.source)
        for session, message in made.messages()
    )
    return History(made.id, MultiDay.name, tokens, made.seed, pieces, tuple(q.question for q in made.queries))


def sources_to_forget(found: History) -> tuple[str, ...]:
    """The sources that are to be dropped with the memory's `forget(source=…)` before any question is asked."""
    sources = {piece.source for piece in found.pieces if piece.source}
    return tuple(sorted(source for source in sources if source.startswith(FORGET_PREFIX)))
