"""LangChain's standard unit tests for chat models: construction, tools, structured output, tracing parameters."""

from __future__ import annotations

from typing import Any

from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_agentmem import ChatInfLLM
from support.tiny_language_model import language_model


class TestChatInfLLMUnit(ChatModelUnitTests):
    """The suite of langchain-tests, on a model that is in memory already."""

    @property
    def chat_model_class(self) -> type[ChatInfLLM]:
        return ChatInfLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": language_model()}


class TestByNameUnit(ChatModelUnitTests):
    """The same for a model that is named: nothing of it may be loaded before a call."""

    @property
    def chat_model_class(self) -> type[ChatInfLLM]:
        return ChatInfLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "no-such-model"}
