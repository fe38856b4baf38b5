"""How much of what is asked for is on the device already: hit rate against the size of the cache, policy by policy.

    python -m benchmarks.residency                              a made-up trace, in seconds
    python -m benchmarks.residency --record smollm2-135m --tokens 8192 --save trace.npz
    python -m benchmarks.residency --trace trace.npz --json rates.json

Integers alone: nothing is copied, so no GPU is needed. A trace is what selections asked for in one agent's life, in
order: for a layer, keys or values, and the blocks of each head. Made up, heads like some blocks (by Zipf's law) and
change what they like a little with each selection. Recorded, a model reads the repository's own documents, then
answers questions. "traffic" is what crosses to the device, as a part of what would without a cache: with whole blocks
a head's miss brings the other heads' along.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from agentmem.agent.hot_blocks import HotBlocks
from agentmem.agent.turns import Asked as Asking
from agentmem.agent.turns import Turns
from agentmem.config import MemoryConfig
from agentmem.engine.device_cache import DeviceCache
from agentmem.engine.model import LanguageModel
from agentmem.engine.sampling import SamplingOptions
from agentmem.memory.blocks import BlockGrid
from agentmem.memory.residency import NOWHERE, Residency
from agentmem.memory.rooms import Rooms
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.slab import KEYS, VALUES, Read, Share
from agentmem.store import InMemoryHome
from agentmem.store.base import Store
from benchmarks.run_facts import run_facts

POLICIES = {"LRU": 0.0, "decay 0.1": 0.1, "decay 0.9": 0.9, "LFU": 1.0}
ARRANGEMENTS = ("per head", "whole blocks", "one pool")
"""A place for one head's block, with as many places for each layer (what the slab does); for a block of all heads;
and one head's again, but all layers in one pool."""
QUESTIONS = (
    "What is a turn?", "Which file holds the index?", "How are blocks chosen?", "What is a digest?",
    "When is a page checked?", "What does forget leave behind?", "Who may write to an agent?", "What is a receipt?",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One request: ``blocks`` (Hkv, C) of a layer's keys (part 0) or values (1)."""

    layer: int
    part: int
    blocks: NDArray[np.int64]


@dataclass(frozen=True)
class Trace:
    """Requests in order, and of what: layers, heads, and blocks there were at the end."""

    layers: int
    heads: int
    blocks: int
    asked: list[Asked]


@dataclass(frozen=True)
class Rate:
    """One arrangement and policy at one size."""

    percent: float
    """Size of the cache, of the bytes of all keys and values in the history."""
    arrangement: str
    policy: str
    hit_percent: float
    traffic_percent: float


def replay(trace: Trace, percent: float, arrangement: str, decay: float) -> tuple[float, float]:
    """Hit rate and traffic, in percent, over a trace."""
    layers, heads = trace.layers, trace.heads
    wide = heads if arrangement == "whole blocks" else 1
    places = max(1, int(percent / 100 * 2 * trace.blocks * heads / wide))
    pools = 1 if arrangement == "one pool" else layers
    caches = [Residency(places * layers // pools, decay=decay) for _ in range(pools)]
    wanted = hits = moved = 0
    for one in trace.asked:
        rows = np.arange(heads)[:, None] * (wide == 1)
        units = ((one.layer * heads + rows) * 2 + one.part) * trace.blocks + one.blocks
        distinct, times = np.unique(units, return_counts=True)
        cache = caches[one.layer % pools]
        missing = cache.find(distinct) == NOWHERE
        room = cache.make_room(int(missing.sum()))
        cache.hold(distinct[missing][: len(room)], room)
        wanted += units.size
        hits += int(times[~missing].sum())
        moved += int(missing.sum()) * wide
    return 100 * hits / wanted, 100 * moved / wanted


def made_up(
    layers: int = 4,
    heads: int = 2,
    blocks: int = 1000,
    selections: int = 200,
    chosen: int = 32,
    seed: int = 0,
) -> Trace:
    """Zipf and drift: each head has an order of blocks it likes, and moves some of them at each selection.

    A selection asks for the keys of four times as many candidates, then for keys and values of those chosen.
    """
    chance = np.random.default_rng(seed)
    likes = [[chance.permutation(blocks) for _ in range(heads)] for _ in range(layers)]
    weights = 1 / np.arange(1, blocks + 1) ** 1.2
    asked = []
    for _ in range(selections):
        for layer in range(layers):
            candidates = []
            for head in range(heads):
                order = likes[layer][head]
                moved = chance.choice(blocks, 2 * max(1, blocks // 100), replace=False).reshape(2, -1)
                order[moved[0]], order[moved[1]] = order[moved[1]].copy(), order[moved[0]].copy()
                candidates.append(
                    order[chance.choice(blocks, 4 * chosen, replace=False, p=weights / weights.sum())]
                )
            best = np.sort(np.array(candidates)[:, :chosen])
            asked.append(Asked(layer, KEYS, np.sort(candidates)))
            asked += [Asked(layer, part, best) for part in (KEYS, VALUES)]
    return Trace(layers, heads, blocks, asked)


class Recorder(Share):
    """A share that notes what it is asked for."""

    def __init__(self, share: Share) -> None:
        slab = share.slab
        assert slab is not None, "the model's cache has a budget"
        super().__init__(slab, 1 << 20)
        self.asked: list[Asked] = []

    def bring(self, spec: LayerSpec, part: int, blocks: Tensor, read: Read, rooms: Rooms) -> Tensor:
        """See :meth:`Share.bring`."""
        self.asked.append(Asked(spec.index, part, blocks.numpy().copy()))
        return super().bring(spec, part, blocks, read, rooms)


class RecordedBlocks(HotBlocks):
    """Hands all turns of one agent, which only goes on, the same recorder."""

    def __init__(self) -> None:
        super().__init__()
        self._recorder: Recorder | None = None

    def begun(self, cache: DeviceCache, store: Store, config: MemoryConfig) -> Share | None:
        """See :meth:`HotBlocks.begun`."""
        if self._recorder is None:
            share = cache.share(None, config.block_tokens)
            assert share is not None, "the model's cache has a budget"
            self._recorder = Recorder(share)
        return self._recorder

    @property
    def asked(self) -> list[Asked]:
        """All requests so far."""
        return [] if self._recorder is None else self._recorder.asked


def recorded(name: str, tokens: int) -> Trace:
    """A model reads so many tokens of documents, then answers :data:`QUESTIONS` in up to 64 tokens each."""
    model, config, hot = LanguageModel.load(name), MemoryConfig(), RecordedBlocks()
    model.device_cache.set_budget(1 << 28)
    root = Path(__file__).parent.parent
    text = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted(root.glob("docs/*.md")))
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"][:tokens]
    store = InMemoryHome().create(
        "traced", fingerprint=model.fingerprint, layout=model.layout, model=model.name, facts={}
    )
    turns, when = Turns(model, store, config, hot), datetime.now(UTC)
    for start in range(0, len(ids), 4000):
        part = [{"role": "user", "content": str(model.tokenizer.decode(ids[start : start + 4000]))}]
        turns.write(Asking("append", part, when))
    for question in QUESTIONS:
        ask = Asking("chat", [{"role": "user", "content": question}], when)
        for _ in turns.reply(ask, SamplingOptions(max_new_tokens=64), (), remember=True):
            pass
    heads = max(heads for heads, _ in model.layout.layers)
    full = sorted({one.layer for one in hot.asked})
    asked = [Asked(full.index(one.layer), one.part, one.blocks) for one in hot.asked]
    blocks = BlockGrid(config.sink_tokens, config.block_tokens).whole_before(store.log.length)
    return Trace(len(full), heads, blocks, asked)


def save(trace: Trace, path: Path) -> None:
    """One npz of plain arrays."""
    shape = [trace.layers, trace.heads, trace.blocks]
    what = [(one.layer, one.part, one.blocks.shape[1]) for one in trace.asked]
    blocks = np.concatenate([one.blocks.ravel() for one in trace.asked]).astype(np.int32)
    np.savez_compressed(path, shape=shape, what=what, blocks=blocks)


def loaded(path: Path) -> Trace:
    """What :func:`save` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        layers, heads, count = (int(number) for number in arrays["shape"])
        blocks, asked, at = arrays["blocks"].astype(np.int64), [], 0
        for layer, part, width in arrays["what"].tolist():
            asked.append(Asked(layer, part, blocks[at : at + heads * width].reshape(heads, width)))
            at += heads * width
    return Trace(layers, heads, count, asked)


def rates(trace: Trace, sizes: Iterable[float]) -> Iterator[Rate]:
    """Every arrangement and policy at every size."""
    for percent in sizes:
        for arrangement in ARRANGEMENTS:
            for policy, decay in POLICIES.items():
                yield Rate(percent, arrangement, policy, *replay(trace, percent, arrangement, decay))


def main() -> int:
    """Replay and print."""
    asked = _arguments()
    if asked.trace is not None:
        trace = loaded(asked.trace)
    else:
        trace = made_up() if asked.record is None else recorded(asked.record, asked.tokens)
    if asked.save is not None:
        save(trace, asked.save)
    found = list(rates(trace, asked.percent))
    Console().print(_table(found, trace))
    if asked.json is not None:
        rows = [asdict(rate) for rate in found]
        asked.json.write_text(json.dumps({"facts": run_facts(), "rates": rows}, indent=1), encoding="utf-8")
    return 0


def _table(found: Sequence[Rate], trace: Trace) -> Table:
    table = Table(
        title=f"{len(trace.asked):,} requests, {trace.layers} layers, {trace.heads} KV heads, {trace.blocks:,} blocks",
        caption="hit rate, and behind the slash what crosses to the device; % of what is asked for",
    )
    table.add_column("cache, % of K/V", justify="right")
    table.add_column("places")
    for policy in POLICIES:
        table.add_column(policy, justify="right")
    cells = {(one.percent, one.arrangement, one.policy): one for one in found}
    for percent in dict.fromkeys(one.percent for one in found):
        for arrangement in ARRANGEMENTS:
            row = [cells[percent, arrangement, policy] for policy in POLICIES]
            shown = [f"{one.hit_percent:.0f} / {one.traffic_percent:.0f}" for one in row]
            table.add_row(f"{percent:g}", arrangement, *shown)
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.residency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--percent", type=float, nargs="+", default=[2, 5, 10, 20, 40], help="sizes of the cache"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--trace", type=Path, help="replay what --save wrote")
    source.add_argument("--record", metavar="MODEL", help="record a life of this model")
    parser.add_argument("--tokens", type=int, default=8192, help="how much it reads")
    parser.add_argument("--save", type=Path, help="keep the trace (npz)")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
