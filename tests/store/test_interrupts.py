"""Ctrl-C at any moment of a read of the index is Ctrl-C, and nothing is lost by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.errors import StoreError
from agentmem.store import DiskHome, seals
from support.stores import add_turn, create


def test_ctrl_c_while_a_row_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite makes an error of its own of what its callback raises; the caller gets the interrupt, and can go on."""
    home = DiskHome(tmp_path)
    store = create(home)
    add_turn(store, 1, 20)

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(seals, "_fits", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(store.turns())

    assert len(list(store.turns())) == 1
    add_turn(store, 2, 20)
    assert store.verify(deep=True).ok
    store.close()


@pytest.mark.parametrize("once", [True, False])
def test_ctrl_c_at_the_first_instruction_of_a_check(tmp_path: Path, once: bool) -> None:
    """It is not in the hands of what notes it yet, and SQLite says only that something was raised; damage says it again."""
    home = DiskHome(tmp_path)
    store = create(home)
    add_turn(store, 1, 20)
    index, calls = store._index, []

    def interrupted(*values: object) -> bool:
        calls.append(values)
        if len(calls) == 1 or not once:
            raise KeyboardInterrupt
        return True

    index._db.conn.create_function("agentmem_sealed", -1, interrupted)
    with pytest.raises(KeyboardInterrupt if once else StoreError):
        list(store.turns())

    index._db.conn.create_function("agentmem_sealed", -1, index._seals._noting(index._seals._fits))
    assert len(list(store.turns())) == 1
    store.close()
