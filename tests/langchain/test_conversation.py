"""What a caller's list of LangChain messages means to an agent's memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from agentmem import InputError
from agentmem.agent.messages import checked
from langchain_agentmem.conversation import Conversation, Said, key_of, message_key, read_conversation
from support.tiny_language_model import language_model

CALL = {"name": "adder", "args": {"a": 1, "b": 2}, "id": "abc123", "type": "tool_call"}
MADE: dict[str, Any] = {
    "type": "function",
    "id": "abc123",
    "function": {"name": "adder", "arguments": {"a": 1, "b": 2}},
}
ASKED = HumanMessage("What is 1 + 2?")
CALLED = AIMessage("", tool_calls=[CALL])


def read(*messages: BaseMessage, thread: str | None = None) -> Conversation:
    return read_conversation(list(messages), thread=thread)


def plain(said: Said) -> dict[str, Any]:
    return {key: value for key, value in said.message.items() if key != "metadata"}


def plains(*messages: BaseMessage) -> list[dict[str, Any]]:
    return [plain(said) for said in read(*messages).said]


# -- the list --------------------------------------------------------------------------------------


def test_leading_system_messages_are_the_system_prompt() -> None:
    """System messages at the start become one prompt; one that comes later stays where it is."""
    found = read(
        SystemMessage("Be brief."), SystemMessage("Be kind."), ASKED, SystemMessage("Now in French.")
    )

    assert found.system == "Be brief.\n\nBe kind."
    assert [plain(said)["role"] for said in found.said] == ["user", "system"]


def test_a_blank_system_prompt_is_none() -> None:
    """A prompt template with an empty system text has no system prompt."""
    assert read(SystemMessage("  "), ASKED).system is None
    assert read(ASKED).system is None


def test_each_message_notes_where_it_came_from() -> None:
    """The metadata holds LangChain's id, the thread and the origin, as plain JSON."""
    (said,) = read(HumanMessage("Hello", id="m1"), thread="t1").said

    assert said.message["metadata"] == {"id": "m1", "thread": "t1", "origin": "langchain"}
    assert said.id == "m1"


def test_a_speakers_name_is_kept() -> None:
    """A user's name goes along, so that the memory can put it before the text."""
    assert plains(HumanMessage("hello", name="ada")) == [{"role": "user", "content": "hello", "name": "ada"}]


def test_neighbours_of_one_role_are_taken() -> None:
    """Two messages of one role in a row are two messages."""
    found = read(
        *(SystemMessage("hello"), SystemMessage("hello"), HumanMessage("hello"), HumanMessage("hello")),
        *(AIMessage("hello"), AIMessage("hello"), HumanMessage("how are you")),
    )

    assert [said.message["role"] for said in found.said] == ["user", "user", "assistant", "assistant", "user"]


def test_the_state_of_an_answer_is_read_off_its_metadata() -> None:
    """An answer of a memory names the state after it; another model's names none."""
    ours = AIMessage("Hi", response_metadata={"agentmem": {"state_id": "s1"}})
    theirs = AIMessage("Hi", response_metadata={"agentmem": "s1", "id": "resp_1"})

    assert [said.state_id for said in read(ASKED, ours, theirs).said] == [None, "s1", None]


# -- tools -----------------------------------------------------------------------------------------


def test_tool_history_with_texts() -> None:
    """Calls become OpenAI's form with arguments as an object; results name call and tool."""
    result = ToolMessage('{"result": 3}', name="adder", tool_call_id="abc123")

    assert plains(ASKED, CALLED, result) == [
        {"role": "user", "content": "What is 1 + 2?"},
        {"role": "assistant", "content": "", "tool_calls": [MADE]},
        {"role": "tool", "content": '{"result": 3}', "tool_call_id": "abc123", "name": "adder"},
    ]
    assert read(ASKED, CALLED, result).said[1].calls == ("abc123",)


def test_tool_history_with_anthropics_blocks() -> None:
    """A tool_use block that repeats a call of the message is that call, not a second one."""
    used = {"type": "tool_use", "id": "abc123", "name": "adder", "input": {"a": 1, "b": 2}}
    answer = AIMessage([{"type": "text", "text": "Let me see."}, used], tool_calls=[CALL])
    alone = AIMessage([{"type": "text", "text": "Let me see."}, used])
    expected = {"role": "assistant", "content": "Let me see.", "tool_calls": [MADE]}

    assert plains(ASKED, answer, ToolMessage("3", tool_call_id="abc123"))[1] == expected
    assert plains(ASKED, alone, ToolMessage("3", tool_call_id="abc123"))[1] == expected


def test_results_in_a_users_message_are_tool_messages() -> None:
    """Anthropic's tool_result blocks become tool messages before the user's words; the id stays with the last."""
    blocks = [
        {"type": "tool_result", "tool_use_id": "abc123", "content": [{"type": "text", "text": "green"}]},
        {"type": "text", "text": "and why?", "cache_control": {"type": "ephemeral"}},
    ]
    found = read(ASKED, CALLED, HumanMessage(blocks, id="m3")).said[2:]

    assert [plain(said) for said in found] == [
        {"role": "tool", "content": "green", "tool_call_id": "abc123", "name": "adder"},
        {"role": "user", "content": "and why?"},
    ]
    assert [said.id for said in found] == [None, "m3"]


def test_a_users_message_may_hold_results_only() -> None:
    """A message of tool_result blocks alone is the tools' messages; one that failed says so."""
    block = {"type": "tool_result", "tool_use_id": "abc123", "content": "no such tool", "is_error": True}

    assert plains(ASKED, CALLED, HumanMessage([block]))[2]["content"] == "Error: no such tool"


@pytest.mark.parametrize("text", ["Missing argument 'b'.", "Error: Missing argument 'b'."])
def test_a_failed_tool_says_so(text: str) -> None:
    """The model reads of a failure, once."""
    failed = ToolMessage(text, tool_call_id="abc123", status="error")

    assert plains(ASKED, CALLED, failed)[2]["content"] == "Error: Missing argument 'b'."


def test_few_shot_examples_are_taken() -> None:
    """LangChain's own few-shot messages, whose calls stand in additional_kwargs, are understood."""
    function = {"name": "Adder", "arguments": '{"a":1,"b":2}'}
    raw = {"tool_calls": [{"id": "abc123", "type": "function", "function": function}]}
    shots = [
        *(HumanMessage("1 + 2?"), AIMessage("", additional_kwargs=raw)),
        *(ToolMessage("3", tool_call_id="abc123"), AIMessage("3")),
    ]
    found = plains(*shots, HumanMessage("3 + 4?"))

    assert [message["role"] for message in found] == ["user", "assistant", "tool", "assistant", "user"]
    assert found[1]["tool_calls"] == [{**MADE, "function": {**MADE["function"], "name": "Adder"}}]
    assert found[2]["tool_call_id"] == "abc123"


def test_a_result_may_come_alone() -> None:
    """A caller who sends only what is new may send just the result: its call is in the memory."""
    assert plains(ToolMessage("3", tool_call_id="abc123")) == [
        {"role": "tool", "content": "3", "tool_call_id": "abc123"}
    ]


def test_a_call_that_could_not_be_parsed_can_be_answered() -> None:
    """A result may answer an invalid call; the call is known by its id and is not made again."""
    broken = {"name": None, "args": "{", "id": "bad1", "error": None, "type": "invalid_tool_call"}
    found = read(
        ASKED, AIMessage("Hm", invalid_tool_calls=[broken]), ToolMessage("?", tool_call_id="bad1")
    ).said

    assert found[1].calls == ("bad1",)
    assert plain(found[1]) == {"role": "assistant", "content": "Hm"}
    assert plain(found[2]) == {"role": "tool", "content": "?", "tool_call_id": "bad1"}


# -- contents --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block",
    [
        "Hello",
        {"type": "text", "text": "Hello"},
        {"type": "text", "text": "Hello", "annotations": [], "index": "lc_txt_0"},
        {"text": "Hello"},
        {"type": "input_text", "text": "Hello"},
        {"type": "text-plain", "text": "Hello", "mime_type": "text/plain"},
        {"type": "non_standard", "value": {"type": "text", "text": "Hello"}},
    ],
)
def test_every_form_of_text_is_read(block: Any) -> None:
    """Text is text, whichever library's block it stands in."""
    assert plains(HumanMessage([block])) == [{"role": "user", "content": "Hello"}]


def test_joints_between_texts() -> None:
    """What a user put together stays apart; pieces of an answer belong together."""
    pieces: list[Any] = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

    assert [said["content"] for said in plains(HumanMessage(pieces), AIMessage(pieces), ASKED)][:2] == [
        "one\ntwo",
        "onetwo",
    ]


@pytest.mark.parametrize(
    "thought",
    [
        {"type": "thinking", "thinking": "A greeting.", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "reasoning", "reasoning": "A greeting."},
    ],
)
def test_thoughts_are_left_out(thought: dict[str, Any]) -> None:
    """No model is shown another's thoughts."""
    answer = AIMessage([thought, {"type": "text", "text": "Hello!"}])

    assert plains(ASKED, answer, HumanMessage("Well?"))[1] == {"role": "assistant", "content": "Hello!"}


@pytest.mark.parametrize(
    ("block", "thing"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}, "an image"),
        ({"type": "image", "base64": "AA==", "mime_type": "image/png"}, "an image"),
        ({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}, "audio"),
        ({"type": "file", "base64": "AA==", "mime_type": "application/pdf"}, "a file"),
        ({"type": "text-plain", "url": "https://example.org/a.txt"}, "a file"),
        ({"type": "video", "url": "https://example.org/a.mp4"}, "a video"),
    ],
)
def test_what_is_no_text_is_refused(block: dict[str, Any], thing: str) -> None:
    """A picture, a sound, a file: the error says which block of which message, and what to do."""
    told = HumanMessage([{"type": "text", "text": "See:"}, block])

    with pytest.raises(InputError, match=rf"message 1 \(HumanMessage\): content block 1 is {thing}.*words"):
        read(AIMessage("Hi"), told)
    with pytest.raises(InputError, match=rf"\(ToolMessage\): content block 0 is {thing}"):
        read(ASKED, CALLED, ToolMessage([block], tool_call_id="abc123"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{"type": "hologram", "text": "x"}], "block 0 has the unknown type 'hologram'; the types are"),
        ([{"value": 1}], "block 0 has the unknown type None"),
        ([{"type": "text", "text": None}], "block 0 has the type 'text' and no text"),
        ([{"type": "tool_use", "id": "x", "name": "f", "input": {}}], "makes a tool call; only an AIMessage"),
        ([{"type": "tool_result", "content": "x"}], "tool_result without a tool_use_id"),
        ("", "is empty"),
        (" \n", "is empty"),
        ([], "is empty"),
        ([{"type": "text", "text": ""}], "is empty"),
        ("\ud800", "not valid Unicode"),
        ([{"type": "tool_result", "tool_use_id": "x", "content": "\ud800"}], "not valid Unicode"),
    ],
)
def test_bad_contents_are_refused(content: Any, words: str) -> None:
    """A content that cannot be used is a typed error that names the message and the remedy."""
    with pytest.raises(InputError, match=words) as caught:
        read(HumanMessage(content))

    assert "message 0 (HumanMessage)" in str(caught.value)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "messages is empty; give at least one HumanMessage"),
        ("hello", "messages is a str; give a list"),
        ({"role": "user"}, "messages is a dict; give a list"),
        ([SystemMessage("Be brief.")], "system messages only"),
        ([ASKED, {"role": "user", "content": "hi"}], r"message 1 \(dict\) is no message type"),
        ([ASKED, RemoveMessage(id="m1")], r"message 1 \(RemoveMessage\) is an order"),
        ([FunctionMessage("3", name="f")], r"message 0 \(FunctionMessage\).*use ToolMessage"),
        ([ChatMessage("hi", role="critic")], "has the role 'critic'; the roles are user, human"),
        ([ASKED, AIMessage("")], r"message 1 \(AIMessage\) is empty"),
        ([ASKED, SystemMessage(" ")], r"message 1 \(SystemMessage\) is empty"),
        (
            [ASKED, AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}})],
            "give it tool_calls",
        ),
        (
            [ASKED, CALLED, ToolMessage("3", tool_call_id="other")],
            r"message 2 \(ToolMessage\) answers the tool call 'other'.*calls so far: 'abc123'",
        ),
        ([ToolMessage("3", tool_call_id="abc123"), CALLED], "no message before it makes .*none"),
        ([SystemMessage([{"type": "tool_result", "tool_use_id": "x"}]), ASKED], "put it into a ToolMessage"),
    ],
)
def test_bad_lists_are_refused(messages: Any, words: str) -> None:
    """A list that no turn can be made of is a typed error that says what is wrong with which message."""
    with pytest.raises(InputError, match=words):
        read_conversation(messages, thread=None)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"type": "tool_use", "id": "x", "name": "", "input": {}}, "has the name ''"),
        ({"type": "tool_use", "id": "x", "name": "f", "input": [1]}, "are a list; give an object"),
        ({"type": "function_call", "call_id": "x", "name": "f", "arguments": "{"}, "are no JSON"),
    ],
)
def test_bad_calls_are_refused(call: dict[str, Any], words: str) -> None:
    """A call block without name or proper arguments is refused."""
    with pytest.raises(InputError, match=words):
        read(ASKED, AIMessage([call]), ASKED)


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800"])
def test_arguments_that_are_no_json_are_refused(value: object) -> None:
    """A call whose arguments hold what JSON cannot say could not be stored."""
    call = {**CALL, "args": {"a": value}}

    with pytest.raises(InputError, match=r"message 1 .* 'adder' cannot be written as JSON"):
        read(ASKED, AIMessage("", tool_calls=[call]), ASKED)


def test_arguments_become_plain_json() -> None:
    """What JSON has another word for is written as JSON has it, so that storing changes nothing."""
    call = {**CALL, "args": {"n": {1: (2, 3)}, "a": None}}
    said = read(ASKED, AIMessage("", tool_calls=[call]), ASKED).said[1]

    assert said.message["tool_calls"][0]["function"]["arguments"] == {"n": {"1": [2, 3]}, "a": None}
    assert said.key == message_key("assistant", "", [("adder", {"a": None, "n": {"1": [2, 3]}})])


def test_chat_messages_take_the_usual_roles() -> None:
    """A ChatMessage is whatever its role says."""
    found = read(
        *(ChatMessage("Be brief.", role="developer"), ChatMessage("Hi", role="Human")),
        *(ChatMessage("Hello!", role="assistant"), ChatMessage("Bye", role="user")),
    )

    assert found.system == "Be brief."
    assert [said.message["role"] for said in found.said] == ["user", "assistant", "user"]


# -- answers that are blank ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        AIMessage("", response_metadata={"agentmem": {"state_id": "s1"}}),
        AIMessage("", additional_kwargs={"reasoning_content": "Hm"}),
        AIMessage([{"type": "reasoning", "reasoning": "Hm"}]),
        AIMessage("", invalid_tool_calls=[{"name": None, "args": "{", "id": "x", "error": None}]),
    ],
)
def test_an_answer_that_was_cut_may_come_back(answer: AIMessage) -> None:
    """An answer that ended before its first word does not lock its thread; there is nothing to read in."""
    said = read(ASKED, answer, HumanMessage("Go on.")).said

    assert [one.blank for one in said] == [False, True, False]


def test_an_answer_that_calls_is_not_blank() -> None:
    """Calls without words are something to read in."""
    assert not read(ASKED, CALLED, ToolMessage("3", tool_call_id="abc123")).said[1].blank


# -- keys ------------------------------------------------------------------------------------------


def test_an_answer_has_one_key_in_every_form() -> None:
    """Text, blocks, thoughts left in or out, another id: the same answer is known again."""
    calls = [("adder", {"b": 2, "a": 1})]
    expected = message_key("assistant", "Let me see.", calls)
    whole = AIMessage("\n\nLet me see. ", tool_calls=[CALL])
    v1 = AIMessage(
        content_blocks=[
            {"type": "reasoning", "reasoning": "Adding."},
            {"type": "text", "text": "Let me "},
            {"type": "tool_call", "name": "adder", "args": {"a": 1, "b": 2}, "id": "abc123"},
            {"type": "text", "text": "see."},
        ],
        response_metadata={"output_version": "v1"},
    )
    chunk = AIMessageChunk("Let me see.", additional_kwargs={"reasoning_content": "Adding."})
    chunk += AIMessageChunk(
        "", tool_call_chunks=[{"name": "adder", "args": '{"a": 1, "b": 2}', "id": "zzz", "index": 0}]
    )

    assert [read(ASKED, form, ASKED).said[1].key for form in (whole, v1, chunk)] == [expected] * 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("user", "Hi"), ("assistant", "Hi")),
        (("user", "Hi"), ("user", "hi")),
        (("assistant", "", [("f", {"a": 1})]), ("assistant", "", [("f", {"a": 2})])),
        (("assistant", "", [("f", {})]), ("assistant", "", [("g", {})])),
        (("assistant", "", [("f", {})]), ("assistant", "", [("f", {}), ("f", {})])),
        (("tool", "3", (), "a"), ("tool", "3", (), "b")),
    ],
)
def test_other_messages_have_other_keys(one: Any, other: Any) -> None:
    """Role, text, calls and the call that is answered all tell messages apart."""
    assert message_key(*one) != message_key(*other)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(min_size=1), st.dictionaries(st.text(), json_values, max_size=3))
def test_keys_survive_storing(text: str, arguments: dict[str, Any]) -> None:
    """A message that went through JSON, as a memory stores it, has the key it had before."""
    answer = AIMessage(text, tool_calls=[{"name": "f", "args": arguments, "id": "x"}])
    said = read(ASKED, answer, ASKED).said[1]
    held = json.loads(json.dumps(said.message))

    assert key_of(held) == said.key == message_key("assistant", text, [("f", arguments)])


def test_what_is_read_suits_the_memory() -> None:
    """Messages of every kind pass the memory's own check and the model's template."""
    found = read(
        *(SystemMessage("Be brief."), HumanMessage("1 + 2?", name="ada"), CALLED),
        *(ToolMessage("3", tool_call_id="abc123"), AIMessage("It is 3."), HumanMessage([{"text": "And 4?"}])),
    )
    kept = checked([said.message for said in found.said])
    without_metadata = [{key: value for key, value in one.items() if key != "metadata"} for one in kept]

    assert language_model(template="qwen2.5").template.delta(None, without_metadata, reply=True).ids
