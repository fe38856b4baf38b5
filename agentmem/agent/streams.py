"""A reply that is still being written: iterate it for pieces of text, then look at ``reply``.

Knows nothing of turns: it drives a generator that yields text and returns the reply, and lets the next
call in when that ends, however it ends.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from agentmem.agent.gate import Caller, acting_for
from agentmem.agent.receipts import Reply
from agentmem.errors import AgentBusyError, ClosedError


class ReplyStream(Iterator[str]):
    """Pieces of a reply as they are decoded. Closed early, the memory stays as it was before the turn."""

    def __init__(self, pieces: Generator[str, None, Reply], on_end: Callable[[], None]) -> None:
        self._pieces = pieces
        self._on_end = on_end
        self._reply: Reply | None = None
        self._ended = False

    @property
    def reply(self) -> Reply:
        """The whole reply with its receipt. Raises ClosedError before the stream has ended."""
        if self._reply is None:
            raise ClosedError("the reply is not complete: read the stream to its end first")
        return self._reply

    def __iter__(self) -> ReplyStream:
        return self

    def __next__(self) -> str:
        if self._ended:
            raise StopIteration
        try:
            return next(self._pieces)
        except StopIteration as end:
            self._reply = end.value
            self._end()
            raise StopIteration from None
        except BaseException:
            self._end()
            raise

    def __repr__(self) -> str:
        state = "complete" if self._reply is not None else "closed" if self._ended else "being read"
        return f"<ReplyStream: {state}>"

    def read(self) -> Reply:
        """Read to the end, and return the reply."""
        for _ in self:
            pass
        return self.reply

    def close(self) -> None:
        """Stop decoding. Unless the stream had ended, the turn is dropped.

        Raises AgentBusyError while another thread is decoding the next piece.
        """
        if inspect.getgeneratorstate(self._pieces) == inspect.GEN_RUNNING:
            raise AgentBusyError("another thread is reading this stream; close it there, or when it is done")
        if not self._ended:
            try:
                self._pieces.close()
            finally:
                self._end()

    def _end(self) -> None:
        self._ended = True
        self._on_end()

    def __enter__(self) -> ReplyStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_ended", True):
            self.close()


class AsyncReplyStream(AsyncIterator[str]):
    """The async twin: decoding runs in one worker thread; cancelling stops it and drops the turn."""

    def __init__(self, open_stream: Callable[[], ReplyStream]) -> None:
        self._open_stream = open_stream
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agentmem-stream")
        self._stream: ReplyStream | None = None
        self._closing = False

    @property
    def reply(self) -> Reply:
        """The whole reply. Raises ClosedError before the stream has ended."""
        if self._stream is None:
            raise ClosedError("the reply is not complete: read the stream to its end first")
        return self._stream.reply

    def __aiter__(self) -> AsyncReplyStream:
        return self

    async def __anext__(self) -> str:
        if self._closing:
            raise StopAsyncIteration
        loop = asyncio.get_running_loop()
        try:
            piece = await loop.run_in_executor(self._worker, self._next, Caller.here().through_worker())
        except BaseException:
            await self.aclose()
            raise
        if piece is None:
            await self.aclose()
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Stop decoding; waits for the token under way, then drops the turn if it had not ended."""
        if not self._closing:
            self._closing = True
            self._worker.submit(self._close)
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._worker.shutdown))

    def _next(self, caller: Caller) -> str | None:
        if self._stream is None:
            with acting_for(caller):
                self._stream = self._open_stream()
        return next(self._stream, None)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    async def __aenter__(self) -> AsyncReplyStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def gathered(stream: AsyncReplyStream) -> Reply:
    """Read a stream to its end; cancelling drops the turn."""
    async with stream:
        async for _ in stream:
            pass
    return stream.reply
