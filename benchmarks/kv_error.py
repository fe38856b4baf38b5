"""What keeping K/V in one byte an element changes: keys, attention and its output, against what the model made.

    python -m benchmarks.kv_error                                   the default model, 2,048 tokens of our own essays
    python -m benchmarks.kv_error --text notes.txt --tokens 4096 --json error.json

Dense attention of the newest 64 tokens to all before them, layer by layer, in fp32. "offsets and factors" is what
``kv_dtype="int8"`` does; the others show what each half of it is for. KIVI's keys (arXiv 2402.02750: a scale and a zero
for every channel of each 32 tokens) are nearer, but a token's bytes would then depend on its neighbours. Errors are means
over layers, and the worst layer's. Then what reading costs: CPU time of one thread, both kinds of log in turns, and as part
of a chunk's.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.engine.catalog import DEFAULT_MODEL
from agentmem.engine.model import LanguageModel
from agentmem.memory.int8_log import channels_of
from agentmem.memory.rotation import LayerSpec
from agentmem.store import InMemoryHome
from agentmem_kernels import Channels, round_rows, widen_rows
from agentmem_kernels.int8_rows import SCALE_BYTES
from benchmarks.kv_reading import cost_table, costs_of_reading
from benchmarks.recall.tasks.prose import sentences
from benchmarks.run_facts import run_facts, warn_if_busy

QUERIES = 64
GROUP = 32
CHUNK = 512
Codec = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Seen:
    """One layer's projections: queries (Hq, 64, D) of the newest tokens, keys and values (Hkv, T, D), unrotated."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    scaling: float


@dataclass(frozen=True)
class Error:
    """One way of keeping keys (values always by row), over all layers."""

    keys: str
    key_percent: float
    """Error of keys, of what tells them apart: their distance from their channels' means."""
    logit: float
    """Standard deviation of the error of q.k, as softmax meets it."""
    worst_logit: float
    moved_percent: float
    """Attention that goes to other tokens than it should."""
    output_percent: float
    """Error of attention's output, values rounded too."""
    worst_output_percent: float


def main() -> int:
    """Measure and print."""
    asked = _arguments()
    console, facts = Console(), run_facts()
    warn_if_busy(console, facts)
    torch.set_num_threads(1)  # CPU time counts threads that wait for each other, too
    model = LanguageModel.load(asked.model, device="cpu", dtype="auto")
    ids = _ids(model, asked.text, asked.tokens)
    seen, chunk_ms = _seen(model, ids)
    with torch.inference_mode():
        found: dict[str, list[list[float]]] = {}
        for spec, layer, channels in zip(model.binding.layers, seen, _channels(model), strict=True):
            for name, codec in _codecs(channels).items():
                found.setdefault(name, []).append(_errors(spec, layer, codec))
    errors = [_summary(name, rows) for name, rows in found.items()]
    costs = costs_of_reading(model.layout, asked.repeats)
    console.print(_error_table(errors, model.name, len(ids)))
    console.print(cost_table(costs, len(seen), chunk_ms, CHUNK))
    if asked.json is not None:
        made = {
            "facts": facts | {"model": model.name, "tokens": str(len(ids))},
            "errors": [asdict(one) for one in errors],
            "costs": [asdict(one) for one in costs],
            "chunk_ms": chunk_ms,
        }
        asked.json.write_text(json.dumps(made, indent=1), encoding="utf-8")
    return 0


# -- what the model makes ------------------------------------------------------------------------------


def _ids(model: LanguageModel, text: Path | None, count: int) -> list[int]:
    words = (
        text.read_text(encoding="utf-8")
        if text is not None
        else " ".join(islice(sentences(random.Random(2)), count // 8))  # noqa: S311
    )
    ids: list[int] = model.tokenizer(words, add_special_tokens=False)["input_ids"]
    if len(ids) < count:
        raise SystemExit(f"the text has {len(ids)} tokens; ask for no more with --tokens")
    return ids[:count]


class _Spy:
    """Passes attention on, and keeps what it is asked."""

    def __init__(self, inner: Any, layers: int) -> None:
        self.inner = inner
        self.kept: list[list[tuple[Tensor, Tensor, Tensor, float]]] = [[] for _ in range(layers)]

    def attend(self, layer: int, q_raw: Tensor, k_raw: Tensor, v: Tensor, **how: Any) -> Tensor:
        """See :class:`agentmem.engine.attention.AttentionContext`."""
        self.kept[layer].append(
            (q_raw[0, :, -QUERIES:].clone(), k_raw[0].clone(), v[0].clone(), how["scaling"])
        )
        out: Tensor = self.inner.attend(layer, q_raw, k_raw, v, **how)
        return out


def _seen(model: LanguageModel, ids: Sequence[int]) -> tuple[list[Seen], float]:
    """Each layer's projections, and the CPU time of a chunk in ms, median."""
    config = MemoryConfig(dense_tokens=len(ids), chunk_tokens=CHUNK)
    store = InMemoryHome().create("error", fingerprint={}, layout=model.layout, model="", facts={})
    store.begin()
    times = []
    with model.turn(store.log, store.digests, config) as session:
        spy = _Spy(session.memory, len(model.binding.layers))
        for start in range(0, len(ids), CHUNK):
            chunk = torch.tensor([list(ids[start : start + CHUNK])])
            began = time.process_time()
            session.memory.begin(chunk.shape[1])
            model.binding.forward(chunk, spy, logits_to_keep=0)
            session.memory.end()
            times.append(1000 * (time.process_time() - began))
    layers = []
    for parts in spy.kept:
        keys, values = torch.cat([one[1] for one in parts], 1), torch.cat([one[2] for one in parts], 1)
        queries = torch.cat([one[0] for one in parts], 1)[:, -QUERIES:]
        layers.append(Seen(queries, keys, values, parts[-1][3]))
    return layers, statistics.median(times)


# -- ways to keep keys ---------------------------------------------------------------------------------


def _channels(model: LanguageModel) -> list[Channels]:
    return channels_of(model.layout_for("int8"))


def _codecs(channels: Channels) -> Mapping[str, Codec]:
    none, one = torch.zeros_like(channels.offset), torch.ones_like(channels.factor)
    ways = {
        "as the model made them": None,
        "row scale alone": Channels(none, one),
        "factors": Channels(none, _reach(channels)),
        "offsets": Channels(channels.offset, one),
        "offsets and factors": channels,
    }
    made: dict[str, Codec] = {name: _kept_by(way) for name, way in ways.items()}
    return {**made, "KIVI, groups of 32": _kivi}


def _reach(channels: Channels) -> Tensor:
    """Factors for channels that keep their offset: how far from zero they go."""
    return (channels.offset.square() + channels.factor.square()).sqrt()


def _kept_by(channels: Channels | None) -> Codec:
    return lambda keys: keys if channels is None else _rounded(keys, channels)


def _rounded(x: Tensor, channels: Channels | None) -> Tensor:
    """To rows and back, by the product's own kernels."""
    heads, count, dim = x.shape
    rows = torch.empty(heads, count, dim + SCALE_BYTES, dtype=torch.int8)
    scratch, out = torch.empty(heads, count, dim), torch.empty_like(x)
    round_rows(x, rows, scratch, channels)
    widen_rows(rows, out, scratch, channels)
    return out


def _kivi(keys: Tensor) -> Tensor:
    """A scale and a zero for every channel of each group of tokens; a rest that fills no group stays exact."""
    whole = keys.shape[1] // GROUP * GROUP
    groups = keys[:, :whole].float().unflatten(1, (-1, GROUP))
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    step = ((high - low) / 255).clamp(min=1e-9)
    near = (((groups - low) / step).round() * step + low).flatten(1, 2)
    return torch.cat([near.to(keys.dtype), keys[:, whole:]], dim=1)


# -- how far off they are ------------------------------------------------------------------------------


def _errors(spec: LayerSpec, seen: Seen, codec: Codec) -> list[float]:
    """Of one layer, in the order of :class:`Error`'s means."""
    keys, exact = codec(seen.keys), seen.keys.float()
    logits, wanted = (_logits(spec, seen, one) for one in (keys, seen.keys))
    known = wanted > -torch.inf
    shares, wanted_shares = logits.softmax(-1), wanted.softmax(-1)
    group = seen.queries.shape[0] // seen.keys.shape[0]
    values = seen.values if keys is seen.keys else _rounded(seen.values, None)
    out = shares @ values.float().repeat_interleave(group, 0)
    wanted_out = wanted_shares @ seen.values.float().repeat_interleave(group, 0)
    spread = exact - exact.mean(1, keepdim=True)
    return [
        float(100 * (keys.float() - exact).norm() / spread.norm()),
        float((logits - wanted)[known].std()),
        float(50 * (shares - wanted_shares).abs().sum(-1).mean()),
        float(100 * (out - wanted_out).norm() / wanted_out.norm()),
    ]


def _logits(spec: LayerSpec, seen: Seen, keys_raw: Tensor) -> Tensor:
    """(Hq, 64, T) fp32; -inf where a query does not see a key."""
    T, n = keys_raw.shape[1], seen.queries.shape[1]
    queries = seen.queries
    if spec.rotary is not None:
        queries = spec.rotary.rotate(queries, range(T - n, T))
        keys_raw = spec.rotary.rotate(keys_raw, range(T))
    group = queries.shape[0] // keys_raw.shape[0]
    logits = queries.float() @ keys_raw.float().repeat_interleave(group, 0).transpose(1, 2) * seen.scaling
    behind = torch.arange(T - n, T)[:, None] - torch.arange(T)[None]
    hidden = behind < 0 if spec.window is None else (behind < 0) | (behind >= spec.window)
    return logits.masked_fill_(hidden, -torch.inf)


def _summary(name: str, rows: Sequence[Sequence[float]]) -> Error:
    key, logit, moved, output = (list(column) for column in zip(*rows, strict=True))
    mean = statistics.fmean
    return Error(name, mean(key), mean(logit), max(logit), mean(moved), mean(output), max(output))


# -- tables --------------------------------------------------------------------------------------------


def _error_table(errors: Sequence[Error], name: str, tokens: int) -> Table:
    table = Table(title=f"{name}, {tokens:,} tokens: keys and values in one byte an element")
    table.add_column("keys by", no_wrap=True)
    for heading in ("keys off %", "q.k off", "worst", "attention moved %", "output off %", "worst %"):
        table.add_column(heading, justify="right")
    for one in errors:
        figures = (one.key_percent, one.logit, one.worst_logit, one.moved_percent, one.output_percent)
        table.add_row(one.keys, *(f"{figure:.3f}" for figure in (*figures, one.worst_output_percent)))
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kv_error", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--text", type=Path, help="what is read; default: our own essays")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=25, help="of each timed reading")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
