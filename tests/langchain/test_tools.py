"""Tools and structured output through the chat model: forced calls, streams, results, schemas."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from agentmem import InputError
from langchain_agentmem import ChatInfLLM
from support.langchain_agents import chat_model, held
from support.tiny_language_model import language_model


@tool
def look(place: Literal["attic", "cellar"], times: int) -> str:
    """Look somewhere."""
    return f"nothing in the {place}"


@tool
def wait() -> str:
    """Do nothing."""
    return "done"


class Pet(BaseModel):
    """An animal of the household."""

    name: str = Field(max_length=8)
    legs: Literal[2, 4]


@pytest.fixture(params=["chatml", "qwen2.5"])
def llm(request: pytest.FixtureRequest) -> ChatInfLLM:
    """A model whose template knows no tools, and one whose template writes them."""
    return chat_model(model=language_model(template=request.param), agent_id="ada", max_tokens=120)


def summed(chunks: list[Any]) -> AIMessageChunk:
    """A stream's message."""
    whole: AIMessageChunk = sum(chunks[1:], chunks[0])
    return whole


def test_a_forced_call_is_whole(llm: ChatInfLLM) -> None:
    """The named tool is called with arguments of its schema, and the reason says so."""
    bound = llm.bind_tools([look, wait], tool_choice="look")
    answer = bound.invoke("Where is the cat?")

    (call,) = answer.tool_calls
    assert call["name"] == "look"
    assert call["args"]["place"] in {"attic", "cellar"}
    assert isinstance(call["args"]["times"], int)
    assert answer.response_metadata["finish_reason"] == "tool_calls"
    assert answer.invalid_tool_calls == []


def test_one_call_where_one_is_wanted(llm: ChatInfLLM) -> None:
    """parallel_tool_calls=False ends the reply after one call."""
    bound = llm.bind_tools([look, wait], tool_choice="any")

    assert len(bound.invoke("Do something.").tool_calls) == 1


def test_a_streamed_call_adds_up(llm: ChatInfLLM) -> None:
    """Name first, then arguments piece by piece; the sum is what invoke gives."""
    bound = llm.bind_tools([look], tool_choice="look")

    chunks = list(bound.stream("Where is the cat?", memory="off"))
    whole = bound.invoke("Where is the cat?", memory="off")

    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert pieces[0]["name"] == "look"
    assert len(pieces) > 3
    assert json.loads("".join(piece["args"] or "" for piece in pieces)) == whole.tool_calls[0]["args"]
    assert summed(chunks).tool_calls[0]["args"] == whole.tool_calls[0]["args"]
    assert summed(chunks).response_metadata["finish_reason"] == "tool_calls"


def test_a_round_with_a_tool_is_remembered_once(llm: ChatInfLLM) -> None:
    """Question, call, result, answer: each list extends the one before, as an agent's loop sends them."""
    asked = [HumanMessage("Where is the cat?")]
    call = llm.bind_tools([look], tool_choice="look").invoke(asked)
    result = look.invoke(call.tool_calls[0])
    answer = llm.bind_tools([look], tool_choice="none").invoke([*asked, call, result])

    roles = [role for role, _ in held(llm, "ada")]
    assert roles[:2] == ["user", "assistant"]
    assert len(roles) == 4
    assert answer.response_metadata["agentmem"]["plan"] == "extend"
    assert answer.tool_calls == []
    assert any("nothing in the" in text for _, text in held(llm, "ada"))


def test_a_result_may_be_all_that_is_sent(llm: ChatInfLLM) -> None:
    """After a call the result alone is a list; without a call it is refused."""
    with pytest.raises(InputError, match="call"):
        llm.invoke([ToolMessage("4", tool_call_id="a")])
    call = llm.bind_tools([look], tool_choice="look").invoke("Where is the cat?")

    answer = llm.bind_tools([look], tool_choice="none").invoke([look.invoke(call.tool_calls[0])])

    assert answer.response_metadata["agentmem"]["plan"] in {"delta", "extend"}
    assert len(held(llm, "ada")) == 4


def test_tools_are_told_once(llm: ChatInfLLM) -> None:
    """The same tools cost tokens in their first call only; others are told when they come."""
    bound = llm.bind_tools([look])
    costs = [read_in(bound.invoke(text, max_tokens=4)) for text in ("One.", "Two.", "Six.")]

    assert costs[1] < costs[0] / 2
    assert costs[1] == costs[2]
    more = read_in(llm.bind_tools([look, wait]).invoke("Ten.", max_tokens=4))
    assert more > costs[2] * 2


def read_in(answer: AIMessage) -> int:
    """Tokens that a turn read."""
    assert answer.usage_metadata is not None
    return answer.usage_metadata["input_token_details"]["cache_creation"]


def test_a_choice_without_its_tool_is_refused(llm: ChatInfLLM) -> None:
    """tool_choice must name a bound tool; two tools of one name must be the same."""
    with pytest.raises(InputError, match="fly"):
        llm.bind_tools([look], tool_choice="fly")

    @tool("look")
    def other(thing: str) -> str:
        """Look at a thing."""
        return thing

    with pytest.raises(InputError, match="look"):
        llm.bind_tools([look, other]).invoke("Hi")
    assert held(llm, "ada") == []


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("schema", [Pet, Pet.model_json_schema()])
def test_structured_output_has_the_schema(llm: ChatInfLLM, method: Any, schema: Any) -> None:
    """Values are of the schema, whatever the model would rather say."""
    pet = llm.with_structured_output(schema, method=method).invoke("Describe the cat.")

    values = pet.model_dump() if isinstance(pet, BaseModel) else pet
    assert set(values) == {"name", "legs"}
    assert values["legs"] in {2, 4}
    assert len(values["name"]) <= 8


def test_raw_and_parsed(llm: ChatInfLLM) -> None:
    """include_raw gives the message too; its state goes on in the next call."""
    found = llm.with_structured_output(Pet, include_raw=True).invoke("Describe the cat.")

    assert isinstance(found["parsed"], Pet)
    assert found["parsing_error"] is None
    assert json.loads(found["raw"].text) == found["parsed"].model_dump()
    follow = llm.invoke([HumanMessage("Describe the cat."), found["raw"], HumanMessage("And?")], max_tokens=4)
    assert follow.response_metadata["agentmem"]["plan"] == "extend"


def test_a_free_choice_leaves_text_alone(llm: ChatInfLLM) -> None:
    """With tools bound but none called, the answer is the text, streamed as it is."""
    bound = llm.bind_tools([look])

    chunks = list(bound.stream("Hello.", max_tokens=12))

    assert summed(chunks).text
    assert summed(chunks).tool_calls == []
