"""The benchmark of torch.compile: what is compiled is what runs, and the verdict follows from the figures."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console
from torch import nn

from agentmem.engine.packed import PackedLinear, pack_linears
from benchmarks.compiling import show, unpacked


class Piece(nn.Module):
    """Two products."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(96, 80, dtype=torch.bfloat16)
        self.down = nn.Linear(80, 96, bias=False, dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(T, 96) -> (T, 96)."""
        out: torch.Tensor = self.down(self.up(x))
        return out


def test_what_is_compiled_has_the_weights_of_what_runs() -> None:
    """Ordinary layers again, with the same results."""
    torch.manual_seed(0)
    piece, x = Piece(), torch.randn(5, 96).bfloat16()
    if pack_linears(piece) != 2:
        pytest.skip("weights are not packed on this CPU")
    with torch.no_grad():
        wanted = piece(x)
        plain = unpacked(piece)

        assert not any(isinstance(part, PackedLinear) for part in plain.modules())
        torch.testing.assert_close(plain(x), wanted)


@pytest.mark.parametrize(
    ("compiled", "said"),
    [(0.75, "6.0 ms less: won back after 2,000 tokens"), (1.5, "12.0 ms more")],
)
def test_the_verdict(compiled: float, said: str) -> None:
    """A win is set against the seconds it took; a loss is called one."""
    console = Console(record=True, width=200)
    show(console, "model", 24, {"plain_ms": 1.0, "compiled_ms": compiled, "compile_s": 0.5})

    assert said in console.export_text()
