"""What torch.compile would win for a decoded token, and what it would cost: one decoder layer, compiled and as it runs now.

    python -m benchmarks.compiling                              the default model
    python -m benchmarks.compiling --model smollm2-135m --json compiling.json

A layer is two pieces of arithmetic with attention between them, which reads the store and is no compiler's
business. Both pieces are compiled by Inductor with its weights frozen in, as it packs them best, and take turns with
the same pieces as agentmem runs them (packed weights, one call for each product). Printed: milliseconds of one token,
the seconds compiling took (each layer holds weights of its own, so each is compiled anew), and after how many tokens that is won
back. CUDA graphs need a GPU and are not measured here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo.config as dynamo
import torch._inductor.config as inductor
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from agentmem.engine.lean import LeanLayer
from agentmem.engine.model import LanguageModel
from agentmem.engine.packed import PackedLinear
from benchmarks.run_facts import run_facts, warn_if_busy

Both = Callable[[Tensor, Tensor], Tensor]
"""What a layer does with a token's state and with what its attention saw."""


class Before(nn.Module):
    """What a layer does until attention."""

    def __init__(self, layer: LeanLayer) -> None:
        super().__init__()
        self.norm, self.attn_in = layer.norm_before, layer.attn_in

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, K) -> queries, keys and values side by side."""
        made: Tensor = self.attn_in(self.norm(hidden))
        return made


class After(nn.Module):
    """What a layer does once it has attended."""

    def __init__(self, layer: LeanLayer) -> None:
        super().__init__()
        self.attn_out, self.norm = layer.attn_out, layer.norm_between
        self.mlp_in, self.activation, self.mlp_out = layer.mlp_in, layer.activation, layer.mlp_out

    def forward(self, hidden: Tensor, seen: Tensor) -> Tensor:
        """(B, T, K) and what attention saw -> (B, T, K)."""
        hidden = hidden + self.attn_out(seen)
        gate, up = self.mlp_in(self.norm(hidden)).chunk(2, dim=-1)
        out: Tensor = hidden + self.mlp_out(self.activation(gate) * up)
        return out


class Layer(nn.Module):
    """Both pieces as they run now, one after the other; attention would stand between them."""

    def __init__(self, layer: LeanLayer) -> None:
        super().__init__()
        self.before, self.after = Before(layer), After(layer)

    def forward(self, hidden: Tensor, seen: Tensor) -> Tensor:
        """(B, T, K) and what attention saw -> (B, T, K); queries, keys and values are made and dropped."""
        self.before(hidden)
        out: Tensor = self.after(hidden, seen)
        return out


def unpacked(piece: nn.Module) -> nn.Module:
    """The same piece with ordinary linear layers, which a compiler packs as it likes."""
    for name, child in list(piece.named_children()):
        if isinstance(child, PackedLinear):
            weight = child.weight
            plain = nn.Linear(child.in_features, child.out_features, bias=False, dtype=weight.dtype)
            plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), child.bias
            setattr(piece, name, plain)
    return piece


class Compiled:
    """The two pieces of one layer, compiled; ``seconds`` is how long that took."""

    def __init__(self, layer: LeanLayer, hidden: Tensor, seen: Tensor) -> None:
        started = time.perf_counter()
        self._before = torch.compile(unpacked(Before(layer)), dynamic=False)
        self._after = torch.compile(unpacked(After(layer)), dynamic=False)
        # as an option of torch.compile freezing does nothing; to dynamo each layer is a change of the first
        with inductor.patch(freezing=True), dynamo.patch(recompile_limit=1_000):
            for _ in range(2):
                self(hidden, seen)
        self.seconds = time.perf_counter() - started

    def __call__(self, hidden: Tensor, seen: Tensor) -> Tensor:
        """As :meth:`Layer.forward`."""
        self._before(hidden)
        out: Tensor = self._after(hidden, seen)
        return out


def measure(layers: list[LeanLayer], compiled: int, rounds: int) -> dict[str, float]:
    """Medians: milliseconds of a layer, plain and compiled, each between other layers; seconds of compiling one."""
    width = layers[0].attn_out.out_features
    hidden = torch.randn(1, 1, width, dtype=torch.bfloat16)
    seen = torch.randn(1, 1, layers[0].attn_out.in_features, dtype=torch.bfloat16)
    plain: list[Both] = [Layer(layer) for layer in layers]
    made: list[Compiled] = [Compiled(layer, hidden, seen) for layer in layers[:compiled]]
    for ours, theirs in zip(plain, made, strict=False):
        torch.testing.assert_close(ours(hidden, seen), theirs(hidden, seen), atol=0.05, rtol=0.05)
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for times, measured in ((found[False], plain[:compiled]), (found[True], made)):
            for one in measured:
                started = time.perf_counter()
                one(hidden, seen)
                times.append(1000 * (time.perf_counter() - started))
            for one in plain[compiled:]:  # so that weights come from memory, as in a whole token
                one(hidden, seen)
    return {
        "plain_ms": statistics.median(found[False]),
        "compiled_ms": statistics.median(found[True]),
        "compile_s": statistics.median(one.seconds for one in made),
    }


def main() -> int:
    """Measure and print; returns 0."""
    asked = _arguments()
    console, facts = Console(), run_facts()
    warn_if_busy(console, facts)
    with console.status(f"{asked.model}: loading"):
        model = LanguageModel.load(asked.model)
    layers = [module for module in model.binding.model.modules() if isinstance(module, LeanLayer)]
    with torch.no_grad(), console.status(f"{asked.model}: compiling and measuring"):
        found = measure(layers, min(asked.layers, len(layers) - 1), asked.rounds)
    show(console, asked.model, len(layers), found)
    console.print("  " + ", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    if asked.json is not None:
        asked.json.write_text(json.dumps({"facts": facts, **found}, indent=1) + "\n", encoding="utf-8")
    return 0


def show(console: Console, name: str, layers: int, found: dict[str, float]) -> None:
    """The table."""
    won = (found["plain_ms"] - found["compiled_ms"]) * layers
    table = Table(title=f"{name}: the arithmetic of one decoded token beside attention, {layers} layers")
    for column in ("", "a layer, ms", "all layers, ms"):
        table.add_column(column)
    for label, key in (("as it runs", "plain_ms"), ("torch.compile", "compiled_ms")):
        table.add_row(label, f"{found[key]:.3f}", f"{found[key] * layers:.1f}")
    console.print(table)
    whole = found["compile_s"] * layers
    console.print(f"Compiling takes {found['compile_s']:.1f} s a layer, {whole:.0f} s for all.")
    console.print(
        f"A token would take {won:.1f} ms less: won back after {1000 * whole / won:,.0f} tokens."
        if won > 0
        else f"A token would take {-won:.1f} ms more."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compiling",
        description="What torch.compile would win for a decoded token.",
    )
    parser.add_argument(
        "--model", default="qwen2.5-coder-0.5b", help="a model's name (default: qwen2.5-coder-0.5b)"
    )
    parser.add_argument("--layers", type=int, default=3, help="layers to compile (default: 3)")
    parser.add_argument("--rounds", type=int, default=30, help="tokens of each kind (default: 30)")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
