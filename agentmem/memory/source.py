"""What the memory needs from wherever an agent's tokens are kept.

Protocols only: ``memory`` defines them, ``store`` implements them, so cold blocks can be fetched in
the middle of attention without ``memory`` knowing files. All tensors here are on the CPU; K/V are in
the layout's dtype. ``layer`` counts the model's attention layers from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from agentmem.errors import ShapeError
from agentmem_kernels.int8_rows import SCALE_BYTES


@dataclass(frozen=True)
class Int8Codec:
    """What rows of one byte an element must be read with; see :mod:`agentmem.memory.int8_log`."""

    dtype: torch.dtype
    """What they are read as: the model's."""
    channels: bytes = field(repr=False)
    """Of every key channel its offset, then of every one its factor, (layers, Hkv, D) flat in bfloat16."""


@dataclass(frozen=True)
class KVLayout:
    """The shape of one token's K/V: ``layers[i]`` is (Hkv, D) of layer i; ``dtype`` of every element."""

    layers: tuple[tuple[int, int], ...]
    dtype: torch.dtype
    codec: Int8Codec | None = None
    """None: elements are what the model made. Else a row is D codes and, behind them, their scale."""

    @property
    def bytes_per_token(self) -> int:
        """Bytes of raw K and V that one token takes, over all layers."""
        return sum(2 * heads * dim for heads, dim in self.layers) * self.dtype.itemsize

    @property
    def decoded(self) -> KVLayout:
        """What the model sees of it, and what digests are kept in."""
        if self.codec is None:
            return self
        return KVLayout(tuple((heads, dim - SCALE_BYTES) for heads, dim in self.layers), self.codec.dtype)

    @property
    def kv_dtype(self) -> str:
        """As options have it: "model" or "int8"."""
        return "model" if self.codec is None else "int8"

    def in_int8(self, channels: bytes) -> KVLayout:
        """The same K/V in rows of one byte an element. Raises ShapeError when the channels are not its keys'."""
        wanted = 4 * sum(heads * dim for heads, dim in self.layers)
        if len(channels) != wanted:
            raise ShapeError(f"key channels: expected {wanted} bytes, got {len(channels)}")
        layers = tuple((heads, dim + SCALE_BYTES) for heads, dim in self.layers)
        return KVLayout(layers, torch.int8, Int8Codec(self.dtype, channels))


class TokenLog(Protocol):
    """The raw keys and values of one agent's current branch, addressed by token position.

    Positions [0, committed) belong to finished turns; [committed, length) to the open turn and
    vanish unless it is committed. Reading verifies stored bytes before they are handed out.
    """

    @property
    def layout(self) -> KVLayout:
        """Shapes and dtype of what is kept."""
        ...

    @property
    def length(self) -> int:
        """Tokens that can be read."""
        ...

    @property
    def committed(self) -> int:
        """Tokens that belong to committed turns."""
        ...

    @property
    def dead(self) -> Sequence[tuple[int, int]]:
        """Forgotten ranges [start, stop), sorted, disjoint; their K/V read as zeros."""
        ...

    def append(self, keys_raw: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Add T tokens to the open turn: per layer (Hkv, T, D). T may be 0; nothing is synced."""
        ...

    def truncate(self, length: int) -> None:
        """Drop the open turn's tokens from ``length`` on; ``length`` >= committed."""
        ...

    def read(
        self, layer: int, start: int, stop: int, keys_out: Tensor | None, values_out: Tensor | None
    ) -> None:
        """Copy tokens [start, stop) of all heads into (Hkv, stop - start, D) buffers."""
        ...

    def gather(self, layer: int, tokens: Tensor, keys_out: Tensor | None, values_out: Tensor | None) -> None:
        """Copy chosen tokens per head: ``tokens`` (Hkv, S) int64 -> (Hkv, S, D) buffers."""
        ...


@dataclass(frozen=True)
class RuleState:
    """What a rule with running state is committed with after a turn: plain numbers per token and per block.

    Most rules have none, and cost nothing here.
    """

    kind: str
    """Names whose state it is, as for digests."""
    start: int
    """The first token that ``running`` speaks of; it goes on to the end of the log."""
    running: Tensor
    """(rows, tokens) fp32 on the CPU: one column per token; what a forgotten one had is set to 0."""
    first: int
    """The first block that ``closed`` speaks of: blocks that the turn closed."""
    closed: Tensor
    """(blocks, width) int16 on the CPU; what is needed to make their digests again."""


class RuleStates(Protocol):
    """The states that turns of the current branch were committed with.

    Unlike digests they cannot be computed again, so they are part of a turn: durable with it, checked by
    their checksum when read, and dropped when it is forgotten.
    """

    def last(self, kind: str) -> RuleState | None:
        """What the newest committed turn left; None when it left none of that kind. Raises DamagedError."""
        ...

    def closed(self, kind: str) -> Sequence[tuple[int, Tensor]]:
        """(``first``, ``closed``) of every committed turn that has them, oldest first. Raises DamagedError."""
        ...

    def keep(self, state: RuleState) -> None:
        """What the open turn shall be committed with; the last call counts."""
        ...


class DigestLog(Protocol):
    """The digests of the current branch's blocks, (Hkv, D) vectors per block and layer.

    A cache: what is missing or damaged is counted as not there, and is computed again from the log.
    """

    @property
    def states(self) -> RuleStates:
        """What rules remember beside their digests."""
        ...

    @property
    def count(self) -> int:
        """Blocks whose digests can be read."""
        ...

    def select(self, kind: str) -> None:
        """Say which digests are meant (rule, sinks, block size); another kind empties the log."""
        ...

    def append(self, digests: Sequence[Tensor]) -> None:
        """Add n blocks after the last: per layer (Hkv, n, D) of the decoded layout, in its dtype."""
        ...

    def truncate(self, count: int) -> None:
        """Drop digests from block ``count`` on."""
        ...

    def parts(self, layer: int) -> Sequence[Tensor]:
        """The digests as tensors (Hkv, n_i, D) whose concatenation along dim 1 is all ``count``."""
        ...
