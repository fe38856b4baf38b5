"""The arms of a comparison: names become configurations of one engine at one token budget.

An arm is ``default``, a reference mode (``full``, ``infllm``, ``streaming``, ...) or a selector of the registry;
``@option=value`` behind a name changes one option, as in ``two-stage@block_tokens=64``. Knows no task and no files.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from agentmem import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import ConfigError
from agentmem.memory.modes import MODES, mode
from agentmem.memory.selectors import SELECTORS, make_selector

DEFAULT = "default"
FULL = "full"
WINDOW = "window"
STREAMING = "streaming"
STRETCHED = ("position-interpolation", "ntk")
"""Full attention over a rotation stretched to a whole multiple, at least twice, of the trained length."""
ANSWER_ROOM = 256
"""Tokens that a question, its template and the reply may take behind a history in full attention."""


class DoesNotFitError(Exception):
    """The model has no positions for so long a history in full attention."""


@dataclass(frozen=True)
class Arm:
    """One way of attending to a history."""

    name: str
    config: MemoryConfig
    dense: bool = False
    """It attends to everything, so that nothing is out of its sight."""


def budgeted(base: MemoryConfig, budget: int | None) -> MemoryConfig:
    """The base with its recall changed so that the whole budget is ``budget`` tokens.

    Raises:
        ConfigError: it leaves no whole block for recall.
    """
    if budget is None:
        return base
    recall = budget - base.sink_tokens - base.window_tokens
    if recall < base.block_tokens:
        raise ConfigError(
            f"a budget of {budget} tokens leaves {recall} for recall beside {base.sink_tokens} sinks and a window "
            f"of {base.window_tokens}; give at least {budget - recall + base.block_tokens}"
        )
    return base.changed(recall_tokens=recall // base.block_tokens * base.block_tokens)


def is_dense(name: str) -> bool:
    """Whether an arm attends to everything, so that its configuration depends on the history's length."""
    return name.split("@", maxsplit=1)[0] in {FULL, *STRETCHED}


def make_arm(name: str, base: MemoryConfig, tokens: int, model: LanguageModel) -> Arm:
    """The arm of that name.

    Args:
        name: see the module.
        base: where its options come from, and its budget.
        tokens: of the history, template included; dense arms need it exactly, others not at all.
        model: that will answer.

    Raises:
        ConfigError: no selector or mode of that name, or an option that cannot be used.
        DoesNotFitError: ``full`` beyond what the model can place.
    """
    rule, *changes = name.split("@")
    config = _config(rule, base, tokens, model)
    if changes:
        config = config.changed(**dict(_option(name, change) for change in changes))
    make_selector(config.selector)
    model.check(config)
    return Arm(name, config, dense=is_dense(name))


def _config(rule: str, base: MemoryConfig, tokens: int, model: LanguageModel) -> MemoryConfig:
    if rule == DEFAULT:
        return base
    if rule == FULL:
        return mode(FULL, base, tokens=_fitting(tokens + ANSWER_ROOM, model))
    if rule in STRETCHED:
        factor = max(2, math.ceil((tokens + ANSWER_ROOM) / model.binding.trained_length))
        return mode(rule, base, tokens=tokens + ANSWER_ROOM, factor=factor)
    if rule in MODES:
        return mode(rule, base)
    if rule in SELECTORS:
        return base.changed(selector=rule)
    make_selector(rule)  # its error names the selectors there are
    raise AssertionError(f"{rule!r} is registered by now")


def _fitting(tokens: int, model: LanguageModel) -> int:
    places = model.binding.max_positions
    if tokens > places:
        raise DoesNotFitError(
            f"a history and an answer of {tokens:,} tokens do not fit the {places:,} positions {model.name} knows"
        )
    return tokens


def _option(name: str, change: str) -> tuple[str, Any]:
    key, equals, value = change.partition("=")
    if not equals:
        raise ConfigError(f"arm {name!r}: write a changed option as @option=value, got @{change}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
