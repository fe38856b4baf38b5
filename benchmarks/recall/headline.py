"""What this project must show, judged by a run's own numbers: PASS, FAIL, or not judged where they are missing.

Knows results and statistics, and where each target applies. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.recall.arms import FULL, STREAMING, WINDOW
from benchmarks.recall.evidence_tables import points
from benchmarks.recall.results import Results, Scores, Where
from benchmarks.recall.statistics import Interval

INFLLM = "infllm"
MANY_NEEDLES = "many_needles"
PASSKEY = "passkey"
MULTIDAY = "multiday"
OF_EXACT = 0.95
OF_FULL = 0.9
OVER_INFLLM = 1.5
SLACK = 0.05
"""Five points: how far the lower bound of a difference may lie below zero."""
HISTORIES = 4
"""So many histories of many questions a target asks for at least: questions of one history share its luck."""
ROUNDING = 1e-9
MILLION = 1_000_000


@dataclass(frozen=True)
class Verdict:
    """One target, and whether it was met. ``met`` is None when there were no numbers to judge it by."""

    what: str
    found: str
    met: bool | None

    def __str__(self) -> str:
        word = {True: "PASS", False: "FAIL", None: "not judged"}[self.met]
        return f"{word}  {self.what}: {self.found}"


def verdicts(results: Results, trained_length: int) -> list[Verdict]:
    """Every target on what was answered; ``trained_length`` is the model's, in tokens."""
    return [
        *_coverage(results),
        *_many_needles(results),
        *_passkey(results),
        *_beyond(results, trained_length),
        *_multiday(results),
        *_million(results),
    ]


def exit_code(results: Results, found: Sequence[Verdict]) -> int:
    """0: all is well; 1: a cell failed; 3: a target was missed."""
    if results.failed:
        return 1
    return 3 if any(verdict.met is False for verdict in found) else 0


def _coverage(results: Results) -> Iterator[Verdict]:
    """The default's coverage against the best there is, and against InfLLM's: together, and at each length."""
    ours = {where: results.coverage(where, results.default) for where in results.wheres}
    best = {where: results.coverage(where, results.default, "exact") for where in results.wheres}
    theirs = {where: results.coverage(where, INFLLM) for where in results.wheres}
    what = f"coverage of evicted mass >= {OF_EXACT} x the best choice of as many blocks"
    yield _everywhere(what, ours, best, f"{OF_EXACT} x exact", OF_EXACT, lambda found: found.value + ROUNDING)
    what = f"coverage of evicted mass clearly above {INFLLM}"
    yield _everywhere(what, ours, theirs, INFLLM, 1.0, lambda found: found.low)


def _everywhere(
    what: str,
    ours: Mapping[Where, Scores],
    theirs: Mapping[Where, Scores],
    against: str,
    factor: float,
    margin: Callable[[Interval], float],
) -> Verdict:
    """Met when the margin is above zero for all histories together and for each task and length by itself."""
    apart = {where: ours[where].minus(theirs[where], factor).difference for where in ours}
    apart = {where: found for where, found in apart.items() if found.n}
    if not apart:
        return Verdict(what, f"nothing to compare with {against}", None)
    together = _pooled(ours).minus(_pooled(theirs), factor).difference
    words = f"{points(together)} points against {against}, n={together.n}"
    worst = min(apart, key=lambda where: margin(apart[where]))
    if len(apart) > 1:
        words += f"; worst of {len(apart)}: {worst.task} {worst.tokens:,} {points(apart[worst])}"
    met = min(margin(together), margin(apart[worst])) > 0
    return _first_look(Verdict(what, words, met), min(len(set(ours[where].histories)) for where in apart))


def _first_look(verdict: Verdict, histories: int) -> Verdict:
    """The verdict, if it rests on enough histories; otherwise its figures alone."""
    if histories >= HISTORIES:
        return verdict
    return Verdict(verdict.what, f"{verdict.found}; {histories} of {HISTORIES} histories", None)


def _pooled(scores: Mapping[Where, Scores]) -> Scores:
    """All of them together; histories of two places are two."""
    return Scores(
        {
            (f"{where.task} {where.tokens} {history}", question): value
            for where, found in scores.items()
            for (history, question), value in found.by_question.items()
        }
    )


def _many_needles(results: Results) -> Iterator[Verdict]:
    where = _nearest(results, MANY_NEEDLES, 16_000)
    for arm, factor in ((FULL, OF_FULL), (INFLLM, OVER_INFLLM)):
        what = f"multi-needle accuracy at 16K >= {factor} x {arm}"
        if where is None:
            yield Verdict(what, "not measured", None)
            continue
        ours, theirs = results.scores(where, results.default), results.scores(where, arm)
        found = ours.minus(theirs, factor).difference
        says = any(ours.values + theirs.values)
        verdict = _judged(what, found, f"{factor} x {arm}", found.value >= -ROUNDING, says=says)
        yield _first_look(verdict, len(set(ours.histories))) if found.n else verdict


def _passkey(results: Results) -> Iterator[Verdict]:
    what = f"passkey at 32K: lower bound of the difference to {FULL} >= {-100 * SLACK:.0f} points"
    where = _nearest(results, PASSKEY, 32_000)
    if where is None:
        yield Verdict(what, "not measured", None)
        return
    full = results.scores(where, FULL)
    found = results.scores(where, results.default).minus(full).difference
    yield _judged(what, found, FULL, found.low >= -SLACK, says=any(full.values))


def _beyond(results: Results, trained_length: int) -> Iterator[Verdict]:
    """Histories longer than the model was trained for, against the longest that are not."""
    for task in (MANY_NEEDLES, PASSKEY):
        what = f"{task} beyond the trained {trained_length:,} tokens: lower bound against inside it >= "
        what += f"{-100 * SLACK:.0f} points"
        lengths = [tokens for tokens in results.lengths(task) if tokens < MILLION]
        inside = [tokens for tokens in lengths if tokens <= trained_length]
        outside = [tokens for tokens in lengths if tokens > trained_length]
        if not inside or not outside:
            yield Verdict(what, "not measured", None)
            continue
        near, far = Where(task, max(inside)), Where(task, max(outside))
        inner = results.scores(near, results.default)
        found = results.scores(far, results.default).beyond(inner)
        words = f"{near.tokens:,} tokens, at {far.tokens:,}"
        yield _judged(what, found, words, found.low >= -SLACK, says=any(inner.values))


def _multiday(results: Results) -> Iterator[Verdict]:
    for tokens in results.lengths(MULTIDAY):
        where = Where(MULTIDAY, tokens)
        what = f"multiday at {tokens:,}: no kind of question where {STREAMING} or {WINDOW} "
        what += f"clearly beats {results.default}"
        beaten, compared = [], 0
        right = sum(any(results.scores(where, arm).values) for arm in (results.default, STREAMING, WINDOW))
        for kind in results.kinds(where):
            ours = results.scores(where, results.default, kind=kind)
            for arm in (STREAMING, WINDOW):
                found = results.scores(where, arm, kind=kind).minus(ours).difference
                compared += found.n > 0
                if found.clear_of(0.0):
                    beaten.append(f"{kind} ({arm} {points(found)})")
        if compared:
            met = not beaten if right else None
            yield Verdict(what, "; ".join(beaten) or f"none in {compared} comparisons", met)
    if not results.lengths(MULTIDAY):
        yield Verdict(
            f"multiday: no kind of question where the window clearly beats {results.default}",
            "not measured",
            None,
        )


def _million(results: Results) -> Iterator[Verdict]:
    what = "a log of 1,000K tokens or more: every key found"
    scores = Scores({})
    for where in results.wheres:
        if where.tokens >= MILLION:
            scores = scores.joined(results.scores(where, results.default))
    if not scores.values:
        yield Verdict(what, "not measured", None)
        return
    right = sum(value == 1 for value in scores.values)
    yield Verdict(what, f"{right} of {len(scores.values)}", right == len(scores.values))


def _nearest(results: Results, task: str, tokens: int) -> Where | None:
    """The cell of about that length, if there is one."""
    near = [length for length in results.lengths(task) if abs(length - tokens) <= 0.05 * tokens]
    return Where(task, min(near, key=lambda length: abs(length - tokens))) if near else None


def _judged(what: str, found: Interval, against: str, met: bool, *, says: bool = True) -> Verdict:  # noqa: FBT001
    """A verdict on a difference; without ``says`` nobody answered anything, so being no worse means nothing."""
    if not found.n:
        return Verdict(what, f"nothing to compare with {against}", None)
    words = f"{points(found)} points against {against}, n={found.n}"
    return Verdict(what, words, met) if says else Verdict(what, f"{words}, nothing right in either", None)
