"""The reference modes by name: each is a configuration of the one engine, at the budget of another.

What InfLLM's paper (arXiv 2402.04617, tables 1 and 5) compares itself with, so that a benchmark can put
them side by side at equal tokens. Knows configurations alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agentmem.config import MemoryConfig
from agentmem.errors import ConfigError

INFLLM_BLOCK = 128
"""InfLLM's block size, in the paper and in its released configurations."""


def mode(
    name: str,
    base: MemoryConfig | None = None,
    *,
    budget: int | None = None,
    tokens: int | None = None,
    factor: float | None = None,
) -> MemoryConfig:
    """The configuration of a reference mode.

    Args:
        name: one of :data:`MODES`.
        base: where sinks, chunks and everything else comes from that the mode does not set.
        budget: tokens of the past that one step may see; None: the base's.
        tokens: for the dense modes, the longest context they shall hold, question and reply included.
        factor: for the stretched modes, how many times the trained length that is.

    Raises:
        ConfigError: an unknown mode, or one that cannot be made of these numbers.
    """
    if name not in MODES:
        raise ConfigError(f"mode {name!r} is unknown; use one of {', '.join(sorted(MODES))}")
    base = base if base is not None else MemoryConfig()
    if name in _DENSE:
        return _dense(name, base, tokens, factor)
    return _BUDGETED[name](base, base.budget if budget is None else budget)


def infllm(base: MemoryConfig, budget: int) -> MemoryConfig:
    """InfLLM as released (Xiao et al., arXiv 2402.04617): blocks of 128, four representative tokens, one distance.

    Half of what the sinks leave goes to recalled blocks, the other half to the window. Blocks are chosen
    anew for every token, as there. See :class:`~agentmem.memory.selectors.infllm.InfLLM` and
    :data:`~agentmem.memory.placements.far.INFLLM` for the rules and what deviates from the original.
    """
    recall = (budget - base.sink_tokens) // 2 // INFLLM_BLOCK * INFLLM_BLOCK
    window = budget - base.sink_tokens - recall
    return base.changed(
        window_tokens=window,
        recall_tokens=recall,
        block_tokens=INFLLM_BLOCK,
        dense_tokens=window,
        selector="infllm",
        positions="infllm",
        reselect_every=0,
    )


def streaming(base: MemoryConfig, budget: int) -> MemoryConfig:
    """StreamingLLM (Xiao et al., arXiv 2309.17453): sinks and a window at their places in the cache."""
    return base.changed(
        window_tokens=budget - base.sink_tokens,
        recall_tokens=0,
        dense_tokens=None,
        positions="streaming",
    )


def lm_infinite(base: MemoryConfig, budget: int) -> MemoryConfig:
    """LM-Infinite (Han et al., arXiv 2308.16137): a Λ-shaped mask, no distance larger than the window."""
    return base.changed(
        window_tokens=budget - base.sink_tokens,
        recall_tokens=0,
        dense_tokens=budget - base.sink_tokens,
        positions="lm-infinite",
    )


def window(base: MemoryConfig, budget: int) -> MemoryConfig:
    """Sliding-window attention: each token sees the newest ``budget`` tokens, itself counted, and nothing else."""
    return base.changed(
        sink_tokens=0, window_tokens=budget, recall_tokens=0, dense_tokens=budget, positions="lm-infinite"
    )


def _dense(name: str, base: MemoryConfig, tokens: int | None, factor: float | None) -> MemoryConfig:
    """Full attention: ``full`` by the model's own rotation, else by one stretched over ``factor`` times its length.

    ``position-interpolation`` is arXiv 2306.15595, ``ntk`` NTK-aware scaling; see
    :mod:`agentmem.memory.rope_scaling`. A context longer than ``tokens`` falls back to the base's working set.
    """
    if tokens is None:
        raise ConfigError(f"mode {name!r} is dense: say with tokens= how long its context may become")
    rope = _DENSE[name]
    if rope == "model":
        return base.changed(dense_tokens=tokens, positions="ordered")
    if factor is None or factor <= 1:
        raise ConfigError(
            f"mode {name!r} stretches the rotation: say with factor= how many times the trained length, got {factor}"
        )
    return base.changed(dense_tokens=tokens, positions="ordered", rope=rope, rope_factor=factor)


_BUDGETED: Mapping[str, Callable[[MemoryConfig, int], MemoryConfig]] = {
    "infllm": infllm,
    "streaming": streaming,
    "lm-infinite": lm_infinite,
    "window": window,
}
_DENSE: Mapping[str, str] = {"full": "model", "position-interpolation": "linear", "ntk": "ntk"}
"""Mode -> ``MemoryConfig.rope``."""
MODES: tuple[str, ...] = (*_BUDGETED, *_DENSE)
"""The names there are."""
