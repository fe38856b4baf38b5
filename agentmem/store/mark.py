"""What was acknowledged last, outside the index: a commit that its write-ahead log lost is missed.

SQLite takes a damaged write-ahead log for one that was never finished: what follows the damage is dropped
without a word. So after each commit its number is written into a small file of its own. It is never
synced, and needs not be: it is written once the commit is on the medium, so it can be behind the index but
never ahead of it. One that cannot be read, or is not there, says nothing. Knows no SQLite.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

from xxhash import xxh3_64_digest

from agentmem.errors import DamagedError
from agentmem.store.failures import is_lost, of_disk
from agentmem.store.files import opened, read_all, write_all

_NUMBER = struct.Struct("<Q")


class CommitMark:
    """The mark of one agent's index.

    Args:
        folder: the agent's folder.
        agent_id: for messages.
    """

    def __init__(self, folder: Path, agent_id: str) -> None:
        self.path = folder / "agent.mark"
        self._agent_id = agent_id

    def read(self) -> int:
        """The number of the last commit that was acknowledged, as far as is known.

        Raises StoreError: the system would not open it, so that what was lost would go unnoticed.
        """
        try:
            with opened(self.path, os.O_RDONLY) as fd:
                data = read_all(fd, 64, 0)
        except OSError as error:
            if not is_lost(error):
                raise of_disk(self._agent_id, "reading the commit mark", error) from error
            return 0
        number, check = data[: _NUMBER.size], data[_NUMBER.size :]
        return int(_NUMBER.unpack(number)[0]) if check == _check(number) else 0

    def write(self, commit: int) -> None:
        """Note a commit that is on the medium. A disk that refuses it takes nothing from the commit."""
        number = _NUMBER.pack(commit)
        with suppress(OSError), opened(self.path, os.O_WRONLY | os.O_CREAT) as fd:
            write_all(fd, number + _check(number), 0)

    def compare(self, marked: int, found: int) -> None:
        """Raises DamagedError when an index ends at commit ``found``, but ``marked`` was acknowledged."""
        if found < marked:
            raise DamagedError(
                self._agent_id,
                "agent.db-wal",
                f"commits {found + 1} to {marked}",
                "they were acknowledged, and the index lacks them",
            )


def _check(number: bytes) -> bytes:
    return xxh3_64_digest(b"agentmem commit " + number)
