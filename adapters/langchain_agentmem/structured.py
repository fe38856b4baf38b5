"""Answers as objects of a schema: what is bound to the model, and what parses its answer.

The parsers are LangChain's own, but for one thing: an answer that was cut off is an error, where
LangChain would mend the JSON and give half an object. Knows schemas, binding and parsing; knows no
grammar, which the model makes of what is bound here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel
from typing_extensions import is_typeddict, override

from agentmem.errors import InputError

Method = Literal["function_calling", "json_mode", "json_schema"]
_NAMELESS = "answer"


def structured_runnable(
    llm: BaseChatModel,
    schema: Mapping[str, Any] | type,
    *,
    method: Method = "json_schema",
    include_raw: bool = False,
    strict: bool | None = None,
    **options: Any,
) -> Runnable[LanguageModelInput, Any]:
    """``llm`` with its answers parsed as ``schema`` has it.

    Args:
        llm: the chat model; it must know ``response_format``, or ``bind_tools`` with a choice.
        schema: a pydantic class (v2 or v1), a TypedDict class, a JSON schema, or a tool in OpenAI's or
            Anthropic's form.
        method: "json_schema" binds the schema as the response format, "function_calling" as a tool that
            must be called, "json_mode" asks for a JSON object that the prompt describes.
        include_raw: give {"raw", "parsed", "parsing_error"}, and raise nothing when parsing fails.
        strict: accepted; answers are constrained always.
        options: further options of the call.

    Raises:
        InputError: the method is unknown, or the schema is none.
    """
    title, json_schema = named_schema(schema)
    traced = {
        "ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": schema}
    }
    if method == "function_calling":
        tool: Any = schema if isinstance(schema, type) else _as_tool(schema, title, json_schema)
        name = str(convert_to_openai_tool(tool)["function"]["name"])
        bound = llm.bind_tools([tool], tool_choice=name, parallel_tool_calls=False, **traced, **options)
        parser = _tool_parser(schema, name)
    elif method in {"json_schema", "json_mode"}:
        wanted: dict[str, Any] = {"type": "json_object", "schema": json_schema}
        if method == "json_schema":
            wanted = {"type": "json_schema", "json_schema": {"name": title, "schema": json_schema}}
        bound = llm.bind(response_format=wanted, **traced, **options)
        parser = _answer_parser(schema)
    else:
        raise InputError(f"method={method!r}: use 'json_schema', 'function_calling' or 'json_mode'")
    return _with_raw(bound, parser) if include_raw else bound | parser


def schema_message(schema: Mapping[str, Any]) -> str:
    """The system text that tells a model the schema of its answer."""
    written = json.dumps(schema, ensure_ascii=False)
    return f"Answer with JSON that fits this JSON schema, and with nothing else:\n{written}"


def named_schema(schema: Mapping[str, Any] | type) -> tuple[str, dict[str, Any]]:
    """(name, JSON schema) of any kind of schema.

    Raises:
        InputError: it is none.
    """
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        kind: Any = schema  # pydantic v2's classes and v1's share no base
        whole = kind.model_json_schema() if issubclass(schema, BaseModel) else kind.schema()
    elif isinstance(schema, type) and is_typeddict(schema):
        whole = convert_to_json_schema(schema)
    elif isinstance(schema, Mapping) and schema:
        whole = dict(schema)
        if _is_tool(whole):
            whole = convert_to_json_schema(whole)
            whole.setdefault("type", "object")
    else:
        raise InputError(
            f"{schema!r} is no schema; give a pydantic class, a TypedDict class, or a JSON schema as a dict"
        )
    return str(whole.get("title") or _NAMELESS), whole


def _is_tool(schema: Mapping[str, Any]) -> bool:
    """Whether the dict is a tool in OpenAI's, Anthropic's or Amazon's form, rather than a JSON schema."""
    named = "name" in schema and not {"type", "properties", "$ref", "anyOf", "oneOf"} & schema.keys()
    function = schema.get("type") == "function" and isinstance(schema.get("function"), Mapping)
    return named or function or "toolSpec" in schema or {"name", "input_schema"} <= schema.keys()


def _as_tool(schema: Mapping[str, Any], title: str, json_schema: Mapping[str, Any]) -> dict[str, Any]:
    """The dict as a tool: JSON schemas need a name for that."""
    if _is_tool(schema):
        return dict(schema)
    description = str(json_schema.get("description", ""))
    function = {"name": title, "description": description, "parameters": dict(json_schema)}
    return {"type": "function", "function": function}


def _tool_parser(schema: Mapping[str, Any] | type, name: str) -> BaseOutputParser[Any]:
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return _CalledObject(tools=[schema], first_tool_only=True)
    return _CalledDict(key_name=name, first_tool_only=True)


def _answer_parser(schema: Mapping[str, Any] | type) -> BaseOutputParser[Any]:
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return _AnsweredObject(pydantic_object=schema)
    return _AnsweredJson()


def _with_raw(bound: Runnable[Any, Any], parser: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """{"raw", "parsed", "parsing_error"}, as ``BaseChatModel.with_structured_output`` gives them."""
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _refuse_cut(result: list[Generation]) -> None:
    text = result[0].text.strip()
    try:
        json.loads(text)
    except ValueError as error:
        raise OutputParserException(
            f"the answer is no whole JSON ({error}); if it was cut off, allow more with max_tokens: {text!r}",
            llm_output=text,
        ) from None


def _refuse_none(found: Any) -> Any:
    if found is None:
        raise OutputParserException(
            "the answer holds no whole call; if it was cut off, allow more with max_tokens"
        )
    return found


class _AnsweredJson(JsonOutputParser):
    """A whole answer is whole JSON; only a stream may show a part of it."""

    @override
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        if not partial:
            _refuse_cut(result)
        return super().parse_result(result, partial=partial)


class _AnsweredObject(PydanticOutputParser[Any]):
    """The same, as an object of a pydantic class."""

    @override
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        if not partial:
            _refuse_cut(result)
        return super().parse_result(result, partial=partial)


class _CalledDict(JsonOutputKeyToolsParser):
    """The arguments of the call; an answer without a whole call is an error."""

    @override
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        found = super().parse_result(result, partial=partial)
        return found if partial else _refuse_none(found)


class _CalledObject(PydanticToolsParser):
    """The same, as an object of a pydantic class."""

    @override
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        found = super().parse_result(result, partial=partial)
        return found if partial else _refuse_none(found)
