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
from collections.abc import Callable
from pathlib import Path

from agentmem import AgentMemory, LanguageModel, MemoryKey

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
        rows = [
            _row(name, step, turns if name == "a turn" else max(3, turns // 4))
            for name, step in steps.items()
        ]
        for agent in agents.values():
            agent.close()
    return rows


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
