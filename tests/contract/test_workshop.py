"""Agents made out of sight and put in place in one step, and repairs of sound agents: what every home does."""

from __future__ import annotations

import pytest

from agentmem.errors import (
    AgentBusyError,
    AgentExistsError,
    AgentNotFoundError,
    ReadOnlyError,
    StaleWriterError,
)
from agentmem.store import Home
from support.stores import add_turn, contents, create, expected, same


def with_draft(home: Home, new_id: str = "ada") -> tuple[str, str | None]:
    """Agent "ada" of one turn, and a draft of two in its workshop; (uuid, head) of the first."""
    store = create(home)
    add_turn(store, 1, 5)
    standing = store.identity.uuid, "state-1"
    store.close()
    draft = create(home.workshop("ada"), new_id)
    add_turn(draft, 2, 7)
    add_turn(draft, 3, 2)
    draft.close()
    return standing


def held(home: Home, name: str) -> list[str]:
    """The states of an agent."""
    store = home.open(name)
    assert store.verify(deep=True).ok
    found = [turn.state_id for turn in store.turns()]
    store.close()
    return found


def test_a_draft_is_not_seen(home: Home) -> None:
    """Nothing lists or opens it before it is put in place; it can be gone on with."""
    with_draft(home, "eve")

    assert [info.agent_id for info in home.list()] == ["ada"]
    assert not home.exists("eve")
    assert held(home.workshop("ada"), "eve") == ["state-2", "state-3"]


def test_a_draft_becomes_an_agent(home: Home) -> None:
    """Under its own name; the workshop is empty then."""
    with_draft(home, "eve")
    home.put_in_place("ada", "eve")
    store = home.open("eve")

    assert same(contents(store.log), expected((2, 7), (3, 2)))
    store.close()
    assert (held(home, "ada"), held(home, "eve")) == (["state-1"], ["state-2", "state-3"])
    assert not home.workshop("ada").exists("eve")
    with pytest.raises(AgentNotFoundError):
        home.put_in_place("ada", "eve")


def test_a_draft_takes_the_place_of_another(home: Home) -> None:
    """The old agent is gone, and its store is of no use to who parked it."""
    standing = with_draft(home)
    parked = home.open("ada")
    parked.park()
    home.put_in_place("ada", "ada", over=(standing[0], standing[1]))

    assert held(home, "ada") == ["state-2", "state-3"]
    assert not parked.unpark()
    assert held(home, "ada") == ["state-2", "state-3"]
    assert not home.workshop("ada").exists("ada")


def test_an_agent_that_went_on_is_not_replaced(home: Home) -> None:
    """A turn committed meanwhile is not lost: StaleWriterError, and both are as they were."""
    standing = with_draft(home)
    store = home.open("ada")
    add_turn(store, 4, 1)
    store.close()

    for over in (standing, ("0" * 32, "state-4"), (standing[0], None)):
        with pytest.raises(StaleWriterError):
            home.put_in_place("ada", "ada", over=over)
    assert held(home, "ada") == ["state-1", "state-4"]
    home.put_in_place("ada", "ada", over=(standing[0], "state-4"))
    assert held(home, "ada") == ["state-2", "state-3"]


def test_names_that_are_taken_or_held(home: Home) -> None:
    """AgentExistsError, AgentBusyError: nothing has changed."""
    standing = with_draft(home)
    with pytest.raises(AgentExistsError):
        home.put_in_place("ada", "ada")
    store = home.open("ada")
    with pytest.raises(AgentBusyError):
        home.put_in_place("ada", "ada", over=standing)
    store.close()
    draft = home.workshop("ada").open("ada")
    with pytest.raises(AgentBusyError):
        home.put_in_place("ada", "ada", over=standing)
    draft.close()
    assert held(home, "ada") == ["state-1"]


def test_drafts_go_with_their_agent(home: Home) -> None:
    """Deleting an agent, or clearing its workshop, leaves none of them."""
    with_draft(home, "eve")
    home.clear_workshop("ada")
    home.clear_workshop("ada")
    assert not home.workshop("ada").exists("eve")
    create(home.workshop("ada"), "eve").close()
    home.delete("ada")
    assert not home.workshop("ada").exists("eve")


def test_a_sound_agent_has_nothing_to_repair(home: Home) -> None:
    """The report is empty, and nothing has changed; a reader may ask what would be done."""
    store = create(home)
    add_turn(store, 1, 40, blocks=3)

    for dry_run in (True, False):
        report = store.repair(lambda _: (), dry_run=dry_run)
        assert (report.found, report.ok, report.dry_run) == (False, True, dry_run)
    assert same(contents(store.log), expected((1, 40)))
    assert store.digests.count == 3
    store.close()
    reader = home.open("ada", read_only=True)
    assert reader.repair(lambda _: (), dry_run=True).ok
    with pytest.raises(ReadOnlyError):
        reader.repair(lambda _: ())
    reader.close()
