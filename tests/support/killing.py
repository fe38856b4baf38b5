"""Killing a process that has an agent of a store open, at a place of the store's code."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from agentmem.store import DiskHome

Body = Callable[[Any], object]


def die(*args: object, **kwargs: object) -> None:
    """End this process at once, as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed(home: DiskHome, body: Body, at: str | None = None, *, opens: bool = True) -> None:
    """Run ``body`` on the agent in a child process that is killed when it calls ``at``, else at the end.

    With ``opens`` False the agent, which may be damaged, is not opened: ``body`` gets None.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside torch's idle threads
        child = os.fork()
    if child == 0:
        try:
            store = home.open("ada") if opens else None
            if at is not None:
                pytest.MonkeyPatch().setattr(f"agentmem.store.{at}", die)
            body(store)
            die()
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
