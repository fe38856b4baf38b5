"""The rules for templates that insist on alternation, lack a system role, drop thinking, or take tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentmem.engine.template import ChatTemplate, Pending
from agentmem.errors import InputError, TemplateError
from support.templates import CASES, tokenizer_for

ALTERNATING = ["command-r", "gemma2", "gemma3", "mistral-v0.1", "mistral-spaced", "mistral-v3", "llama2"]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"place": "Ulm"}}}
CALLING: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "12 degrees", "name": "weather", "tool_call_id": "abcdefghi"}


def say(role: str, content: str) -> dict[str, str]:
    """A message."""
    return {"role": role, "content": content}


def read(name: str, *deltas: Any) -> str:
    """The text of several deltas."""
    return str(tokenizer_for(name).decode([i for delta in deltas for i in delta.ids]))


def whole(name: str, *messages: Any, reply: bool = True, **options: Any) -> str:
    """The text of the whole conversation, decoded from Hugging Face's ids."""
    tokenizer = tokenizer_for(name)
    ids = tokenizer.apply_chat_template(
        [dict(m) for m in messages], add_generation_prompt=reply, return_dict=False, **options
    )
    return str(tokenizer.decode(ids))


@pytest.mark.parametrize("name", ALTERNATING)
def test_alternating_templates_merge_neighbours_across_turns(name: str) -> None:
    """An observation followed by a chat message is one user message with a blank line between."""
    template = ChatTemplate(tokenizer_for(name))
    seen = template.delta(None, [say("user", "The lake is far.")], reply=False)
    asked = template.delta(seen.pending, [say("user", "How far?")], reply=True)

    assert template.facts.alternates
    assert read(name, seen, asked) == whole(name, say("user", "The lake is far.\n\nHow far?"))


@pytest.mark.parametrize("name", ALTERNATING)
def test_alternating_templates_merge_neighbours_in_one_delta(name: str) -> None:
    """Two user messages at once are merged as well."""
    template = ChatTemplate(tokenizer_for(name))
    both = template.delta(None, [say("user", "One."), say("user", "Two.")], reply=True)

    assert read(name, both) == whole(name, say("user", "One.\n\nTwo."))


def test_other_templates_keep_a_new_message_apart() -> None:
    """On ChatML a chat message after an observation is a message of its own."""
    template = ChatTemplate(tokenizer_for("chatml"))
    seen = template.delta(None, [say("user", "The lake is far.")], reply=False)
    asked = template.delta(seen.pending, [say("user", "How far?")], reply=True)

    assert not template.facts.alternates
    assert read("chatml", seen, asked) == whole(
        "chatml", say("user", "The lake is far."), say("user", "How far?")
    )


@pytest.mark.parametrize("name", sorted(set(CASES) - {"none", "none-pieces"}))
def test_consecutive_observations_are_one_message(name: str) -> None:
    """continue_message goes on with the open message; its closing tokens are written once, at the end."""
    template = ChatTemplate(tokenizer_for(name))
    first = template.delta(None, [say("user", "One.")], reply=False)
    second = template.continue_message(first.pending, "Two.")
    third = template.continue_message(second.pending, " More of two.", separator="")
    opened = template.delta(third.pending, [], reply=True)

    assert read(name, first, second, third, opened) == whole(name, say("user", "One.\n\nTwo. More of two."))


@pytest.mark.parametrize("name", ["gemma2", "mistral-v0.1", "phi3-first"])
def test_without_a_system_role_its_text_comes_before_the_users(name: str) -> None:
    """System text and the first user text are one user message, in one delta or in two."""
    template = ChatTemplate(tokenizer_for(name))
    at_once = template.delta(None, [say("system", "Be brief."), say("user", "Hi")], reply=True)

    assert not template.facts.system_role
    assert read(name, at_once) == whole(name, say("user", "Be brief.\n\nHi"))


@pytest.mark.parametrize("name", ["gemma3", "llama2"])
def test_a_system_message_written_inside_the_users_can_come_first_alone(name: str) -> None:
    """Where the template writes the system text into the first user message, two turns equal one."""
    template = ChatTemplate(tokenizer_for(name))
    system = template.delta(None, [say("system", "Be brief.")], reply=False)
    user = template.delta(system.pending, [say("user", "Hi")], reply=True)

    assert read(name, system, user) == whole(name, say("system", "Be brief."), say("user", "Hi"))


@pytest.mark.parametrize("name", ALTERNATING)
def test_late_system_message_becomes_the_users(name: str) -> None:
    """Where the template refuses a system message it is merged with the user's next text."""
    template = ChatTemplate(tokenizer_for(name))
    pending = Pending((), "assistant")
    told = template.delta(pending, [say("system", "Be brief."), say("user", "Hi")], reply=True)
    plain = template.delta(pending, [say("user", "Be brief.\n\nHi")], reply=True)

    assert told == plain


def test_late_system_message_stays_one_where_the_template_takes_it() -> None:
    """On Qwen2.5 a later system message is written as such."""
    template = ChatTemplate(tokenizer_for("qwen2.5"))
    told = template.delta(Pending((), "assistant"), [say("system", "Be brief.")], reply=False)

    assert read("qwen2.5", told) == "<|im_end|>\n<|im_start|>system\nBe brief."
    assert told.pending == Pending((), "system")


def test_qwen3_keeps_what_was_generated_or_the_answer_alone() -> None:
    """Old thinking stays in the log, unless the answer is put in the reply's place as Qwen3 writes it."""
    template = ChatTemplate(tokenizer_for("qwen3"))
    reply = "<think>\nIt is far.\n</think>\n\nAbout 12 km."
    asked = template.delta(None, [say("user", "How far?")], reply=True)
    kept = template.answer_only(asked, reply)
    assert kept is not None
    thanks = template.delta(kept.pending, [say("user", "Thanks")], reply=True)
    log = [*asked.ids[: asked.reply_start], *kept.ids, *thanks.ids]
    messages = (say("user", "How far?"), say("assistant", reply), say("user", "Thanks"))

    assert template.facts.drops_thinking
    assert tokenizer_for("qwen3").decode(log) == whole("qwen3", *messages)
    assert template.answer_only(asked, "About 12 km.") is None


def test_r1_opens_the_thinking_in_its_prompt() -> None:
    """The prompt holds <think>, so a reply's thinking ends at </think> and the old reply has none."""
    template = ChatTemplate(tokenizer_for("r1"))
    asked = template.delta(None, [say("user", "How far?")], reply=True)
    reply = "It is far.\n</think>\n\nAbout 12 km."
    kept = template.answer_only(asked, reply)
    assert kept is not None

    assert template.facts.opens_thinking
    assert template.facts.drops_thinking
    assert not template.facts.prefix_stable
    assert template.split_thinking(reply) == ("It is far.", "About 12 km.")
    assert template.split_thinking("It is") == ("It is", "")
    assert (
        tokenizer_for("r1")
        .decode([*asked.ids[: asked.reply_start], *kept.ids])
        .endswith("<｜User｜>How far?<｜Assistant｜>About 12 km.")
    )


def test_splitting_thinking_from_the_answer() -> None:
    """Thinking is what stands in the tags, whole or cut off; text without tags is the answer as it is."""
    split = ChatTemplate(tokenizer_for("qwen3")).split_thinking

    assert split("<think>\nA\n</think>\n\nB") == ("A", "B")
    assert split("<think>\nA") == ("A", "")
    assert split(" B ") == ("", " B ")


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "llama3.1", "granite", "mistral-v3"])
def test_tools_are_written_by_the_template(name: str) -> None:
    """With the first message, tools stand where the template puts them."""
    template = ChatTemplate(tokenizer_for(name))
    asked = template.delta(None, [say("user", "Rain?")], tools=[TOOL], reply=True)

    assert template.facts.has_tools
    assert read(name, asked) == whole(name, say("user", "Rain?"), tools=[TOOL])


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "mistral-v3", "llama3.1"])
def test_tool_results_follow_a_call(name: str) -> None:
    """A sampled call, the tool's result, and the answer read as the whole conversation does."""
    tokenizer = tokenizer_for(name)
    template = ChatTemplate(tokenizer)
    asked = template.delta(None, [say("user", "Rain?")], reply=True)
    text = read(name, asked)
    called = whole(name, say("user", "Rain?"), CALLING, RESULT)[len(text) :]
    closer = called.index(CASES[name].eos)
    sampled = template.encode_reply(called[:closer])
    result = template.delta(template.after_reply(sampled[-1:], "length"), [RESULT], reply=True)

    assert text + called == tokenizer.decode([*asked.ids, *sampled[:-1], *result.ids])


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "mistral-v3", "llama3.1"])
def test_a_conversation_with_calls_can_be_imported(name: str) -> None:
    """Messages with tool calls and results are written as the template writes them; JSON strings parsed."""
    template = ChatTemplate(tokenizer_for(name))
    text_call = {**CALL, "function": {"name": "weather", "arguments": '{"place": "Ulm"}'}}
    messages = [say("user", "Rain?"), {**CALLING, "tool_calls": [text_call], "content": None}, RESULT]
    told = template.delta(None, messages, reply=True)

    assert read(name, told) == whole(name, say("user", "Rain?"), CALLING, RESULT)


def test_two_results_in_two_turns_stand_in_one_block() -> None:
    """Qwen writes results in a row into one user message; given one by one they still do."""
    template = ChatTemplate(tokenizer_for("qwen2.5"))
    second = {**RESULT, "content": "no rain"}
    start = template.delta(None, [say("user", "Rain?"), CALLING, RESULT], reply=False)
    more = template.delta(start.pending, [second], reply=True)

    assert read("qwen2.5", start, more) == whole("qwen2.5", say("user", "Rain?"), CALLING, RESULT, second)


def test_a_result_without_reply_keeps_its_call_s_id() -> None:
    """Mistral closes a result with the id of its call: the next delta writes that id."""
    template = ChatTemplate(tokenizer_for("mistral-v3"))
    result = template.delta(None, [say("user", "Rain?"), CALLING, RESULT], reply=False)
    opened = template.delta(result.pending, [], reply=True)

    assert result.pending.call_id == "abcdefghi"
    assert read("mistral-v3", result, opened) == whole("mistral-v3", say("user", "Rain?"), CALLING, RESULT)


def test_late_tools_become_a_system_message() -> None:
    """Given later, Qwen's text for tools is written as a system message, its tool tags real tokens."""
    tokenizer = tokenizer_for("qwen2.5")
    template = ChatTemplate(tokenizer)
    late = template.delta(Pending((), "assistant"), [say("user", "Rain?")], tools=[TOOL], reply=True)
    text = read("qwen2.5", late)

    assert text.startswith("<|im_end|>\n<|im_start|>system\n# Tools")
    assert '"name": "weather"' in text
    assert text.endswith("</tool_call><|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.convert_tokens_to_ids("<tool_call>") in late.ids


def test_late_tools_stand_at_the_template_s_own_place() -> None:
    """Mistral writes tools before the last user message, so they can come at any turn."""
    template = ChatTemplate(tokenizer_for("mistral-v3"))
    late = template.delta(Pending((), "assistant"), [say("user", "Rain?")], tools=[TOOL], reply=True)
    told = whole("mistral-v3", say("user", "Hi"), say("assistant", "Ho"), say("user", "Rain?"), tools=[TOOL])

    assert told.endswith(read("mistral-v3", late))
    assert "[AVAILABLE_TOOLS]" in read("mistral-v3", late)


def test_late_tools_are_refused_where_they_cannot_be_written() -> None:
    """Llama 3.1 writes tools into the first user message: later they cannot be taken out of it."""
    template = ChatTemplate(tokenizer_for("llama3.1"))

    with pytest.raises(TemplateError, match="with the first message"):
        template.delta(Pending((), "assistant"), [say("user", "Rain?")], tools=[TOOL], reply=True)


def test_tools_need_a_template_for_tools() -> None:
    """A template that ignores tools must not swallow them."""
    with pytest.raises(TemplateError, match="no place for tools"):
        ChatTemplate(tokenizer_for("chatml")).delta(None, [say("user", "Rain?")], tools=[TOOL], reply=True)


def test_a_model_without_template_gets_the_plain_format() -> None:
    """Headings and blank lines stand in for a template, and a heading ends the reply."""
    template = ChatTemplate(tokenizer_for("none"))
    first = template.delta(None, [say("system", "Be brief."), say("user", "Hi")], reply=True)
    sampled = template.encode_reply("Hello.")
    later = template.delta(template.after_reply(sampled[-1:], "length"), [say("user", "Bye")], reply=True)

    assert template.facts.plain
    assert "\n### User:" in template.stop_strings
    assert tokenizer_for("none").decode([*first.ids, *sampled[:-1], *later.ids]) == (
        "### System:\nBe brief.\n\n### User:\nHi\n\n### Assistant:\nHello.\n\n### User:\nBye\n\n### Assistant:\n"
    )


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([], "at least one"),
        ([{"role": "user", "content": ""}], "message 0 .user. is empty"),
        ([{"role": "user", "content": ["a"]}], "list as content"),
        ([{"role": "user"}], "NoneType as content"),
        ([{"role": "narrator", "content": "a"}], "'narrator'"),
        (["hello"], "message 0 is a str"),
        ([{"role": "assistant", "tool_calls": [{"name": "f"}]}], "tool call"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
            "no JSON object",
        ),
    ],
)
def test_messages_that_cannot_be_used_are_refused(messages: list[Any], match: str) -> None:
    """The error names the message, what is wrong with it, and the remedy."""
    with pytest.raises(InputError, match=match):
        ChatTemplate(tokenizer_for("chatml")).delta(None, messages, reply=True)


def test_messages_are_not_changed() -> None:
    """The caller's messages are left as they were."""
    message = {"role": "developer", "content": "Say <|im_end|>.", "name": None}
    ChatTemplate(tokenizer_for("chatml")).delta(None, [message, say("user", "Hi")], reply=True)

    assert message == {"role": "developer", "content": "Say <|im_end|>.", "name": None}


@pytest.mark.parametrize("name", ["mistral-v0.1", "gemma2"])
def test_an_order_the_template_refuses_is_an_error(name: str) -> None:
    """A conversation cannot begin with a reply where the template insists on a user."""
    with pytest.raises(TemplateError, match="alternate"):
        ChatTemplate(tokenizer_for(name)).delta(None, [say("assistant", "Hi")], reply=False)


def test_pending_round_trips_through_json() -> None:
    """What is pending comes back from the store as it went in."""
    for pending in (Pending((3, 1, 4), "assistant"), Pending((), "tool", "abcdefghi")):
        assert Pending.from_json(json.loads(json.dumps(pending.to_json()))) == pending
