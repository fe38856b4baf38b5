"""A generator run in one worker thread and awaited piece by piece; cancelling it closes the generator.

LangChain's default runs each piece in another thread and lets a cancelled generator run on. Knows nothing of
what is generated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Any, Generic, TypeVar

from agentmem.agent.gate import Caller, acting_for

T = TypeVar("T")
_END = object()


class InWorker(AsyncIterator[T], Generic[T]):
    """The pieces of a generator that is made, driven and closed in one worker thread.

    Use it as an async context manager: leaving it early closes the generator, after the piece under way.
    """

    def __init__(self, make: Callable[[], Generator[T, None, Any]]) -> None:
        self._make = make
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agentmem-call")
        self._context = copy_context()
        self._pieces: Generator[T, None, Any] | None = None
        self._closing = False

    def __aiter__(self) -> InWorker[T]:
        return self

    async def __anext__(self) -> T:
        caller = Caller.here().through_worker()
        loop = asyncio.get_running_loop()
        piece = await loop.run_in_executor(self._worker, self._context.run, self._next, caller)
        if piece is _END:
            raise StopAsyncIteration
        return piece  # type: ignore[return-value]

    async def aclose(self) -> None:
        """Close the generator; waits until it has stopped, even if the waiting is cancelled."""
        if not self._closing:
            self._closing = True
            self._worker.submit(self._context.run, self._close)
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._worker.shutdown))

    async def __aenter__(self) -> InWorker[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _next(self, caller: Caller) -> T | object:
        with acting_for(caller):
            if self._pieces is None:
                self._pieces = self._make()
            return next(self._pieces, _END)

    def _close(self) -> None:
        if self._pieces is not None:
            self._pieces.close()
