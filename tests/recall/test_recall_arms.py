"""Arms by name: one engine, one budget, and the registry's own word for what there is not."""

from __future__ import annotations

import pytest

from agentmem import MemoryConfig
from agentmem.errors import ConfigError
from agentmem.memory.modes import MODES, mode
from agentmem.memory.selectors import SELECTORS
from benchmarks.recall.arms import ANSWER_ROOM, DoesNotFitError, budgeted, make_arm
from support.tiny_language_model import SMALL, TRAINED, language_model


def _arm(name: str, tokens: int = 400) -> MemoryConfig:
    return make_arm(name, SMALL, tokens, language_model()).config


LARGE = MemoryConfig(sink_tokens=8, window_tokens=200, recall_tokens=192, block_tokens=16, chunk_tokens=16)
"""Large enough for a block of InfLLM's."""


def test_every_arm_has_the_same_budget() -> None:
    """Selectors and modes see as many tokens of the past as the default; each selector is asked for by its name."""
    for name in ("default", "infllm", "window", "streaming", "lm-infinite", *SELECTORS):
        assert make_arm(name, LARGE, 400, language_model()).config.budget == LARGE.budget, name
    assert _arm("default") == SMALL
    own = [name for name in SELECTORS if name not in MODES]
    assert [_arm(name) for name in own] == [SMALL.changed(selector=name) for name in own]
    assert make_arm("infllm", LARGE, 400, language_model()).config == mode("infllm", LARGE)


def test_full_attends_to_everything_or_does_not_fit() -> None:
    """Full attention has room for a history and its answer within the model's positions, else says so."""
    full = make_arm("full", SMALL, 400, language_model())

    assert full.dense
    assert full.config.dense_limit == 400 + ANSWER_ROOM
    assert full.config.changed(dense_tokens=None) == SMALL
    assert not make_arm("default", SMALL, 400, language_model()).dense
    with pytest.raises(DoesNotFitError, match=f"do not fit the {TRAINED:,} positions"):
        _arm("full", TRAINED)


def test_stretched_attention_fits_beyond_the_trained_length() -> None:
    """The factor is the least whole one of two or more that holds a history and its answer."""
    for name in ("position-interpolation", "ntk"):
        near, far = (make_arm(name, SMALL, tokens, language_model()) for tokens in (100, 3 * TRAINED))
        assert near.dense
        assert far.dense
        assert (near.config.rope_factor, far.config.rope_factor) == (2, 4)
        assert far.config.dense_limit == 3 * TRAINED + ANSWER_ROOM


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
