"""An answer as LangChain's message and chunks: the sum of the chunks is the message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from agentmem import AgentMemory, InMemoryHome, RecalledBlock, RecallReceipt, Reply
from agentmem.agent.receipts import Usage
from agentmem.engine.tool_syntax import HERMES
from langchain_agentmem.conversation import message_key, read_conversation
from langchain_agentmem.reply_parser import (
    BadCall,
    CallArguments,
    CallStart,
    Part,
    ReplyParser,
    TextPart,
    parse_reply,
)
from langchain_agentmem.results import Answer, Facts, answer_message, call_chunk, new_call_id
from support.tiny_language_model import SMALL, language_model

FACTS = Facts(model_name="tiny", agent_id="ada", parent="s0", plan="extend")
BLOCK = RecalledBlock(
    turn=3, start=64, stop=96, text="My dog is called Biscuit.", created_at="2026", share=0.5
)


def reply(finish: str = "stop", blocks: Sequence[RecalledBlock] = (BLOCK,) * 12) -> Reply:
    receipt = RecallReceipt(
        tokens_held=120,
        tokens_prefilled=20,
        tokens_generated=7,
        blocks=blocks,
        seconds=0.25,
        recalled_mass=0.125,
        seconds_to_first=0.0625,
    )
    return Reply("text", receipt, Usage(input_tokens=20, output_tokens=7, cached_tokens=93), "s1", finish)


def numbered() -> Any:
    """Ids of calls that are the same in every run."""
    numbers = count()
    return lambda: f"call{next(numbers):05}"


def parts_of(pieces: Sequence[str], *, opens_thinking: bool = False) -> list[Part]:
    parser = ReplyParser(HERMES, opens_thinking=opens_thinking)
    return [part for piece in pieces for part in parser.push(piece)] + parser.finish()


def cut(text: str, at: Sequence[int]) -> list[str]:
    """A text in pieces."""
    bounds = sorted({0, len(text), *(place % (len(text) + 1) for place in at)})
    return [text[start:stop] for start, stop in pairwise(bounds)]


class Scripted(BaseChatModel):
    """A chat model that says one text, in pieces: what LangChain makes of our chunks and of our message."""

    pieces: list[str]
    finish: str = "stop"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _chunks(self) -> tuple[Answer, list[AIMessageChunk]]:
        answer = Answer(output_version=self.output_version, call_id=numbered())
        chunks = [answer.chunk(part) for part in parts_of(self.pieces)]
        return answer, [*chunks, answer.last_chunk(reply(self.finish), FACTS)]

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._chunks()[0].message())])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Any:
        for chunk in self._chunks()[1]:
            yield ChatGenerationChunk(message=chunk)


def summed(model: Scripted) -> AIMessageChunk:
    first, *others = model.stream("Hello")
    return first + others if others else first


def shown(message: AIMessage) -> dict[str, Any]:
    """All that a message says, whichever class, id and order of blocks it has."""
    blocks = [block for block in message.content_blocks if block["type"] != "tool_call_chunk"]
    return {
        "text": message.text,
        "tool_calls": message.tool_calls,
        "invalid_tool_calls": message.invalid_tool_calls,
        "thinking": message.additional_kwargs.get("reasoning_content"),
        "reasoning": "".join(block["reasoning"] for block in blocks if block["type"] == "reasoning"),
        "block_text": "".join(block["text"] for block in blocks if block["type"] == "text"),
        "block_calls": [
            (block["name"], block["args"], block["id"]) for block in blocks if block["type"] == "tool_call"
        ],
        "usage": message.usage_metadata,
        "metadata": message.response_metadata,
    }


CALLED = '<tool_call>\n{"name": "look", "arguments": {"at": "the ☕ {\\"x\\"}", "n": [1, 2.5, null]}}\n</tool_call>'
REPLIES = [
    "Hello!",
    "<think>\nA greeting.\n</think>\n\nHello!",
    CALLED,
    f"{CALLED}\n{CALLED}",
    f"Let me see.\n{CALLED}\nand\n{CALLED}\nDone.",
    f"<think>Look there.</think>Let me see.\n{CALLED}\n{CALLED}\nThis is all.",
    CALLED[:50],
    f"{CALLED}\n{CALLED[:60]}",
    f"Hm <tool_call>nonsense</tool_call> well {CALLED} so",
    '<tool_call>{"name": 3}</tool_call>',
    '<tool_call>{"name": "look", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "look", "arguments": ',
]


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("text", REPLIES)
def test_the_chunks_add_up_to_the_message(text: str, version: str) -> None:
    """Streamed or not, in pieces of any length, with contents as texts or as blocks: the same is said."""
    whole = Scripted(pieces=[text], output_version=version).invoke("Hello")
    letters = summed(Scripted(pieces=list(text), output_version=version))
    streamed = Scripted(pieces=list(text), output_version=version, disable_streaming=False).invoke(
        "Hello", stream=True
    )

    assert isinstance(whole.content, str if version == "v0" else list)
    assert shown(letters) == shown(whole)
    assert shown(streamed) == shown(whole)


pieces = [
    *("<tool_call>", "</tool_call>", "\n", '{"name": "f", "arguments": {', '"a": 1', ', "b": "x\\"', '"'),
    *("}}", "}", "<think>", "</think>", "Hi ", "{", "]", "\\", CALLED),
]


@given(
    st.lists(st.sampled_from(pieces), max_size=12).map("".join), st.lists(st.integers(0, 999), max_size=20)
)
def test_any_reply_adds_up(text: str, at: list[int]) -> None:
    """Whatever a model writes, wherever it is cut: chunks and message agree with each other and with the parser."""
    whole = answer_message(reply(), parts_of([text]), FACTS, call_id=numbered())
    letters = summed(Scripted(pieces=cut(text, at), output_version="v1"))
    parsed = parse_reply(text, HERMES)

    assert (whole.text, len(whole.invalid_tool_calls)) == (parsed.text, len(parsed.bad))
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [
        (call.name, call.arguments) for call in parsed.calls
    ]
    assert shown(letters) | {"metadata": None} == shown(whole) | {"metadata": None}


@pytest.mark.parametrize("text", REPLIES)
def test_events_tell_the_same(text: str) -> None:
    """LangChain's v3 events assemble a message with the same text, calls and usage."""
    whole = Scripted(pieces=[text]).invoke("Hello")
    found = Scripted(pieces=list(text)).stream_events("Hello", version="v3").output

    assert (found.text, found.tool_calls) == (whole.text, whole.tool_calls)
    assert len(found.invalid_tool_calls) == len(whole.invalid_tool_calls)
    assert found.usage_metadata == whole.usage_metadata


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("text", REPLIES)
def test_an_answer_that_comes_back_is_known(text: str, version: str) -> None:
    """The key of our answer in a caller's list is the key of what the memory holds."""
    parsed = parse_reply(text, HERMES)
    held = message_key("assistant", parsed.text, [(call.name, call.arguments) for call in parsed.calls])
    model = Scripted(pieces=list(text), output_version=version)

    for message in (model.invoke("Hello"), summed(model)):
        kept = AIMessage.model_validate_json(AIMessage(**_fields(message)).model_dump_json())
        said = read_conversation([HumanMessage("Hello"), kept, HumanMessage("And?")], thread=None).said[1]

        assert (said.key, said.state_id) == (held, "s1")


@pytest.mark.parametrize("seed", range(6))
def test_an_answer_of_a_real_memory_is_known(seed: int) -> None:
    """What a model really says, decoded piece by piece, is known again by what its memory's history holds."""
    options = {"temperature": 1.5, "seed": seed, "max_new_tokens": 24}
    with AgentMemory.resume("ada", model=language_model(), home=InMemoryHome(), config=SMALL) as memory:
        stream = memory.generate_stream([{"role": "user", "content": "Hello"}], **options)
        pieces = list(stream)
        message = answer_message(stream.reply, parts_of(pieces), FACTS)
        held = memory.history()[-1].messages[-1]
    parsed = parse_reply(held["content"], HERMES)
    said = read_conversation([HumanMessage("Hello"), message, HumanMessage("And?")], thread=None).said[1]

    assert said.key == message_key("assistant", parsed.text, [(c.name, c.arguments) for c in parsed.calls])
    assert said.state_id == stream.reply.state_id
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == stream.reply.usage.output_tokens > 0


def _fields(message: AIMessage) -> dict[str, Any]:
    names = ("content", "tool_calls", "invalid_tool_calls", "additional_kwargs", "response_metadata")
    return {name: getattr(message, name) for name in names}


# -- what a stream must keep to --------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_metadata_stands_on_the_last_chunk_alone(version: str) -> None:
    """LangChain adds usage and names up over chunks, so one chunk bears them, and it says that it is the last."""
    chunks = list(Scripted(pieces=list(REPLIES[5]), output_version=version).stream("Hello"))

    assert [chunk.usage_metadata is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert ["model_name" in chunk.response_metadata for chunk in chunks].count(True) == 1
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_a_text_is_one_block(version: str) -> None:
    """The pieces of a text are one block in the end, and none is empty."""
    blocks = summed(Scripted(pieces=list("Hello there!"), output_version=version)).content_blocks

    assert [(block["type"], block.get("text")) for block in blocks] == [("text", "Hello there!")]


def test_what_is_streamed_is_not_what_is_kept() -> None:
    """LangChain writes into the chunks it is given; the whole message is not changed by that."""
    answer = Answer()
    chunk = answer.chunk(TextPart("Hello"))
    chunk.content = [{"type": "text", "text": "spoilt"}]
    chunk.response_metadata["output_version"] = "v1"
    answer.last_chunk(reply(), FACTS)

    assert answer.message().content == "Hello"


def test_blocks_of_calls_and_texts_stay_apart() -> None:
    """With contents as blocks, a call is not merged into the text that has its number."""
    message = summed(Scripted(pieces=list(f"See:{CALLED}"), output_version="v1"))

    assert [block["type"] for block in message.content] == ["text", "tool_call"]


# -- what a message tells --------------------------------------------------------------------------


def test_what_was_held_counts_as_cached() -> None:
    """Input is all that the answer stood on: what was held is read from the cache, what is new makes it."""
    message = answer_message(reply(), [TextPart("Hi")], FACTS)

    assert message.usage_metadata == {
        "input_tokens": 113,
        "output_tokens": 7,
        "total_tokens": 120,
        "input_token_details": {"cache_read": 93, "cache_creation": 20},
    }


def test_the_metadata_of_a_message() -> None:
    """Model, reason and turn are told; the receipt is small, plain JSON, and holds no text of the past."""
    metadata = answer_message(reply(), [TextPart("Hi")], FACTS).response_metadata
    receipt = metadata["agentmem"].pop("receipt")

    assert metadata == {
        "model_name": "tiny",
        "model_provider": "agentmem",
        "finish_reason": "stop",
        "agentmem": {"agent_id": "ada", "state_id": "s1", "parent": "s0", "plan": "extend", "note": ""},
    }
    assert receipt == {
        "tokens_held": 120,
        "tokens_prefilled": 20,
        "tokens_generated": 7,
        "tokens_reread": 0,
        "recalled_mass": 0.125,
        "seconds": 0.25,
        "seconds_to_first": 0.0625,
        "blocks": [[3, 64, 96, 0.5]] * 8,
    }
    assert json.loads(json.dumps(receipt)) == receipt
    assert "Biscuit" not in json.dumps(metadata)


@pytest.mark.parametrize(
    ("finish", "text", "reason"),
    [
        ("stop", "Hello", "stop"),
        ("stop_string", "Hello", "stop"),
        ("length", "Hello", "length"),
        ("stop", CALLED, "tool_calls"),
        ("length", CALLED[:50], "length"),
    ],
)
def test_why_an_answer_ended(finish: str, text: str, reason: str) -> None:
    """The reasons are OpenAI's; a call that was cut off is none."""
    message = answer_message(reply(finish), parts_of([text]), FACTS)

    assert message.response_metadata["finish_reason"] == reason


def test_an_answer_without_a_word() -> None:
    """An empty reply is an empty message with usage and metadata."""
    message = answer_message(reply(), [], FACTS)

    assert (message.content, message.tool_calls) == ("", [])
    assert message.response_metadata["agentmem"]["state_id"] == "s1"


# -- calls -----------------------------------------------------------------------------------------


def test_a_calls_pieces() -> None:
    """A call is named once, with its id; its arguments follow as JSON."""
    answer = Answer(call_id=numbered())
    parts: list[Part] = [CallStart(0, "look"), CallArguments(0, '{"at"'), CallArguments(0, ": 1}")]
    pieces = [answer.chunk(part).tool_call_chunks for part in parts]

    assert [[(p["name"], p["args"], p["id"], p["index"]) for p in piece] for piece in pieces] == [
        [("look", "", "call00000", 0)],
        [(None, '{"at"', None, 0)],
        [(None, ": 1}", None, 0)],
    ]


@given(st.integers(0, 200))
def test_a_call_that_was_cut_off_is_never_made(length: int) -> None:
    """LangChain completes broken arguments by guess; ours are broken so that it cannot, wherever the text stops."""
    arguments = '{"path": "/a\\\\b\\"c", "deep": {"x": [1, {"y": "z"}]}, "sure": true}'
    begun = arguments[: length % len(arguments)]
    answer = Answer()
    for part in (CallStart(0, "delete"), CallArguments(0, begun), BadCall("...", 0)):
        answer.chunk(part)
    answer.last_chunk(reply("length"), FACTS)
    message = answer.message()

    assert message.tool_calls == []
    assert [call["name"] for call in message.invalid_tool_calls] == ["delete"]


@given(st.text())
def test_what_is_no_call_is_never_made(text: str) -> None:
    """A call that could not be parsed becomes an invalid call, even if its text is an object."""
    for raw in (text, json.dumps(text), json.dumps({text: text}), "3", "{}", ""):
        message = answer_message(reply(), [BadCall(raw)], FACTS)

        assert message.tool_calls == []
        assert message.invalid_tool_calls[0]["args"].startswith(raw)


def test_ids_of_calls_suit_every_template() -> None:
    """Ids are nine letters and digits, as Mistral's templates demand, and differ."""
    ids = {new_call_id() for _ in range(100)}

    assert len(ids) == 100
    assert all(len(one) == 9 and one.isalnum() and one.isascii() for one in ids)


def test_a_call_chunk_of_blocks_says_so() -> None:
    """With contents as blocks, the call stands in the content too, under a number no other block gets."""
    chunk = call_chunk(0, "look", "", "call00000", output_version="v1")

    assert chunk.content_blocks == [
        {"type": "tool_call_chunk", "id": "call00000", "name": "look", "args": "", "index": "lc_call_0"}
    ]
