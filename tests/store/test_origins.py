"""Where words came from: every turn carries role, source and trust, also in an index that is older than they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.store import DiskHome
from agentmem.store.origins import role_of
from support.old_index import make_older, versions
from support.stores import add_turn, contents, create, expected, same

MESSAGES = {
    "user": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}],
    "tool": [{"role": "user", "content": "So?"}, {"role": "tool", "content": "42"}],
    "system": [{"role": "system", "content": "Be kind."}],
    "assistant": [{"role": "assistant", "content": "By the way"}],
}


def test_a_turn_is_as_trusted_as_its_least_trusted_message() -> None:
    """Tools below users below the system; a reply counts only alone; unknown roles count as the least trusted."""
    assert {role: role_of(messages) for role, messages in MESSAGES.items()} == {
        role: role for role in MESSAGES
    }
    assert role_of([*MESSAGES["tool"], {"role": "ipython", "content": "x"}]) == "ipython"
    assert role_of([]) == "user"


@pytest.mark.parametrize("before", versions()[1:])
@pytest.mark.parametrize("read_only", [False, True])
def test_an_index_of_every_past_format_is_read(tmp_path: Path, before: str, read_only: bool) -> None:
    """All turns, texts, ids and K/V are there; what the old tables did not know has its default."""
    home = DiskHome(tmp_path, segment_tokens=64)
    store = create(home)
    for number, (role, messages) in enumerate(MESSAGES.items()):
        add_turn(store, number, 20, messages=messages, source=role)
    store.note("config", {"a": 1})
    turns, ids = store.turns(), store.token_ids(0, 80)
    store.close()
    make_older(next((tmp_path / "agents").iterdir()) / "agent.db", before)

    store = home.open("ada", read_only=read_only)
    assert store.turns() == turns
    assert store.token_ids(0, 80) == ids
    assert same(contents(store.log), expected(*((number, 20) for number in range(4))))
    assert [(o.role, o.source, o.trust) for o in store.origins()] == [(role, role, role) for role in MESSAGES]
    assert store.noted("config") == {"a": 1}
    assert [turn.id for turn in store.search("hello")] == [1]
    assert store.verify(deep=True).ok
    if not read_only:
        add_turn(store, 9, 5, trust="web")
        assert store.origins()[-1].trust == "web"
    store.close()
