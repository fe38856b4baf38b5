"""What a run of the adapter's benchmark says: tables and expectations. Measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from benchmarks.plan import Samples
from benchmarks.report import Expectation, figure, judged, show_expectations

OVERHEAD_PERCENT = 3.0
PLANNER_GROWTH = 3.0
"""Planning a list that is n times as long takes at most this much more than n times as long: caches are missed more
often, but nothing is quadratic."""

TURN_METRICS: Mapping[str, str] = {
    "reply_tokens": "tokens of a reply",
    "turn_generate_ms": "AgentMemory.generate, ms",
    "turn_invoke_ms": "ChatInfLLM.invoke, ms",
    "turn_stream_ms": "ChatInfLLM.stream, ms",
    "adapter_memory_ms": "within invoke: AgentMemory's own turn, ms",
    "adapter_list_ms": "  reading the caller's list, ms",
    "adapter_plan_ms": "  planning, ms",
    "adapter_park_ms": "  giving the lock up and taking it again, ms",
    "adapter_parse_ms": "  taking the reply apart, ms",
    "adapter_message_ms": "  building chunks and the message, ms",
    "adapter_rest_ms": "  the rest, LangChain's own work above all, ms",
}
OWN_WORK = frozenset(TURN_METRICS) - {
    "reply_tokens",
    "turn_generate_ms",
    "turn_invoke_ms",
    "turn_stream_ms",
    "adapter_memory_ms",
}
RESEND_METRICS: Mapping[str, str] = {
    "resend_tokens_held": "tokens held before the turn",
    "resend_stateless_tokens": "tokens a model without a memory reads",
    "resend_tokens_read": "tokens read",
    "resend_message_tokens": "  of which the new message's",
    "resend_history_tokens_read": "  of which the list's",
    "resend_tokens_reread": "tokens forwarded again",
    "resend_first_token_ms": "first token, ms",
}
PLANNER_METRICS: Mapping[str, str] = {
    "planner_list_ms": "reading the list, ms",
    "planner_plan_ms": "planning, ms",
}
SYNTHETIC = "any model"
"""The planner knows no model."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a run."""

    models: Sequence[str]
    rounds: int
    history: int
    """Tokens held before the turns that are compared."""
    reply: int
    messages: int
    """Messages of the list that LangGraph sends again."""
    short_reply: int
    """Tokens of the replies that make up that list."""
    resends: int
    planner: Sequence[int]
    """Lengths of the lists that are planned."""
    times_count: bool = True
    """Whether times are judged: with small sizes they say nothing."""


def expectations(model: str, sizes: Sizes, samples: Samples) -> Iterator[Expectation]:
    """What is promised of one model's numbers."""
    direct = samples.middle(model, sizes.history, "turn_generate_ms")
    for side in ("invoke", "stream"):
        through = samples.middle(model, sizes.history, f"turn_{side}_ms")
        more = None if direct is None or through is None else 100 * (through / direct - 1)
        met = more is not None and more <= OVERHEAD_PERCENT
        found = judged(f"{side} over generate, % of a turn", more, f"<= {OVERHEAD_PERCENT:g}", met)
        yield _if_timed(found, sizes)
    more = _own_percent(model, sizes, samples)
    words = "invoke's own work beside AgentMemory's turn, %"
    met = more is not None and more <= OVERHEAD_PERCENT
    yield _if_timed(judged(words, more, f"<= {OVERHEAD_PERCENT:g}", met), sizes)
    for metric, words in (
        ("resend_history_tokens_read", "history tokens read"),
        ("resend_tokens_reread", "tokens forwarded again"),
    ):
        counts = samples.of(model, sizes.messages, metric)
        worst = max(counts, key=abs) if counts else None
        yield judged(f"{words}, {sizes.messages} messages sent again", worst, "0", worst == 0)


def planner_expectation(sizes: Sizes, samples: Samples) -> Expectation:
    """Planning is linear in the list."""
    short, long = min(sizes.planner), max(sizes.planner)
    low, high = (_sum(samples, length, PLANNER_METRICS) for length in (short, long))
    ratio = None if not low or high is None else high / low
    limit = PLANNER_GROWTH * long / short
    met = ratio is not None and ratio <= limit
    found = judged(f"planner at {long:,} messages / at {short:,}", ratio, f"<= {limit:g}", met)
    return _if_timed(found, sizes)


def all_expectations(sizes: Sizes, samples: Samples) -> dict[str, list[Expectation]]:
    """Every expectation, by model."""
    found = {model: list(expectations(model, sizes, samples)) for model in sizes.models}
    return {**found, SYNTHETIC: [planner_expectation(sizes, samples)]}


def rows(sizes: Sizes, samples: Samples) -> Iterator[tuple[str, int, str, float]]:
    """Rows for the results file; ``length`` is tokens of history, or messages in a list."""
    for model in sizes.models:
        for metrics, length in ((TURN_METRICS, sizes.history), (RESEND_METRICS, sizes.messages)):
            for metric in metrics:
                value = samples.middle(model, length, metric)
                if value is not None:
                    yield model, length, metric, value
    for length in sizes.planner:
        for metric in PLANNER_METRICS:
            value = samples.middle(SYNTHETIC, length, metric)
            if value is not None:
                yield SYNTHETIC, length, metric, value


def show(console: Console, sizes: Sizes, samples: Samples) -> None:
    """Print the tables, and what was promised."""
    for title, metrics, length in (
        (
            f"a turn on {sizes.history:,} tokens of history: medians of {sizes.rounds}",
            TURN_METRICS,
            sizes.history,
        ),
        (f"LangGraph sends {sizes.messages} messages again and one new", RESEND_METRICS, sizes.messages),
    ):
        _table(console, title, metrics, [(model, model, length) for model in sizes.models], samples)
    columns = [(f"{length:,} messages", SYNTHETIC, length) for length in sizes.planner]
    _table(console, "what the planner takes", PLANNER_METRICS, columns, samples)
    for model, found in all_expectations(sizes, samples).items():
        console.print(f"  {model}:", highlight=False)
        show_expectations(console, found)


def _own_percent(model: str, sizes: Sizes, samples: Samples) -> float | None:
    """The same overhead, looked at from within: turn by turn, so that a busy machine matters less."""
    turns = samples.of(model, sizes.history, "adapter_memory_ms")
    parts = [samples.of(model, sizes.history, metric) for metric in TURN_METRICS if metric in OWN_WORK]
    if not turns or any(len(values) != len(turns) for values in parts):
        return None
    return statistics.median(100 * sum(own) / turn for turn, *own in zip(turns, *parts, strict=True))


def _if_timed(found: Expectation, sizes: Sizes) -> Expectation:
    return found if sizes.times_count else replace(found, met=None)


def _table(
    console: Console,
    title: str,
    metrics: Mapping[str, str],
    columns: Sequence[tuple[str, str, int]],
    samples: Samples,
) -> None:
    """One row a metric; a column is (heading, model, length)."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for metric, words in metrics.items():
        middles = [samples.middle(model, length, metric) for _, model, length in columns]
        if any(value is not None for value in middles):
            table.add_row(words, *("-" if value is None else figure(value) for value in middles))
    console.print(table)


def _sum(samples: Samples, length: int, metrics: Mapping[str, str]) -> float | None:
    middles = [samples.middle(SYNTHETIC, length, metric) for metric in metrics]
    known = [value for value in middles if value is not None]
    return sum(known) if len(known) == len(middles) else None
