"""LangGraph's threads in agentmem's home: the public conformance suite, and what it does not ask."""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.report import CapabilityReport
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph, add_messages

from agentmem import InMemoryHome
from agentmem.errors import ConfigError, InputError, StoreError
from langchain_agentmem.saver import AgentMemorySaver, AsyncAgentMemorySaver, ThreadSaver

COUNTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}
"""How many tests langgraph-checkpoint-conformance 0.0.2 has for each capability: 81."""


class Talk(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def _graph(saver: Any) -> Any:
    """A graph that answers each message with its number."""
    builder = StateGraph(Talk)
    builder.add_node(
        "answer", lambda state: {"messages": [AIMessage(f"answer {len(state['messages']) // 2 + 1}")]}
    )
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    return builder.compile(checkpointer=saver)


def _thread(name: str, **more: str) -> Any:
    return {"configurable": {"thread_id": name, **more}}


def _texts(graph: Any, thread: str) -> list[str]:
    return [message.content for message in graph.get_state(_thread(thread)).values.get("messages", [])]


def _say(graph: Any, thread: str, *texts: str) -> None:
    for text in texts:
        graph.invoke({"messages": [HumanMessage(text)]}, _thread(thread))


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[AgentMemorySaver]:
    """A checkpointer in a new home."""
    with AgentMemorySaver.open(tmp_path / "home") as opened:
        yield opened


def _extended(rows: list[str], new: list[list[str]]) -> list[str]:
    return [*rows, *(row for added in new for row in added)]


async def _conformance(saver_class: type[ThreadSaver], folder: Path) -> CapabilityReport:
    homes = iter(range(100))

    @checkpointer_test(name=saver_class.__name__)
    async def fresh() -> AsyncIterator[ThreadSaver]:
        home = folder / str(next(homes))
        if saver_class is AsyncAgentMemorySaver:
            async with AsyncAgentMemorySaver.open(home) as opened:
                yield opened
        else:
            with AgentMemorySaver.open(home) as opened:
                yield opened

    return await validate(fresh)


@pytest.mark.parametrize("saver_class", [AgentMemorySaver, AsyncAgentMemorySaver])
async def test_every_conformance_test_passes(saver_class: type[ThreadSaver], tmp_path: Path) -> None:
    """Both checkpointers pass all 81 tests of LangGraph's suite, the extended ones included."""
    report = await _conformance(saver_class, tmp_path)

    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert {name: result.tests_passed for name, result in report.results.items()} == COUNTS
    assert all(result.detected and result.passed for result in report.results.values())
    assert report.conformance_level() == "FULL" and sum(COUNTS.values()) == 81


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    """The home is 0700; the file and SQLite's companions are 0600, also when the file was open to others."""
    home = tmp_path / "deep" / "home"
    with AgentMemorySaver.open(home) as saver:
        _say(_graph(saver), "t", "hello")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
    (home / "threads.db").chmod(0o644)
    with AgentMemorySaver.open(home):
        pass

    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert modes == {"threads.db": 0o600, "threads.db-wal": 0o600, "threads.db-shm": 0o600}
    assert stat.S_IMODE((home / "threads.db").stat().st_mode) == 0o600


def test_the_home_is_found_as_for_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the threads lie in AGENTMEM_HOME; a home that is no folder is refused."""
    monkeypatch.setenv("AGENTMEM_HOME", str(tmp_path / "named"))
    with AgentMemorySaver.open():
        assert (tmp_path / "named" / "threads.db").is_file()

    with pytest.raises(ConfigError, match="InMemorySaver"), AgentMemorySaver.open(InMemoryHome()):
        pass


@pytest.mark.parametrize("content", [b"this is no database, but a rather long text" * 40])
def test_a_damaged_file_is_a_typed_error(content: bytes, tmp_path: Path) -> None:
    """A file that is not SQLite's is refused by name and left as it is."""
    (tmp_path / "threads.db").write_bytes(content)

    with pytest.raises(StoreError, match=r"threads\.db"), AgentMemorySaver.open(tmp_path):
        pass
    assert (tmp_path / "threads.db").read_bytes() == content


def test_threads_outlive_the_object(tmp_path: Path) -> None:
    """A second saver on the same home goes on with the thread; LangGraph's own saver reads it too."""
    with AgentMemorySaver.open(tmp_path) as saver:
        _say(_graph(saver), "t", "one")
    with AgentMemorySaver.open(tmp_path) as saver:
        _say(_graph(saver), "t", "two")
    with SqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as plain:
        assert _texts(_graph(plain), "t") == ["one", "answer 1", "two", "answer 2"]


async def test_one_saver_serves_sync_and_async_graphs(saver: AgentMemorySaver) -> None:
    """The same thread may be continued by invoke and by ainvoke."""
    graph = _graph(saver)
    _say(graph, "t", "one")
    await graph.ainvoke({"messages": [HumanMessage("two")]}, _thread("t"))
    history = [snapshot async for snapshot in graph.aget_state_history(_thread("t"))]

    assert _texts(graph, "t") == ["one", "answer 1", "two", "answer 2"]
    assert len(history) == 6


def test_a_history_may_be_changed_while_it_is_read(saver: AgentMemorySaver) -> None:
    """Going through the past of a thread and writing to it meanwhile neither blocks nor skips."""
    graph = _graph(saver)
    _say(graph, "t", "one", "two")
    seen = []
    worker = threading.Thread(
        target=lambda: [
            seen.append(graph.update_state(snapshot.config, {"messages": [AIMessage("noted")]}))
            for snapshot in graph.get_state_history(_thread("t"))
            if snapshot.values.get("messages")
        ],
        daemon=True,
    )
    worker.start()
    worker.join(60)

    assert not worker.is_alive()
    assert len(seen) == 5


def test_copying_takes_the_whole_past(saver: AgentMemorySaver) -> None:
    """A copied thread can be rewound, and what happens to it does not happen to its source."""
    graph = _graph(saver)
    _say(graph, "a", "one", "two")
    saver.copy_thread("a", "b")
    first = next(s for s in graph.get_state_history(_thread("b")) if len(s.values.get("messages", [])) == 2)
    graph.invoke({"messages": [HumanMessage("another")]}, first.config)

    assert _texts(graph, "b") == ["one", "answer 1", "another", "answer 2"]
    assert _texts(graph, "a") == ["one", "answer 1", "two", "answer 2"]


def test_pruning_leaves_the_newest(saver: AgentMemorySaver) -> None:
    """keep_latest leaves one checkpoint that goes on; delete leaves none; anything else is refused."""
    graph = _graph(saver)
    for thread in "ab":
        _say(graph, thread, "one", "two")
    saver.prune(["a"])
    saver.prune(["b"], strategy="delete")
    kept = len(list(saver.list(_thread("a"))))
    _say(graph, "a", "three")

    assert kept == 1
    assert _texts(graph, "a") == ["one", "answer 1", "two", "answer 2", "three", "answer 3"]
    assert list(saver.list(_thread("b"))) == []
    with pytest.raises(InputError, match="'oldest'"):
        saver.prune(["a"], strategy="oldest")


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_pruning_keeps_what_delta_channels_are_made_of(saver: AgentMemorySaver) -> None:
    """A channel stored as its changes reads the same after pruning; what lies before its last full value goes."""

    class Grown(TypedDict):
        rows: Annotated[list[str], DeltaChannel(_extended, snapshot_frequency=4)]

    builder = StateGraph(Grown)
    builder.add_node("grow", lambda state: {"rows": [f"row {len(state['rows'])}"]})
    builder.add_edge(START, "grow")
    graph = builder.compile(checkpointer=saver)
    for number in range(7):
        graph.invoke({"rows": [f"said {number}"]}, _thread("t"))
    before = graph.get_state(_thread("t")).values
    count = len(list(saver.list(_thread("t"))))
    saver.prune(["t"])

    assert graph.get_state(_thread("t")).values == before
    assert len(before["rows"]) == 14
    assert 1 < len(list(saver.list(_thread("t")))) < count


def test_a_failed_change_changes_nothing(saver: AgentMemorySaver, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the second statement of a deletion fails, the first is undone and the thread is whole."""
    graph = _graph(saver)
    _say(graph, "t", "one")
    broken = [("DELETE FROM writes", ()), ("DELETE FROM no_such_table", ())]
    monkeypatch.setattr("langchain_agentmem.saver_sql.delete_threads", lambda _: broken)
    before = [tuple_.pending_writes for tuple_ in saver.list(_thread("t"))]

    with pytest.raises(saver.conn.DatabaseError):
        saver.delete_thread("t")

    assert [tuple_.pending_writes for tuple_ in saver.list(_thread("t"))] == before
    assert any(before)
    assert _texts(graph, "t") == ["one", "answer 1"]


def test_names_are_values_never_sql(saver: AgentMemorySaver) -> None:
    """Thread names made of quotes and statements are names."""
    graph = _graph(saver)
    nasty = "x'); DROP TABLE checkpoints; --\"[]"
    _say(graph, nasty, "one")
    _say(graph, "other", "one")
    saver.copy_thread(nasty, nasty + "'")
    saver.prune([nasty + "'"])
    saver.delete_for_runs([nasty])
    saver.delete_thread(nasty)

    assert _texts(graph, nasty) == []
    assert _texts(graph, nasty + "'") == _texts(graph, "other") == ["one", "answer 1"]


@dataclass
class Mood:
    name: str


def test_only_named_types_come_back_as_objects(tmp_path: Path) -> None:
    """An object of a class the opener did not name comes back as plain data: nothing is imported or called."""
    config = _thread("t", checkpoint_ns="")
    checkpoint = empty_checkpoint() | {"channel_values": {"mood": Mood("calm")}}
    with AgentMemorySaver.open(tmp_path) as saver:
        saver.put(config, checkpoint, {}, {})
        plain = saver.get_tuple(config)
    with AgentMemorySaver.open(tmp_path, types=[Mood]) as saver:
        whole = saver.get_tuple(config)

    assert saver.serde.pickle_fallback is False
    assert plain is not None and plain.checkpoint["channel_values"]["mood"] == {"name": "calm"}
    assert whole is not None and whole.checkpoint["channel_values"]["mood"] == Mood("calm")


def test_what_cannot_be_stored_plainly_is_refused(saver: AgentMemorySaver) -> None:
    """A value that only pickle could store is an error, and nothing is written."""
    checkpoint = empty_checkpoint() | {"channel_values": {"way": lambda: None}}

    with pytest.raises(TypeError):
        saver.put(_thread("t", checkpoint_ns=""), checkpoint, {}, {})
    assert list(saver.list(_thread("t"))) == []


async def test_a_cancelled_write_is_whole_or_absent(saver: AgentMemorySaver) -> None:
    """Cancelling an await neither tears a checkpoint nor leaves the saver locked."""
    config = _thread("t", checkpoint_ns="")
    for _ in range(20):
        task = asyncio.create_task(saver.aput(config, empty_checkpoint(), {}, {}))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    rows = [row async for row in saver.alist(_thread("t"))]

    assert all(row.checkpoint["v"] for row in rows)
    assert await saver.aput(config, empty_checkpoint(), {}, {})


async def test_closing_waits_for_what_was_cancelled(tmp_path: Path) -> None:
    """Leaving the block while cancelled writes are at work tears nothing: each checkpoint is there whole, or not."""
    config = _thread("t", checkpoint_ns="")
    async with AsyncAgentMemorySaver.open(tmp_path) as saver:
        tasks = [asyncio.create_task(saver.aput(config, empty_checkpoint(), {}, {})) for _ in range(12)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    with AgentMemorySaver.open(tmp_path) as again:
        assert all(row.checkpoint["v"] for row in again.list(_thread("t")))


def test_many_threads_share_one_saver(saver: AgentMemorySaver) -> None:
    """Six graphs at once on one saver: every thread holds its own messages."""
    graph = _graph(saver)
    workers = [threading.Thread(target=_say, args=(graph, f"t{n}", f"{n} one", f"{n} two")) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    for n in range(6):
        assert _texts(graph, f"t{n}") == [f"{n} one", "answer 1", f"{n} two", "answer 2"]


def test_two_savers_may_write_at_once(tmp_path: Path) -> None:
    """Two connections to one file, as two processes have, write in turn and see each other's work."""
    with AgentMemorySaver.open(tmp_path) as left, AgentMemorySaver.open(tmp_path) as right:
        for number in range(5):
            _say(_graph(left), "t", f"left {number}")
            _say(_graph(right), "t", f"right {number}")
        right.prune(["t"])

        assert len(_texts(_graph(left), "t")) == 20
