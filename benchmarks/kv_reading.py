"""What reading a log in one byte an element costs, beside the model's own dtype: CPU time, both in turns.

Random K/V of one layer on disk, the page cache warm. Knows no model: part of :mod:`benchmarks.kv_error`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.memory.int8_log import readable
from agentmem.memory.rooms import Rooms
from agentmem.memory.source import KVLayout
from agentmem.store import DiskHome, NewTurn

STORED = 16_384
"""Tokens of the log."""
PART = 512


@dataclass(frozen=True)
class Cost:
    """Reading what one layer's working set takes, in microseconds of CPU time."""

    what: str
    model: float
    int8: float


def cost_table(costs: Sequence[Cost], layers: int, chunk_ms: float, chunk: int) -> Table:
    """A row for each reading; below it what int8 adds to a chunk that takes so long without."""
    more = sum(one.int8 - one.model for one in costs) * layers / 1000
    table = Table(
        title="Reading them, per layer, CPU time",
        caption=f"{layers} layers: {more:+.1f} ms for each chunk of {chunk} tokens, {100 * more / chunk_ms:+.1f} % of "
        f"its {chunk_ms:,.0f} ms of CPU time",
    )
    table.add_column("what", no_wrap=True)
    for heading in ("model, us", "int8, us", "ratio"):
        table.add_column(heading, justify="right")
    for one in costs:
        table.add_row(one.what, f"{one.model:.0f}", f"{one.int8:.0f}", f"{one.int8 / one.model:.2f}")
    return table


def costs_of_reading(made: KVLayout, repeats: int) -> list[Cost]:
    """The window and sinks of a layer, its recalled blocks, and the candidates' keys, by default options."""
    config = MemoryConfig()
    heads, dim = made.layers[0]
    layout = KVLayout(((heads, dim),), made.dtype)
    kinds = {"model": layout, "int8": layout.in_int8(_plain_channels(layout))}
    window, blocks = config.window_tokens + config.sink_tokens, config.recall_blocks
    out = [torch.empty(heads, 4 * config.recall_tokens, dim, dtype=layout.dtype) for _ in "kv"]
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="agentmem-bench-") as home:
        logs = {name: _log(DiskHome(Path(home) / name), kept) for name, kept in kinds.items()}
        for seed in range(repeats + 1):  # the first touches memory and checks pages
            chosen, candidates = (_tokens(heads, n, config.block_tokens, seed) for n in (blocks, 4 * blocks))
            for name, log in logs.items():
                calls: dict[str, Callable[[], None]] = {
                    "window and sinks": lambda log=log: log.read(
                        0, STORED - window, STORED, *(one[:, :window] for one in out)
                    ),
                    "recalled blocks": lambda log=log, at=chosen: log.gather(
                        0, at, *(one[:, : at.shape[1]] for one in out)
                    ),
                    "candidates' keys": lambda log=log, at=candidates: log.gather(
                        0, at, out[0][:, : at.shape[1]], None
                    ),
                }
                for what, call in calls.items():
                    began = time.process_time()
                    call()
                    if seed:
                        times.setdefault((what, name), []).append(1e6 * (time.process_time() - began))
    names = dict.fromkeys(what for what, _ in times)
    return [
        Cost(what, statistics.median(times[what, "model"]), statistics.median(times[what, "int8"]))
        for what in names
    ]


def _plain_channels(layout: KVLayout) -> bytes:
    count = sum(heads * dim for heads, dim in layout.layers)
    return torch.cat([torch.zeros(count), torch.ones(count)]).bfloat16().view(torch.uint8).numpy().tobytes()


def _log(home: DiskHome, layout: KVLayout) -> Any:
    """A log of random K/V on disk, committed."""
    store = home.create("costs", fingerprint={}, layout=layout, model="random", facts={})
    generator = torch.Generator().manual_seed(0)
    store.begin()
    log = readable(store.log, Rooms(torch.device("cpu")))
    for _ in range(0, STORED, PART):
        shape = (layout.layers[0][0], PART, layout.decoded.layers[0][1])
        pair = [torch.randn(shape, generator=generator).to(layout.decoded.dtype) for _ in "kv"]
        log.append([pair[0]], [pair[1]])
    store.commit(NewTurn("0", "append", [], [0] * STORED, None, created_at="2026-01-01T00:00:00+00:00"))
    return log


def _tokens(heads: int, blocks: int, size: int, seed: int) -> Tensor:
    """Tokens of some blocks per head, in order: (Hkv, blocks * L)."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [
        torch.randperm(STORED // size, generator=generator)[:blocks].sort().values for _ in range(heads)
    ]
    return (torch.stack(chosen)[..., None] * size + torch.arange(size)).flatten(1)
