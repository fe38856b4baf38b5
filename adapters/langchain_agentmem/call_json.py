"""One tool call's JSON object, read character by character while it is being written.

The arguments are given on as they come, as valid JSON: a line break inside a string, which small
models write and JSON forbids, is escaped. The last brace is given only when the whole has been
parsed, so broken arguments never add up to valid ones. Knows JSON and the keys of a call; knows
nothing of what stands around it.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NoReturn

from agentmem.engine.tool_syntax import ToolSyntax

_CLOSES = {"{": "}", "[": "]"}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def strict_json(text: str) -> Any:
    """The value of a JSON text. NaN, Infinity, half surrogates and absurd depth are no JSON.

    Raises:
        ValueError: the text is no JSON.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


class ValueReader:
    """One JSON value: where it ends is known from its brackets and quotes alone."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.done = False
        self.failed = False
        self._closers: list[str] = []
        self._quoted = False
        self._escaped = False

    @property
    def text(self) -> str:
        """The value so far, control characters in strings escaped."""
        return "".join(self.pieces)

    @property
    def kind(self) -> str:
        """The first character; empty before it."""
        return self.pieces[0] if self.pieces else ""

    def push(self, character: str) -> bool:
        """Take a character; False if it stands behind the value (a number ends with what follows it)."""
        if self._quoted:
            self._push_quoted(character)
        elif not self.pieces and character.isspace():
            return True
        elif character == '"':
            self.failed = bool(self.pieces) and not self._closers
            self._quoted = True
            self.pieces.append(character)
        elif character in _CLOSES:
            self.failed = bool(self.pieces) and not self._closers
            self._closers.append(_CLOSES[character])
            self.pieces.append(character)
        elif self._closers:
            self._push_inside(character)
        elif character in ",}]" or character.isspace():
            self.failed = not self.pieces
            self.done = True
            return False
        else:
            self.pieces.append(character)
        return True

    def _push_quoted(self, character: str) -> None:
        if character < " ":
            character = json.dumps(character)[1:-1]
        self.pieces.append(character)
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._quoted = False
            self.done = not self._closers

    def _push_inside(self, character: str) -> None:
        self.pieces.append(character)
        if character in "}]":
            self.failed = self._closers.pop() != character
            self.done = not self._closers


class CallReader:
    """One call, ``{"name": "tool", "arguments": {...}}``, keys in any order, further keys ignored.

    Args:
        syntax: the keys of a call.
    """

    def __init__(self, syntax: ToolSyntax) -> None:
        self.first_key: str | None = None
        self.name: str | None = None
        self.begun = False
        """Whether there is something to give on of the arguments."""
        self.complete = False
        """Whether name and arguments are known to be whole."""
        self.closed = False
        """Whether the object has ended."""
        self.failed = False
        self._name_key = syntax.name_key
        self._argument_keys = {syntax.arguments_key, "arguments", "parameters"}
        self._place: Literal["open", "key", "colon", "next"] = "open"
        self._key: str | None = None
        self._value: ValueReader | None = None
        self._has_arguments = False
        self._fragments: list[str] = []

    def take(self) -> str:
        """The arguments' JSON that came since the last time."""
        taken = "".join(self._fragments)
        self._fragments.clear()
        return taken

    def push(self, character: str) -> None:
        """Take a character; sets ``failed`` or ``closed`` when it is the last one."""
        if self._value is not None and self._push_value(self._value, character):
            return
        if self.failed or character.isspace():
            return
        if self._place == "open" and character == "{":
            self._place = "key"
        elif self._place == "key" and character == '"':
            self._value = ValueReader()
            self._value.push(character)
        elif self._place == "colon" and character == ":":
            self._value = ValueReader()
        elif self._place == "next" and character == ",":
            self._place = "key"
        elif self._place in {"key", "next"} and character == "}":
            self._close()
        else:
            self.failed = True

    def _push_value(self, value: ValueReader, character: str) -> bool:
        taken = value.push(character)
        if value.failed:
            self.failed = True
        elif value.done:
            self._value = None
            self._end(value)
        elif taken and self._streams(value):
            self.begun = True
            self._fragments.append(value.pieces[-1])
        return taken

    def _streams(self, value: ValueReader) -> bool:
        """Whether the value is arguments that can be given on as they come."""
        return self._key in self._argument_keys and not self._has_arguments and value.kind == "{"

    def _end(self, value: ValueReader) -> None:
        """A key or a value has ended."""
        try:
            parsed = strict_json(value.text)
            if self._key is None:
                self._begin_value(parsed)
                return
            if self._key == self._name_key and self.name is None:
                self._set_name(parsed)
            elif self._key in self._argument_keys and not self._has_arguments:
                self._set_arguments(value, parsed)
        except ValueError:
            self.failed = True
        self._key, self._place = None, "next"
        self.complete = self.name is not None and self._has_arguments

    def _begin_value(self, key: str) -> None:
        self._key, self._place = key, "colon"
        self.first_key = key if self.first_key is None else self.first_key

    def _set_name(self, parsed: Any) -> None:
        if not isinstance(parsed, str) or not parsed:
            raise ValueError("the name is no text")
        self.name = parsed

    def _set_arguments(self, value: ValueReader, parsed: Any) -> None:
        if value.kind == "{":
            self._fragments.append(value.pieces[-1])
        else:  # some models write the arguments as a JSON text inside the JSON, or null for none
            inner = strict_json(parsed) if isinstance(parsed, str) and parsed.strip() else (parsed or {})
            if not isinstance(inner, dict):
                raise ValueError("the arguments are no object")
            self._fragments.append(json.dumps(inner, ensure_ascii=False))
        self.begun = self._has_arguments = True

    def _close(self) -> None:
        if self.name is None:
            self.failed = True
            return
        if not self._has_arguments:
            self._fragments.append("{}")
            self.begun = True
        self.complete = self.closed = True
