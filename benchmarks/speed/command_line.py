"""What the command line asks for. Runs nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentmem.engine.cache import default_cache
from benchmarks.speed.plan import PEERS, Sizes

DEFAULT_MODEL = "qwen2.5-coder-0.5b"
QUICK = Sizes(unit=64, chunk=64, reply=12, peer_reply=6, llama_reply=6)


@dataclass(frozen=True)
class Asked:
    """A run."""

    models: Sequence[str]
    weights: Sequence[str]
    peers: Sequence[str]
    lengths: Sequence[int] | None
    kinds: Sequence[str] | None
    runs: int
    minutes: float
    sizes: Sizes
    long: bool
    quick: bool
    cells: Path
    folder: Path | None
    json: Path | None
    plot: Path | None
    llama_python: Path | None
    gguf: Path | None

    def wanted(self, what: str, length: int) -> bool:
        """Whether a cell is asked for. Chunks are kept up to the longest length: integrals are made of them."""
        if self.kinds is not None and what not in self.kinds:
            return False
        if self.lengths is None or not length:
            return True
        return length <= max(self.lengths) if what == "chunk" else length in self.lengths


def parse(arguments: Sequence[str] | None = None) -> Asked:
    """Read the command line; None: this process's own. Ends the process for what it does not know."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description="Measure agentmem's speed beside its peers'."
    )
    parser.add_argument("profile", nargs="?", choices=("first", "long"), default="first")
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL], help="default: %(default)s")
    parser.add_argument("--weights", nargs="+", default=["bf16"], help="kinds of our weights: bf16, int8")
    parser.add_argument(
        "--peer", nargs="*", choices=sorted(PEERS), default=["transformers"], help="default: transformers"
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=_length,
        help="only these histories, in tokens; 4K is 4,096 (default: all)",
    )
    parser.add_argument("--only", nargs="+", help="only these kinds, such as decode resume (default: all)")
    parser.add_argument("--runs", type=_length, help="rounds (default: 3, long: 5)")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no cell after so many minutes"
    )
    parser.add_argument("--quick", action="store_true", help="the same in small; nothing goes to results.csv")
    parser.add_argument("--cells", type=Path, help="where finished cells are kept (default: in the cache)")
    parser.add_argument(
        "--folder", type=Path, help="where histories are kept meanwhile (default: the system's)"
    )
    parser.add_argument("--json", type=Path, help="write everything to this file too")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw pictures (extra: plot)")
    parser.add_argument("--llama-python", type=Path, help="a Python that has llama_cpp")
    parser.add_argument("--gguf", type=Path, help="llama.cpp's weights (default: what the model came from)")
    found = parser.parse_args(arguments)
    long = found.profile == "long"
    kept = default_cache().root / "speed" / ("quick.jsonl" if found.quick else "cells.jsonl")
    return Asked(
        models=found.model,
        weights=found.weights,
        peers=found.peer,
        lengths=found.lengths,
        kinds=found.only,
        runs=found.runs or (1 if found.quick else 5 if long else 3),
        minutes=found.minutes,
        sizes=QUICK if found.quick else Sizes(),
        long=long,
        quick=found.quick,
        cells=found.cells or kept,
        folder=found.folder,
        json=found.json,
        plot=found.plot,
        llama_python=found.llama_python,
        gguf=found.gguf,
    )


def _length(text: str) -> int:
    """Tokens: 4096, 4K or 1M."""
    scale = {"K": 1_024, "M": 1_048_576}.get(text[-1:].upper(), 1)
    number = int(text[:-1] if scale > 1 else text) * scale
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number
