"""A log of rows in one byte an element, seen as what the model made: half the bytes, and nearly the same numbers.

Values share a scale per token and head. Keys do too, but only after their channels were made alike: real keys have
channels whose offset is many times what tells tokens apart (Qwen's key biases), and a scale for the whole row would
drown the others. That keys want statistics per channel and values per token is KIVI's finding (arXiv 2402.02750),
which takes them from each group of tokens. Here a channel's offset and factor are found once, when the agent is made,
and never change: a token's bytes must not depend on its neighbours, or they would depend on how a text was cut into
chunks, a slot could not be written once, and a resumed agent would not be the one that never stopped.

What is read is the same each time, so all that holds of a log bit for bit holds of this one; it is not what was
appended. Forgotten tokens read as zeros, as everywhere. Knows no files: stores keep the rows like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from agentmem.errors import ShapeError
from agentmem.memory.rooms import Rooms
from agentmem.memory.source import KVLayout, TokenLog
from agentmem_kernels import Channels, round_rows, widen_rows

STEP_ELEMENTS = 1 << 20
"""Elements of a layer that are rounded or widened at once: what they need on the way stays near the processor."""


def readable(log: TokenLog, rooms: Rooms) -> TokenLog:
    """The log as the model sees it: itself, unless its rows are codes; their way leads through ``rooms``, on the CPU."""
    return log if log.layout.codec is None else Int8Log(log, rooms)


class Int8Log:
    """See :class:`agentmem.memory.source.TokenLog`; ``log`` is one whose layout has a codec."""

    def __init__(self, log: TokenLog, rooms: Rooms) -> None:
        self._log = log
        self._rooms = rooms
        self._layout = log.layout.decoded
        self._channels = channels_of(log.layout)

    @property
    def layout(self) -> KVLayout:
        """Shapes and dtype of what is read and appended."""
        return self._layout

    @property
    def length(self) -> int:
        """Tokens that can be read."""
        return self._log.length

    @property
    def committed(self) -> int:
        """Tokens that belong to committed turns."""
        return self._log.committed

    @property
    def dead(self) -> Sequence[tuple[int, int]]:
        """Forgotten ranges [start, stop), sorted, disjoint; their K/V read as zeros."""
        return self._log.dead

    def append(self, keys_raw: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Add T tokens to the open turn, rounded: per layer (Hkv, T, D)."""
        self._log.append(self._rounded("keys", keys_raw), self._rounded("values", values))

    def truncate(self, length: int) -> None:
        """Drop the open turn's tokens from ``length`` on; ``length`` >= committed."""
        self._log.truncate(length)

    def read(
        self, layer: int, start: int, stop: int, keys_out: Tensor | None, values_out: Tensor | None
    ) -> None:
        """Copy tokens [start, stop) of all heads into (Hkv, stop - start, D) buffers."""
        count = max(0, stop - start)
        rows = self._rows(layer, count, keys_out, values_out)
        self._log.read(layer, start, stop, *rows)
        self._widen(layer, rows, (keys_out, values_out), count)

    def gather(self, layer: int, tokens: Tensor, keys_out: Tensor | None, values_out: Tensor | None) -> None:
        """Copy chosen tokens per head: ``tokens`` (Hkv, S) int64 -> (Hkv, S, D) buffers."""
        count = tokens.shape[-1]
        rows = self._rows(layer, count, keys_out, values_out)
        self._log.gather(layer, tokens, *rows)  # at once: the store finds what lies together
        self._widen(layer, rows, (keys_out, values_out), count)

    # -- on the way ----------------------------------------------------------------------------------

    def _steps(self, layer: int, count: int) -> Iterator[tuple[int, int]]:
        """``count`` tokens in parts."""
        heads, dim = self._layout.layers[layer]
        step = max(1, STEP_ELEMENTS // (heads * dim))
        for low in range(0, count, step):
            yield low, min(low + step, count)

    def _rows(
        self, layer: int, count: int, keys_out: Tensor | None, values_out: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Room for the rows of what is asked for. Raises ShapeError when that has no room for what they stand for."""
        heads, dim = self._layout.layers[layer]
        wanted, dtype = (heads, count, dim), self._layout.dtype
        rooms: list[Tensor | None] = [None, None]
        for part, (name, out) in enumerate((("keys_out", keys_out), ("values_out", values_out))):
            if out is None:
                continue
            if out.shape != wanted or out.dtype != dtype:
                raise ShapeError(f"{name}: expected {wanted} {dtype}, got {tuple(out.shape)} {out.dtype}")
            width = self._log.layout.layers[layer][1]
            rooms[part] = self._rooms.room(f"rows for {name}", (heads, count, width), torch.int8)
        return rooms[0], rooms[1]

    def _widen(
        self,
        layer: int,
        rows: tuple[Tensor | None, Tensor | None],
        outs: tuple[Tensor | None, Tensor | None],
        count: int,
    ) -> None:
        for found, out, channels in zip(rows, outs, (self._channels[layer], None), strict=True):
            if found is None or out is None:
                continue
            for low, high in self._steps(layer, count):
                scratch = self._scratch(layer, high - low)
                widen_rows(found[:, low:high], out[:, low:high], scratch, channels)

    def _rounded(self, kind: str, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Per layer the rows (Hkv, T, D + 2) of tensors (Hkv, T, D)."""
        count = tensors[0].shape[1] if len(tensors) and tensors[0].ndim == 3 else 0
        found = [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]
        wanted = [((heads, count, dim), self._layout.dtype) for heads, dim in self._layout.layers]
        if found != wanted:
            raise ShapeError(f"{kind}: expected {wanted}, got {found}")
        rows = []
        for layer, tensor in enumerate(tensors):
            heads, width = self._log.layout.layers[layer]
            room = self._rooms.room(f"{kind} of layer {layer}", (heads, count, width), torch.int8)
            channels = self._channels[layer] if kind == "keys" else None
            for low, high in self._steps(layer, count):
                part = tensor.detach()[:, low:high]
                round_rows(part, room[:, low:high], self._scratch(layer, high - low), channels)
            rows.append(room)
        return rows

    def _scratch(self, layer: int, count: int) -> Tensor:
        heads, dim = self._layout.layers[layer]
        return self._rooms.room("scratch", (heads, count, dim), torch.float32)


def channels_of(layout: KVLayout) -> list[Channels]:
    """Each layer's key channels, from the codec's bytes."""
    assert layout.codec is not None, "a log of codes has a codec"
    flat = torch.frombuffer(bytearray(layout.codec.channels), dtype=torch.bfloat16).float()
    sizes = [heads * dim for heads, dim in layout.decoded.layers]
    offsets, factors = (half.split(sizes) for half in flat.chunk(2))
    return [
        Channels(offset.view(heads, 1, dim), factor.view(heads, 1, dim))
        for offset, factor, (heads, dim) in zip(offsets, factors, layout.decoded.layers, strict=True)
    ]
