"""An answer in LangChain's words: the chunks of a stream, and the whole message, which is their sum.

Knows what a reply was and which turn it belongs to; knows no memory and decodes nothing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, message_chunk_to_message
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.utils.json import parse_partial_json

from agentmem import RecallReceipt, Reply
from langchain_agentmem.reply_parser import BadCall, CallArguments, CallStart, Part, TextPart, ThinkingPart

PROVIDER = "agentmem"
BLOCKS_SHOWN = 8
"""Recalled blocks that a message names: metadata is saved by every checkpointer, so it stays small."""
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_BREAKERS = ("", "]", "}", '"]', '"}', '""]', '""}')
"""One of these behind a text of JSON leaves a bracket that closes nothing, wherever the text stops."""


@dataclass(frozen=True)
class Facts:
    """What a message tells of the turn it came from."""

    model_name: str
    agent_id: str | None
    """None: the answer stood for itself."""
    parent: str | None
    """The state that the turn went on from."""
    plan: str
    """What was made of the caller's list, such as "extend"."""
    note: str = ""
    """What the caller should know about that; empty as a rule."""


def new_call_id() -> str:
    """An id for a tool call: nine letters and digits, the one form that every chat template takes."""
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


def text_chunk(text: str) -> AIMessageChunk:
    """A piece of the answer's text."""
    return AIMessageChunk(content=text)


def thinking_chunk(text: str) -> AIMessageChunk:
    """A piece of the model's thoughts."""
    return AIMessageChunk(content="", additional_kwargs={"reasoning_content": text})


def call_chunk(
    index: int,
    name: str | None = None,
    args: str = "",
    call_id: str | None = None,
    *,
    output_version: str | None = None,
) -> AIMessageChunk:
    """A piece of a tool call: its name and id once, then its arguments as JSON.

    Args:
        index: which call of the message, from 0.
        name, args, call_id: what this piece adds.
        output_version: "v1" if LangChain makes blocks of the contents. It counts the other blocks from 0 and
            merges what has the same number, so then a call needs an index of another kind.
    """
    piece = tool_call_chunk(name=name, args=args, id=call_id, index=index)
    if output_version != "v1":
        return AIMessageChunk(content="", tool_call_chunks=[piece])
    block = {
        "type": "tool_call_chunk",
        "id": call_id,
        "name": name,
        "args": args,
        "index": f"lc_call_{index}",
    }
    return AIMessageChunk(
        content=[block], tool_call_chunks=[piece], response_metadata={"output_version": "v1"}
    )


def last_chunk(reply: Reply, facts: Facts, *, calls: bool) -> AIMessageChunk:
    """The end of a stream. It alone bears usage and metadata, which LangChain adds up over chunks.

    Args:
        reply: the whole reply.
        facts: the turn it belongs to.
        calls: whether the answer calls tools.
    """
    return AIMessageChunk(
        content="",
        usage_metadata=usage_metadata(reply),
        response_metadata=_response_metadata(reply, facts, calls=calls),
        chunk_position="last",
    )


def usage_metadata(reply: Reply) -> UsageMetadata:
    """Token counts: all that the answer stood on is input, and what was held already is ``cache_read``."""
    usage = reply.usage
    read = usage.cached_tokens + usage.input_tokens
    return UsageMetadata(
        input_tokens=read,
        output_tokens=usage.output_tokens,
        total_tokens=read + usage.output_tokens,
        input_token_details={"cache_read": usage.cached_tokens, "cache_creation": usage.input_tokens},
    )


class Answer:
    """One answer, put together from the parts of a reply: a chunk for each, then the whole message.

    Args:
        output_version: the chat model's, see :func:`call_chunk`.
        call_id: makes the ids of tool calls.
    """

    def __init__(
        self, *, output_version: str | None = None, call_id: Callable[[], str] = new_call_id
    ) -> None:
        self._output_version = output_version
        self._call_id = call_id
        self._plain: list[AIMessageChunk] = []
        self._arguments: list[str] = []
        """JSON text of each call's arguments so far; what could not be parsed counts as a call too."""
        self._places: dict[int, int] = {}
        """The parser's number of a call -> its place in the message."""

    def chunk(self, part: Part) -> AIMessageChunk:
        """What a part of the reply adds to the message."""
        match part:
            case TextPart(text):
                return self._keep(text_chunk(text))
            case ThinkingPart(text):
                return self._keep(thinking_chunk(text))
            case CallStart(index, name):
                return self._start(index, name)
            case CallArguments(index, text):
                return self._call(self._places[index], args=text)
            case BadCall(text, index):
                return self._bad(text, index)

    def last_chunk(self, reply: Reply, facts: Facts) -> AIMessageChunk:
        """The end of the stream; nothing is added behind it."""
        calls = bool(self._merged().tool_calls) if self._plain else False
        return self._keep(last_chunk(reply, facts, calls=calls))

    def message(self) -> AIMessage:
        """The whole message: the sum of all chunks. LangChain makes blocks of it where they are wanted."""
        return cast("AIMessage", message_chunk_to_message(self._merged()))

    def _merged(self) -> AIMessageChunk:
        first, *others = self._plain
        return first + others if others else first

    def _keep(self, chunk: AIMessageChunk) -> AIMessageChunk:
        """Note a chunk as it would be without blocks; a copy is handed out, since LangChain writes into it."""
        self._plain.append(chunk)
        return chunk.model_copy(deep=True)

    def _start(self, index: int, name: str) -> AIMessageChunk:
        self._places[index] = len(self._arguments)
        self._arguments.append("")
        return self._call(self._places[index], name=name, call_id=self._call_id())

    def _bad(self, text: str, index: int | None) -> AIMessageChunk:
        """A call that cannot be used: one that was begun, or one that never had a name."""
        if index is not None:
            place = self._places[index]
            return self._call(place, args=_breaker(self._arguments[place]))
        self._arguments.append("")
        return self._call(len(self._arguments) - 1, args=text + _breaker(text), call_id=self._call_id())

    def _call(
        self, place: int, *, name: str | None = None, args: str = "", call_id: str | None = None
    ) -> AIMessageChunk:
        self._arguments[place] += args
        self._keep(call_chunk(place, name, args, call_id))
        return call_chunk(place, name, args, call_id, output_version=self._output_version)


def answer_message(
    reply: Reply, parts: Iterable[Part], facts: Facts, *, call_id: Callable[[], str] = new_call_id
) -> AIMessage:
    """The whole message of a reply that was parsed in one go."""
    answer = Answer(call_id=call_id)
    for part in parts:
        answer.chunk(part)
    answer.last_chunk(reply, facts)
    return answer.message()


def _response_metadata(reply: Reply, facts: Facts, *, calls: bool) -> dict[str, Any]:
    finish = "length" if reply.finish_reason == "length" else "stop"
    return {
        "model_name": facts.model_name,
        "model_provider": PROVIDER,
        "finish_reason": "tool_calls" if calls else finish,
        "agentmem": {
            "agent_id": facts.agent_id,
            "state_id": reply.state_id,
            "parent": facts.parent,
            "plan": facts.plan,
            "note": facts.note,
            "receipt": _receipt(reply.receipt),
        },
    }


def _receipt(receipt: RecallReceipt) -> dict[str, Any]:
    """The receipt as plain JSON; a block is [turn, start, stop, share], its text is left out."""
    return {
        "tokens_held": receipt.tokens_held,
        "tokens_prefilled": receipt.tokens_prefilled,
        "tokens_generated": receipt.tokens_generated,
        "tokens_reread": receipt.tokens_reread,
        "recalled_mass": round(receipt.recalled_mass, 6),
        "seconds": round(receipt.seconds, 6),
        "seconds_to_first": round(receipt.seconds_to_first, 6),
        "blocks": [
            [block.turn, block.start, block.stop, round(block.share, 6)]
            for block in islice(receipt.blocks, BLOCKS_SHOWN)
        ],
    }


def _breaker(text: str) -> str:
    """What makes arguments that were cut off unusable: LangChain completes them by guess otherwise, and calls."""
    return next(end for end in _BREAKERS if not _usable(text + end))


def _usable(text: str) -> bool:
    """Whether LangChain makes a call of these arguments: complete or completed, and none at all are no arguments."""
    try:
        json.loads(text or "{}")
        return True
    except ValueError:
        pass
    try:
        return isinstance(parse_partial_json(text), dict)
    except ValueError:
        return False
