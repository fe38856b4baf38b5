"""What this machine can do, measured: bytes/s of matrix-vector products, operations/s of matrix products.

Matrices have the shape of the model's own; many of them, so that no cache holds them. One call is one sample:
a run takes one in each round, beside what it is compared with. Knows no model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WEIGHT_BYTES = 192 << 20
"""Beyond any cache: as many matrices as fill this are read in turn."""
ROWS = 512
"""Rows of the matrix product: a chunk."""


@dataclass(frozen=True)
class Rates:
    """One sample."""

    bytes_per_second: float
    """Weights read by bf16 matrix-vector products, in the faster of two layouts: torch's own and oneDNN's."""
    int8_bytes_per_second: float
    """The same by torch's packed int8 product; as fast in bytes means twice as fast in weights."""
    flops_per_second: float
    """Of bf16 matrix products with a chunk of rows."""


class Floors:
    """Holds the matrices; :meth:`sample` measures.

    Args:
        rows, columns: of one weight matrix, such as the widest linear layer's.
        weight_bytes: how much of them to read in one sample.
        clock: gives seconds.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        weight_bytes: int = WEIGHT_BYTES,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        count = max(2, weight_bytes // (2 * rows * columns))
        self._wide = [torch.randn(rows, columns).to(torch.bfloat16) for _ in range(count)]
        self._narrow = [torch.randint(-127, 127, (rows, columns), dtype=torch.int8) for _ in range(count)]
        self._packed = [packed for matrix in self._wide if (packed := _packed(matrix)) is not None]
        self._scales = torch.ones(rows, dtype=torch.bfloat16)
        self._vector = torch.randn(1, columns).to(torch.bfloat16)
        self._chunk = torch.randn(ROWS, columns).to(torch.bfloat16)

    @torch.inference_mode()
    def sample(self) -> Rates:
        """Measure once: some tenths of a second."""
        wide, narrow = self._wide, self._narrow
        few = range(max(1, len(wide) // 4))
        read = self._fastest(self._vector, range(len(wide)))
        read_int8 = self._seconds(
            lambda: [torch._weight_int8pack_mm(self._vector, w, self._scales) for w in narrow]  # noqa: SLF001
        )
        computed = self._fastest(self._chunk, few)
        size = wide[0].numel()
        return Rates(
            bytes_per_second=2 * size * len(wide) / read,
            int8_bytes_per_second=size * len(narrow) / read_int8,
            flops_per_second=2 * ROWS * size * len(few) / computed,
        )

    def _fastest(self, rows: Tensor, of: range) -> float:
        """Seconds of the products with some of the matrices."""
        multiply = torch.nn.functional.linear
        seconds = self._seconds(lambda: [multiply(rows, self._wide[i]) for i in of])
        if len(self._packed) < len(self._wide):
            return seconds
        return min(seconds, self._seconds(lambda: [_multiply(rows, self._packed[i]) for i in of]))

    def _seconds(self, work: Callable[[], list[Tensor]]) -> float:
        """The second of two runs: the first may set something up."""
        work()
        started = self._clock()
        work()
        return self._clock() - started


def _packed(matrix: Tensor) -> Tensor | None:
    """The matrix in oneDNN's own layout; None where torch or the processor cannot."""
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001
            return None
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(matrix, None)  # noqa: SLF001
        return packed
    except (AttributeError, RuntimeError):
        return None


def _multiply(rows: Tensor, packed: Tensor) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, packed, None, "none", [], "")  # noqa: SLF001
    return result
