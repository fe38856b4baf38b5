"""The arms of a comparison: names become configurations of one engine at one token budget.

An arm is a selector of the registry, a reference mode, ``default``, ``window`` or ``full``; ``@option=value`` behind
a name changes one option, as in ``two-stage@block_tokens=64``. Knows no task and no files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agentmem import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import ConfigError
from agentmem.memory.selectors import SELECTORS, make_selector

DEFAULT = "default"
FULL = "full"
WINDOW = "window"
STREAMING = "streaming"
LENGTH_SLACK = 1.03
"""A history may be a little longer than asked for."""
ANSWER_ROOM = 512
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


def make_arm(name: str, base: MemoryConfig, tokens: int, model: LanguageModel) -> Arm:
    """The arm of that name for histories of ``tokens`` tokens.

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
    return Arm(name, config, dense=rule == FULL)


def _config(rule: str, base: MemoryConfig, tokens: int, model: LanguageModel) -> MemoryConfig:
    if rule == DEFAULT:
        return base
    if rule == FULL:
        return base.changed(dense_tokens=_dense_tokens(tokens, model))
    if rule in SELECTORS:
        return base.changed(selector=rule)
    if rule == WINDOW:
        return base.changed(sink_tokens=0, window_tokens=base.budget, recall_tokens=0)
    if rule == STREAMING:
        return base.changed(window_tokens=base.budget - base.sink_tokens, recall_tokens=0)
    make_selector(rule)  # its error names the selectors there are
    raise AssertionError(f"{rule!r} is registered by now")


def _dense_tokens(tokens: int, model: LanguageModel) -> int:
    places = model.binding.max_positions
    if tokens + ANSWER_ROOM > places:
        raise DoesNotFitError(
            f"{tokens:,} tokens and an answer do not fit the {places:,} positions {model.name} knows"
        )
    return min(places, int(LENGTH_SLACK * tokens) + ANSWER_ROOM)


def _option(name: str, change: str) -> tuple[str, Any]:
    key, equals, value = change.partition("=")
    if not equals:
        raise ConfigError(f"arm {name!r}: write a changed option as @option=value, got @{change}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
