"""What encryption at rest costs: the same turns on a plain and on an encrypted agent, taken in turns, as ratios.

    python -m benchmarks.encryption [--model smollm2-135m] [--turns 15] [--json]

A turn reads about 90 tokens and writes 16. Plain and encrypted turns alternate, so that a machine that is busy
with something else is so for both; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import torch

from agentmem import AgentMemory, LanguageModel, MemoryKey
from agentmem.store import DiskHome, NewTurn, Store

AT = "2026-01-01T00:00:00+00:00"
TURN_TOKENS = 120
TEXT = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. " * 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = measure(LanguageModel.load(asked.model), asked.turns)
    if asked.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['what']:<28} plain {row['plain_ms']:9.2f} ms   encrypted {row['encrypted_ms']:9.2f} ms   "
            f"{row['ratio']:.3f} times"
        )


def measure(model: LanguageModel, turns: int) -> list[dict[str, float | str]]:
    """One row per operation: milliseconds plain and encrypted, and how many times as long it takes."""
    with tempfile.TemporaryDirectory() as folder:
        homes = {
            "plain": (Path(folder, "plain"), None),
            "encrypted": (Path(folder, "enc"), MemoryKey.generate()),
        }
        agents = {
            kind: AgentMemory.resume("ada", model=model, home=home, key=key)
            for kind, (home, key) in homes.items()
        }

        def reopen(kind: str) -> None:
            home, key = homes[kind]
            agents[kind].close()
            agents[kind] = AgentMemory.resume("ada", model=model, home=home, key=key)

        steps: dict[str, Callable[[str], object]] = {
            "a turn": lambda kind: agents[kind].chat(TEXT, max_new_tokens=16),
            "opening": reopen,
            "the first turn after it": lambda kind: agents[kind].chat(TEXT, max_new_tokens=16),
        }
        stores = {kind: _store(model, home, key) for kind, (home, key) in homes.items()}
        rows = [
            _row(name, step, turns if name == "a turn" else max(3, turns // 4))
            for name, step in steps.items()
        ]
        commits = _row("storing such a turn", lambda kind: _commit(stores[kind]), 4 * turns)
        rows.append(commits)
        extra = float(commits["encrypted_ms"]) - float(commits["plain_ms"])
        turn = float(rows[0]["plain_ms"])
        rows.append(
            {
                "what": "a turn, by that",
                "plain_ms": turn,
                "encrypted_ms": turn + extra,
                "ratio": 1 + extra / turn,
            }
        )
        for one in (*agents.values(), *stores.values()):
            one.close()
    return rows


def _store(model: LanguageModel, home: Path, key: MemoryKey | None) -> Store:
    """An agent without a model, of the model's shapes."""
    return DiskHome(home, key=key).create(
        "shapes", fingerprint={}, layout=model.layout, model="none", facts={}
    )


def _commit(store: Store) -> None:
    """A turn's keys and values in, read once, and committed."""
    layout, start = store.log.layout, store.log.committed
    store.begin()
    keys = [torch.ones(heads, TURN_TOKENS, dim, dtype=layout.dtype) for heads, dim in layout.layers]
    store.log.append(keys, keys)
    for layer, (heads, dim) in enumerate(layout.layers):
        out = torch.empty(heads, TURN_TOKENS, dim, dtype=layout.dtype)
        store.log.read(layer, start, start + TURN_TOKENS, out, out)
    store.commit(
        NewTurn(uuid.uuid4().hex, "append", [{"role": "user", "content": TEXT}], [1] * TURN_TOKENS, None, AT)
    )


def _row(name: str, step: Callable[[str], object], times: int) -> dict[str, float | str]:
    found: dict[str, list[float]] = {"plain": [], "encrypted": []}
    for kind in found:
        step(kind)  # what is made once is made now
    for number in range(times):
        for kind in sorted(found, reverse=bool(number % 2)):
            started = time.perf_counter()
            step(kind)
            found[kind].append(1000 * (time.perf_counter() - started))
    plain, encrypted = (statistics.median(found[kind]) for kind in ("plain", "encrypted"))
    return {"what": name, "plain_ms": plain, "encrypted_ms": encrypted, "ratio": encrypted / plain}


if __name__ == "__main__":
    main()
