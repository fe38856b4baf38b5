"""What is left of a damaged segment of an encrypted agent: the columns that can still be decrypted.

Whether rows that were computed anew are the old ones is asked of the tag that the old ones were sealed with: with
the page's nonce only the same rows give it again. Nothing that is encrypted for that is ever kept. Knows rows and pages;
nothing of turns.
"""

from __future__ import annotations

from collections.abc import Iterable
from hmac import compare_digest
from pathlib import Path

from agentmem.store.cipher import TAG_BYTES
from agentmem.store.encrypted_pages import NONCE, PageCipher
from agentmem.store.loose_segment import LooseSegment
from agentmem.store.pages import PAGE_SLOTS, PageSums, page_range
from agentmem.store.tensor_file import TensorFileSpec


class LooseEncryptedSegment(LooseSegment):
    """One file. Columns that are not what was written are missing, as are bytes that cannot be had.

    Args:
        path, spec: the file.
        pages: nonces and tags, as the index has them.
        cipher: the segment's.
    """

    def __init__(
        self, path: Path, spec: TensorFileSpec, pages: Iterable[PageSums], cipher: PageCipher
    ) -> None:
        super().__init__(path, spec)
        self._pages = {page.page: page for page in pages}
        self._cipher = cipher

    def rows(self, tensor: int, head: int, slot: int, stop: int) -> bytes:
        """The rows of one head's slots [slot, stop), decrypted; fewer where they cannot be."""
        size = self.spec.shapes[tensor][1] * self.spec.dtype.itemsize
        data = b""
        for number in page_range(slot, stop):
            first = number * PAGE_SLOTS
            low, high = max(slot, first) - first, min(stop, first + PAGE_SLOTS) - first
            data += self._column(tensor, head, number)[low * size : high * size]
        return data

    def wrong_columns(self, page: PageSums) -> list[tuple[int, int]]:
        """(tensor, head) of every column of a page that is not what was written."""
        return [column for column in self.columns if not self._column(*column, page.page) and page.filled]

    def fits(self, page: PageSums, tensor: int, head: int, rows: bytes) -> bool:
        """Whether rows of a whole column are what its page was sealed with."""
        number = self.columns[tensor, head]
        at = NONCE + TAG_BYTES * number
        sealed = self._cipher.encrypt(page.sums[:NONCE], page.page, number, page.filled, rows)
        return compare_digest(sealed[-TAG_BYTES:], page.sums[at : at + TAG_BYTES])

    def _column(self, tensor: int, head: int, number: int) -> bytes:
        """A column's filled rows; nothing when they are not what was written."""
        page = self._pages.get(number)
        if page is None:
            return b""
        first = number * PAGE_SLOTS
        if not any(page.sums):  # forgotten: zeros, whatever lies there
            return bytes(page.filled * self.spec.shapes[tensor][1] * self.spec.dtype.itemsize)
        data = self.stored(tensor, head, first, first + page.filled)
        return self._cipher.decrypt(page, self.columns[tensor, head], data) or b""
