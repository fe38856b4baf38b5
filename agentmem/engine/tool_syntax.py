"""How a model's own chat template writes the tool calls of a reply, read off the template.

A reply with one made-up call is rendered, and one with two; what stands around the calls' JSON are
the fixed texts. Calls that are no JSON objects of a name and its arguments (XML, Python, a name in
front of bare arguments) have no syntax here. Knows what a template writes; knows nothing of replies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentmem.engine.template_cut import MARK, TemplateCutter
from agentmem.engine.template_text import Message
from agentmem.errors import TemplateError

_ASKED: Message = {"role": "user", "content": "Qxasked"}
_CALLS = tuple(
    {"type": "function", "id": f"call0000{n}", "function": {"name": "qxlook", "arguments": {"at": at}}}
    for n, at in enumerate((MARK, "Qxsecond"), start=1)
)
_NO_THOUGHT = re.compile(r"\s*<think>\s*</think>\s*")
"""An empty thought, which some templates put before the newest reply."""


@dataclass(frozen=True)
class ToolSyntax:
    """A call is ``before + {"<name_key>": "tool", "<arguments_key>": {...}} + after``.

    With ``before`` empty (or only space) a call is recognised by its JSON alone, at the reply's start.
    """

    before: str
    """Text before a call; before all of them, if ``listed``."""
    after: str
    """Text behind a call; behind all of them, if ``listed``."""
    name_key: str
    """The key of the tool's name. It comes first."""
    arguments_key: str
    """The key of the arguments, a JSON object."""
    between: str | None = "\n"
    """Text between two calls in a row; None: a reply holds one call."""
    listed: bool = False
    """The calls of a reply stand in one JSON list."""
    opener: str = ""
    """A special token in front of ``before``. A reply's text does not show special tokens."""

    @property
    def bare(self) -> bool:
        """Whether no text but the JSON itself tells a call from an answer."""
        return not self.before.strip()


HERMES = ToolSyntax("<tool_call>\n", "\n</tool_call>", "name", "arguments")
"""The format most open models were trained on: for models whose template says nothing of calls."""


def probe_tool_syntax(cutter: TemplateCutter) -> ToolSyntax | None:
    """How the template writes calls; None if it does not, or not as JSON between fixed texts."""
    one = _written(cutter, 1)
    found = _find_call(one, 0, MARK)
    if found is None:
        return None
    start, stop, keys = found
    before, after = one[:start], one[stop:]
    opener = cutter.text.leading_token(before)
    opener = opener if cutter.text.has_special(opener) else ""
    between, listed = _between(_written(cutter, 2), before, after)
    if listed:
        before, after = before.rstrip()[:-1], after.lstrip()[1:]
    before = before.lstrip().removeprefix(opener) if opener else before
    if cutter.text.has_special(before + after):
        return None
    return ToolSyntax(before, after, *keys, between=between, listed=listed, opener=opener)


def _written(cutter: TemplateCutter, calls: int) -> str:
    """What the template writes as a reply of so many calls, without what closes it; empty if it cannot."""
    called: Message = {"role": "assistant", "content": "", "tool_calls": list(_CALLS[:calls])}
    try:
        prompt = cutter.text.render([_ASKED], reply=True)
        whole = cutter.text.render([_ASKED, called], reply=False)
    except TemplateError:
        return ""
    prompts = (prompt, prompt.rstrip().removesuffix("<think>"), prompt.rstrip())
    begin = next((len(text) for text in prompts if whole.startswith(text)), None)
    if begin is None:
        return ""
    body = _NO_THOUGHT.sub("", whole[begin:], count=1)
    tail = cutter.tail("assistant", reply=False)
    closed = next((n for n in range(len(body)) if tail.startswith(body[n:])), len(body))
    return body[:closed]


def _find_call(text: str, start: int, at: str) -> tuple[int, int, tuple[str, str]] | None:
    """(start, stop, keys) of the JSON object of the made-up call with that argument."""
    decoder = json.JSONDecoder()
    while (start := text.find("{", start)) >= 0:
        try:
            value, stop = decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            value, stop = None, 0
        if isinstance(value, Mapping) and _is_call(value, at):
            name_key, arguments_key = value
            return start, stop, (name_key, arguments_key)
        start += 1
    return None


def _is_call(value: Mapping[str, Any], at: str) -> bool:
    return list(value.values()) == ["qxlook", {"at": at}]


def _between(two: str, before: str, after: str) -> tuple[str | None, bool]:
    """(text between two calls, whether they stand in a list), from a reply with two calls."""
    first = _find_call(two, 0, MARK)
    second = _find_call(two, first[1], "Qxsecond") if first else None
    bracketed = before.rstrip().endswith("[") and after.lstrip().startswith("]")
    if not first or not second or two[: first[0]] != before or two[second[1] :] != after:
        return None, bracketed
    gap = two[first[1] : second[0]]
    if gap.startswith(after) and gap.endswith(before) and len(gap) >= len(before) + len(after):
        return gap[len(after) : len(gap) - len(before)], False
    return (gap, True) if bracketed else (None, False)
