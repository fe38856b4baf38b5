"""What every test stands on: one thread, no network, an agents' home of its own, a real model if there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is first imported
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test that needs a GPU or the real model its reason to be skipped, or to fail."""
    for item in items:
        if item.get_closest_marker("gpu") and not _cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
