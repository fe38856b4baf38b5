"""Ways of giving positions to the past, by name. To add one: write a :class:`PositionRule`, name it here."""

from __future__ import annotations

from collections.abc import Mapping

from agentmem.memory.placements.base import Choose, Placement, PositionRule, Sight
from agentmem.memory.placements.far import INFLLM, LM_INFINITE, STREAMING
from agentmem.memory.placements.ordered import Ordered

_RULES: tuple[PositionRule, ...] = (Ordered(), INFLLM, LM_INFINITE, STREAMING)
POSITION_RULES: Mapping[str, PositionRule] = {rule.name: rule for rule in _RULES}
"""``MemoryConfig.positions`` -> its rule."""

__all__ = ["POSITION_RULES", "Choose", "Placement", "PositionRule", "Sight"]
