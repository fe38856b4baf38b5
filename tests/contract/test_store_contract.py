"""What every store must do, on disk and in memory alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from agentmem.errors import (
    AgentBusyError,
    AgentExistsError,
    AgentNotFoundError,
    ClosedError,
    InputError,
    ReadOnlyError,
    ShapeError,
    StateForgottenError,
    StateNotFoundError,
    StoreError,
)
from agentmem.memory.source import KVLayout
from agentmem.store import Home, Store
from support.stores import (
    AT,
    FINGERPRINT,
    LAYOUT,
    add_turn,
    contents,
    create,
    digests,
    expected,
    kv,
    new_turn,
    same,
)


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """A new agent, open."""
    store = create(home)
    yield store
    store.close()


def reopened(home: Home, store: Store) -> Store:
    """The same agent, closed and opened again."""
    store.close()
    return home.open(store.identity.agent_id)


class TestHome:
    """Agents are made, found, listed and removed by their id."""

    def test_new_agent_is_empty(self, store: Store) -> None:
        """The empty memory is a legal state: nothing to read, no head, everything answers."""
        assert store.head is None
        assert store.turns() == []
        assert (store.log.length, store.log.committed, list(store.log.dead)) == (0, 0, [])
        assert store.digests.count == 0
        assert store.token_ids(0, 0) == []
        assert store.search("word") == []
        assert store.verify(deep=True).ok

    def test_identity_survives_reopening(self, home: Home, store: Store) -> None:
        """What an agent was made with is what it is opened with."""
        before = store.identity
        after = reopened(home, store).identity

        assert after == before
        assert home.peek("ada") == before
        assert (after.agent_id, after.model, after.layout) == ("ada", "tiny", LAYOUT)
        assert dict(after.fingerprint) == FINGERPRINT
        assert dict(after.facts) == {"chunk_tokens": 512}

    def test_create_refuses_a_taken_name(self, home: Home, store: Store) -> None:
        """A second agent of the same name is refused, and the first is untouched."""
        add_turn(store, 1, 5)

        with pytest.raises(AgentExistsError, match="ada"):
            create(home)
        assert same(contents(store.log), expected((1, 5)))

    @pytest.mark.parametrize("verb", ["open", "peek", "delete"])
    def test_missing_agent(self, home: Home, verb: str) -> None:
        """A name nobody has is a typed error that says the name."""
        with pytest.raises(AgentNotFoundError, match="nobody"):
            getattr(home, verb)("nobody")
        with pytest.raises(AgentNotFoundError, match="nobody"):
            home.fork("nobody", "somebody")
        assert not home.exists("nobody")

    @pytest.mark.parametrize("agent_id", ["", "a" * 513, "line\nbreak", "nul\0", "tab\t", "\ud800"])
    def test_bad_ids(self, home: Home, agent_id: str) -> None:
        """Ids that are empty, too long or hold control characters are refused."""
        with pytest.raises(InputError):
            create(home, agent_id)

    @pytest.mark.parametrize("agent_id", ["../../etc", "a/b", ".", "Ada", "🐕", " ", "a" * 512, "x.y\\z"])
    def test_odd_ids(self, home: Home, agent_id: str) -> None:
        """Any other text names an agent of its own, paths and capitals included."""
        create(home, "ada").close()
        create(home, agent_id).close()

        assert home.exists(agent_id)
        assert {info.agent_id for info in home.list()} == {"ada", agent_id}

    def test_ids_are_composed(self, home: Home) -> None:
        """Two spellings of the same Unicode text are the same agent."""
        create(home, "caf\u00e9").close()

        assert home.exists("cafe\u0301")
        with pytest.raises(AgentExistsError):
            create(home, "cafe\u0301")

    def test_list_orders_by_last_use(self, home: Home) -> None:
        """The listing tells turns, tokens and last use, newest first."""
        assert home.list() == []
        for name, year in (("old", 2020), ("new", 2026), ("mid", 2023)):
            store = create(home, name)
            add_turn(store, 1, 40, created_at=f"{year}-01-01T00:00:00+00:00")
            add_turn(store, 2, 2, created_at=f"{year}-06-01T00:00:00+00:00")
            store.close()

        rows = home.list()
        assert [row.agent_id for row in rows] == ["new", "mid", "old"]
        assert [(row.turns, row.tokens, row.model) for row in rows] == [(2, 42, "tiny")] * 3
        assert rows[0].last_used == "2026-06-01T00:00:00+00:00"
        assert all(row.bytes >= 42 * LAYOUT.bytes_per_token for row in rows)

    def test_delete(self, home: Home, store: Store) -> None:
        """A deleted agent is gone, its name free; an open one cannot be deleted."""
        with pytest.raises(AgentBusyError):
            home.delete("ada")
        store.close()
        home.delete("ada")

        assert not home.exists("ada")
        assert home.list() == []
        assert create(home).head is None

    def test_second_writer_is_refused(self, home: Home, store: Store) -> None:
        """Two writers never hold one agent; the error says what to do."""
        with pytest.raises(AgentBusyError, match="ada"):
            home.open("ada")
        with pytest.raises(AgentBusyError):
            home.open("ada", wait=0.05)
        add_turn(store, 1, 3)
        assert reopened(home, store).log.length == 3

    def test_waiting_writer_gets_its_turn(self, home: Home, store: Store) -> None:
        """A writer that waits is let in when the other closes."""
        thread = threading.Thread(target=lambda: (time.sleep(0.1), store.close()))
        thread.start()
        second = home.open("ada", wait=30.0)
        thread.join()

        assert second.head is None
        second.close()


class TestTurns:
    """A turn is committed as a whole or not at all."""

    def test_commit_and_reopen(self, home: Home, store: Store) -> None:
        """Tokens, ids, text and facts of turns are there after reopening, across segments."""
        first = add_turn(store, 1, 50, settings={"window": 8}, receipt={"blocks": [{"share": 0.5}]})
        second = add_turn(store, 2, 100, kind="observe", source="notes.txt", part=0, pending=None)
        turns = store.turns()
        store = reopened(home, store)

        assert turns == [first, second] == store.turns()
        assert store.head == second
        assert (first.parent, first.start, first.stop) == (None, 0, 50)
        assert (second.parent, second.start, second.stop) == (first.id, 50, 150)
        assert (first.settings, first.receipt) == ({"window": 8}, {"blocks": [{"share": 0.5}]})
        assert (second.source, second.part, second.pending) == ("notes.txt", 0, None)
        assert (store.log.length, store.log.committed) == (150, 150)
        assert same(contents(store.log), expected((1, 50), (2, 100)))
        assert store.token_ids(0, 150) == [*range(1000, 1050), *range(2000, 2100)]
        assert store.token_ids(48, 52) == [1048, 1049, 2000, 2001]

    def test_open_turn_can_be_read(self, store: Store) -> None:
        """Tokens of the open turn are read like any other, but are not committed."""
        add_turn(store, 1, 30)
        store.begin()
        store.log.append(*kv(2, 50))

        assert (store.log.length, store.log.committed) == (80, 30)
        assert same(contents(store.log), expected((1, 30), (2, 50)))
        with pytest.raises(InputError):
            store.token_ids(0, 31)

    def test_abort_leaves_the_state_before(self, home: Home, store: Store) -> None:
        """An aborted turn leaves log and digests as they were, here and after reopening."""
        add_turn(store, 1, 30, blocks=3)
        before = [part.clone() for part in store.digests.parts(0)]
        store.begin()
        store.log.append(*kv(2, 100))
        store.digests.append(digests(2, 4))
        store.abort()

        assert store.log.length == 30
        assert store.digests.count == 3
        assert same(store.digests.parts(0), before)
        add_turn(store, 3, 70)
        store = reopened(home, store)
        assert same(contents(store.log), expected((1, 30), (3, 70)))
        assert store.verify(deep=True).ok

    def test_abort_without_a_turn_does_nothing(self, store: Store) -> None:
        """Aborting is always allowed."""
        add_turn(store, 1, 3)
        store.abort()

        assert store.log.length == 3

    def test_close_drops_the_open_turn(self, home: Home, store: Store) -> None:
        """Closing in the middle of a turn is like aborting it."""
        add_turn(store, 1, 30)
        store.begin()
        store.log.append(*kv(2, 10))

        assert same(contents(reopened(home, store).log), expected((1, 30)))

    def test_truncate_within_the_turn(self, store: Store) -> None:
        """Tokens of the open turn can be taken back, committed ones cannot."""
        add_turn(store, 1, 30)
        store.begin()
        store.log.append(*kv(2, 60))
        store.log.truncate(40)
        store.log.append(*kv(3, 60))
        with pytest.raises(InputError, match="30"):
            store.log.truncate(29)
        store.commit(new_turn(2, 70))

        wanted = [
            torch.cat((a, b[:, :10], c), dim=1)
            for a, b, c in zip(expected((1, 30)), expected((2, 60)), expected((3, 60)), strict=True)
        ]
        assert same(contents(store.log), wanted)

    def test_many_small_appends(self, home: Home, store: Store) -> None:
        """Tokens appended one at a time are the same as appended at once."""
        store.begin()
        keys, values = kv(1, 70)
        for i in range(70):
            store.log.append([k[:, i : i + 1] for k in keys], [v[:, i : i + 1] for v in values])
        store.commit(new_turn(1, 70))

        assert same(contents(reopened(home, store).log), expected((1, 70)))

    def test_turn_without_tokens(self, home: Home, store: Store) -> None:
        """A turn may add no tokens at all."""
        store.begin()
        store.log.append(*kv(1, 0))
        empty = store.commit(new_turn(1, 0))
        add_turn(store, 2, 5)
        store = reopened(home, store)

        assert (empty.start, empty.stop) == (0, 0)
        assert [turn.stop for turn in store.turns()] == [0, 5]
        assert store.turn_at(0).state_id == "state-2"

    def test_ids_must_match_tokens(self, store: Store) -> None:
        """A turn with more or fewer ids than tokens is refused and stays open."""
        store.begin()
        store.log.append(*kv(1, 5))

        with pytest.raises(InputError, match="5"):
            store.commit(new_turn(1, 4))
        assert store.commit(new_turn(1, 5)).stop == 5

    def test_unstorable_values_are_refused(self, home: Home, store: Store) -> None:
        """A receipt that is not JSON fails the commit and changes nothing."""
        store.begin()
        store.log.append(*kv(1, 5))
        with pytest.raises(InputError, match="JSON"):
            store.commit(new_turn(1, 5, receipt={"x": object()}))
        assert store.head is None
        store.abort()

        assert reopened(home, store).log.length == 0

    def test_order_of_calls(self, store: Store) -> None:
        """Committing or appending without a turn, or opening two, are errors that change nothing."""
        with pytest.raises(StoreError, match="begin"):
            store.commit(new_turn(1, 0))
        with pytest.raises(StoreError, match="begin"):
            store.log.append(*kv(1, 1))
        store.begin()
        for call in (store.begin, store.collect, lambda: store.rewind(None), lambda: store.forget([])):
            with pytest.raises(StoreError, match="open"):
                call()
        store.abort()

    def test_odd_text(self, home: Home, store: Store) -> None:
        """Messages come back verbatim: nested, empty, with nul, half surrogates and emoji."""
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "nul \0 half \ud800 🐕"}]},
            {"role": "assistant", "content": "", "tool_calls": [{"args": {"x": [1, 2.5, None, True]}}]},
        ]
        add_turn(store, 1, 1, messages=messages)

        assert list(reopened(home, store).turns()[0].messages) == messages

    def test_closed_store(self, store: Store) -> None:
        """After closing, changes raise ClosedError; closing again is fine."""
        store.close()
        store.close()

        with pytest.raises(ClosedError):
            store.begin()


class TestLookup:
    """Turns are found by id, position, state, source and words."""

    @pytest.fixture
    def told(self, store: Store) -> Store:
        """A store with four turns."""
        say = lambda text: [{"role": "user", "content": text}]
        add_turn(store, 1, 10, messages=say("My dog is called Biscuit."))
        add_turn(store, 2, 10, messages=say("The Café is in Zürich"), source="a", part=0)
        add_turn(store, 3, 10, messages=say("Biscuits are in the jar; the dog ate them"), source="a", part=1)
        add_turn(store, 4, 10, messages=say("nothing"), source="b", part=0)
        return store

    def test_turns_with_limit(self, told: Store) -> None:
        """A limit keeps the newest turns, still oldest first."""
        assert [turn.state_id for turn in told.turns(limit=2)] == ["state-3", "state-4"]
        assert len(told.turns(limit=100)) == 4
        assert told.turns(limit=0) == []

    def test_turn_at(self, told: Store) -> None:
        """Every position belongs to one turn; positions outside are refused."""
        assert [told.turn_at(p).state_id for p in (0, 9, 10, 39)] == [
            "state-1",
            "state-1",
            "state-2",
            "state-4",
        ]
        for position in (-1, 40):
            with pytest.raises(InputError):
                told.turn_at(position)

    def test_turn_and_state(self, told: Store) -> None:
        """A turn is found by its id and by its state id; others are typed errors."""
        second = told.turns()[1]

        assert told.turn(second.id) == second == told.find_state("state-2")
        with pytest.raises(StateNotFoundError):
            told.turn(99)
        with pytest.raises(StateNotFoundError, match="state-9"):
            told.find_state("state-9")

    def test_observed_parts(self, told: Store) -> None:
        """The parts of one source come in order; rewinding takes later ones away."""
        assert [turn.part for turn in told.observed_parts("a")] == [0, 1]
        assert told.observed_parts("c") == []
        told.rewind("state-2")
        assert [turn.part for turn in told.observed_parts("a")] == [0]

    @pytest.mark.parametrize(
        ("query", "states"),
        [
            ("biscuit", [3, 1]),
            ("BISCUIT dog", [3, 1]),
            ("biscuits", [3]),
            ("cafe zurich", [2]),
            ("dog missing", []),
            ("", []),
            ('" OR 1=1 -- *', []),
            ("NEAR(dog", []),
            ("in", [3, 2]),
        ],
    )
    def test_search(self, told: Store, query: str, states: list[int]) -> None:
        """All words must occur, as beginnings of words; case and accents do not count; newest first."""
        assert [turn.state_id for turn in told.search(query)] == [f"state-{n}" for n in states]

    def test_search_limit_and_branch(self, told: Store) -> None:
        """Only turns of the current branch are found, and no more than the limit."""
        assert len(told.search("dog", limit=1)) == 1
        told.rewind("state-2")
        assert [turn.state_id for turn in told.search("dog")] == ["state-1"]

    def test_notes(self, home: Home, told: Store) -> None:
        """Named values are kept, replaced and survive reopening; unknown names are None."""
        told.note("config", {"window": 1})
        told.note("config", {"window": [2, None]})
        told = reopened(home, told)

        assert told.noted("config") == {"window": [2, None]}
        assert told.noted("other") is None


class TestReading:
    """Reading and gathering fill the caller's buffers, to the bit."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_dtypes(self, home: Home, dtype: torch.dtype) -> None:
        """Every dtype is kept exactly, infinities and negative zero included."""
        layout = KVLayout(((2, 4),), dtype)
        store = create(home, "typed", layout)
        keys = [torch.tensor([0.0, -0.0, float("inf"), -1.5]).to(dtype).expand(2, 40, 4).contiguous()]
        store.begin()
        store.log.append(keys, keys)
        store.commit(new_turn(1, 40))
        store = reopened(home, store)

        found = contents(store.log)
        raw = torch.int16 if dtype.itemsize == 2 else torch.int32
        assert torch.equal(found[0].view(raw), keys[0].view(raw))
        store.close()

    def test_gather(self, store: Store) -> None:
        """Tokens are gathered per head, in any order, repeated, across turns, segments and the open turn."""
        for seed in range(1, 5):
            add_turn(store, seed, 45)
        store.begin()
        store.log.append(*kv(5, 20))
        whole = contents(store.log)
        random = torch.Generator().manual_seed(0)
        for layer, (heads, dim) in enumerate(LAYOUT.layers):
            for chosen in (
                torch.randint(0, 200, (heads, 64), generator=random),
                torch.randint(0, 200, (heads, 64), generator=random).sort().values,
                torch.arange(10, 30).expand(heads, -1),
                torch.full((heads, 3), 199),
                torch.empty(heads, 0, dtype=torch.int64),
            ):
                keys = torch.empty(heads, chosen.shape[1], dim)
                values = torch.empty_like(keys)
                store.log.gather(layer, chosen, keys, values)
                index = chosen[..., None].expand(-1, -1, dim)
                assert torch.equal(keys, whole[2 * layer].gather(1, index))
                assert torch.equal(values, whole[2 * layer + 1].gather(1, index))

    def test_buffers_may_be_slices(self, store: Store) -> None:
        """A part of a larger buffer is filled in place, the rest untouched; either half may be left out."""
        add_turn(store, 1, 100)
        whole = contents(store.log)
        buffer = torch.full((2, 50, 4), 7.0)
        store.log.read(0, 20, 90, torch.empty(2, 70, 4), None)
        store.log.read(0, 20, 30, buffer[:, 5:15], None)
        store.log.gather(0, torch.tensor([[1, 99, 65], [0, 2, 64]]), None, buffer[:, 20:23])

        assert torch.equal(buffer[:, 5:15], whole[0][:, 20:30])
        assert torch.equal(buffer[0, 20:23], whole[1][0, [1, 99, 65]])
        assert torch.equal(buffer[1, 20:23], whole[1][1, [0, 2, 64]])
        assert (buffer[:, :5] == 7).all() and (buffer[:, 15:20] == 7).all() and (buffer[:, 23:] == 7).all()

    def test_append_takes_views(self, store: Store) -> None:
        """What is appended may be a view with any strides."""
        keys, values = kv(1, 40)
        store.begin()
        store.log.append([k.transpose(0, 1).contiguous().transpose(0, 1) for k in keys], values)
        store.commit(new_turn(1, 40))

        assert same(contents(store.log), expected((1, 40)))

    def test_wrong_shapes_are_refused(self, store: Store) -> None:
        """Wrong shapes, dtypes and ranges raise before anything is written."""
        keys, values = kv(1, 4)
        store.begin()
        for bad in (
            ([keys[0]], values),
            (keys, [values[0], values[1][:, :3]]),
            ([keys[0].half(), keys[1]], values),
            ([keys[1], keys[0]], values),
        ):
            with pytest.raises(ShapeError):
                store.log.append(*bad)
        assert store.log.length == 0
        store.log.append(keys, values)
        out = torch.empty(2, 4, 4)
        with pytest.raises(ShapeError):
            store.log.read(0, 0, 3, out, None)
        with pytest.raises(ShapeError):
            store.log.gather(0, torch.zeros(1, 4, dtype=torch.int64), out, None)
        with pytest.raises(InputError):
            store.log.read(0, 1, 5, out, None)
        for wrong in (-1, 4):
            with pytest.raises(InputError):
                store.log.gather(0, torch.full((2, 4), wrong), out, None)


class TestDigests:
    """Digests are kept with the turn, for one kind at a time."""

    @staticmethod
    def all_of(store: Store) -> list[torch.Tensor]:
        """All digests, per layer."""
        return [torch.cat(list(store.digests.parts(layer)), dim=1) for layer in range(2)]

    def test_kept_with_the_turn(self, home: Home, store: Store) -> None:
        """Digests committed with a turn are there after reopening, in order, across files."""
        store.digests.select("mean:32")
        add_turn(store, 1, 5, blocks=3)
        add_turn(store, 2, 5, blocks=7)
        store = reopened(home, store)
        store.digests.select("mean:32")

        assert store.digests.count == 10
        wanted = [torch.cat(pair, dim=1) for pair in zip(digests(1, 3), digests(2, 7), strict=True)]
        assert same(self.all_of(store), wanted)

    def test_another_kind_empties(self, home: Home, store: Store) -> None:
        """Selecting another kind drops what was there; the same kind keeps it."""
        store.digests.select("mean:32")
        add_turn(store, 1, 5, blocks=3)
        store.digests.select("mean:32")
        assert store.digests.count == 3
        store.digests.select("mean:64")
        assert store.digests.count == 0
        add_turn(store, 2, 5, blocks=1)
        store = reopened(home, store)
        store.digests.select("mean:64")

        assert same(self.all_of(store), digests(2, 1))

    def test_made_outside_a_turn(self, home: Home, store: Store) -> None:
        """Digests may be made between turns; they are kept with the next one."""
        add_turn(store, 1, 5)
        store.digests.append(digests(1, 6))
        assert same(self.all_of(store), digests(1, 6))
        add_turn(store, 2, 5)

        assert same(self.all_of(reopened(home, store)), digests(1, 6))

    def test_truncate(self, home: Home, store: Store) -> None:
        """Digests behind a block can be dropped and made anew."""
        add_turn(store, 1, 5, blocks=6)
        store.digests.truncate(5)
        store.begin()
        store.digests.append(digests(2, 2))
        store.commit(new_turn(2, 0))
        wanted = [torch.cat((a[:, :5], b), dim=1) for a, b in zip(digests(1, 6), digests(2, 2), strict=True)]

        assert same(self.all_of(reopened(home, store)), wanted)

    def test_rewind_keeps_what_still_holds(self, home: Home, store: Store) -> None:
        """After a rewind only digests of the turns that are left remain."""
        store.digests.select("mean:32")
        add_turn(store, 1, 5, blocks=5)
        add_turn(store, 2, 5, blocks=5)
        store.rewind("state-1")

        assert same(self.all_of(store), digests(1, 5))
        assert same(self.all_of(reopened(home, store)), digests(1, 5))

    def test_wrong_shapes_are_refused(self, store: Store) -> None:
        """Digests that do not fit the layout are refused."""
        with pytest.raises(ShapeError):
            store.digests.append(digests(1, 3)[::-1])
        assert store.digests.count == 0


class TestRewindAndFork:
    """Turns form a tree; the head moves on it, and a fork has a tree of its own."""

    def test_rewind_and_go_on(self, home: Home, store: Store) -> None:
        """After a rewind new turns make a new branch; the old one can be returned to."""
        add_turn(store, 1, 40)
        add_turn(store, 2, 40)
        store.rewind("state-1")
        assert same(contents(store.log), expected((1, 40)))
        add_turn(store, 3, 40)
        store = reopened(home, store)

        assert same(contents(store.log), expected((1, 40), (3, 40)))
        assert [turn.state_id for turn in store.turns()] == ["state-1", "state-3"]
        store.rewind("state-2")
        assert same(contents(store.log), expected((1, 40), (2, 40)))
        assert store.token_ids(38, 42) == [1038, 1039, 2000, 2001]
        assert store.verify(deep=True).ok

    def test_rewind_to_the_beginning(self, home: Home, store: Store) -> None:
        """Before the first turn the memory is empty, durably."""
        add_turn(store, 1, 40)
        store.rewind(None)
        assert (store.head, store.log.length, store.turns()) == (None, 0, [])
        store = reopened(home, store)

        assert store.head is None
        add_turn(store, 2, 10)
        assert same(contents(store.log), expected((2, 10)))
        with pytest.raises(StateNotFoundError):
            store.rewind("nowhere")
        assert store.log.length == 10

    def test_same_state_twice(self, store: Store) -> None:
        """Saying the same again after a rewind gives the same state id; the branch's own turn is meant."""
        add_turn(store, 1, 4)
        add_turn(store, 2, 4)
        store.rewind("state-1")
        again = add_turn(store, 2, 4)

        assert store.find_state("state-2").id == again.id

    def test_fork_is_isolated(self, home: Home, store: Store) -> None:
        """A fork has the past, a new identity, and what happens to one never shows in the other."""
        add_turn(store, 1, 100, blocks=5)
        add_turn(store, 2, 20, blocks=2)
        store.begin()
        store.log.append(*kv(9, 30))
        home.fork("ada", "bob")
        store.abort()
        bob = home.open("bob")

        assert bob.identity.uuid != store.identity.uuid
        assert bob.identity.agent_id == "bob"
        assert bob.turns() == store.turns()
        assert bob.digests.count == store.digests.count == 7
        add_turn(store, 3, 60, blocks=3)
        add_turn(bob, 4, 70)
        assert bob.forget([bob.turns()[0].id]) == 100
        store, bob = reopened(home, store), reopened(home, bob)
        assert same(contents(store.log), expected((1, 100), (2, 20), (3, 60)))
        assert same(contents(bob.log), expected((-1, 100), (2, 20), (4, 70)))
        assert store.digests.count == 10
        assert store.verify(deep=True).ok and bob.verify(deep=True).ok
        bob.close()

    def test_fork_refuses_a_taken_name(self, home: Home, store: Store) -> None:
        """Forking onto an agent that is there changes neither."""
        add_turn(store, 1, 3)
        create(home, "bob").close()

        with pytest.raises(AgentExistsError):
            home.fork("ada", "bob")
        assert home.open("bob").head is None

    def test_deleting_a_fork_leaves_the_source(self, home: Home, store: Store) -> None:
        """The source reads on after its fork was removed, and the other way round."""
        add_turn(store, 1, 100)
        home.fork("ada", "bob")
        home.fork("ada", "eve")
        home.delete("bob")
        assert same(contents(reopened(home, store).log), expected((1, 100)))
        home.open("eve").close()


class TestForget:
    """What is forgotten is gone; what stays keeps its position."""

    def test_forget(self, home: Home, store: Store) -> None:
        """Text, ids and K/V of a turn are dropped; its range is dead; its state cannot be returned to."""
        for seed in (1, 2, 3):
            add_turn(store, seed, 50, source=f"s{seed}", part=0)
        ids = [turn.id for turn in store.turns()]
        assert store.forget([ids[1]]) == 50

        for again in (False, True):
            store = reopened(home, store) if again else store
            assert list(store.log.dead) == [(50, 100)]
            assert same(contents(store.log), expected((1, 50), (-2, 50), (3, 50)))
            assert store.token_ids(49, 101) == [1049, *[-1] * 50, 3000]
            assert store.search("number2") == []
            assert store.observed_parts("s2") == []
            with pytest.raises(StateForgottenError, match="state-2"):
                store.find_state("state-2")
        gone = store.turn(ids[1])
        assert gone.forgotten and (gone.start, gone.stop, gone.state_id) == (50, 100, "state-2")
        assert (gone.messages, gone.pending, gone.source, gone.settings, gone.receipt) == (
            [],
            None,
            None,
            {},
            {},
        )
        assert store.turn_at(70) == gone
        assert store.verify(deep=True).ok

    def test_forget_twice_and_wrong_ids(self, store: Store) -> None:
        """Forgetting again drops nothing more; an unknown turn is refused before anything is dropped."""
        first = add_turn(store, 1, 10)
        second = add_turn(store, 2, 10)

        with pytest.raises(StateNotFoundError):
            store.forget([first.id, 99])
        assert list(store.log.dead) == []
        assert store.forget([first.id, first.id, second.id]) == 20
        assert store.forget([first.id]) == 0
        assert list(store.log.dead) == [(0, 20)]

    def test_forget_head_and_go_on(self, home: Home, store: Store) -> None:
        """The newest turn can be forgotten, and the conversation goes on behind it."""
        add_turn(store, 1, 10)
        store.forget([add_turn(store, 2, 10).id])
        assert store.head is not None and store.head.forgotten
        add_turn(store, 3, 10)

        assert same(contents(reopened(home, store).log), expected((1, 10), (-2, 10), (3, 10)))

    def test_forget_on_another_branch(self, home: Home, store: Store) -> None:
        """A turn of another branch can be forgotten; this branch is untouched."""
        add_turn(store, 1, 10, blocks=1)
        other = add_turn(store, 2, 10)
        store.rewind("state-1")
        add_turn(store, 3, 10, blocks=1)
        assert store.forget([other.id]) == 10
        store = reopened(home, store)

        assert list(store.log.dead) == []
        assert store.digests.count == 2
        assert same(contents(store.log), expected((1, 10), (3, 10)))

    def test_forget_drops_digests_from_there(self, home: Home, store: Store) -> None:
        """Digests made before the forgotten turn stay; later ones are computed again."""
        store.digests.select("mean:32")
        for seed in (1, 2, 3):
            add_turn(store, seed, 50, blocks=3)
        store.forget([store.turns()[1].id])

        assert store.digests.count == 3
        assert reopened(home, store).digests.count == 3


class TestCollect:
    """Collecting frees what no turn reaches, and changes nothing that is reachable."""

    def test_without_prune_nothing_reachable_goes(self, home: Home, store: Store) -> None:
        """Other branches stay unless they are pruned."""
        add_turn(store, 1, 40)
        add_turn(store, 2, 40)
        store.rewind("state-1")
        report = store.collect()
        assert (report.turns, report.tokens) == (0, 0)
        store.rewind("state-2")

        assert same(contents(reopened(home, store).log), expected((1, 40), (2, 40)))

    def test_collect_after_an_abandoned_turn(self, home: Home, store: Store) -> None:
        """Collecting what an aborted turn left does not confuse the next turn."""
        store.begin()
        store.log.append(*kv(1, 100))
        contents(store.log)
        store.abort()
        store.collect()
        add_turn(store, 2, 90)

        assert same(contents(store.log), expected((2, 90)))
        assert same(contents(reopened(home, store).log), expected((2, 90)))

    def test_prune(self, home: Home, store: Store) -> None:
        """Pruned turns are gone for good; the branch and what is added later are whole."""
        add_turn(store, 1, 40)
        add_turn(store, 2, 100, blocks=1)
        store.rewind("state-1")
        add_turn(store, 3, 10)
        add_turn(store, 4, 50)
        store.rewind("state-3")
        report = store.collect(prune=True)

        assert (report.turns, report.tokens) == (2, 150)
        with pytest.raises(StateNotFoundError):
            store.rewind("state-2")
        add_turn(store, 5, 90)
        store = reopened(home, store)
        assert same(contents(store.log), expected((1, 40), (3, 10), (5, 90)))
        assert store.verify(deep=True).ok

    def test_prune_everything(self, home: Home, store: Store) -> None:
        """With the head before the first turn, pruning leaves an empty agent that can go on."""
        add_turn(store, 1, 100)
        store.rewind(None)
        assert store.collect(prune=True).turns == 1
        add_turn(store, 2, 10)

        assert same(contents(reopened(home, store).log), expected((2, 10)))


class TestReadOnly:
    """A reader needs no lock and changes nothing."""

    def test_reader_beside_the_writer(self, home: Home, store: Store) -> None:
        """A reader sees what was committed when it opened, while the writer goes on."""
        add_turn(store, 1, 40, blocks=2)
        store.begin()
        store.log.append(*kv(2, 40))
        reader = home.open("ada", read_only=True)

        assert reader.read_only and not store.read_only
        assert same(contents(reader.log), expected((1, 40)))
        assert reader.digests.count == 2
        store.commit(new_turn(2, 40))
        assert reader.log.length == 40
        assert [turn.state_id for turn in reader.turns()] == ["state-1"]
        reader.close()

    def test_reader_refuses_changes(self, home: Home, store: Store) -> None:
        """Every verb that changes something raises ReadOnlyError."""
        turn = add_turn(store, 1, 4)
        reader = home.open("ada", read_only=True)
        for call in (
            reader.begin,
            reader.collect,
            lambda: reader.rewind(None),
            lambda: reader.forget([turn.id]),
            lambda: reader.note("a", 1),
        ):
            with pytest.raises(ReadOnlyError):
                call()
        reader.abort()
        reader.close()

    def test_reader_digests_live_in_memory(self, home: Home, store: Store) -> None:
        """A reader may compute missing digests for itself; nobody else sees them."""
        store.digests.select("mean:32")
        add_turn(store, 1, 40, blocks=5)
        reader = home.open("ada", read_only=True)
        reader.digests.select("mean:32")
        reader.digests.append(digests(2, 3))

        assert reader.digests.count == 8
        wanted = [torch.cat(pair, dim=1) for pair in zip(digests(1, 5), digests(2, 3), strict=True)]
        assert same(TestDigests.all_of(reader), wanted)
        reader.digests.truncate(4)
        assert same(TestDigests.all_of(reader), [d[:, :4] for d in digests(1, 5)])
        reader.digests.select("mean:64")
        assert reader.digests.count == 0
        reader.close()
        assert store.digests.count == 5

    def test_times_are_kept_verbatim(self, home: Home, store: Store) -> None:
        """A turn's time is what the caller said, and orders nothing."""
        add_turn(store, 1, 1, created_at="1999-01-01T00:00:00+00:00")
        add_turn(store, 2, 1, created_at=AT)
        add_turn(store, 3, 1, created_at="0001-01-01T00:00:00+14:00")

        assert [turn.state_id for turn in reopened(home, store).turns()] == ["state-1", "state-2", "state-3"]
