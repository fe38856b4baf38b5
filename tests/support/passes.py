"""Watching how many agents share each pass of a model, and seeing to it that some do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agentmem.engine.model import LanguageModel


@contextmanager
def passes(model: LanguageModel, hold_until: int = 0) -> Iterator[list[int]]:
    """Notes how many rows each pass of one token has; holds the first one until so many steps wait behind it."""
    sizes: list[int] = []
    meeting = model._steps._here()

    def note(_module: object, _args: object, keywords: dict[str, Any]) -> None:
        rows, tokens = keywords["input_ids"].shape
        if tokens > 1:
            return
        sizes.append(rows)
        deadline = time.monotonic() + 20
        while len(sizes) == 1 and len(meeting.waiting) < hold_until and time.monotonic() < deadline:
            time.sleep(0.001)

    hook = model.binding.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield sizes
    finally:
        hook.remove()
