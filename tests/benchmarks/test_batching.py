"""The benchmark of agents that decode at once: it asks all of them, and compares what they said."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.engine.model import LanguageModel
from agentmem.engine.packed import pack_linears
from benchmarks.batching import measure, summary
from support.passes import passes
from support.templates import tokenizer_for
from support.tiny_language_model import plain_model


def test_all_ways_are_measured_and_agents_say_the_same(tmp_path: Path) -> None:
    """Three agents: alone never more than one row, together more; every reply is the one it is apart."""
    plain = plain_model(dtype="bfloat16", trained=8192)
    if not pack_linears(plain):
        pytest.skip("this CPU or torch has no packed bfloat16 kernels")
    model = LanguageModel.wrap(plain, tokenizer_for("chatml"))
    with passes(model) as sizes:
        rounds = measure(model, tmp_path, agents=3, tokens=200, reply=12, rounds=2, rule="exact")

    assert len(rounds) == 2
    assert set(rounds[0]) == {"one", "apart", "together", "same"}
    assert all(found["same"] == 1.0 and found["one"] > 0 for found in rounds)
    assert max(sizes) > 1
    said = {"one": 10.0, "apart": 12.0, "together": 25.0, "same": 1.0}
    found = summary([said, {**said, "together": 20.0, "same": 0.5}, said])
    assert found["together_to_one"] == 2.5
    assert found["same_replies"] == 0.5
