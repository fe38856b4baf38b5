"""What a run ran on: versions, processor, threads, load. Kept with every result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from rich.console import Console

from agentmem_kernels.backends import native
from benchmarks.machine import cpu_name

BUSY = 0.5
"""A load average above this at the start is said, and kept with the results."""


def run_facts() -> dict[str, str]:
    """The facts, in the order of the results file's columns."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "agentmem": f"{version('agentmem-kv')} ({_kernels()} kernels)",
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "cpu": cpu_name(),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _kernels() -> str:
    """Whose kernels a bfloat16 model on the CPU gets here."""
    return "C" if native(torch.empty(2, dtype=torch.bfloat16)) else "torch"


def warn_if_busy(console: Console, facts: Mapping[str, str]) -> None:
    """Say so when other work makes speeds look lower than they are."""
    if float(facts["load"]) > BUSY:
        console.print(
            f"Other processes keep this machine busy (load {facts['load']}): ratios still mean something, "
            "speeds are too low.",
            style="yellow",
        )
