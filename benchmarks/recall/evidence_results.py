"""What cells hold of evidence, as scores by question and as rows; and the targets for coverage, judged.

Reads cells and nothing else; measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks.recall.arms import DEFAULT
from benchmarks.recall.evidence import RULES, EvidenceMeasure
from benchmarks.recall.headline import INFLLM, MANY_NEEDLES, Verdict
from benchmarks.recall.results import Results, Scores, Where
from benchmarks.recall.statistics import Interval, bootstrap_mean

OF_EXACT = 0.95
LONGEST = 33_000
"""Histories up to 32K are judged."""


def evidence_scores(
    results: Results, where: Where, arm: str, figure: str, *, rule: str = "chosen", scope: str = "heads"
) -> Scores:
    """One figure by (history, question).

    Args:
        figure: "coverage", "any", "all", "recall@5", "recall", "ndcg", "mrr", "part"; see ``evidence_ranks``.
        rule: "chosen", "exact" or "random".
        scope: "heads" or "layers", means over them, or "union".
    """
    return Scores(
        {
            (cell.key.history, row["question"]): float(row["rules"][rule][scope][figure])
            for cell in results.at(where, arm)
            for row in cell.extra.get(EvidenceMeasure.name, {}).get("questions", ())
            if figure in row["rules"][rule][scope]
        }
    )


def spread(scores: Scores) -> Interval:
    """The mean with a bootstrap interval."""
    return bootstrap_mean(scores.values, scores.histories)


def evidence_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Every layer's and KV head's means, one flat row for each history, for JSON lines."""
    for cell in results.cells:
        found = cell.extra.get(EvidenceMeasure.name, {})
        for place in (*found.get("heads", ()), *found.get("layers", ())):
            named = {f"wanted_{name}": value for name, value in place.get("wanted", {}).items()}
            for rule, figures in place["rules"].items():
                yield {
                    **asdict(cell.key),
                    "questions": len(found["questions"]),
                    "layer": place["layer"],
                    "head": place.get("head"),
                    "rule": rule,
                    **named,
                    **figures,
                }


def head_means(results: Results, where: Where, arm: str) -> dict[tuple[int, int], dict[str, float]]:
    """Coverage by (layer, KV head) and rule, the mean over a place's questions."""
    sums: dict[tuple[int, int], dict[str, float]] = {}
    total = 0
    for cell in results.at(where, arm):
        found = cell.extra.get(EvidenceMeasure.name, {})
        questions = len(found.get("questions", ()))
        total += questions
        for row in found.get("heads", ()):
            place = sums.setdefault((row["layer"], row["head"]), dict.fromkeys(RULES, 0.0))
            for rule in RULES:
                place[rule] += questions * row["rules"][rule]["coverage"]
    return {place: {rule: value / total for rule, value in by.items()} for place, by in sums.items()}


def evidence_verdicts(results: Results) -> Iterator[Verdict]:
    """Coverage by the default rule: near the best possible, and above InfLLM's."""
    judged = 0
    for tokens in results.lengths(MANY_NEEDLES):
        where = Where(MANY_NEEDLES, tokens)
        ours = evidence_scores(results, where, DEFAULT, "coverage")
        if tokens > LONGEST or not ours.values:
            continue
        judged += 1
        best = evidence_scores(results, where, DEFAULT, "coverage", rule="exact")
        found = ours.minus(best, OF_EXACT).difference
        what = f"coverage of evicted mass at {tokens:,} >= {OF_EXACT} x exact at the same budget"
        yield Verdict(what, _points(found, f"{OF_EXACT} x exact"), found.value >= 0)
        theirs = evidence_scores(results, where, INFLLM, "coverage")
        if theirs.values:
            found = ours.minus(theirs).difference
            what = f"coverage of evicted mass at {tokens:,} above {INFLLM}'s, clear of zero"
            yield Verdict(what, _points(found, INFLLM), found.clear_of(0.0))
    if not judged:
        yield Verdict(
            f"coverage of evicted mass >= {OF_EXACT} x exact, above {INFLLM}'s", "not measured", None
        )


def _points(found: Interval, against: str) -> str:
    low, value, high = (100 * one for one in (found.low, found.value, found.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}] points against {against}, n={found.n}"
