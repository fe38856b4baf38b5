"""``benchmarks.kernels`` runs every kernel: by torch, and by what was written for the device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from agentmem_kernels import on_cpu
from benchmarks import kernels


def test_every_kernel_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row per kernel and size; the GPU's columns are filled where there is one, ours where there is a form of ours."""
    out = tmp_path / "kernels.json"
    monkeypatch.setattr(kernels, "CALLS", 1)
    monkeypatch.setattr(
        "sys.argv", ["kernels", "--tokens", "2048", "9000", "--repeats", "1", "--json", str(out)]
    )

    assert kernels.main() == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["kernels"]
    timed = {row["kernel"] for row in rows}
    ours = {row["kernel"] for row in rows if row["own_call"] is not None}
    everywhere = {"attend", "best_and_neighbours", "best_blocks", "block_masses", "enter", "rotate_into"}
    assert all(row["torch_call"] > 0 for row in rows)
    if torch.cuda.is_available():
        assert timed == everywhere
        return
    assert timed == everywhere | {"multiply_int8"}
    assert all(row["torch_device"] is None and row["own_device"] is None for row in rows)
    in_c = {"attend", "block_masses", "enter", "multiply_int8"}
    assert ours == (in_c if on_cpu.hindrance() is None else set())
