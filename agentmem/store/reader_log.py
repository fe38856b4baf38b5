"""The token log of somebody who only reads, while the agent's writer may forget, collect or rebuild.

What is handed out is what was there when the agent was opened, or nothing: a writer commits to the index before
it touches bytes that are there, so a read between two looks at the same commit, at which all these tokens were still
what they had been, saw none of it. Checksums alone cannot tell: bytes may change after they were compared, and those
of a segment that is opened later are the later ones. Knows the index's number of commits; nothing of what the writer
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from agentmem.errors import DamagedError, StaleReaderError
from agentmem.memory.source import KVLayout
from agentmem.store.extents import BranchMap, Tail
from agentmem.store.log import DiskTokenLog
from agentmem.store.segment import SegmentSet


def stale(agent_id: str, what: str) -> StaleReaderError:
    """The error for a reader that is overtaken."""
    return StaleReaderError(
        f"agent {agent_id!r} was changed by its writer since it was opened here, or is just being: {what}. Open it again."
    )


class ReaderTokenLog(DiskTokenLog):
    """See :class:`DiskTokenLog`.

    ``commits`` counts the writer's commits, ``unchanged`` says whether the index still has all of these tokens where
    they were, and ``changing`` whether forgotten bytes are still to be overwritten.

    Raises:
        StaleReaderError: the tokens are not any more what they were.
    """

    def __init__(
        self,
        layout: KVLayout,
        segments: SegmentSet,
        branch: BranchMap,
        tail: Tail,
        dead: Iterable[tuple[int, int]],
        commits: Callable[[], int],
        unchanged: Callable[[], bool],
        changing: Callable[[], bool],
    ) -> None:
        super().__init__(layout, segments, branch, tail, dead)
        self._commits = commits
        self._unchanged = unchanged
        self._changing = changing
        self._opened_at = self._seen = commits()

    def read(
        self, layer: int, start: int, stop: int, keys_out: Tensor | None, values_out: Tensor | None
    ) -> None:
        """Copy tokens [start, stop) of all heads into (Hkv, stop - start, D) buffers."""
        self._steady(lambda: super(ReaderTokenLog, self).read(layer, start, stop, keys_out, values_out))

    def gather(self, layer: int, tokens: Tensor, keys_out: Tensor | None, values_out: Tensor | None) -> None:
        """Copy chosen tokens per head: ``tokens`` (Hkv, S) int64 -> (Hkv, S, D) buffers."""
        self._steady(lambda: super(ReaderTokenLog, self).gather(layer, tokens, keys_out, values_out))

    def _steady(self, read: Callable[[], None]) -> None:
        """Read until no commit came between; what was checked before one is checked again."""
        while True:
            before = self._commits()
            if before != self._seen:
                if not self._unchanged():
                    raise stale(self._segments.agent_id, "what it had was forgotten or moved")
                self._segments.distrust()
                self._segments.stop_mapping()
                self._seen = before
            try:
                read()
            except DamagedError as error:
                if self._commits() == self._opened_at and self._unchanged() and not self._changing():
                    raise
                raise stale(
                    self._segments.agent_id, f"{error.file}, {error.where}, is not what it was"
                ) from error
            if self._commits() == before:
                return
