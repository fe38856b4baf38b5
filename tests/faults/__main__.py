"""The gates of reliability: agents are killed, starved and cut off, and must come back whole.

    python -m faults [--long] [--only 1,4,"3 every"] [--jobs 2] [--seed 1] [--page docs/RELIABILITY.md]

Prints one line for each gate and ends with 1 if anything failed. A gate that needs root is skipped with the reason
without it; without a C compiler nothing can be tried, which is a failure where CI=true.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from faults import shim

SHOWN = 10


def main() -> int:
    """Start again with the shim preloaded, then run the gates."""
    asked = _arguments()
    why = shim.missing()
    if why is not None:
        print(f"no gate can be tried: {why}")
        return int(os.environ.get("CI") == "true")
    if "shim.so" not in os.environ.get("LD_PRELOAD", ""):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**shim.preloaded_environment(Path(folder)), "OMP_NUM_THREADS": "1"}
            return os.spawnve(
                os.P_WAIT, sys.executable, [sys.executable, "-m", "faults", *sys.argv[1:]], environment
            )
    return _run(asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the long profile instead of the one for CI")
    parser.add_argument("--only", default="", help="how gates' names begin, with commas: 1,4")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", type=Path, help="write the rows into the table of this page")
    return parser.parse_args()


def _run(asked: argparse.Namespace) -> int:
    import torch  # here, so that it loads in the process with the shim alone

    from faults.gates import GATES, Run
    from faults.results import GateResult, timed
    from faults.tables import write

    torch.set_num_threads(1)
    wanted = tuple(f"{name.strip()} " for name in asked.only.split(",") if name.strip())
    run = Run(asked.seed, asked.jobs)
    results: list[GateResult] = []
    for gate in GATES:
        tried = gate.long if asked.long else gate.quick
        if tried is None or (wanted and not f"{gate.name} ".startswith(wanted)):
            continue
        result = timed(gate.name, partial(tried, run))
        results.append(result)
        print(result.line, flush=True)
        for failure in result.found.failures[:SHOWN]:
            print(f"    {failure}", flush=True)
        if asked.page is not None:
            write(asked.page, results, note="" if asked.long else "; the size for CI")
    if not results:
        print(f"no gate of this profile begins with {asked.only!r}: {', '.join(gate.name for gate in GATES)}")
        return 2
    return int(any(result.found.failures for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
