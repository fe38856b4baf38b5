"""One turn's way to blocks through a slab: what is not resident comes from the log.

Knows no rule, no buffers and no positions.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from agentmem.memory.residency import CacheUse
from agentmem.memory.rooms import Rooms
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.slab import KEYS, VALUES, Share, Slab
from agentmem.memory.source import TokenLog

TokensOf = Callable[[Tensor], Tensor]
"""Blocks (Hkv, n) on the CPU -> their tokens' positions in the log, (Hkv, n * L)."""


class Resident:
    """Reads one agent's blocks, (Hkv, C) int64 on any device, to the device: (Hkv, C, L, D).

    What is handed out is valid until as much is asked for again.
    """

    def __init__(self, share: Share, slab: Slab, log: TokenLog, rooms: Rooms) -> None:
        self._share = share
        self._slab = slab  # kept alive for the length of the turn
        self._log = log
        self._rooms = rooms

    def keys_raw(self, spec: LayerSpec, blocks: Tensor, tokens_of: TokensOf) -> Tensor:
        """Raw keys. Raises what the log raises; nothing that was not read is resident then."""

        def read(wanted: Tensor, room: Tensor) -> None:
            self._log.gather(spec.index, tokens_of(wanted), _as_tokens(room, spec), None)

        return self._share.bring(spec, KEYS, blocks.cpu(), read, self._rooms)

    def values(self, spec: LayerSpec, blocks: Tensor, tokens_of: TokensOf) -> Tensor:
        """Values, as :meth:`keys_raw`."""

        def read(wanted: Tensor, room: Tensor) -> None:
            self._log.gather(spec.index, tokens_of(wanted), None, _as_tokens(room, spec))

        return self._share.bring(spec, VALUES, blocks.cpu(), read, self._rooms)

    @property
    def use(self) -> CacheUse:
        """What happened in this turn so far."""
        return self._share.use

    def truncate(self, blocks: int) -> None:
        """The log was cut, and holds no whole block from ``blocks`` on."""
        self._share.keep_before(blocks)


def resident_of(share: Share | None, log: TokenLog, rooms: Rooms) -> Resident | None:
    """The way through a share; None without one, or when its slab was just let go."""
    slab = None if share is None else share.slab
    return None if share is None or slab is None else Resident(share, slab, log, rooms)


def _as_tokens(room: Tensor, spec: LayerSpec) -> Tensor:
    """(Hkv, n, L * D) -> (Hkv, n * L, D)."""
    return room.view(len(room), -1, spec.head_dim)
