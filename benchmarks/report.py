"""What a run says: a table, the expectations as PASS or FAIL, rows for the results file. Measures nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agentmem import MemoryConfig
from benchmarks.plan import Plan, Samples

RESUME_MS = 50.0
CHECKPOINT_PERCENT = 5.0
FULL = 0.9 * MemoryConfig().budget
"""From this length on the working set is full, so speed and memory should stay flat."""
FLAT_DECODE = 0.9
"""Decoding at the longest history runs at this part of the speed at the shortest full one, or faster."""
FLAT_MEMORY = 1.25
"""Peak memory at the longest history is at most this multiple of the peak at the shortest ..."""
FLAT_MEMORY_SLACK = 32.0
"""... or this many MiB more: allocators round."""

METRICS: Mapping[str, str] = {
    "ingest_tokens_per_s": "ingest, tokens/s",
    "peer_ingest_tokens_per_s": "  full attention",
    "build_tokens_per_s": "ingest of all up to here, tokens/s",
    "decode_tokens_per_s": "decode, tokens/s",
    "peer_decode_tokens_per_s": "  full attention",
    "decode_step_ms": "decode, median step, ms",
    "peer_decode_step_ms": "  full attention",
    "decode_longest_step_ms": "decode, longest step (reselection), ms",
    "resume_warm_ms": "resume, warm page cache, ms",
    "resume_cold_ms": "resume, cold page cache, ms",
    "first_token_after_resume_warm_ms": "first token after a warm resume, ms",
    "first_token_after_resume_cold_ms": "first token after a cold resume, ms",
    "first_token_held_open_ms": "first token, agent held open, ms",
    "turn_ms": "turn, ms",
    "checkpoint_ms": "checkpoint of a turn, ms",
    "checkpoint_percent": "checkpoint, % of the turn",
    "ingest_checkpoint_percent": "checkpoint, % of an observation",
    "disk_bytes_per_token": "bytes on disk per token",
    "kv_bytes_per_token": "  of which raw K/V",
    "turn_peak_mib": "peak anonymous memory, a turn, MiB",
    "ingest_peak_mib": "peak anonymous memory, turn and reading, MiB",
    "peer_cache_mib": "  full attention, its K/V cache alone, MiB",
}


@dataclass(frozen=True)
class Expectation:
    """One thing the project promises of these numbers."""

    what: str
    value: float | None
    limit: str
    met: bool | None
    """None: it could not be judged."""


def expectations(model: str, plan: Plan, samples: Samples) -> Iterator[Expectation]:
    """The project's promises, judged by the numbers of this run alone."""
    full = [length for length in plan.lengths if length >= FULL]
    if len(full) > 1:
        short, long = min(full), max(full)
        ratio = samples.ratio(model, (long, "decode_tokens_per_s"), (short, "decode_tokens_per_s"))
        yield judged(f"decode speed at {long:,} / at {short:,}", ratio, f">= {FLAT_DECODE}",
                      ratio is not None and ratio >= FLAT_DECODE)  # fmt: skip
        low, high = (samples.middle(model, n, "ingest_peak_mib") for n in (short, long))
        ratio = None if low is None or high is None else high / low
        met = low is not None and high is not None and high <= max(FLAT_MEMORY * low, low + FLAT_MEMORY_SLACK)
        yield judged(f"peak memory at {long:,} / at {short:,}", ratio, f"<= {FLAT_MEMORY}", met)
    for length in sorted(plan.lengths):
        for metric, words in (("resume_warm_ms", "resume, warm"), ("resume_cold_ms", "resume, cold")):
            value = samples.middle(model, length, metric)
            met = value is not None and value <= RESUME_MS
            yield judged(f"{words}, at {length:,}, ms", value, f"<= {RESUME_MS:g}", met)
        value = samples.middle(model, length, "checkpoint_percent")
        met = value is not None and value <= CHECKPOINT_PERCENT
        yield judged(f"checkpoint at {length:,}, % of the turn", value, f"<= {CHECKPOINT_PERCENT:g}", met)


def ratios(model: str, plan: Plan, samples: Samples) -> Iterator[str]:
    """Ours against the peer's, round by round."""
    for length in sorted(plan.lengths):
        for what in ("ingest", "decode"):
            name = f"{what}_tokens_per_s"
            ratio = samples.ratio(model, (length, name), (length, f"peer_{name}"))
            if ratio is not None:
                yield f"{model} at {length:,}: {what} runs at {ratio:.2f} times the speed of full attention"


def show(console: Console, plan: Plan, samples: Samples, facts: Mapping[str, str]) -> None:
    """Print one table per model, the ratios, the expectations, and what was left out."""
    for model in plan.models:
        table = Table(title=f"{model}: medians; history in tokens", title_justify="left")
        table.add_column("")
        for length in sorted(plan.lengths):
            table.add_column(f"{length:,}", justify="right")
        for metric, words in METRICS.items():
            middles = [samples.middle(model, length, metric) for length in sorted(plan.lengths)]
            if any(value is not None for value in middles):
                table.add_row(words, *("-" if value is None else figure(value) for value in middles))
        console.print(table)
        for line in ratios(model, plan, samples):
            console.print(f"  {line}", highlight=False)
        show_expectations(console, expectations(model, plan, samples))
    show_end(console, samples, facts)


def show_expectations(console: Console, found: Iterable[Expectation]) -> None:
    """One line for each, with PASS or FAIL."""
    for one in found:
        word = {True: "PASS", False: "FAIL", None: "not judged"}[one.met]
        value = "-" if one.value is None else figure(one.value)
        console.print(f"  {word}  {one.what}: {value} (expected {one.limit})", highlight=False)


def show_end(console: Console, samples: Samples, facts: Mapping[str, str]) -> None:
    """What was left out or failed, and what the run ran on."""
    for line in samples.skipped:
        console.print(f"  not measured: {line}", highlight=False)
    for line in samples.failed:
        console.print(f"  failed: {line}", highlight=False)
    console.print("  " + ", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)


def append_csv(path: Path, plan: Plan, samples: Samples, facts: Mapping[str, str]) -> None:
    """Add a row per metric to the results file."""
    append_rows(path, facts, _rows(plan, samples))


def append_rows(path: Path, facts: Mapping[str, str], rows: Iterable[tuple[str, int, str, float]]) -> None:
    """Add (model, length, metric, value) rows to a results file; the header comes with the first row."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow([*facts, "model", "length", "metric", "value"])
        for model, length, metric, value in rows:
            writer.writerow([*facts.values(), model, length, metric, f"{value:.6g}"])


def write_json(path: Path, plan: Plan, samples: Samples, facts: Mapping[str, str]) -> None:
    """Everything: facts, all values, medians' judgements, what was left out."""
    found = {model: list(expectations(model, plan, samples)) for model in plan.models}
    write_record(path, samples, facts, found)


def write_record(
    path: Path, samples: Samples, facts: Mapping[str, str], found: Mapping[str, Iterable[Expectation]]
) -> None:
    """A run as one JSON object; ``found`` holds each model's expectations."""
    record = {
        "facts": dict(facts),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "values": [
            {"model": model, "length": length, "metric": metric, "values": values}
            for (model, length, metric), values in samples.values.items()
        ],
        "expectations": [
            {"model": model, "what": e.what, "value": e.value, "limit": e.limit, "met": e.met}
            for model, of_model in found.items()
            for e in of_model
        ],
        "not_measured": samples.skipped,
        "failed": samples.failed,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _rows(plan: Plan, samples: Samples) -> Iterator[tuple[str, int, str, float]]:
    lengths: Sequence[int] = sorted(plan.lengths)
    for model in plan.models:
        for length in lengths:
            for metric in METRICS:
                value = samples.middle(model, length, metric)
                if value is not None:
                    yield model, length, metric, value


def judged(what: str, value: float | None, limit: str, met: bool) -> Expectation:  # noqa: FBT001
    """An expectation; without a value it is not judged."""
    return Expectation(what, value, limit, None if value is None else met)


def figure(value: float) -> str:
    """A number as a table shows it."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
