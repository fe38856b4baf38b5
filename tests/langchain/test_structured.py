"""Answers as objects: what is bound to the model, and what is made of its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from agentmem.errors import InputError
from langchain_agentmem.structured import Method, named_schema, schema_message, structured_runnable


class Recorder(BaseChatModel):
    """A chat model that notes what it was called with, and answers in the form that was bound."""

    answer: dict[str, Any] = Field(default_factory=dict)
    cut: int = 0
    """Characters missing at the end of an answer."""
    seen: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "recorder"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        known = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=known, tool_choice=tool_choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.seen.append(kwargs)
        text = json.dumps(self.answer)
        text = text[: len(text) - self.cut]
        message = AIMessage(text)
        if "tools" in kwargs:
            whole = {"name": kwargs["tool_choice"], "args": self.answer, "id": "call00001"}
            broken = {**whole, "args": text, "error": None}
            message = AIMessage(
                "", **{"invalid_tool_calls": [broken]} if self.cut else {"tool_calls": [whole]}
            )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self._generate(messages, stop, run_manager, **kwargs).generations[0].message
        assert isinstance(message, AIMessage)
        if message.tool_calls:
            pieces = [{"name": c["name"], "args": "", "id": c["id"], "index": 0} for c in message.tool_calls]
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=pieces))
            for character in json.dumps(message.tool_calls[0]["args"]):
                piece = {"name": None, "args": character, "id": None, "index": 0}
                yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[piece]))
        for character in message.text:
            yield ChatGenerationChunk(message=AIMessageChunk(character))


class Options(BaseCallbackHandler):
    """Notes the options that tracers are shown."""

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, *, options: Any, **kwargs: Any) -> None:
        self.options.append(options)


class Joke(BaseModel):
    """A joke."""

    setup: str = Field(description="the question")
    rating: int | None = None


class JokeV1(BaseModelV1):
    """A joke."""

    setup: str
    rating: int | None = None


class JokeDict(TypedDict):
    """A joke."""

    setup: Annotated[str, ..., "the question"]
    rating: Annotated[int | None, None, "how good"]


NESTED = {
    "title": "Jokes",
    "type": "object",
    "properties": {"all": {"type": "array", "items": {"$ref": "#/$defs/Joke"}}},
    "required": ["all"],
    "$defs": {"Joke": {"type": "object", "properties": {"setup": {"type": "string"}}}},
}
SCHEMAS: list[Any] = [Joke, JokeV1, JokeDict, Joke.model_json_schema(), convert_to_openai_tool(Joke)]
METHODS: list[Method] = ["json_schema", "function_calling", "json_mode"]
ANSWER = {"setup": "Why?", "rating": 3}


def as_dict(value: Any) -> dict[str, Any]:
    """An answer as a dict, whatever it is."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    return value.dict() if isinstance(value, BaseModelV1) else value


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", SCHEMAS, ids=["v2", "v1", "typeddict", "schema", "tool"])
def test_answers_are_what_the_schema_is(schema: Any, method: Method) -> None:
    """A class gives its objects, anything else a dict, at once and streamed, and tracers see the schema."""
    llm, handler = Recorder(answer=ANSWER), Options()
    chain = structured_runnable(llm, schema, method=method)
    kind = schema if isinstance(schema, type) and schema is not JokeDict else dict

    result = chain.invoke("a joke", {"callbacks": [handler]})
    pieces = list(chain.stream("a joke"))

    assert type(result) is kind and all(isinstance(piece, kind) for piece in pieces)
    assert as_dict(result) == as_dict(pieces[-1]) == ANSWER
    shown = handler.options[0]["ls_structured_output_format"]
    assert shown["schema"] == convert_to_json_schema(schema)
    assert shown["kwargs"]["method"] == method
    assert all("ls_structured_output_format" not in seen for seen in llm.seen)


def test_what_json_schema_binds() -> None:
    """The default method binds the whole schema under its name."""
    llm = Recorder(answer=ANSWER)
    structured_runnable(llm, Joke, temperature=0.5).invoke("a joke")

    assert llm.seen[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "Joke", "schema": Joke.model_json_schema()},
    }
    assert llm.seen[0]["temperature"] == 0.5
    assert "tools" not in llm.seen[0]


def test_what_function_calling_binds() -> None:
    """One tool, that must be called, once."""
    llm = Recorder(answer=ANSWER)
    structured_runnable(llm, Joke, method="function_calling").invoke("a joke")

    assert llm.seen[0] == {
        "tools": [convert_to_openai_tool(Joke)],
        "tool_choice": "Joke",
        "parallel_tool_calls": False,
    }


def test_what_json_mode_binds() -> None:
    """JSON mode asks for an object, and notes which one is expected."""
    llm = Recorder(answer=ANSWER)
    structured_runnable(llm, Joke, method="json_mode").invoke("a joke")

    assert llm.seen[0]["response_format"] == {"type": "json_object", "schema": Joke.model_json_schema()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strict", [None, True, False])
def test_strict_is_accepted(method: Method, strict: bool | None) -> None:
    """`strict` changes nothing: answers are constrained always."""
    chain = structured_runnable(Recorder(answer=ANSWER), Joke, method=method, strict=strict)

    assert as_dict(chain.invoke("a joke")) == ANSWER


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Joke, JokeV1, JokeDict], ids=["v2", "v1", "typeddict"])
@pytest.mark.parametrize("cut", [1, 5, 12])
def test_half_an_answer_is_an_error(schema: Any, method: Method, cut: int) -> None:
    """An answer cut off by the token limit raises; it is not mended to an object that lacks something."""
    chain = structured_runnable(Recorder(answer=ANSWER, cut=cut), schema, method=method)

    with pytest.raises(OutputParserException, match="max_tokens"):
        chain.invoke("a joke")


@pytest.mark.parametrize("method", METHODS)
def test_raw_answers(method: Method) -> None:
    """With include_raw the message comes along, and a failure is a value."""
    good = structured_runnable(Recorder(answer=ANSWER), Joke, method=method, include_raw=True).invoke(
        "a joke"
    )
    bad = structured_runnable(Recorder(answer={"rating": "x"}), Joke, method=method, include_raw=True).invoke(
        "a joke"
    )

    assert isinstance(good["raw"], AIMessage)
    assert (good["parsed"], good["parsing_error"]) == (Joke(**ANSWER), None)
    assert isinstance(bad["raw"], AIMessage)
    assert bad["parsed"] is None and isinstance(bad["parsing_error"], ValueError)


@pytest.mark.parametrize("method", METHODS)
async def test_async(method: Method) -> None:
    """The same without blocking."""
    chain = structured_runnable(Recorder(answer=ANSWER), Joke, method=method)

    assert await chain.ainvoke("a joke") == Joke(**ANSWER)
    assert [piece async for piece in chain.astream("a joke")][-1] == Joke(**ANSWER)


@pytest.mark.parametrize("method", METHODS)
def test_schemas_without_a_name(method: Method) -> None:
    """A JSON schema needs no title."""
    schema = {"type": "object", "properties": {"setup": {"type": "string"}}}
    llm = Recorder(answer={"setup": "Why?"})

    assert structured_runnable(llm, schema, method=method).invoke("a joke") == {"setup": "Why?"}
    assert llm.seen[0].get("tool_choice", "answer") == "answer"


def test_references_survive() -> None:
    """Definitions that a schema refers to are bound with it."""
    llm = Recorder(answer={"all": []})
    for method in METHODS:
        structured_runnable(llm, NESTED, method=method).invoke("jokes")

    assert llm.seen[0]["response_format"]["json_schema"]["schema"] == NESTED
    assert "$defs" in json.dumps(llm.seen[1]["tools"])
    assert llm.seen[2]["response_format"]["schema"] == NESTED


@pytest.mark.parametrize(
    ("schema", "name", "fields"),
    [
        (Joke, "Joke", {"setup", "rating"}),
        (JokeV1, "JokeV1", {"setup", "rating"}),
        (JokeDict, "JokeDict", {"setup", "rating"}),
        (NESTED, "Jokes", {"all"}),
        ({"name": "joke", "description": "d", "parameters": {"properties": {"a": {}}}}, "joke", {"a"}),
        ({"name": "joke", "input_schema": {"type": "object", "properties": {"a": {}}}}, "joke", {"a"}),
        ({"name": "joke"}, "joke", set()),
        ({"type": "object", "properties": {"name": {"type": "string"}}}, "answer", {"name"}),
    ],
)
def test_named_schema(schema: Any, name: str, fields: set[str]) -> None:
    """The name and the JSON schema of every kind of schema."""
    title, json_schema = named_schema(schema)

    assert title == name
    assert json_schema.get("properties", {}).keys() == fields
    assert json_schema.get("type", "object") == "object"


@pytest.mark.parametrize("schema", [None, {}, "Joke", int, Joke(setup="Why?")], ids=range(5))
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    """Anything else is refused by name."""
    with pytest.raises(InputError, match="is no schema"):
        structured_runnable(Recorder(), schema)


def test_an_unknown_method_is_refused() -> None:
    """A method that does not exist is refused, with those that do."""
    method: Any = "yaml"

    with pytest.raises(InputError, match="'json_schema', 'function_calling' or 'json_mode'"):
        structured_runnable(Recorder(), Joke, method=method)


def test_the_schema_in_words() -> None:
    """The system text holds the schema as JSON, characters as they are."""
    schema: Mapping[str, Any] = {"type": "object", "description": "Größe", "properties": {}}
    text = schema_message(schema)

    assert json.loads(text[text.index("{") :]) == schema
    assert "Größe" in text
