"""Blocks that stay on the device: one allocation of fixed size, shared by the agents of one model.

InfLLM keeps its blocks in host memory and the recently used ones on the GPU (arXiv 2402.04617 §3.3); here the
log is on disk, its hot part in the page cache, and this is the tier above. A place holds the keys, or the
values, of one block of one KV head of one layer: heads choose different blocks, and four times more blocks are
candidates, which need keys alone, than are chosen. Each layer has its own places, so that layers, which come
one after the other, do not push each other out.

A copy of what the log holds and nothing else: bytes are the same from either, so no result depends on what is
resident. What is copied here was checked by the log when it was read; **a resident block is not read again, so
damage that its file takes afterwards is met when it is next loaded**, not in each turn that uses it. Knows no
files, no turns and no branches: whoever holds a :class:`Share` says up to where its blocks are still true.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agentmem.errors import ConfigError
from agentmem.memory.couriers import HALF_BYTES, make_courier
from agentmem.memory.residency import NOWHERE, CacheUse, Residency
from agentmem.memory.rooms import Rooms
from agentmem.memory.rotation import LayerSpec

_BLOCK_BITS, _HEAD_BITS, _PART_BITS = 28, 8, 1
_SHARE_SHIFT = _BLOCK_BITS + _HEAD_BITS + _PART_BITS
KEYS, VALUES = 0, 1

Read = Callable[[Tensor, Tensor], None]
"""Reads blocks (Hkv, n) of the log into CPU memory (Hkv, n, L * D); n counts blocks."""


class Slab:
    """The places of one model's layers.

    Args:
        specs: the model's layers; only full ones have places.
        block_tokens: L.
        budget: bytes of the device that all this may take, what is on its way there included.
        dtype, device: of keys and values, and where.
        decay: see :class:`~agentmem.memory.residency.Residency`.

    Raises:
        ConfigError: the budget has no room for a place in each layer; see :func:`smallest_budget`.
    """

    def __init__(
        self,
        specs: Sequence[LayerSpec],
        block_tokens: int,
        budget: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        decay: float = 0.1,
    ) -> None:
        if budget < smallest_budget(specs, block_tokens, dtype):
            raise ConfigError(
                f"a device cache of {budget} bytes has no place for blocks of {block_tokens} tokens; give it "
                f"{smallest_budget(specs, block_tokens, dtype)} bytes at least, or 0 for none"
            )
        full = [spec for spec in specs if spec.window is None]
        self.block_tokens = block_tokens
        self.lock = threading.Lock()
        with torch.inference_mode(False):
            spare = (budget - smallest_budget(specs, block_tokens, dtype)) // dtype.itemsize
            elements = _widest(full, block_tokens) + min(spare // 16, HALF_BYTES // dtype.itemsize)
            self.courier = make_courier(elements, dtype, device)
            left = (budget - self.courier.device_bytes) // dtype.itemsize
            whole = sum(spec.num_kv_heads * spec.head_dim for spec in full)
            places = {
                spec.index: left * spec.num_kv_heads // (whole * block_tokens) for spec in full
            }  # elements in proportion to a layer's, over the L * D of a place
            sizes = [places[spec.index] * block_tokens * spec.head_dim for spec in full]
            self._memory = torch.empty(sum(sizes), dtype=dtype, device=device)
        self.places = {
            spec.index: part.view(-1, block_tokens, spec.head_dim)
            for spec, part in zip(full, self._memory.split(sizes), strict=True)
        }
        self.resident = {index: Residency(number, decay=decay) for index, number in places.items()}
        self._numbers = count()
        self._shares: weakref.WeakSet[Share] = weakref.WeakSet()
        self._left: list[int] = []  # numbers of shares nobody holds any more; an append needs no lock

    @property
    def device_bytes(self) -> int:
        """Bytes of the device that it takes; from its birth on, never more and never less."""
        return self._memory.numel() * self._memory.element_size() + self.courier.device_bytes

    @property
    def shared(self) -> bool:
        """Whether somebody holds a share."""
        return len(self._shares) > 0

    def share(self) -> Share:
        """A share for one agent, empty; what is in it is dropped when nobody holds it any more."""
        number = next(self._numbers)
        share = Share(self, number)
        self._shares.add(share)
        weakref.finalize(share, self._left.append, number).atexit = False
        return share

    def sweep(self) -> None:
        """Make the places free of shares that nobody holds. Under the lock."""
        while self._left:
            number = self._left.pop()
            for residency in self.resident.values():
                residency.drop(partial(_belongs, number))


class Share:
    """One agent's blocks in a slab. Made by :meth:`Slab.share`; one turn at a time.

    It does not keep the slab alive: whoever uses it does.
    """

    def __init__(self, slab: Slab, number: int) -> None:
        self._slab = weakref.ref(slab)
        self._number = number
        self._use = CacheUse()

    @property
    def slab(self) -> Slab | None:
        """What it is a share of; None once that was let go."""
        return self._slab()

    @property
    def use(self) -> CacheUse:
        """What happened since :meth:`start_turn`."""
        return self._use

    def start_turn(self) -> None:
        """Count from here on."""
        self._use = CacheUse()

    def keep_before(self, block: int) -> None:
        """Drop all blocks from ``block`` on, and overwrite their bytes: the log does not say the same any more."""
        slab = self.slab
        if slab is None:
            return
        with slab.lock, slab.courier.in_order(), torch.inference_mode(False), torch.no_grad():
            for layer, residency in slab.resident.items():
                gone = residency.drop(partial(self._is_from, block))
                if len(gone):
                    places = slab.places[layer]
                    places.index_fill_(0, torch.from_numpy(gone).to(places.device), 0)

    def bring(self, spec: LayerSpec, part: int, blocks: Tensor, read: Read, rooms: Rooms) -> Tensor:
        """Keys or values of blocks (Hkv, C) int64 of one layer, on the device: (Hkv, C, L, D).

        Valid until the same part is asked for again. What is not resident is read, and kept where it fits.
        """
        asked: NDArray[np.int64] = blocks.numpy()
        Hkv, C = asked.shape
        units = self._units(part, asked)
        slab = self.slab
        assert slab is not None, "a turn keeps the slab of its share"
        residency, places = slab.resident[spec.index], slab.places[spec.index]
        with slab.lock, slab.courier.in_order():
            slab.sweep()
            slots = residency.find(units.reshape(-1))
            missing = (slots == NOWHERE).reshape(Hkv, C)
            found = rooms.room(
                ("resident keys", "resident values")[part], (Hkv * C, *places.shape[1:]), places.dtype
            )
            at = torch.from_numpy(slots.clip(min=0)).to(places.device)
            torch.index_select(places, 0, at, out=found)
            lacking = int(missing.sum())
            moved = self._fetch(slab, spec, missing, units, blocks, read, found) if lacking else 0
        use = self._use
        self._use = CacheUse(use.hits + Hkv * C - lacking, use.misses + lacking, use.bytes_copied + moved)
        return found.view(Hkv, C, *places.shape[1:])

    def _fetch(
        self,
        slab: Slab,
        spec: LayerSpec,
        missing: NDArray[np.bool_],
        units: NDArray[np.int64],
        blocks: Tensor,
        read: Read,
        found: Tensor,
    ) -> int:
        """Read what is missing into its places among ``found`` (Hkv * C, L, D), and hold it; bytes that were moved.

        A read is as wide for every head, so a head that lacks fewer reads blocks it has, too: the same bytes.
        """
        places, residency = slab.places[spec.index], slab.resident[spec.index]
        widest = int(missing.sum(1).max())
        columns = np.argsort(~missing, axis=1, kind="stable")[:, :widest]  # (Hkv, n), the missing ones first
        wanted = blocks.gather(1, torch.from_numpy(columns))
        flat = columns + np.arange(len(columns))[:, None] * missing.shape[1]

        def read_some(start: int, stop: int, room: Tensor) -> None:
            read(wanted[:, start:stop], room)

        def take(start: int, stop: int, landed: Tensor) -> None:
            rows = landed.view(-1, *places.shape[1:])
            here = flat[:, start:stop]
            found.index_copy_(0, torch.from_numpy(here.reshape(-1)).to(found.device), rows)
            new = np.flatnonzero(np.take_along_axis(missing, columns[:, start:stop], 1))
            room = residency.make_room(len(new))
            new = new[: len(room)]
            if len(new):
                source = rows.index_select(0, torch.from_numpy(new).to(rows.device))
                places.index_copy_(0, torch.from_numpy(room).to(places.device), source)
                residency.hold(units.reshape(-1)[here.reshape(-1)[new]], room)

        return slab.courier.bring(len(columns), widest, places[0].numel(), read_some, take)

    def _units(self, part: int, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the residency knows blocks (Hkv, C) by."""
        heads = np.arange(len(blocks), dtype=np.int64)[:, None]
        head = ((self._number << _PART_BITS | part) << _HEAD_BITS) | heads
        return (head << _BLOCK_BITS) | blocks

    def _is_from(self, block: int, units: NDArray[np.int64]) -> NDArray[np.bool_]:
        return _belongs(self._number, units) & ((units & ((1 << _BLOCK_BITS) - 1)) >= block)


def _belongs(number: int, units: NDArray[np.int64]) -> NDArray[np.bool_]:
    mine: NDArray[np.bool_] = units >> _SHARE_SHIFT == number
    return mine


def smallest_budget(specs: Sequence[LayerSpec], block_tokens: int, dtype: torch.dtype) -> int:
    """Bytes with which every full layer has a place for each of its heads, beside what is on its way."""
    full = [spec for spec in specs if spec.window is None]
    places = sum(spec.num_kv_heads * spec.head_dim for spec in full) * block_tokens
    return dtype.itemsize * (places + 2 * _widest(full, block_tokens) + 1)


def _widest(full: Sequence[LayerSpec], block_tokens: int) -> int:
    """Elements of one block of all heads, in the layer where that is most."""
    return max(spec.num_kv_heads * spec.head_dim for spec in full) * block_tokens
