"""A profile as tables: each part's milliseconds, its part of the whole, and the least the machine would need.

"Renewed": a step at which blocks are chosen anew. "Floor": what reading the part's bytes, or doing its operations,
would take at the measured rates. Measures nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table

from benchmarks.speed.parts import ATTENTION, LINEAR_ATTENTION, LINEAR_MLP, VOCABULARY
from benchmarks.speed.shape import ModelShape
from benchmarks.speed.stopwatch import Lap


class Profiled(Protocol):
    """What is shown; see :class:`benchmarks.speed.profile.Profile`."""

    model: str
    tokens: int
    seen: int
    chunk: int
    shape: ModelShape
    held: list[Lap]
    renewed: list[Lap]
    chunks: list[Lap]
    plain_held: list[Lap]
    plain_renewed: list[Lap]
    plain_chunks: list[Lap]
    commits: list[float]
    missing: list[str]

    def rate(self, name: str) -> float:
        """The median of a measured rate."""
        ...


def show_profile(console: Console, found: Profiled) -> None:
    """Print both tables, then the whole beside the floors."""
    console.print(decode_table(found))
    console.print(chunk_table(found))
    for line in summary(found):
        console.print(f"  {line}", highlight=False)


def decode_table(found: Profiled) -> Table:
    """One decoded token."""
    table = Table(
        title=f"{found.model}: one decoded token, ms (behind {found.tokens:,} tokens, {found.seen:,} seen)",
        title_justify="left",
    )
    table.add_column("part", no_wrap=True)
    for heading in ("ms", "%", "calls", "renewed", "floor"):
        table.add_column(heading, justify="right")
    floors = decode_floors(found)
    _add_parts(table, found.held, floors, found.renewed)
    return table


def chunk_table(found: Profiled) -> Table:
    """One chunk of a text that is read."""
    table = Table(
        title=f"{found.model}: one chunk of {found.chunk} tokens, ms (behind {found.tokens:,} tokens)",
        title_justify="left",
    )
    table.add_column("part", no_wrap=True)
    for heading in ("ms", "%", "calls", "floor"):
        table.add_column(heading, justify="right")
    _add_parts(table, found.chunks, chunk_floors(found), None)
    return table


def decode_floors(found: Profiled) -> dict[str, float]:
    """Milliseconds to read a part's bytes once, at the measured rate of matrix-vector products."""
    shape, rate = found.shape, found.rate("bytes_per_second")
    return {
        LINEAR_ATTENTION: 1000 * shape.attention_weight_bytes / rate,
        LINEAR_MLP: 1000 * shape.mlp_bytes / rate,
        VOCABULARY: 1000 * shape.vocabulary_bytes / rate,
        ATTENTION: 1000 * shape.attention_bytes(found.seen) / rate,
    }


def chunk_floors(found: Profiled) -> dict[str, float]:
    """Milliseconds to do a part's operations, at the measured rate of matrix products."""
    shape, rate = found.shape, found.rate("flops_per_second")
    return {
        LINEAR_ATTENTION: 2000 * found.chunk * shape.attention_weights / rate,
        LINEAR_MLP: 2000 * found.chunk * shape.mlp_weights / rate,
        VOCABULARY: 2000 * shape.vocabulary_weights / rate,
        ATTENTION: 1000 * shape.attention_flops(found.seen, found.chunk) / rate,
    }


def summary(found: Profiled) -> list[str]:
    """The whole, without the stopwatch, beside the floors; and what the stopwatch costs."""
    first = (
        f"measured on this machine: {found.rate('bytes_per_second') / 1e9:.1f} GB/s of bf16 weights "
        f"({found.rate('int8_bytes_per_second') / 1e9:.1f} GB/s of int8) in matrix-vector products, "
        f"{found.rate('flops_per_second') / 1e9:.0f} GFLOP/s in matrix products of {found.chunk} rows"
    )
    lines = [first]
    for what, plain, watched, floors in (
        ("a token, selection held", found.plain_held, found.held, decode_floors(found)),
        ("a token, selection renewed", found.plain_renewed, found.renewed, None),
        ("a chunk", found.plain_chunks, found.chunks, chunk_floors(found)),
    ):
        if plain:
            lines.append(_whole(what, plain, watched, floors))
    if found.plain_held and found.plain_chunks:
        speed = found.chunk / typical(found.plain_chunks).total
        lines.append(
            f"reading {speed:.0f} tokens/s; the commit of an observation {_ms(found.commits):.1f} ms"
        )
    if found.missing:
        lines.append(
            f"named, but not there any more (their time is their callers'): {', '.join(found.missing)}"
        )
    return lines


def _whole(
    what: str, plain: Sequence[Lap], watched: Sequence[Lap], floors: Mapping[str, float] | None
) -> str:
    ms = 1000 * typical(plain).total
    line = f"{what}: {ms:.1f} ms"
    if watched:
        line += f" (with the stopwatch {100 * (1000 * typical(watched).total / ms - 1):+.1f} %)"
    if floors is not None:
        least = sum(floors.values())
        line += f"; floor {least:.1f} ms, {100 * least / ms:.0f} % of it"
    return line


def typical(laps: Sequence[Lap]) -> Lap:
    """The mean of the fastest quarter: other work on the machine slows single laps, and parts still add up."""
    fastest = sorted(laps, key=lambda lap: lap.total)[: -(-len(laps) // 4)]
    count = max(1, len(fastest))
    parts = {part for lap in fastest for part in lap.seconds}
    return Lap(
        sum(lap.total for lap in fastest) / count,
        {part: sum(lap.seconds.get(part, 0.0) for lap in fastest) / count for part in parts},
        {part: round(sum(lap.calls.get(part, 0) for lap in fastest) / count) for part in parts},
    )


def _add_parts(
    table: Table, laps: Sequence[Lap], floors: Mapping[str, float], beside: Sequence[Lap] | None
) -> None:
    own, other = typical(laps), typical(beside or ())
    parts = own.seconds.keys() | other.seconds.keys()
    for part in sorted(parts, key=lambda part: (own.seconds.get(part, 0.0), other.seconds.get(part, 0.0)))[
        ::-1
    ]:
        seconds = own.seconds.get(part, 0.0)
        row = [part, f"{1000 * seconds:.2f}", f"{100 * seconds / own.total:.1f}" if own.total else "-"]
        row.append(str(own.calls.get(part, 0)))
        if beside is not None:
            row.append(f"{1000 * other.seconds.get(part, 0.0):.2f}")
        table.add_row(*row, f"{floors[part]:.2f}" if part in floors else "")
    table.add_section()
    whole = [f"{1000 * own.total:.2f}", "100", ""]
    if beside is not None:
        whole.append(f"{1000 * other.total:.2f}")
    table.add_row("the whole", *whole, f"{sum(floors.values()):.2f}")


def _ms(seconds: Sequence[float]) -> float:
    known = [value for value in seconds if value]
    return 1000 * statistics.median(known) if known else 0.0
