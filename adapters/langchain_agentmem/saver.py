"""A LangGraph checkpointer in agentmem's home: the threads of the graphs, beside the agents' memories.

``<home>/threads.db`` is LangGraph's own SQLite format (``SqliteSaver`` opens it too); added are the async twins,
``copy_thread``, ``delete_for_runs`` and ``prune``, and a ``list`` that may be read while the thread changes.
Knows nothing of memories: what ties a thread to one is the ``state_id`` that each answer carries.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

from langchain_core.runnables import RunnableConfig

from agentmem.agent.places import find_home
from agentmem.errors import ConfigError, InputError, MissingExtraError, StoreError
from agentmem.store import DiskHome
from agentmem.store.files import FILE_MODE, make_folder, opened
from langchain_agentmem import saver_sql as sql

try:
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.checkpoint.sqlite.utils import search_where
except ImportError as error:
    raise MissingExtraError(
        "the checkpointer needs langgraph-checkpoint-sqlite: pip install 'agentmem-kv[checkpoint]'"
    ) from error

THREADS_FILE = "threads.db"


class ThreadSaver(SqliteSaver):
    """What both checkpointers are: every method of a LangGraph checkpointer, sync and async, on one connection.

    An async method does its work on a worker thread, so a cancelled await never leaves a write half done.
    Objects are stored as msgpack, never as pickle, and only types known to LangGraph come back as
    objects; others that a graph's state holds are named with ``types``.
    """

    @classmethod
    @contextmanager
    def _opened(cls, home: str | Path | None, types: Iterable[type]) -> Iterator[Self]:
        path = _threads_path(home)
        with super().from_conn_string(str(path)) as saver:
            assert isinstance(saver, cls)
            saver.serde = JsonPlusSerializer(allowed_msgpack_modules=[*types] or None)
            try:
                saver.setup()
            except saver.conn.DatabaseError as error:
                raise StoreError(
                    f"{path} cannot be opened as LangGraph's threads: {error}. Move it away to start anew."
                ) from error
            try:
                yield saver
            finally:
                with saver.lock:  # a cancelled await may still be at work on its thread
                    saver.conn.close()

    # ------------------------------------------------------------------------------ reading

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - the name is LangGraph's
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first; the thread may be written to meanwhile, by the reader as well."""
        for key in self._keys(config, filter, before, limit):
            found = self.get_tuple({"configurable": key})
            if found is not None:  # it was there when the list began
                yield found

    def _keys(
        self,
        config: RunnableConfig | None,
        metadata: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Sequence[dict[str, str]]:
        where, values = search_where(config, metadata, before)
        names = ("thread_id", "checkpoint_ns", "checkpoint_id")
        # `where` holds column names and question marks; search_where checks the keys it writes into paths.
        query = f"SELECT {', '.join(names)} FROM checkpoints {where} ORDER BY checkpoint_id DESC LIMIT ?"  # noqa: S608
        with self.cursor(transaction=False) as cursor:
            cursor.execute(query, (*values, -1 if limit is None else limit))
            return [dict(zip(names, row, strict=True)) for row in cursor]

    # ------------------------------------------------------------------------------ changing

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread: all of it, or on an error nothing."""
        self._apply(sql.delete_threads([str(thread_id)]))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints that these runs wrote, in every thread and namespace."""
        self._apply(sql.delete_runs([str(run) for run in run_ids]))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with its whole past; what the target holds already stays. No source, no copy."""
        self._apply(sql.copy_thread(str(source_thread_id), str(target_thread_id)))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Drop the past of threads: ``keep_latest`` leaves the newest checkpoint of each namespace, ``delete`` none.

        A channel that stores only its changes (LangGraph's DeltaChannel) is rebuilt from older checkpoints:
        those, back to its last full value, stay as well. Raises InputError for another strategy.
        """
        threads = [str(thread) for thread in thread_ids]
        if strategy == "delete":
            self._apply(sql.delete_threads(threads))
        elif strategy == "keep_latest":
            with self._transaction() as cursor:
                cursor.execute(sql.BRANCHES, (sql.listing(threads),))
                for thread, namespace, newest in cursor.fetchall():
                    kept = self._needed(cursor, thread, namespace, newest)
                    _run(cursor, sql.keep_only(thread, namespace, kept))
        else:
            raise InputError(f"strategy={strategy!r}: a thread is pruned by 'keep_latest' or 'delete'")

    def _needed(self, cursor: Any, thread: str, namespace: str, newest: str) -> set[str]:
        """The newest checkpoint, and those that its delta channels are rebuilt from."""
        kept: set[str] = set()
        waiting: set[str] | None = None
        checkpoint: str | None = newest
        while checkpoint is not None and checkpoint not in kept and (waiting is None or waiting):
            row = cursor.execute(sql.ONE, (thread, namespace, checkpoint)).fetchone()
            if row is None:
                break
            kept.add(checkpoint)
            parent, kind, blob, metadata = row
            if waiting is None:
                waiting = set(json.loads(metadata or b"{}").get("counters_since_delta_snapshot") or ())
            if waiting:
                waiting -= set(self.serde.loads_typed((kind, blob))["channel_values"])
            checkpoint = parent
        return kept

    def _apply(self, statements: Collection[sql.Statement]) -> None:
        with self._transaction() as cursor:
            _run(cursor, statements)

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """A cursor whose statements are committed together, or not at all."""
        with self.cursor(transaction=False) as cursor:
            cursor.execute(sql.BEGIN)
            try:
                yield cursor
            except BaseException:
                self.conn.rollback()
                raise
            self.conn.commit()

    # ------------------------------------------------------------------------------ async twins

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Async twin of :meth:`get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - the name is LangGraph's
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Async twin of :meth:`list`."""
        for key in await asyncio.to_thread(self._keys, config, filter, before, limit):
            found = await self.aget_tuple({"configurable": key})
            if found is not None:
                yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Async twin of :meth:`put`."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Async twin of :meth:`put_writes`."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Async twin of :meth:`delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Async twin of :meth:`delete_for_runs`."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Async twin of :meth:`copy_thread`."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Async twin of :meth:`prune`."""
        await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Async twin of :meth:`get_delta_channel_history`."""
        return await asyncio.to_thread(self.get_delta_channel_history, config=config, channels=channels)


class AgentMemorySaver(ThreadSaver):
    """LangGraph's threads in agentmem's home. Works in sync and in async graphs.

    Example:
        with AgentMemorySaver.open() as saver:
            agent = create_agent(ChatInfLLM(), checkpointer=saver)
    """

    @classmethod
    @contextmanager
    def open(cls, home: str | Path | None = None, *, types: Iterable[type] = ()) -> Iterator[Self]:
        """Open, or create, ``<home>/threads.db``; it is closed when the block ends.

        Args:
            home: the folder of the agents; None: ``AGENTMEM_HOME``, else the user's data folder.
            types: classes of your own that the graphs' states hold. Objects of other classes come back as
                their plain data, with a warning in the log.

        Raises:
            StoreError: the file is damaged, or no SQLite file.
        """
        with cls._opened(home, types) as saver:
            yield saver


class AsyncAgentMemorySaver(ThreadSaver):
    """The same checkpointer, opened by ``async with``."""

    @classmethod
    @asynccontextmanager
    async def open(cls, home: str | Path | None = None, *, types: Iterable[type] = ()) -> AsyncIterator[Self]:
        """Async twin of :meth:`AgentMemorySaver.open`: same arguments, same errors."""
        context = cls._opened(home, types)
        saver = await asyncio.to_thread(context.__enter__)
        try:
            yield saver
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


def _run(cursor: Any, statements: Collection[sql.Statement]) -> None:
    for statement, values in statements:
        cursor.execute(statement, values)


def _threads_path(home: str | Path | None) -> Path:
    """The file of the threads, made if need be so that only its owner can read it."""
    found = find_home(home)
    if not isinstance(found, DiskHome):
        raise ConfigError(
            f"home={home!r}: threads are kept in a folder; elsewhere use LangGraph's InMemorySaver"
        )
    folder = found.home
    folder.parent.mkdir(parents=True, exist_ok=True)
    make_folder(folder)
    path = folder / THREADS_FILE
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        os.fchmod(descriptor, FILE_MODE)  # SQLite gives its write-ahead log the same mode
    return path
