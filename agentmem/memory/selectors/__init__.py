"""Selection rules by name. To add one: write one file with a :class:`Selector`, name it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agentmem.errors import ConfigError
from agentmem.memory.selectors.base import QUERY_ROWS, BlockView, Selector, top_blocks
from agentmem.memory.selectors.two_stage import TwoStage

SELECTORS: Mapping[str, Callable[[], Selector]] = {TwoStage.name: TwoStage}


def make_selector(name: str) -> Selector:
    """The rule of that name. Raises ConfigError, naming the rules there are."""
    if name not in SELECTORS:
        raise ConfigError(f"selector={name!r} is unknown; use one of {', '.join(sorted(SELECTORS))}")
    return SELECTORS[name]()


__all__ = ["QUERY_ROWS", "SELECTORS", "BlockView", "Selector", "TwoStage", "make_selector", "top_blocks"]
