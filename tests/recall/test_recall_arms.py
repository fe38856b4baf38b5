"""Arms by name: one engine, one budget, and the registry's own word for what there is not."""

from __future__ import annotations

import pytest

from agentmem import MemoryConfig
from agentmem.errors import ConfigError
from agentmem.memory.selectors import SELECTORS
from benchmarks.recall.arms import DoesNotFitError, budgeted, make_arm
from support.tiny_language_model import SMALL, TRAINED, language_model


def _arm(name: str, tokens: int = 400) -> MemoryConfig:
    return make_arm(name, SMALL, tokens, language_model()).config


def test_every_arm_has_the_same_budget() -> None:
    """Selectors, the window and sinks with a window see as many tokens of the past as the default."""
    for name in ("default", "window", "streaming", *SELECTORS):
        assert _arm(name).budget == SMALL.budget, name
    assert _arm("default") == SMALL
    assert (_arm("window").sink_tokens, _arm("window").recall_tokens) == (0, 0)
    assert (_arm("streaming").sink_tokens, _arm("streaming").recall_tokens) == (8, 0)
    assert [_arm(name).selector for name in SELECTORS] == list(SELECTORS)


def test_full_attends_to_everything_or_does_not_fit() -> None:
    """Full attention has room for a history and its answer within the model's positions, else says so."""
    full = make_arm("full", SMALL, 400, language_model())

    assert full.dense
    assert full.config.dense_limit >= 400 + 500
    assert full.config.changed(dense_tokens=None) == SMALL
    assert not make_arm("default", SMALL, 400, language_model()).dense
    with pytest.raises(DoesNotFitError, match=f"do not fit the {TRAINED:,} positions"):
        _arm("full", TRAINED)


def test_options_behind_a_name_change_one_thing() -> None:
    """``@option=value`` is an arm of its own; a wrong one is refused in words."""
    arm = make_arm("default@block_tokens=4@reselect_every=3", SMALL, 400, language_model())

    assert arm.name == "default@block_tokens=4@reselect_every=3"
    assert arm.config == SMALL.changed(block_tokens=4, reselect_every=3)
    assert _arm("default@stamp=%Y").stamp == "%Y"
    with pytest.raises(ConfigError, match="write a changed option as @option=value"):
        _arm("default@block_tokens")
    with pytest.raises(ConfigError, match="blocks: unknown option"):
        _arm("default@blocks=3")


def test_an_unknown_name_gets_the_registrys_error() -> None:
    """The message names the selectors there are."""
    with pytest.raises(ConfigError, match=r"selector='nothing' is unknown; use one of.*two-stage"):
        _arm("nothing")


def test_a_budget_is_spent_on_recall() -> None:
    """Sinks and window stay; recall takes what is left, in whole blocks; too little is refused."""
    assert budgeted(SMALL, None) == SMALL
    assert budgeted(SMALL, 8 + 24 + 50) == SMALL.changed(recall_tokens=48)
    with pytest.raises(ConfigError, match=r"leaves 7 for recall .* give at least 40"):
        budgeted(SMALL, 39)
