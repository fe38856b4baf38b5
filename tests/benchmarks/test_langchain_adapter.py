"""The adapter's benchmark: a small run on a tiny random model, and its arithmetic. No time is judged here."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks import langchain_adapter
from benchmarks.adapter_lists import Planning, as_held, made_up
from benchmarks.adapter_report import (
    OWN_WORK,
    PLANNER_METRICS,
    SYNTHETIC,
    Sizes,
    all_expectations,
    expectations,
    rows,
)
from benchmarks.adapter_turns import timed
from benchmarks.plan import Samples
from langchain_agentmem.conversation import read_conversation
from support.tiny_folder import write_chat_model

SIZES = Sizes(["m"], 2, 2_000, 64, 100, 12, 3, (100, 1_000))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[float]]]:
    """What a quick run wrote: model -> metric -> values, expectations under "met"."""
    folder = tmp_path_factory.mktemp("bench")
    model = write_chat_model(folder / "model")
    before = langchain_adapter.RESULTS.read_bytes()

    code = langchain_adapter.main(
        ["--quick", "--rounds", "2", "--model", str(model), "--json", str(folder / "out.json")]
    )

    assert code == 0
    assert langchain_adapter.RESULTS.read_bytes() == before, "a quick run adds nothing to the results"
    record = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert record["failed"] == []
    values: dict[str, dict[str, list[float]]] = {"met": {}}
    for row in record["values"]:
        values.setdefault("model" if row["model"] != SYNTHETIC else SYNTHETIC, {})[row["metric"]] = row[
            "values"
        ]
    for row in record["expectations"]:
        values["met"][row["what"]] = [math.nan if row["met"] is None else float(row["met"])]
    return values


def test_a_long_list_costs_its_new_message_alone(found: dict[str, dict[str, list[float]]]) -> None:
    """Of the list that LangGraph sends again nothing is read; a model without a memory reads all of it."""
    figures = found["model"]

    assert figures["resend_history_tokens_read"] == [0.0]
    assert figures["resend_tokens_reread"] == [0.0]
    assert figures["resend_tokens_read"] == figures["resend_message_tokens"]
    assert figures["resend_stateless_tokens"][0] > 4 * figures["resend_tokens_read"][0]


def test_three_sides_were_timed_and_looked_into(found: dict[str, dict[str, list[float]]]) -> None:
    """Each side has a time for each round, and each part of the adapter one for each turn looked into."""
    figures = found["model"]

    assert {len(figures[f"turn_{side}_ms"]) for side in ("generate", "invoke", "stream")} == {2}
    parts = [
        figures[f"adapter_{part}_ms"]
        for part in ("memory", "list", "plan", "park", "parse", "message", "rest")
    ]
    assert {len(values) for values in parts} == {langchain_adapter.PROFILED}
    assert all(value > 0 for values in parts for value in values)


def test_quick_times_are_not_judged(found: dict[str, dict[str, list[float]]]) -> None:
    """Counts are judged at any size, times are not."""
    verdicts = {what: values[0] for what, values in found["met"].items()}

    assert [what for what, met in verdicts.items() if math.isnan(met)] == [
        "invoke over generate, % of a turn",
        "stream over generate, % of a turn",
        "invoke's own work beside AgentMemory's turn, %",
        "planner at 40 messages / at 10",
    ]
    assert {met for met in verdicts.values() if not math.isnan(met)} == {1.0}


def _samples(generate: float, invoke: float, history_read: float = 0.0) -> Samples:
    samples = Samples()
    for metric, value in (("generate", generate), ("invoke", invoke), ("stream", generate)):
        samples.add("m", 2_000, f"turn_{metric}_ms", value)
    samples.add("m", 100, "resend_history_tokens_read", history_read)
    samples.add("m", 100, "resend_tokens_reread", 0.0)
    return samples


@pytest.mark.parametrize(("invoke", "met"), [(1029.0, True), (1031.0, False)])
def test_overhead_is_judged_by_the_medians(invoke: float, met: bool) -> None:
    """Up to three hundredths of a turn pass."""
    first = next(expectations("m", SIZES, _samples(1000.0, invoke)))

    assert first.what.startswith("invoke")
    assert first.met is met


@pytest.mark.parametrize(("own", "met"), [(4.9, True), (5.1, False)])
def test_the_adapters_own_work_is_judged_too(own: float, met: bool) -> None:
    """Six parts that take 3 % of the memory's own turn together pass, a little more does not."""
    samples = Samples()
    samples.add("m", 2_000, "adapter_memory_ms", 1000.0)
    for metric in OWN_WORK:
        samples.add("m", 2_000, metric, own)

    verdicts = {one.what: one.met for one in expectations("m", SIZES, samples)}

    assert len(OWN_WORK) == 6
    assert verdicts["invoke's own work beside AgentMemory's turn, %"] is met


@pytest.mark.parametrize(("read", "met"), [(0.0, True), (1.0, False), (-1.0, False)])
def test_a_single_history_token_fails(read: float, met: bool) -> None:
    """One token of the list read again is one too many."""
    verdicts = {one.what: one.met for one in expectations("m", SIZES, _samples(1.0, 1.0, read))}

    assert verdicts["history tokens read, 100 messages sent again"] is met


@pytest.mark.parametrize(("long", "met"), [(29.0, True), (31.0, False)])
def test_planning_has_to_stay_linear(long: float, met: bool) -> None:
    """Ten times the list may take up to thirty times as long; a quadratic planner would take a hundred."""
    samples = Samples()
    for metric in PLANNER_METRICS:
        samples.add(SYNTHETIC, 100, metric, 1.0)
        samples.add(SYNTHETIC, 1_000, metric, long)

    assert all_expectations(SIZES, samples)[SYNTHETIC][0].met is met


def test_rows_name_what_was_measured() -> None:
    """Only metrics with a value become rows; their length is tokens of history, or messages."""
    assert [(model, length, metric) for model, length, metric, _ in rows(SIZES, _samples(1.0, 2.0))] == [
        ("m", 2_000, "turn_generate_ms"),
        ("m", 2_000, "turn_invoke_ms"),
        ("m", 2_000, "turn_stream_ms"),
        ("m", 100, "resend_history_tokens_read"),
        ("m", 100, "resend_tokens_reread"),
    ]


def test_made_up_lists_are_known_but_for_the_last_message() -> None:
    """The planner finds one new message behind the made-up list, and nothing to complain about."""
    samples = Samples()
    planning = Planning("p", messages=8, samples=samples)

    planning.round()

    assert samples.failed == []
    assert len(samples.of("p", 8, "planner_plan_ms")) == 1
    held = as_held(read_conversation(made_up(4)[:-1], thread=None).said)
    assert [one.parent for one in held] == [None, None, held[1].state_id, held[1].state_id]


def test_timed_puts_functions_back() -> None:
    """Time is counted while the block runs; afterwards the functions are the plain ones, errors or not."""

    class Worker:
        def work(self) -> int:
            return 3

    plain = Worker.work
    with pytest.raises(ValueError, match="stop"), timed({"part": [(Worker, "work")]}) as spent:  # noqa: PT012
        assert Worker().work() == 3
        assert spent["part"] > 0
        raise ValueError("stop")

    assert Worker.work is plain
