"""Each kernel by torch's operations and by what was written for it, side by side, at the default model's shapes.

    python -m benchmarks.kernels                        histories of 32K and 1M tokens
    python -m benchmarks.kernels --tokens 4096 --json kernels.json

On a GPU that is Triton, on a CPU compiled C (one thread each way with ``--threads 1``); a kernel without such a form is timed
alone. "call" is wall time per call with many calls in flight, which is what a decoded token pays when it waits for launches;
"GPU" is the time on the device alone, from a captured graph. Both paths take turns, medians are shown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.memory.selectors import QUERY_ROWS, top_blocks
from agentmem_kernels import (
    Backend,
    BackendError,
    Kept,
    Rotation,
    attend,
    best_and_neighbours,
    best_blocks,
    block_masses,
    enter,
    multiply_int8,
    rotate_into,
)
from benchmarks.run_facts import run_facts, warn_if_busy

HQ, HKV, D, LAYERS = 14, 2, 64, 24
"""A layer of the default model."""
CALLS = 20
"""Calls between two looks at the clock."""
Call = Callable[[Backend], object]


@dataclass(frozen=True)
class Timed:
    """One kernel at one size, in microseconds; None where it was not."""

    kernel: str
    size: str
    torch_call: float
    own_call: float | None
    torch_device: float | None
    own_device: float | None


def main() -> int:
    """Measure and print."""
    asked = _arguments()
    console, facts = Console(width=None if sys.stdout.isatty() else 120), run_facts()
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    warn_if_busy(console, facts)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else facts["cpu"]
    with torch.inference_mode():
        timed = [_timed(*case, device, asked.repeats) for case in _cases(asked.tokens, device)]
    console.print(_table(timed, name))
    if asked.json is not None:
        rows = [asdict(row) for row in timed]
        asked.json.write_text(json.dumps({"facts": facts | {"device": name}, "kernels": rows}, indent=1))
    return 0


def _cases(histories: list[int], device: torch.device) -> list[tuple[str, str, Call]]:
    """What is measured: a name, a size, and how it is called with a backend."""
    config = MemoryConfig()
    generator = torch.Generator().manual_seed(0)
    budget = config.budget + config.chunk_tokens + config.reselect_every

    def noise(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    half = D // 2
    partner = torch.tensor([*range(half, D), *range(half)], device=device)
    rotation = Rotation(noise(budget, D), noise(budget, D), partner, in_fp32=False)
    buffers = noise(HKV, budget, D), noise(HKV, budget, D)
    kept = Kept(*(noise(H, config.chunk_tokens, D) for H in (HQ, HKV, HKV)))
    cases: list[tuple[str, str, Call]] = []

    def entering(T: int) -> Call:
        q, k, v = (noise(T, H, D).transpose(0, 1) for H in (HQ, HKV, HKV))
        start = config.budget
        return lambda backend: enter(q, k, v, rotation, start, *buffers, kept=kept, at=0, backend=backend)

    cases += [("enter", f"{T} new", entering(T)) for T in (1, config.chunk_tokens)]
    raw = noise(HKV, config.window_tokens, D), noise(HKV, config.window_tokens, D)
    room = [buffer[:, : config.window_tokens] for buffer in buffers]
    cases.append(
        (
            "rotate_into",
            f"{config.window_tokens} in order",
            lambda backend: rotate_into(*raw, rotation, 0, *room, backend=backend),
        )
    )
    slab = noise(HKV, 8 * config.recall_tokens, D), noise(HKV, 8 * config.recall_tokens, D)
    tokens = torch.stack([torch.randperm(slab[0].shape[1], generator=generator) for _ in range(HKV)])
    tokens = tokens[:, : config.recall_tokens].contiguous().to(device)
    places = [buffer[:, : config.recall_tokens] for buffer in buffers]
    cases.append(
        (
            "rotate_into",
            f"{config.recall_tokens} chosen",
            lambda backend: rotate_into(*slab, rotation, 0, *places, tokens=tokens, backend=backend),
        )
    )
    queries = noise(HKV, HQ // HKV * QUERY_ROWS, D, dtype=torch.float32)
    L, edge = config.block_tokens, config.block_tokens // 4
    candidates = noise(HKV, 4 * config.recall_blocks, L, D)
    cases.append(
        (
            "block_masses",
            f"{4 * config.recall_blocks} blocks of {L}, edges",
            lambda backend: block_masses(queries, candidates, edge=edge, backend=backend),
        )
    )
    for history in histories:
        cases += _by_history(history, config, queries, noise)
    keys, values = (buffer[None, :, : config.budget + 1] for buffer in buffers)
    whole = [buffer[None, :, : config.budget + config.chunk_tokens] for buffer in buffers]
    T, S = config.chunk_tokens, config.budget + config.chunk_tokens
    hidden = torch.ones(T, S, dtype=torch.bool, device=device).triu(S - T + 1)
    mask = torch.zeros(T, S, dtype=torch.bfloat16, device=device).masked_fill_(hidden, -torch.inf)
    one, many = noise(1, HQ, 1, D), noise(1, HQ, T, D)
    cases += [
        (
            "attend",
            f"1 to {config.budget + 1}",
            lambda backend: attend(one, keys, values, scaling=0.125, backend=backend),
        ),
        (
            "attend",
            f"{T} to {S}, causal",
            lambda backend: attend(many, *whole, scaling=0.125, mask=mask, backend=backend),
        ),
    ]
    return [*cases, *_int8_cases(noise)] if device.type == "cpu" else cases


def _int8_cases(noise: Callable[..., Tensor]) -> list[tuple[str, str, Call]]:
    """The widest and the deepest layer, more of each than a cache holds."""
    return [
        ("multiply_int8", f"{M} x {K} to {N}", _int8_call(noise, M, N, K))
        for N, K in ((2 * 4864, 896), (896, 4864))
        for M in (1, 4)
    ]


def _int8_call(noise: Callable[..., Tensor], M: int, N: int, K: int) -> Call:
    x, scales = noise(M, K), noise(N)
    turns = itertools.cycle(
        [torch.randint(-127, 128, (N, K), dtype=torch.int8) for _ in range(CALLS)],
    )
    return lambda backend: multiply_int8(x, next(turns), scales, backend=backend)


def _by_history(
    history: int, config: MemoryConfig, queries: Tensor, noise: Callable[..., Tensor]
) -> list[tuple[str, str, Call]]:
    blocks = max(1, (history - config.window_tokens - config.sink_tokens) // config.block_tokens)
    digests, scores = noise(HKV, blocks, 1, D), noise(HKV, blocks, dtype=torch.float32)
    candidates = min(4 * config.recall_blocks, blocks)

    def choose(backend: Backend) -> Tensor:
        if backend == "torch":  # as the CPU does it
            return top_blocks(scores, candidates)
        return best_blocks(scores, candidates, backend=backend)

    masses = noise(3, HKV, candidates, dtype=torch.float32).abs()
    ids = torch.arange(candidates).mul(blocks // candidates).expand(HKV, -1).contiguous().to(masses.device)
    K = min(config.recall_blocks, candidates)

    def neighbours(backend: Backend) -> Tensor:
        return best_and_neighbours(masses, ids, blocks, K, K - K * 3 // 10, 0.5, backend=backend)

    return [
        ("best_and_neighbours", f"{K} of {blocks:,}", neighbours),
        (
            "block_masses",
            f"{blocks:,} digests",
            lambda backend: block_masses(queries, digests, backend=backend),
        ),
        ("best_blocks", f"{candidates} of {blocks:,}", choose),
    ]


def _timed(kernel: str, size: str, call: Call, device: torch.device, repeats: int) -> Timed:
    own: Backend = "triton" if device.type == "cuda" else "native"
    backends: tuple[Backend, ...] = ("torch", own) if _runs(call, own) else ("torch",)
    calls: dict[str, list[float]] = {backend: [] for backend in backends}
    for number in range(repeats + 1):  # the first compiles and touches memory
        for backend in backends:
            took = _clock(lambda backend=backend: call(backend), device)
            if number:
                calls[backend].append(took)
    medians = {backend: statistics.median(times) for backend, times in calls.items()}
    waits = {"torch"} if kernel == "best_blocks" else set()  # for its result, which no graph can capture
    alone = {
        backend: _on_device(call, backend, device, repeats) for backend in backends if backend not in waits
    }
    return Timed(kernel, size, medians["torch"], medians.get(own), alone.get("torch"), alone.get(own))


def _runs(call: Call, backend: Backend) -> bool:
    """Whether there is such a form of a kernel here."""
    try:
        call(backend)
    except BackendError:
        return False
    return True


def _clock(run: Callable[[], object], device: torch.device) -> float:
    """Microseconds a call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1e6 * (time.perf_counter() - start) / CALLS


def _on_device(call: Call, backend: Backend, device: torch.device, repeats: int) -> float | None:
    """Microseconds of a captured graph of calls; None on the CPU."""
    if device.type != "cuda":
        return None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call(backend)
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        times.append(1e6 * (time.perf_counter() - start) / CALLS)
    return statistics.median(times[1:])


def _table(timed: list[Timed], name: str) -> Table:
    table = Table(
        title=f"Kernels on {name}",
        caption="microseconds, one layer; ratio: torch's calls over ours, above 1 is faster",
    )
    table.add_column("kernel", no_wrap=True)
    for heading in ("size", "torch call", "our call", "ratio", "torch GPU", "our GPU"):
        table.add_column(heading, justify="right")

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:,.1f}"

    for row in timed:
        ratio = None if row.own_call is None else row.torch_call / row.own_call
        numbers = (row.torch_call, row.own_call, ratio, row.torch_device, row.own_device)
        table.add_row(row.kernel, row.size, *map(shown, numbers))
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[32_768, 1_048_576], help="histories")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's own choice)")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
