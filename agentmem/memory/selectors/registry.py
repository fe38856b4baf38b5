"""The selection rules there are, by name: each name is one rule with its parameters, fixed for ever.

To add one: write one file with a :class:`Selector` (or a digest, or a vote), and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agentmem.errors import ConfigError
from agentmem.memory.selectors.base import Selector
from agentmem.memory.selectors.box import CuboidMean, MinMax
from agentmem.memory.selectors.edges import AcrossEdges
from agentmem.memory.selectors.exact import Exact
from agentmem.memory.selectors.infllm import InfLLM
from agentmem.memory.selectors.mean_key import MeanKey
from agentmem.memory.selectors.one_stage import OneStage
from agentmem.memory.selectors.random_blocks import RandomBlocks
from agentmem.memory.selectors.sub_blocks import SubBlockMeans
from agentmem.memory.selectors.two_stage import TwoStage
from agentmem.memory.selectors.votes import layer_raw_sum, layer_sum


@dataclass(frozen=True)
class Rule:
    """A registered rule: what it does in one line, and how it is made."""

    summary: str
    make: Callable[[], Selector]


SELECTORS: Mapping[str, Rule] = {
    "two-stage-pairs": Rule(
        "for blocks of 16: one digest for two of them; a fifth of the places to the blocks beside the best ones",
        lambda: AcrossEdges(
            "two-stage-pairs", leaning=0.0, percent=20, parts=1, rule=TwoStage(digest_span=2)
        ),
    ),
    "two-stage-edges": Rule(
        "for blocks of 32: as two-stage, with neighbours beyond an edge that a chosen block's mass leans to, at most 30 %",
        AcrossEdges,
    ),
    "two-stage": Rule("mean keys pick 4K candidates, true attention mass picks K of them", TwoStage),
    "two-stage-layer": Rule(
        "all heads of a layer vote for one set of blocks (TokenSelect's soft vote)",
        lambda: TwoStage("two-stage-layer", vote=layer_sum),
    ),
    "two-stage-query-1": Rule(
        "chosen by the mean query of the chunk, as in InfLLM",
        lambda: TwoStage("two-stage-query-1", query_rows=1),
    ),
    "two-stage-query-64": Rule(
        "64 query rows per chunk instead of 16", lambda: TwoStage("two-stage-query-64", query_rows=64)
    ),
    "two-stage-query-512": Rule(
        "each of up to 512 query tokens votes by itself (slow: needs memory for all of them)",
        lambda: TwoStage("two-stage-query-512", query_rows=512),
    ),
    "two-stage-question": Rule(
        "while decoding, what the turn read votes beside the newest tokens",
        lambda: TwoStage("two-stage-question", keeps_question=True),
    ),
    "mean-key": Rule("one stage: mean keys", lambda: OneStage("mean-key", MeanKey())),
    "mean-key-raw": Rule(
        "one stage: mean keys by the mean query, raw sum over all heads (InfLLM's aggregation)",
        lambda: OneStage("mean-key-raw", MeanKey(), vote=layer_raw_sum, query_rows=1),
    ),
    "cuboid-mean": Rule("one stage: ArkVale's cuboid-mean", lambda: OneStage("cuboid-mean", CuboidMean())),
    "min-max": Rule("one stage: Quest's upper bound", lambda: OneStage("min-max", MinMax())),
    "sub-means-2": Rule(
        "one stage: the better of two half-block means", lambda: OneStage("sub-means-2", SubBlockMeans(2))
    ),
    "sub-means-4": Rule(
        "one stage: the best of four sub-block means (after InfLLM-V2)",
        lambda: OneStage("sub-means-4", SubBlockMeans(4)),
    ),
    "infllm": Rule(
        "InfLLM's own: four most attended keys per block, raw sum over all heads; keeps running state", InfLLM
    ),
    "exact": Rule("true attention mass of every block: the upper bound, slow", Exact),
    "random": Rule("blocks by chance, the same each time: the lower bound", RandomBlocks),
}
"""Every rule by the name that ``MemoryConfig.selector`` takes; the first one is the default."""


def make_selector(name: str) -> Selector:
    """The rule of that name. Raises ConfigError, naming the rules there are and what each does."""
    if name not in SELECTORS:
        known = "; ".join(f"{known} ({rule.summary})" for known, rule in SELECTORS.items())
        raise ConfigError(f"selector={name!r} is unknown; use one of: {known}")
    return SELECTORS[name].make()
