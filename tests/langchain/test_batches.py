"""A batch of LangChain's on several agents: their tokens are decoded together, and are those of each alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentmem.engine.model import LanguageModel
from agentmem.engine.packed import pack_linears
from langchain_agentmem import ChatInfLLM
from support.langchain_agents import chat_model, held
from support.passes import passes
from support.templates import tokenizer_for
from support.tiny_language_model import plain_model

NAMES = [f"agent {number}" for number in range(4)]
TEXTS = [f"I am {name}. " * (3 + 5 * number) for number, name in enumerate(NAMES)]
CONFIGS: list[Any] = [{"configurable": {"agent_id": name}} for name in NAMES]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """A model whose steps share passes without being asked to."""
    made = plain_model(dtype="bfloat16")
    if not pack_linears(made):
        pytest.skip("this CPU or torch has no packed bfloat16 kernels")
    return LanguageModel.wrap(made, tokenizer_for("chatml"))


@pytest.mark.parametrize(
    "path",
    [lambda llm: llm.batch(TEXTS, CONFIGS), lambda llm: asyncio.run(llm.abatch(TEXTS, CONFIGS))],
    ids=["batch", "abatch"],
)
def test_a_batch_shares_passes_and_says_what_each_agent_says_alone(
    model: LanguageModel, path: Callable[[ChatInfLLM], list[Any]]
) -> None:
    """Token for token, and each agent's memory holds its own turn."""
    alone = chat_model(model=model, max_tokens=12)
    wanted = [alone.invoke(text, one).content for text, one in zip(TEXTS, CONFIGS, strict=True)]
    together = chat_model(model=model, max_tokens=12)
    with passes(model, hold_until=len(NAMES) - 1) as sizes:
        got = [message.content for message in path(together)]

    assert got == wanted
    assert max(sizes) >= len(NAMES) - 1
    assert [held(together, name) for name in NAMES] == [held(alone, name) for name in NAMES]
