"""``benchmarks.kernels`` runs every kernel; without a GPU by torch alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import kernels


def test_every_kernel_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row per kernel and size; Triton's columns are filled where there is a GPU, and nowhere else."""
    out = tmp_path / "kernels.json"
    monkeypatch.setattr(kernels, "CALLS", 1)
    monkeypatch.setattr(
        "sys.argv", ["kernels", "--tokens", "2048", "9000", "--repeats", "1", "--json", str(out)]
    )

    assert kernels.main() == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["kernels"]
    assert {row["kernel"].split()[0] for row in rows} == {
        "attend",
        "best_and_neighbours",
        "best_blocks",
        "block_masses",
        "enter",
        "rotate_into",
    }
    assert all(row["torch_call"] > 0 for row in rows)
    if not torch.cuda.is_available():
        assert all(row["triton_call"] is None and row["torch_device"] is None for row in rows)
