"""Triton's compiler takes every kernel, for GPUs that need not be there: the interpreter accepts more than it does."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "gpu_compiling.py"
KERNELS = {"_block_sums", "_choose", "_enter", "_keys", "_place", "_row_sums"}


@pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed: there is none for this system"
)
def test_every_kernel_compiles_without_a_gpu(tmp_path: Path) -> None:
    """For compute 9.0, to machine code."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "90"], env=environment, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert {line.split()[0] for line in done.stdout.splitlines()} == KERNELS
    assert "False" not in done.stdout
