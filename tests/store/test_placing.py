"""Putting a finished agent in the place of another one, killed or refused anywhere: the old one or the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.errors import StoreError
from agentmem.store import DiskHome
from support.killing import killed
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, add_turn, create


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """Agent "ada" of one turn, and in its workshop another "ada" of two."""
    home = DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)
    store = create(home)
    add_turn(store, 1, 5)
    store.close()
    draft = create(home.workshop("ada"))
    add_turn(draft, 2, 7)
    add_turn(draft, 3, 2)
    draft.close()
    return home


def put(home: DiskHome) -> None:
    """Replace the old agent."""
    home.put_in_place("ada", "ada", over=(home.peek("ada").uuid, "state-1"))


def held(home: DiskHome) -> list[str]:
    """The states of the only agent there is; it verifies, and goes on."""
    assert [info.agent_id for info in home.list()] == ["ada"]
    store = home.open("ada")
    assert store.verify(deep=True).ok
    states = [turn.state_id for turn in store.turns()]
    add_turn(store, 9, 3)
    store.rewind(states[-1])
    store.close()
    return states


@pytest.mark.parametrize(
    ("at", "new"),
    [
        ("placing._standing", False),
        ("placing.exchange", False),
        ("placing.sync_folder", True),
        ("placing.remove", True),
        ("birth.shutil.rmtree", True),
        ("home.clear", True),
    ],
)
def test_a_kill_leaves_one_of_them(home: DiskHome, at: str, new: bool) -> None:
    """Whole, under its name; what is left in the workshop goes with the next clearing."""
    killed(home, lambda _: put(home), at, opens=False)

    assert held(home) == (["state-2", "state-3"] if new else ["state-1"])
    home.clear_workshop("ada")
    assert not list(home.home.glob("workshop/*"))
    assert held(home) == (["state-2", "state-3"] if new else ["state-1"])


def test_a_file_system_that_cannot_exchange(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """StoreError with the remedy; both are as they were, and another name works."""

    def refusing(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    with monkeypatch.context() as patch:
        patch.setattr("agentmem.store.placing.exchange", refusing)
        with pytest.raises(StoreError, match="another name"):
            put(home)
    assert held(home) == ["state-1"]
    put(home)
    assert held(home) == ["state-2", "state-3"]


def test_the_workshop_is_private(home: DiskHome) -> None:
    """Only the owner may look in, as in every folder of a home."""
    for path in home.home.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
