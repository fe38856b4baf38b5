"""A reply's text taken apart while it is being written: answer, thinking, tool calls.

Every character is read once, so the parts do not depend on how the text was cut into pieces. Held
back is only what may still become something else: the beginning of a call's opening text, of
``<think>`` or ``</think>``, and the space before it. A reply without calls and thinking gives its
text unchanged; space between the text and a call or a thought belongs to neither.

A reply that begins with the JSON of a call, the name first and then the arguments, is a call in any
syntax, also in a Markdown fence: small models write it so, and no answer looks like that by chance.

Knows the syntax of calls; knows nothing of messages, models or LangChain.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from itertools import groupby

from agentmem.engine.tool_syntax import ToolSyntax
from agentmem.errors import InputError
from langchain_agentmem.call_json import CallReader
from langchain_agentmem.reply_parts import (
    BadCall,
    CallArguments,
    CallStart,
    ParsedCall,
    ParsedReply,
    Part,
    TextPart,
    ThinkingPart,
)
from langchain_agentmem.until import Until

__all__ = [
    "BadCall",
    "CallArguments",
    "CallStart",
    "ParsedCall",
    "ParsedReply",
    "Part",
    "ReplyParser",
    "TextPart",
    "ThinkingPart",
    "may_hold_parts",
    "parse_reply",
]

_THINK, _THOUGHT = "<think>", "</think>"
_WRAPPERS = {"": "", "```json": "```", "```": "```", "<tools>": "</tools>"}
"""What may stand before bare JSON at a reply's start, and what closes it: small models often write their
first call so, whatever their template shows them (Qwen2.5-Coder does)."""


def parse_reply(text: str, syntax: ToolSyntax | None, *, opens_thinking: bool = False) -> ParsedReply:
    """The parts of a whole reply: what pushing it in any pieces gives, put together."""
    parser = ReplyParser(syntax, opens_thinking=opens_thinking)
    parts = [*parser.push(text), *parser.finish()]
    names = {part.index: part.name for part in parts if isinstance(part, CallStart)}
    bad = [part for part in parts if isinstance(part, BadCall)]
    whole = names.keys() - {part.index for part in bad}
    arguments = dict.fromkeys(names, "")
    for part in parts:
        if isinstance(part, CallArguments):
            arguments[part.index] += part.text
    return ParsedReply(
        text="".join(part.text for part in parts if isinstance(part, TextPart)),
        thinking="".join(part.text for part in parts if isinstance(part, ThinkingPart)),
        calls=[ParsedCall(names[index], json.loads(arguments[index])) for index in sorted(whole)],
        bad=[part.text for part in bad],
    )


def may_hold_parts(text: str, syntax: ToolSyntax) -> bool:
    """Whether a reply can hold anything but text; told at a glance, without parsing it."""
    opening = syntax.before.strip()
    begins = text.lstrip().startswith((_THINK, "{", "[", *filter(None, _WRAPPERS)))
    return begins or bool(opening and opening in text)


class ReplyParser:
    """Takes one reply apart. Use it for one reply only.

    Args:
        syntax: how calls are written; None: no calls are looked for.
        opens_thinking: the prompt already began the thinking, so the reply starts inside it.
    """

    def __init__(self, syntax: ToolSyntax | None, *, opens_thinking: bool = False) -> None:
        self._syntax = syntax
        self._opens_thinking = opens_thinking
        self._closer = syntax.after.strip() if syntax else ""
        self._parts: list[Part] = []
        self._queue: deque[str] = deque()
        self._state: Callable[[str], None] = self._begin
        self._until = Until("")
        self._held = ""  # the beginning of something, not yet certain
        self._raw: list[str] = []  # the call being read
        self._reader: CallReader | None = None
        self._started = False  # whether that call's start was given
        self._certain = True  # whether it is a call at all; with bare JSON that shows late
        self._lead = ""  # what stands before such JSON
        self._loose = True  # whether bare JSON may still be a call
        self._in_list = False
        self._index = 0
        self._fresh = False  # a thought or a call has just ended: space before the text is dropped
        self._said = False  # some text was given before that

    def push(self, text: str) -> list[Part]:
        """Take a piece of the reply; the parts that are certain now.

        Raises:
            InputError: the reply was finished.
        """
        if self._state == self._ended:
            raise InputError("this parser has finished a reply; make a new one for the next.")
        self._queue.extend(text)
        self._drain()
        return self._take()

    def finish(self) -> list[Part]:
        """The reply is over: what was held back, and a call that was cut off."""
        while self._state != self._ended:
            self._finish_state()
            self._drain()
        return self._take()

    def _drain(self) -> None:
        while self._queue:
            self._state(self._queue.popleft())

    def _take(self) -> list[Part]:
        """The parts since the last time, neighbours of one kind put together."""
        taken: list[Part] = []
        for kind, group in groupby(self._parts, key=_kind):
            parts = list(group)
            if kind == TextPart:
                taken.append(TextPart("".join(part.text for part in parts if isinstance(part, TextPart))))
            elif kind == ThinkingPart:
                texts = [part.text for part in parts if isinstance(part, ThinkingPart)]
                taken.append(ThinkingPart("".join(texts)))
            elif isinstance(kind, int):
                texts = [part.text for part in parts if isinstance(part, CallArguments)]
                taken.append(CallArguments(kind, "".join(texts)))
            else:
                taken += parts
        self._parts.clear()
        return taken

    # The beginning, the thinking, the text.

    def _begin(self, character: str) -> None:
        self._held += character
        seen = self._held.lstrip()
        if seen == _THINK:
            self._held = ""
            self._enter_thinking()
        elif not _THINK.startswith(seen):
            self._leave_begin()

    def _leave_begin(self) -> None:
        held, self._held = self._held, ""
        if self._opens_thinking:
            self._enter_thinking()
        else:
            self._enter_text()
        self._queue.extendleft(reversed(held))

    def _enter_thinking(self) -> None:
        self._fresh = True
        self._until = Until(_THOUGHT)
        self._state = self._thinking

    def _thinking(self, character: str) -> None:
        text, found = self._until.push(character)
        self._give_thinking(text)
        if found:
            self._fresh = True
            self._enter_text()

    def _give_thinking(self, text: str) -> None:
        text = text.lstrip() if self._fresh else text
        if text:
            self._fresh = False
            self._parts.append(ThinkingPart(text))

    def _enter_text(self) -> None:
        if self._syntax is None:
            self._state = self._plain
        elif self._loose:
            self._state = self._bare
        else:
            self._closer = self._syntax.after.strip()
            self._until = Until(self._syntax.before.strip())
            self._state = self._plain if self._syntax.bare else self._text

    def _plain(self, character: str) -> None:
        self._give_text(character)

    def _text(self, character: str) -> None:
        text, found = self._until.push(character)
        self._give_text(text)
        if found:
            self._closer = self._syntax.after.strip() if self._syntax else ""
            self._enter_call(certain=True)

    def _give_text(self, text: str) -> None:
        text = text.lstrip() if self._fresh else text
        if text:
            self._parts.append(TextPart("\n" + text if self._fresh and self._said else text))
            self._fresh, self._said = False, True

    def _bare(self, character: str) -> None:
        """Where bare JSON may be a call: at the reply's start, and behind such a call."""
        assert self._syntax is not None
        lead = self._held.strip()
        lead = lead.lstrip(";,").lstrip() if self._index else lead
        listed = self._syntax.bare and self._syntax.listed and not self._index
        if character == ("[" if listed else "{") and lead in _WRAPPERS:
            self._lead, self._held = self._held, ""
            self._enter_call(certain=False)
            self._closer = _WRAPPERS[lead]
            self._queue.appendleft(character)
            return
        self._held += character
        lead = (lead + character).strip() if lead or not (self._index and character in ";,") else ""
        if not any(wrapper.startswith(lead) for wrapper in _WRAPPERS):
            self._leave_bare()

    def _leave_bare(self, text: str = "") -> None:
        """It is no call: read it once more, as text."""
        text, self._held, self._loose = self._held + text, "", False
        self._enter_text()
        self._queue.extendleft(reversed(text))

    # A call.

    def _enter_call(self, *, certain: bool) -> None:
        self._certain, self._in_list = certain, False
        self._enter_object()

    def _enter_object(self) -> None:
        self._raw, self._reader, self._started = [], None, False
        self._state = self._open

    def _open(self, character: str) -> None:
        """Before a call's brace."""
        assert self._syntax is not None
        self._raw.append(character)
        if character == "{":
            self._reader = CallReader(self._syntax)
            self._reader.push(character)
            self._state = self._read
        elif character == "[" and not self._in_list:
            self._in_list = True
        elif character == "]" and self._in_list and self._certain:
            self._in_list, self._state = False, self._close
        elif not character.isspace():
            self._fail()

    def _read(self, character: str) -> None:
        reader = self._reader
        assert reader is not None
        assert self._syntax is not None
        was_complete = reader.complete
        self._raw.append(character)
        reader.push(character)
        if not self._certain:
            first_keys = {None, self._syntax.name_key}
            self._certain = reader.name is not None and reader.begun and not reader.closed
            if reader.failed or reader.closed or reader.first_key not in first_keys:
                self._certain = False
                self._fail()
                return
        if self._certain:
            self._give_call(reader)
        if reader.closed:
            self._end_call()
        elif reader.failed and was_complete:  # a brace too few; the call itself is whole
            self._end_call()
            self._queue.appendleft(character)
        elif reader.failed:
            self._fail()

    def _give_call(self, reader: CallReader) -> None:
        if reader.name is None or not reader.begun:
            return
        if not self._started:
            self._started = True
            self._parts.append(CallStart(self._index, reader.name))
        text = reader.take()
        if text:
            self._parts.append(CallArguments(self._index, text))

    def _end_call(self) -> None:
        self._index += 1
        self._raw, self._started = [], False
        self._fresh = True
        self._state = self._close

    def _close(self, character: str) -> None:
        """Behind a call: a comma and the next one of a list, the closing text, or neither."""
        if not self._held and character.isspace():
            return
        if not self._held and self._in_list and character in ",]":
            self._in_list = character == ","
            if self._in_list:
                self._enter_object()
            return
        if not self._closer:
            self._enter_text()
            self._queue.appendleft(character)
            return
        self._held += character
        if self._held == self._closer:
            self._held = ""
            self._enter_text()
        elif not self._closer.startswith(self._held):
            held, self._held = self._held, ""
            if held not in "}]":  # one bracket too many is forgiven
                self._enter_text()
                self._queue.extendleft(reversed(held))

    def _fail(self) -> None:
        """What is being read is no call: not at all, or a bad one that lasts until the closing text."""
        raw = "".join(self._raw)
        self._raw = []
        if not self._certain:
            self._leave_bare(self._lead + raw)
            return
        self._until = Until(self._closer)
        self._state = self._bad
        self._queue.extendleft(reversed(raw))

    def _bad(self, character: str) -> None:
        text, found = self._until.push(character)
        self._raw.append(text)
        if found:
            self._give_bad()
            self._enter_text()

    def _give_bad(self) -> None:
        text = "".join(self._raw).strip()
        self._parts.append(BadCall(text, self._index if self._started else None))
        self._index += self._started
        self._raw, self._started, self._fresh = [], False, True

    # The end.

    def _finish_state(self) -> None:
        """Settle what the state holds back; either the reply ends here, or something is read again."""
        state = self._state
        if state == self._begin:
            self._leave_begin()
            return
        if state == self._thinking:
            self._give_thinking(self._until.flush().rstrip())
        elif state == self._text:
            self._give_text(self._until.flush())
        elif state == self._bare:
            self._leave_bare()
            return
        elif state == self._bad:
            self._raw.append(self._until.flush())
            self._give_bad()
        elif state in {self._open, self._read} and self._finish_call():
            return
        self._state = self._ended

    def _finish_call(self) -> bool:
        """A call was cut off; True if some of it is read again."""
        reader, raw = self._reader, "".join(self._raw)
        if reader is not None and reader.complete and self._certain:
            return False
        assert self._syntax is not None
        named = reader is not None and self._syntax.bare and reader.first_key == self._syntax.name_key
        if (not self._certain and not named) or (self._closer and self._closer in raw):
            self._fail()
            return True
        if raw.strip() or self._certain:
            self._give_bad()
        return False

    def _ended(self, character: str) -> None:
        raise AssertionError(character)


def _kind(part: Part) -> object:
    """What neighbours have in common that may be put together."""
    return part.index if isinstance(part, CallArguments) else type(part)
