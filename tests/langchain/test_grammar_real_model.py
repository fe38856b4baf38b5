"""Grammars on a real small model: it answers in form, and with sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel, Field

from agentmem import AgentMemory, InMemoryHome, LanguageModel
from agentmem.engine.sampling import LogitsProcessor
from agentmem.engine.tool_syntax import HERMES
from langchain_agentmem.grammar import Grammars
from langchain_agentmem.reply_parser import ParsedReply, parse_reply
from langchain_agentmem.tool_prompt import tools_message

pytestmark = pytest.mark.real_model


class Address(BaseModel):
    city: str
    zip: int


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=40)
    address: Address
    tags: list[str] = Field(max_length=2)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel.load("smollm2-135m")


def tool(name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    function = {"name": name, "description": f"Calls {name}."}
    return {"type": "function", "function": function | ({"parameters": parameters} if parameters else {})}


def answer(
    model: LanguageModel, processors: list[LogitsProcessor], *messages: tuple[str, str], limit: int
) -> str:
    """What the model answers, greedily, with nothing remembered."""
    said = [{"role": role, "content": text} for role, text in messages]
    with AgentMemory.resume("form", model=model, home=InMemoryHome()) as memory:
        return memory.generate(said, logits_processor=processors, remember=False, max_new_tokens=limit).text


def called(model: LanguageModel, one: dict[str, Any], question: str) -> ParsedReply:
    """The reply to a question when that tool must be called."""
    processor = Grammars(model).forced_calls([one], HERMES, parallel=False)
    told = tools_message([one], HERMES)
    return parse_reply(answer(model, [processor], ("system", told), ("user", question), limit=120), HERMES)


def test_no_arguments_and_a_number(model: LanguageModel) -> None:
    """A tool without arguments is called with none; a number is a number, not a text."""
    number = {"type": "object", "properties": {"input": {"type": "integer"}}, "required": ["input"]}
    now = called(model, tool("get_time"), "What time is it?")
    magic = called(model, tool("magic", number), "What is the value of magic(3)? Use the tool.")

    assert [(call.name, call.arguments) for call in now.calls] == [("get_time", {})]
    assert [(call.name, call.arguments) for call in magic.calls] == [("magic", {"input": 3})]
    assert (now.text, now.bad, magic.text, magic.bad) == ("", [], "", [])


def test_unicode_is_copied(model: LanguageModel) -> None:
    """Names in another script come back letter by letter, though each is several tokens."""
    name = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    reply = called(model, tool("customer", name), "Call customer with the name 你好啊集团.")

    assert [call.arguments for call in reply.calls] == [{"name": "你好啊集团"}]


def test_nested_classes(model: LanguageModel) -> None:
    """A class with a class inside is filled in whole."""
    question = "Save Ada, who lives in Paris, zip 75001, tags: friend, poet."
    reply = called(model, tool("save", Person.model_json_schema()), question)
    person = Person.model_validate(reply.calls[0].arguments)

    assert (person.address.city, person.address.zip) == ("Paris", 75001)
    assert reply.bad == []


def test_plain_text_is_left_alone(model: LanguageModel) -> None:
    """Where no call begins, free_calls changes no token of the answer."""
    free = Grammars(model).free_calls([tool("get_time")], HERMES)
    question = ("user", "Tell me about cats.")

    assert answer(model, [free], question, limit=12) == answer(model, [], question, limit=12)
