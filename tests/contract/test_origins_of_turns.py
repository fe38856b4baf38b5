"""Origins, on disk and in memory alike: role, source and trust of every living turn of the current branch."""

from __future__ import annotations

from agentmem.store import Home
from agentmem.store.base import Origin
from support.stores import add_turn, create


def test_turns_carry_role_source_and_trust(home: Home) -> None:
    """What is named is kept, what is not has its default; both survive reopening and a fork."""
    store = create(home)
    add_turn(store, 1, 5)
    add_turn(store, 2, 7, source="page", trust="web", messages=[{"role": "tool", "content": "x"}])
    add_turn(store, 3, 0, role="system", messages=[])
    wanted = [
        Origin(1, 0, 5, "user", None, "user"),
        Origin(2, 5, 12, "tool", "page", "web"),
        Origin(3, 12, 12, "system", None, "system"),
    ]
    assert store.origins() == wanted
    assert [(turn.role, turn.trust) for turn in store.turns()] == [(o.role, o.trust) for o in wanted]
    store.close()
    home.fork("ada", "eve")
    for name in ("ada", "eve"):
        store = home.open(name, read_only=True)
        assert store.origins() == wanted
        store.close()


def test_origins_are_those_of_the_branch_one_stands_on(home: Home) -> None:
    """Other branches and forgotten turns are left out, within an open turn too."""
    store = create(home)
    for number in (1, 2, 3):
        add_turn(store, number, 5)
    store.rewind("state-1")
    add_turn(store, 4, 5, trust="web")
    store.forget([1])
    assert [origin.turn for origin in store.origins()] == [4]
    store.begin("state-3")
    assert [origin.turn for origin in store.origins()] == [2, 3]
    store.abort()
    assert [origin.turn for origin in store.origins()] == [4]
    store.close()


def test_origins_of_some_sources(home: Home) -> None:
    """Asked for sources, turns without one of them are left out; what is added later is there too."""
    store = create(home)
    for number, source in enumerate(("page", None, "mail", "page"), start=1):
        add_turn(store, number, 5, source=source)
    assert [origin.turn for origin in store.origins({"page"})] == [1, 4]
    assert [origin.turn for origin in store.origins({"mail", "nowhere"})] == [3]
    assert store.origins(()) == []
    assert [origin.turn for origin in store.origins()] == [1, 2, 3, 4]
    add_turn(store, 5, 5, source="mail")
    assert [origin.turn for origin in store.origins()] == [1, 2, 3, 4, 5]
    store.forget([3])
    assert [origin.turn for origin in store.origins({"mail", "page"})] == [1, 4, 5]
    store.close()
