"""What choosing blocks costs, rule by rule and as the history grows: time per selection, digests, disk.

    python -m benchmarks.selection                          the default rule at 32K, 256K and 1M tokens
    python -m benchmarks.selection --selector two-stage,exact --tokens 32768 --json costs.json

One layer of random keys on disk, of the default model's shape; the page cache is warm. A selection while
decoding is spread over ``reselect_every`` tokens and repeated in every layer: "of a token" compares that
with ``--token-ms``, a decoded token's time without it (``python -m benchmarks.core`` measures it).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from agentmem.config import MemoryConfig
from agentmem.memory.blocks import BlockGrid
from agentmem.memory.buffers import Workspace, WorkspaceSize
from agentmem.memory.choosing import average_rows
from agentmem.memory.digest_view import DigestView
from agentmem.memory.log_blocks import BlocksState, LogBlocks, digest_missing
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import QUERY_ROWS, Selector, make_selector
from agentmem.memory.source import KVLayout
from agentmem.store import DiskHome, NewTurn, Store
from benchmarks.run_facts import run_facts, warn_if_busy

SPEC = LayerSpec(0, num_q_heads=14, num_kv_heads=2, head_dim=64, window=None, rotary=None)
"""A layer of the default model, without its rotation: queries here are random anyway."""
LAYERS = 24
LAYOUT = KVLayout(((SPEC.num_kv_heads, SPEC.head_dim),), torch.bfloat16)
PART = 8192
CPU = torch.device("cpu")
PROMISE = 20.0
"""Percent of a decoded token's time that selection may take at a million tokens."""


@dataclass(frozen=True)
class Cost:
    """One rule at one length."""

    selector: str
    tokens: int
    blocks: int
    digest_percent: float
    """Bytes of digests, of the bytes of the keys and values they stand for."""
    digest_ms_per_1k_tokens: float
    """Once per token: making the digests, all layers."""
    selection_ms: float
    """One selection of one layer while decoding, median."""
    token_percent: float
    """What selections add to a decoded token, all layers."""


def main() -> int:
    """Measure and print; exits with 1 when the default rule breaks its promise."""
    asked = _arguments()
    console, facts, config = Console(), run_facts(), MemoryConfig()
    warn_if_busy(console, facts)
    costs: list[Cost] = []
    for tokens in asked.tokens:
        with _log_of(tokens, asked.folder) as store:
            rules = [make_selector(name) for name in asked.selector.split(",")]
            costs += [_measure(store, rule, config, asked.repeats, asked.token_ms) for rule in rules]
    console.print(_table(costs, asked.token_ms))
    if asked.json is not None:
        rows = [asdict(cost) for cost in costs]
        asked.json.write_text(json.dumps({"facts": facts, "costs": rows}, indent=1), encoding="utf-8")
    kept = all(cost.token_percent <= PROMISE for cost in costs if cost.selector == config.selector)
    return 0 if kept else 1


def _measure(store: Store, selector: Selector, config: MemoryConfig, repeats: int, token_ms: float) -> Cost:
    grid = BlockGrid(config.sink_tokens, config.block_tokens)
    size = WorkspaceSize.of(config, selector)
    workspace = Workspace((SPEC,), size, LAYOUT.dtype, CPU)
    count = grid.split(store.log.length, config.window_tokens, selector.digest_span).blocks
    store.digests.select(f"{selector.name}:{selector.digest_kind}")
    start = time.perf_counter()
    digest_missing(count, grid, selector, (SPEC,), store.log, store.digests, workspace)
    digest_ms = 1000 * (time.perf_counter() - start)
    state = BlocksState(grid, count, (), CPU)
    view = DigestView(store.digests, selector, CPU)
    blocks = LogBlocks(SPEC, store.log, view, workspace, state)
    places = min(config.recall_blocks, count)
    times = []
    for seed in range(repeats + 1):  # the first touches memory and checks pages
        queries = _queries(selector, config, seed)
        start = time.perf_counter()
        with torch.inference_mode():
            selector.choose(queries, blocks, places)
        times.append(1000 * (time.perf_counter() - start))
    median = statistics.median(times[1:])
    return Cost(
        selector.name,
        store.log.length,
        count,
        100 * selector.digest_rows / (2 * config.block_tokens * selector.digest_span),
        LAYERS * digest_ms / store.log.length * 1000,
        median,
        100 * LAYERS * median / config.reselect_every / token_ms,
    )


def _queries(selector: Selector, config: MemoryConfig, seed: int) -> torch.Tensor:
    """The rows that a rule hears at a reselection: the newest tokens, and the question if it keeps that."""
    recent = min(max(QUERY_ROWS, selector.query_rows), config.reselect_every) + 1
    generator = torch.Generator().manual_seed(seed)
    rows = average_rows(
        torch.randn(SPEC.num_q_heads, recent, SPEC.head_dim, generator=generator), selector.query_rows
    )
    if selector.keeps_question:
        more = torch.randn(SPEC.num_q_heads, selector.query_rows, SPEC.head_dim, generator=generator)
        rows = torch.cat([more, rows], dim=1)
    return rows.reshape(SPEC.num_kv_heads, -1, SPEC.head_dim)


@contextmanager
def _log_of(tokens: int, folder: Path | None) -> Iterator[Store]:
    """A committed log of random keys and values on disk, with an open turn for the digests."""
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory(dir=folder, prefix="agentmem-bench-") as home:
        store = DiskHome(Path(home)).create(
            "selection", fingerprint={}, layout=LAYOUT, model="random", facts={}
        )
        for start in range(0, tokens, PART):
            n = min(PART, tokens - start)
            keys, values = (
                torch.randn(SPEC.num_kv_heads, n, SPEC.head_dim, generator=generator).to(LAYOUT.dtype)
                for _ in range(2)
            )
            store.begin()
            store.log.append([keys], [values])
            store.commit(
                NewTurn(str(start), "append", [], [0] * n, None, created_at="2026-01-01T00:00:00+00:00")
            )
        store.begin()
        try:
            yield store
        finally:
            store.abort()
            store.close()


def _table(costs: list[Cost], token_ms: float) -> Table:
    table = Table(
        title="Choosing blocks",
        caption=f"digests: % of K/V bytes; digesting: ms per 1,000 tokens, once; selection: ms a layer; "
        f"of a token: % of {token_ms:g} ms, at most {PROMISE:g} for the default rule",
    )
    table.add_column("rule", no_wrap=True)
    for heading in ("tokens", "blocks", "digests", "digesting", "selection", "of a token"):
        table.add_column(heading, justify="right")
    for cost in costs:
        table.add_row(
            cost.selector,
            f"{cost.tokens:,}",
            f"{cost.blocks:,}",
            f"{cost.digest_percent:.1f}",
            f"{cost.digest_ms_per_1k_tokens:.1f}",
            f"{cost.selection_ms:.2f}",
            f"{cost.token_percent:.1f}",
        )
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=__doc__)
    parser.add_argument("--selector", default=MemoryConfig().selector, help="names, with commas between")
    parser.add_argument("--tokens", type=int, nargs="+", default=[32_768, 262_144, 1_048_576])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--token-ms", type=float, default=66.0, help="a decoded token without selection")
    parser.add_argument("--folder", type=Path, help="where to put the log meanwhile (512 bytes a token)")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
