"""The suites by name: which tasks, lengths, arms and sizes one command runs.

Sizes follow the targets: at least 100 questions a cell from at least 4 histories where a history has many needles,
at least 20 histories where it has one. Knows no model. A task's own name is a suite of that task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.recall.arms import DEFAULT, FULL, STREAMING, WINDOW
from benchmarks.recall.plan import Restart, Slice

LENGTHS = (4_000, 8_000, 16_000, 32_000)
ARMS = (DEFAULT, "infllm", STREAMING, FULL)
BOUNDS = (DEFAULT, "exact", "infllm", "random", STREAMING, FULL)


@dataclass(frozen=True)
class Suite:
    """A named list of slices."""

    words: str
    slices: tuple[Slice, ...]


def single(task: str, arms: tuple[str, ...] = ARMS, lengths: tuple[int, ...] = LENGTHS) -> Slice:
    """A task with one needle a history."""
    return Slice(task, lengths, 20, arms)


def many(task: str, arms: tuple[str, ...] = ARMS, lengths: tuple[int, ...] = LENGTHS) -> Slice:
    """A task with many questions a history."""
    return Slice(task, lengths, 5, arms)


MULTIDAY_LENGTHS = (4_250, 10_250, 32_000)
"""5, 20 and 74 days, the frame beside them; 80 days take 34,300 tokens, where full attention no longer fits 32K."""
_RULER_SINGLE = (
    "ruler_single",
    "ruler_single_2",
    "ruler_single_3",
    "multikey_1",
    "multivalue",
    "multiquery",
    "variable_tracking",
    "common_words",
    "frequent_words",
)
_DAYS = Slice(
    "multiday",
    MULTIDAY_LENGTHS,
    4,
    (DEFAULT, "infllm", STREAMING, WINDOW, FULL),
    restart="ask",
    rank=True,
    evidence=True,
)
_FIVE_KEYS = Slice("five_keys", (1_024_000,), 1, (DEFAULT,), restart="ask")

SUITES: Mapping[str, Suite] = {
    "headline": Suite(
        "a first look in half an hour on two cores: few questions, wide intervals (make recall)",
        (
            Slice(
                "many_needles",
                (16_000,),
                1,
                (DEFAULT, "infllm", FULL, STREAMING),
                questions=24,
                evidence=True,
            ),
            Slice("passkey", (8_000,), 2, (DEFAULT, "infllm", FULL, STREAMING)),
            Slice("multiday", (10_250,), 1, (DEFAULT, FULL, STREAMING), restart="ask"),
        ),
    ),
    "evidence": Suite(
        "which blocks are chosen, before any answer: coverage, hits, ranks",
        (Slice("many_needles", LENGTHS, 4, (DEFAULT, "infllm", "exact", "random"), evidence=True),),
    ),
    "needles": Suite("many needles in noise, each asked for", (many("many_needles", BOUNDS),)),
    "infinitebench": Suite(
        "InfiniteBench's passkey, number string and key-value retrieval, the last also with the question last",
        (
            *(single(task) for task in ("passkey", "number_string", "kv_retrieval")),
            many("kv_retrieval_question_last"),
        ),
    ),
    "ruler": Suite(
        "RULER's tasks that need no download: needles, variable tracking, common words, frequent words",
        (
            *(single(task) for task in _RULER_SINGLE),
            *(many(task) for task in ("multikey_2", "multikey_3")),
        ),
    ),
    "grid": Suite(
        "one needle, depth by length, as a picture",
        (Slice("needle_grid", LENGTHS, 10, (DEFAULT, "infllm", FULL)),),
    ),
    "updates": Suite("facts that change: the newest wins", (many("fact_update"),)),
    "multiday": Suite("days of conversation, the process restarted before the questions", (_DAYS,)),
    "restart": Suite(
        "two processes must answer alike",
        (Slice("many_needles", (4_000,), 2, (DEFAULT,), questions=10, restart="compare"),),
    ),
    "beyond": Suite(
        "within the trained window of 32,768 tokens, and beyond it",
        (many("many_needles", (DEFAULT,), (30_000, 64_000)), single("passkey", (DEFAULT,), (30_000, 64_000))),
    ),
    "million": Suite("five keys in 1,024,000 tokens, read in parts", (_FIVE_KEYS,)),
    "long": Suite(
        "everything that must be shown, for a GPU",
        (
            many("many_needles", BOUNDS, (*LENGTHS, 64_000)),
            single("passkey", ARMS, (*LENGTHS, 64_000)),
            many("fact_update"),
            Slice("needle_grid", LENGTHS, 10, (DEFAULT, "infllm", FULL)),
            _DAYS,
            _FIVE_KEYS,
        ),
    ),
}


def slices_of(name: str, tasks: Iterable[str]) -> tuple[Slice, ...]:
    """The slices of a suite, or of one task. Raises ValueError, naming what there is."""
    if name in SUITES:
        return SUITES[name].slices
    known = sorted(tasks)
    if name in known:
        return (single(name),)
    raise ValueError(f"no suite or task {name!r}; suites: {', '.join(SUITES)}; tasks: {', '.join(known)}")


def changed(
    slices: Sequence[Slice],
    *,
    arms: Sequence[str] | None,
    lengths: Sequence[int] | None,
    histories: int | None,
    questions: int | None,
    restart: Restart | None,
    rank: bool | None,
    evidence: bool | None,
) -> tuple[Slice, ...]:
    """The slices with what the command line asks for instead; None leaves things as they are."""
    return tuple(
        replace(
            one,
            arms=one.arms if arms is None else tuple(arms),
            lengths=one.lengths if lengths is None else tuple(lengths),
            histories=one.histories if histories is None else histories,
            questions=one.questions if questions is None else questions,
            restart=one.restart if restart is None else restart,
            rank=one.rank if rank is None else rank,
            evidence=one.evidence if evidence is None else evidence,
        )
        for one in slices
    )
