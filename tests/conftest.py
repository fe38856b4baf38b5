"""What every test stands on: one thread, no network, an agents' home of its own, a real model if there."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is first imported

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is first imported, by whichever test
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("AGENTMEM_MODEL", None)
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # begun in the background: children would never see Ctrl-C


settings.register_profile("house", deadline=None)  # a shared core may be slow at any moment
settings.load_profile("house")

REAL_MODEL = "smollm2-135m"
MANY_FILES = 150
_kept_open = [0]


@pytest.fixture(scope="session", autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home for agents that a test forgot to place, so that no test touches the user's own."""
    home = tmp_path_factory.mktemp("home")
    before = os.environ.get("AGENTMEM_HOME")
    os.environ["AGENTMEM_HOME"] = str(home)
    yield home
    if before is None:
        os.environ.pop("AGENTMEM_HOME", None)
    else:
        os.environ["AGENTMEM_HOME"] = before


@pytest.fixture(autouse=True)
def few_open_files() -> Iterator[None]:
    """What a test left open is closed before it adds up: many systems allow a process 256 or 1,024 files."""
    yield
    if _open_files() > _kept_open[-1] + MANY_FILES:
        gc.collect()
        _kept_open.append(_open_files())  # what a collection cannot close shall not bring the next one


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that lacks its GPU or its model is skipped with the reason; in CI a missing model fails it."""
    if item.get_closest_marker("gpu") and not _cuda():
        pytest.skip("no CUDA device")
    for marker in item.iter_markers("real_model"):
        name = marker.args[0] if marker.args else REAL_MODEL
        if not _has_real_model(name):
            reason = f"{name} is not in the cache: agentmem models pull {name}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)


@cache
def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@cache
def _has_real_model(name: str) -> bool:
    from agentmem.engine.models import list_models

    return any(model.ready for model in list_models() if model.name == name)
