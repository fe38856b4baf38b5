"""What a call asks of the reply's form: what the model is told about it, and what a grammar makes sure of.

Knows tools and schemas; knows no memory. The grammars need the extra ``structured``; a free choice among tools works
without it, only unchecked.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from agentmem import InputError, LanguageModel
from agentmem.engine.sampling import LogitsProcessor
from langchain_agentmem.calls import Call
from langchain_agentmem.grammar import Grammars, structured_available
from langchain_agentmem.instructions import Instruction
from langchain_agentmem.structured import schema_message
from langchain_agentmem.tool_choice import ANY, AUTO, NONE
from langchain_agentmem.tool_prompt import tools_message
from langchain_agentmem.tool_style import ToolStyle

_LOG = logging.getLogger(__name__)


def wanted_instructions(call: Call, system: str | None, style: ToolStyle) -> list[Instruction]:
    """What the model has to be told for this call, in order; what is in force already is not told again."""
    wanted = []
    if system is not None:
        wanted.append(Instruction("system", system))
    if call.tools and call.tool_choice != NONE and not style.native:
        wanted.append(Instruction("tools", tools_message(call.tools, style.syntax)))
    schema = _schema(call.response_format)
    if schema is not None:
        wanted.append(Instruction("schema", schema_message(schema)))
    return wanted


def native_tools(call: Call, style: ToolStyle) -> list[dict[str, Any]] | None:
    """The tools that the model's own template is to write."""
    if not style.native or call.tool_choice == NONE:
        return None
    return list(call.tools) or None


def processors(call: Call, model: LanguageModel, style: ToolStyle) -> list[LogitsProcessor]:
    """What keeps the reply in form.

    Raises:
        InputError: a response format that is not known, or a schema that no grammar can be made of.
        MissingExtraError: the form was demanded, and the extra is not installed.
    """
    if call.response_format is not None:
        schema = _schema(call.response_format) or call.response_format.get("schema")
        grammars = Grammars(model)
        return [grammars.json_object() if schema is None else grammars.json(schema)]
    if not call.tools or call.tool_choice == NONE:
        return []
    if call.tool_choice == AUTO:
        return _free_calls(call, model, style)
    names = None if call.tool_choice == ANY else [call.tool_choice]
    # small models that must call go on calling until the reply is full: several calls only on request
    several = call.parallel is True
    return [Grammars(model).forced_calls(call.tools, style.syntax, names=names, parallel=several)]


def _free_calls(call: Call, model: LanguageModel, style: ToolStyle) -> list[LogitsProcessor]:
    """Whole arguments for calls the model makes by itself, where a grammar can be made of the tools."""
    if not structured_available():
        return []
    try:
        return [Grammars(model).free_calls(call.tools, style.syntax)]
    except InputError as error:
        _LOG.info("tool calls are not constrained: %s", error)
        return []


def _schema(response_format: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The schema to answer in; None for any JSON object, or no format at all. Raises InputError."""
    if response_format is None:
        return None
    kind = response_format.get("type")
    if kind == "json_object":
        return None
    try:
        if kind == "json_schema":
            return dict(response_format["json_schema"]["schema"])
    except (KeyError, TypeError):
        pass
    raise InputError(
        f"response_format={dict(response_format)!r}: use {{'type': 'json_object'}} or "
        "{'type': 'json_schema', 'json_schema': {'name': ..., 'schema': {...}}}"
    )
