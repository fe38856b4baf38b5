"""Random lives of an agent on disk, compared step by step with the same life in memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentmem.errors import StateNotFoundError
from agentmem.memory.source import KVLayout
from agentmem.store import DiskHome, InMemoryHome, MemoryKey, Store
from agentmem.store.upkeep import Reason, Rewritten
from support.stores import add_turn, contents, create, digests, kv, memory_folder, new_turn, same

WHY = Reason("rebuild", "match", "2026-01-02T03:04:05+00:00")
LAYOUT = KVLayout(((2, 4), (2, 4)), torch.bfloat16)


class StoreModel(RuleBasedStateMachine):
    """Every rule is done to both stores; everything observable must stay equal."""

    key: MemoryKey | None = None
    steps = 0
    """How many rules all lives in this process took."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=memory_folder()))
        disk = DiskHome(self.folder, segment_tokens=64, digest_blocks=4, key=self.key)
        self.homes = (disk, InMemoryHome())
        self.names = ["a0"]
        self.stores: list[Store] = []
        self.seed = 0
        self.open = False

    @initialize()
    def make(self) -> None:
        """Start with one empty agent."""
        self.stores = [create(home, "a0", LAYOUT) for home in self.homes]

    @precondition(lambda self: not self.open)
    @rule(count=st.integers(0, 100), blocks=st.integers(0, 5))
    def turn(self, count: int, blocks: int) -> None:
        """A whole turn."""
        self.seed += 1
        turns = [add_turn(store, self.seed, count, blocks=blocks) for store in self.stores]
        assert turns[0].id == turns[1].id

    @precondition(lambda self: not self.open)
    @rule()
    def begin(self) -> None:
        """Open a turn."""
        for store in self.stores:
            store.begin()
        self.open = True

    @precondition(lambda self: not self.open)
    @rule(data=st.data())
    def begin_elsewhere(self, data: st.DataObject) -> None:
        """Open a turn after any state of the tree; the heads that are stored stay where they are."""
        target = data.draw(st.sampled_from([None, *self.living()]))
        heads = [store.head for store in self.stores]
        for store in self.stores:
            store.begin(target)
        readers = [home.open(self.stores[0].identity.agent_id, read_only=True) for home in self.homes]
        assert [reader.head for reader in readers] == heads
        for reader in readers:
            reader.close()
        self.open = True

    @precondition(lambda self: self.open)
    @rule(count=st.integers(0, 70), blocks=st.integers(0, 2))
    def append(self, count: int, blocks: int) -> None:
        """Add tokens and digests to the open turn."""
        self.seed += 1
        for store in self.stores:
            store.log.append(*kv(self.seed, count, LAYOUT))
            if blocks:
                store.digests.append(digests(self.seed, blocks, LAYOUT))

    @precondition(lambda self: self.open)
    @rule(share=st.floats(0, 1))
    def truncate(self, share: float) -> None:
        """Take back some of the open turn's tokens."""
        for store in self.stores:
            log = store.log
            log.truncate(log.committed + int(share * (log.length - log.committed)))

    @precondition(lambda self: self.open)
    @rule()
    def commit(self) -> None:
        """Commit the open turn."""
        self.seed += 1
        for store in self.stores:
            store.commit(new_turn(self.seed, store.log.length - store.log.committed))
        self.open = False

    @rule()
    def abort(self) -> None:
        """Drop the open turn, if any."""
        for store in self.stores:
            store.abort()
        self.open = False

    @rule()
    def reopen(self) -> None:
        """Close and open again; an open turn is lost."""
        name = self.stores[0].identity.agent_id
        for store in self.stores:
            store.close()
        self.stores = [home.open(name) for home in self.homes]
        self.open = False

    def living(self) -> list[str]:
        """States that can be returned to."""
        found = []
        for number in range(1, self.seed + 1):
            try:
                found.append(self.stores[1].find_state(f"state-{number}").state_id)
            except StateNotFoundError:
                continue
        return found

    @precondition(lambda self: not self.open)
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        """Move the head anywhere in the tree."""
        target = data.draw(st.sampled_from([None, *self.living()]))
        for store in self.stores:
            store.rewind(target)

    @precondition(lambda self: not self.open)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Forget some turns, of any branch."""
        ids = [self.stores[1].find_state(state).id for state in self.living()]
        chosen = data.draw(st.lists(st.sampled_from(ids), max_size=3) if ids else st.just([]))
        dropped = [store.forget(chosen) for store in self.stores]
        assert dropped[0] == dropped[1]

    @precondition(lambda self: not self.open)
    @rule(data=st.data(), finish=st.booleans())
    def rebuild(self, data: st.DataObject, finish: bool) -> None:
        """Take some turns out of the tree and write those after them anew, or give up half way."""
        turns = self.stores[1].every_turn()
        chosen = st.lists(st.sampled_from([turn.id for turn in turns]), max_size=2)
        gone = data.draw(chosen if turns else st.just([]))
        todo = [store.upkeep.begin_rebuild(gone) for store in self.stores]
        assert todo[0] == todo[1]
        for number in todo[0] if finish else todo[0][: len(todo[0]) // 2]:
            self.seed += 1
            count, blocks = data.draw(st.integers(0, 60)), data.draw(st.integers(0, 2))
            for store in self.stores:
                store.upkeep.stand_before(number)
                store.log.append(*kv(self.seed, count, LAYOUT))
                if blocks:
                    store.digests.append(digests(self.seed, blocks, LAYOUT))
                ids = [self.seed] * count
                store.upkeep.stage(Rewritten(number, f"state-{self.seed}", ids, {"seed": self.seed}, {}))
        if finish:
            dropped = [store.upkeep.commit_rebuild(WHY) for store in self.stores]
            assert dropped[0] == dropped[1]
        else:
            for store in self.stores:
                store.abort()

    @precondition(lambda self: not self.open)
    @rule(data=st.data(), pinned=st.booleans())
    def pin(self, data: st.DataObject, pinned: bool) -> None:
        """Pin a turn, or take the pin away."""
        ids = [turn.id for turn in self.stores[1].every_turn() if not turn.forgotten]
        if ids:
            chosen = data.draw(st.sampled_from(ids))
            for store in self.stores:
                store.upkeep.pin(chosen, pinned=pinned)

    @precondition(lambda self: not self.open)
    @rule(prune=st.booleans())
    def collect(self, prune: bool) -> None:
        """Collect garbage."""
        reports = [store.collect(prune=prune) for store in self.stores]
        assert (reports[0].turns, reports[0].tokens) == (reports[1].turns, reports[1].tokens)

    @precondition(lambda self: len(self.names) < 4)
    @rule(swap=st.booleans())
    def fork(self, swap: bool) -> None:
        """Fork; go on in the fork, or in the source."""
        old, new = self.stores[0].identity.agent_id, f"a{len(self.names)}"
        self.names.append(new)
        for home in self.homes:
            home.fork(old, new)
        if swap:
            self.switch(new)

    @rule(data=st.data())
    def visit(self, data: st.DataObject) -> None:
        """Go on with another agent."""
        self.switch(data.draw(st.sampled_from(self.names)))

    def switch(self, name: str) -> None:
        """Close this agent and open that one."""
        for store in self.stores:
            store.close()
        self.stores = [home.open(name) for home in self.homes]
        self.open = False

    @invariant()
    def same_memory(self) -> None:
        """Bytes, ids, turns, dead ranges and digests are equal."""
        StoreModel.steps += 1
        if not self.stores:
            return
        disk, memory = self.stores
        assert disk.log.length == memory.log.length
        assert disk.log.committed == memory.log.committed
        assert list(disk.log.dead) == list(memory.log.dead)
        assert same(contents(disk.log), contents(memory.log))
        assert disk.turns() == memory.turns()
        assert disk.head == memory.head
        assert disk.every_turn() == memory.every_turn()
        assert disk.upkeep.marks() == memory.upkeep.marks()
        assert disk.upkeep.audit() == memory.upkeep.audit()
        assert not disk.upkeep.erasure_due
        for turn in memory.every_turn():
            assert disk.upkeep.ids_of(turn.id) == memory.upkeep.ids_of(turn.id)
        length = disk.log.committed
        assert disk.token_ids(0, length) == memory.token_ids(0, length)
        assert disk.digests.count == memory.digests.count
        for layer in range(len(LAYOUT.layers)):
            parts = [list(store.digests.parts(layer)) for store in (disk, memory)]
            if disk.digests.count:
                assert torch.equal(torch.cat(parts[0], dim=1), torch.cat(parts[1], dim=1))

    def teardown(self) -> None:
        """Every agent still verifies to the last byte."""
        for store in self.stores:
            store.close()
        if self.stores:
            for name in self.names:
                store = self.homes[0].open(name)
                report = store.verify(deep=True)
                store.close()
                assert report.ok, report.findings
        shutil.rmtree(self.folder, ignore_errors=True)


class EncryptedStoreModel(StoreModel):
    """The same, with an agent on disk that is encrypted."""

    key = MemoryKey.generate()
