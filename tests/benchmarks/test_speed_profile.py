"""``benchmarks.speed.profile``: exclusive times add up, nothing stays patched, shapes are counted by arithmetic."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from rich.console import Console

from agentmem.memory import working_memory
from benchmarks.speed import parts
from benchmarks.speed.floors import Floors
from benchmarks.speed.profile import as_json, measure
from benchmarks.speed.profile_report import show_profile, typical
from benchmarks.speed.shape import shape_of
from benchmarks.speed.stopwatch import REST, Lap, Stopwatch
from support.tiny_language_model import SMALL, language_model, plain_model


def _clock(*moments: float) -> Iterator[float]:
    yield from moments


def test_times_are_exclusive_and_add_up() -> None:
    """What an inner part takes is not the outer one's, and unnamed time is the rest's."""
    moments = _clock(0, 1, 2, 5, 9, 10)
    watch = Stopwatch(lambda: next(moments))
    inner = watch.timed("inner", lambda: None)
    watch.timed("outer", inner)()
    watch.lap()

    (lap,) = watch.laps
    assert lap.seconds == {"inner": 3, "outer": 8 - 3, REST: 2}
    assert lap.total == 10 == sum(lap.seconds.values())
    assert lap.calls == {"inner": 1, "outer": 1}


def test_a_part_has_another_name_inside_another() -> None:
    """A function called by two parts is told apart by the innermost of them, errors included."""
    watch = Stopwatch()

    def fail() -> None:
        raise KeyError

    read = watch.timed("read", fail, {"choice": "read for the choice"})
    with pytest.raises(KeyError):
        watch.timed("choice", read)()
    with pytest.raises(KeyError):
        read()
    watch.lap()

    assert watch.laps[0].calls == {"read for the choice": 1, "choice": 1, "read": 1}


def test_a_tiny_model_is_profiled_whole() -> None:
    """Every named part of a token and of a chunk is found, parts add up to the laps, and nothing stays patched."""
    model = language_model("llama", dtype="bfloat16")
    attend, forward = working_memory.attend, torch.nn.Linear.forward
    profile = measure(model, 300, rounds=1, reply=20, config=SMALL)

    assert working_memory.attend is attend
    assert torch.nn.Linear.forward is forward
    assert not any("forward" in vars(module) for module in model.binding.model.modules())
    assert profile.missing == []
    assert profile.tokens >= 300
    assert profile.held
    assert profile.renewed
    assert profile.chunks
    for laps in (profile.held, profile.renewed, profile.chunks):
        for lap in laps:
            assert sum(lap.seconds.values()) == pytest.approx(lap.total)
            assert lap.calls[parts.ATTENTION] == 2
            assert lap.calls[parts.LINEAR_ATTENTION] == 8
            assert lap.calls[parts.LINEAR_MLP] == 6
            assert lap.calls[parts.VOCABULARY] == 1
    assert all(parts.SELECTION not in lap.calls for lap in profile.held)
    assert all(lap.calls[parts.SELECTION_KEYS] for lap in profile.chunks)
    assert len(json.dumps(as_json(profile))) > 1_000


def test_the_tables_name_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed holds the parts, their floors and the whole."""
    profile = measure(language_model("llama", dtype="bfloat16"), 300, rounds=1, reply=12, config=SMALL)
    show_profile(Console(width=120), profile)
    printed = capsys.readouterr().out

    for words in (
        "one decoded token",
        "one chunk of 16",
        parts.ATTENTION,
        parts.GATHER,
        "the whole",
        "GFLOP/s",
    ):
        assert words in printed


def test_typical_laps_are_the_fastest_quarter() -> None:
    """A slow lap changes nothing, and the parts of what is shown add up to its whole."""
    laps = [
        Lap(float(n), {"a": n / 4, "b": 3 * n / 4}, {"a": 2}) for n in (1, 3, 100, 100, 100, 100, 100, 100)
    ]

    assert typical(laps) == Lap(2.0, {"a": 0.5, "b": 1.5}, {"a": 2, "b": 0})
    assert typical([]).total == 0


def test_a_shape_is_counted_by_arithmetic() -> None:
    """Bytes and operations per token are those of the weights, layer by layer."""
    model = plain_model("llama", layers=2)
    config = model.config
    wide, heads = config.hidden_size, config.num_attention_heads
    dim = wide // heads if getattr(config, "head_dim", None) is None else config.head_dim
    projections = 2 * wide * dim * (heads + config.num_key_value_heads)
    bound = language_model("llama")
    shape = shape_of(model, bound.binding.layers, bound.layout.bytes_per_token)

    assert shape.attention_weights == 2 * projections
    assert shape.mlp_weights == 2 * 3 * wide * config.intermediate_size
    assert shape.vocabulary_weights == wide * config.vocab_size
    total = shape.attention_weights + shape.mlp_weights + shape.vocabulary_weights
    assert shape.bytes_per_token == 4 * total
    assert shape.attention_flops(10, 2) == 4 * 2 * heads * dim * (2 * 10 + 3)
    assert shape.kv_bytes == 2 * 2 * config.num_key_value_heads * dim * 4


def test_rates_are_sampled() -> None:
    """A sample holds three positive rates."""
    rates = Floors(64, 32, weight_bytes=1 << 16).sample()

    assert min(rates.bytes_per_second, rates.int8_bytes_per_second, rates.flops_per_second) > 0
