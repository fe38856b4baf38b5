"""Selection rules by name (:mod:`.registry`), made of digests, votes and stages.

Reading order: base (the contract), digests, mean_key, box, sub_blocks, votes, exact, one_stage, two_stage, edges,
random_blocks, registry.
"""

from agentmem.memory.selectors.base import QUERY_ROWS, BlockView, Selector, top_blocks
from agentmem.memory.selectors.registry import SELECTORS, Rule, make_selector
from agentmem.memory.selectors.two_stage import TwoStage

__all__ = [
    "QUERY_ROWS",
    "SELECTORS",
    "BlockView",
    "Rule",
    "Selector",
    "TwoStage",
    "make_selector",
    "top_blocks",
]
