"""Which other agents of the same home still hold what is forgotten here: forks, their forks, and whom they came from.

A fork keeps the state ids of its past, and no two agents share one otherwise. So after a first fork was noted, all
agents of the home are asked; before it, none. Reads indexes only, and changes nothing but its own note.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from agentmem.errors import StateNotFoundError, StoreError
from agentmem.store.base import Home, Store

FORKS_NOTE = "forks"


def note_fork(store: Store, name: str) -> None:
    """Say that there shall be a fork of that name. Made before it, so that the fork has the note, too."""
    names = store.noted(FORKS_NOTE) or []
    if name not in names:
        store.note(FORKS_NOTE, [*names, name])


def holders(home: Home, store: Store, states: Sequence[str]) -> list[str]:
    """Names of other agents in which any of these states is still alive, sorted; damaged ones are left out."""
    if not states or not store.noted(FORKS_NOTE):
        return []
    return sorted(
        info.agent_id
        for info in home.list()
        if info.agent_id != store.identity.agent_id and _holds(home, info.agent_id, states)
    )


def _holds(home: Home, agent_id: str, states: Sequence[str]) -> bool:
    with suppress(StoreError):
        other = home.open(agent_id, read_only=True)
        try:
            return any(_alive(other, state) for state in states)
        finally:
            other.close()
    return False


def _alive(store: Store, state: str) -> bool:
    try:
        return store.find_state(state).state_id == state  # not one that was rebuilt without it
    except StateNotFoundError:
        return False
