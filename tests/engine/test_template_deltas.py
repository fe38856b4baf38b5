"""Deltas joined are the whole conversation: as text on every stable template, as ids where cuts allow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from agentmem.engine.template import ChatTemplate, Pending
from agentmem.engine.template_cut import FOLLOWER, MARK
from agentmem.engine.text_stream import TextStream
from support.templates import CASES, tokenizer_for

STABLE = sorted(set(CASES) - {"r1", "harmony"})
EXACT = sorted(
    set(STABLE) - {"mistral-v0.1", "mistral-spaced", "mistral-v3", "llama2", "none", "none-pieces"}
)
"""Templates that close messages with special tokens: there no token can span a cut."""

TEXTS = [
    "How far is it to the lake?",
    "  two spaces before, and après: 你好 🙂🙂\n\n\n\tA tab.",
    "def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))  # 3.",
    "\n\nA blank line first.\n\nThen: <b>bold</b> & |pipes| [INST-ish] {braces}",
    "Thanks!!!",
]
REPLIES = ["About 12 km.", "Müller's café…\n\n- one\n- two", "It prints `3`.\n", "No.\n\n\nReally: ёж 🦔"]


def say(role: str, content: str) -> dict[str, str]:
    """A message."""
    return {"role": role, "content": content}


def whole_ids(name: str, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
    """Hugging Face's ids of the whole conversation with a generation prompt."""
    tokenizer = tokenizer_for(name)
    template = ChatTemplate(tokenizer)
    source = tokenizer.chat_template or template._text.source
    return list(
        tokenizer.apply_chat_template(
            [dict(m) for m in messages],
            chat_template=source,
            add_generation_prompt=True,
            return_dict=False,
            **options,
        )
    )


def play(
    template: ChatTemplate, users: Sequence[str], replies: Sequence[Sequence[int]], system: str | None = None
) -> list[int]:
    """The log after a conversation whose replies were sampled as given, ended by a stop token."""
    log: list[int] = []
    pending = None
    stop = min(template.stop_ids)
    for index, text in enumerate(users):
        new = [say("user", text)]
        if index == 0 and system is not None:
            new.insert(0, say("system", system))
        log += template.delta(pending, new, reply=True).ids
        if index < len(replies):
            log += replies[index]
            pending = template.after_reply([stop], "stop")
    return log


def told(users: Sequence[str], replies: Sequence[str], system: str | None = None) -> list[dict[str, str]]:
    """The same conversation as messages."""
    messages = [] if system is None else [say("system", system)]
    for index, text in enumerate(users):
        messages.append(say("user", text))
        if index < len(replies):
            messages.append(say("assistant", replies[index]))
    return messages


def lead_of(name: str) -> str:
    """What stands between the generation prompt and an old reply: a space, on some templates."""
    return " " if name in {"llama2", "mistral-v3"} else ""


@pytest.mark.parametrize("name", STABLE)
def test_deltas_read_as_the_whole_conversation(name: str) -> None:
    """Decoded, the log of a turn-by-turn conversation is the text of the conversation at once."""
    template, tokenizer = ChatTemplate(tokenizer_for(name)), tokenizer_for(name)
    replies = [reply.strip() for reply in REPLIES]
    sampled = [template.encode_reply(lead_of(name) + reply) for reply in replies]
    log = play(template, TEXTS, sampled)
    whole = whole_ids(name, told(TEXTS, replies))

    assert template.facts.prefix_stable
    assert tokenizer.decode(log) == tokenizer.decode(whole)


@pytest.mark.parametrize("name", EXACT)
def test_deltas_have_the_ids_of_the_whole_conversation(name: str) -> None:
    """The ids are Hugging Face's for the whole conversation, system prompts and odd whitespace included."""
    template = ChatTemplate(tokenizer_for(name))
    trims = name in {"llama3", "llama3.1", "gemma2", "gemma3", "command-r"}
    replies = [reply.strip() if trims else reply for reply in REPLIES]
    sampled = [template.encode_reply(reply) for reply in replies]

    assert template.facts.exact_ids
    assert play(template, TEXTS, sampled) == whole_ids(name, told(TEXTS, replies))
    if template.facts.system_role:
        log = play(template, TEXTS, sampled, system="Be brief.")
        assert log == whole_ids(name, told(TEXTS, replies, system="Be brief."))


@pytest.mark.parametrize("name", ["qwen2.5", "llama3", "gemma2", "phi3", "glm4"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_ordinary_text_keeps_the_ids(name: str, data: st.DataObject) -> None:
    """Whatever people write, as long as it holds no control token, the ids are those of the whole."""
    text = st.text(min_size=1, max_size=40).filter(lambda t: t.strip() and not set(t) & {"\ufdd0", "\ufdd1"})
    users = data.draw(st.lists(text, min_size=1, max_size=3))
    replies = [reply.strip() for reply in data.draw(st.lists(text, min_size=len(users), max_size=len(users)))]
    template = ChatTemplate(tokenizer_for(name))
    sampled = [template.encode_reply(reply) for reply in replies[:-1]]

    assert play(template, users, sampled) == whole_ids(name, told(users, replies[:-1]))


@pytest.mark.parametrize("name", ["smollm2", "qwen2.5", "llama3.1", "granite"])
def test_default_system_prompt_is_written_once(name: str) -> None:
    """The template's own system prompt and the begin token come with the first delta, never again."""
    template, tokenizer = ChatTemplate(tokenizer_for(name)), tokenizer_for(name)
    first = tokenizer.decode(template.delta(None, [say("user", "Hi")], reply=True).ids)
    later = template.delta(Pending((), "assistant"), [say("user", "Hi")], reply=True)
    known = {"smollm2": "SmolLM", "qwen2.5": "Qwen", "llama3.1": "Cutting", "granite": "Granite"}[name]

    assert first.count(known) == 1
    assert known not in tokenizer.decode(later.ids)
    assert tokenizer.bos_token_id is None or tokenizer.bos_token_id not in later.ids


def test_a_reply_cut_by_length_is_closed_by_the_next_delta() -> None:
    """The last sampled token and the closing tokens come first in the next turn, each once."""
    template = ChatTemplate(tokenizer_for("qwen2.5"))
    sampled = template.encode_reply("About 12 km.")
    log = [*template.delta(None, [say("user", "How far?")], reply=True).ids, *sampled[:-1]]
    pending = template.after_reply(sampled[-1:], "length")
    log += template.delta(pending, [say("user", "Thanks")], reply=True).ids
    messages = told(["How far?", "Thanks"], ["About 12 km."])

    assert log == whole_ids("qwen2.5", messages)


def test_stop_token_of_another_name_gives_way_to_the_closing_tokens() -> None:
    """A reply that ended with <|endoftext|> is closed as the template does."""
    tokenizer = tokenizer_for("qwen2.5")
    template = ChatTemplate(tokenizer)
    other = tokenizer.convert_tokens_to_ids("<|endoftext|>")

    assert template.after_reply([other], "stop") == Pending((), "assistant")


@pytest.mark.parametrize("name", STABLE)
def test_messages_at_once_or_one_by_one_are_the_same(name: str) -> None:
    """Importing a conversation in one delta, or message by message, gives the same text."""
    tokenizer = tokenizer_for(name)
    template = ChatTemplate(tokenizer)
    messages = [*told(TEXTS[:2], REPLIES[:1]), say("assistant", "Fine.")]
    at_once = template.delta(None, messages, reply=False)
    log: list[int] = []
    pending: Pending | None = None
    for message in messages:
        delta = template.delta(pending, [message], reply=False)
        log += delta.ids
        pending = delta.pending

    assert tokenizer.decode(log) == tokenizer.decode(at_once.ids)
    assert pending == at_once.pending == Pending((), "assistant")


def test_reply_start_marks_where_the_reply_is_opened() -> None:
    """Ids before reply_start end with the last content; those after it close it and open the reply."""
    tokenizer = tokenizer_for("chatml")
    delta = ChatTemplate(tokenizer).delta(None, [say("user", "Hi there")], reply=True)

    assert tokenizer.decode(delta.ids[: delta.reply_start]) == "<|im_start|>user\nHi there"
    assert tokenizer.decode(delta.ids[delta.reply_start :]) == "<|im_end|>\n<|im_start|>assistant\n"


FAR = "About the assistant: it answers the user in the system"


def inside_a_token(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> int:
    """A place in ``FAR`` that lies inside a token, not the first one, behind a letter.

    Looked for rather than written down, so that it does not hang on how a tokenizer merges.
    """
    ends = [len(tokenizer.decode(list(ids[:count])).lstrip()) for count in range(1, len(ids) + 1)]
    inside = set(range(ends[0] + 1, len(FAR) - 5)) - set(ends)
    return min(place for place in inside if FAR[place - 1].isalpha())


@pytest.mark.parametrize("name", ["qwen2.5", "llama2"])
def test_a_reply_cut_by_a_stop_string_reads_as_its_text(name: str) -> None:
    """Kept tokens, then the rest tokenised anew: the log reads as if the reply had been just its text."""
    tokenizer = tokenizer_for(name)
    template = ChatTemplate(tokenizer)
    log = list(template.delta(None, [say("user", "How far?")], reply=True).ids)
    sampled = template.encode_reply(lead_of(name) + FAR)
    kept = FAR[: inside_a_token(tokenizer, sampled)]
    stop = FAR[len(kept) : len(kept) + 5]
    stream = TextStream(tokenizer, stop_ids=template.stop_ids, stop_strings=[stop], max_new_tokens=99)
    for token in sampled:
        stream.push(token)
        if stream.end is not None:
            break
    end = stream.end
    assert end is not None
    forwarded = sampled[: stream.sampled - 1][: end.kept]
    pending = template.after_reply(
        [*sampled[len(forwarded) : end.kept], *template.encode_reply(end.rest)], "stop_string"
    )
    log += [*forwarded, *template.delta(pending, [say("user", "Thanks")], reply=True).ids]

    assert (end.text.strip(), end.rest != "") == (kept, True)
    assert tokenizer.decode(log) == tokenizer.decode(whole_ids(name, told(["How far?", "Thanks"], [kept])))


def test_the_probe_s_own_words_are_ordinary_text() -> None:
    """A message that holds the words the probe marks places with is written like any other."""
    template = ChatTemplate(tokenizer_for("qwen2.5"))
    texts = [f"Say {MARK}{FOLLOWER}", f"{FOLLOWER}<|{MARK}|>"]
    log = play(template, texts, [template.encode_reply(MARK)])

    assert log == whole_ids("qwen2.5", told(texts, [MARK]))


def test_reply_to_messages_of_an_earlier_turn() -> None:
    """A reply can be asked for without new messages; append and reply together equal one chat."""
    template = ChatTemplate(tokenizer_for("llama3"))
    appended = template.delta(None, [say("user", "Hi")], reply=False)
    opened = template.delta(appended.pending, [], reply=True)
    at_once = template.delta(None, [say("user", "Hi")], reply=True)

    assert appended.ids + opened.ids == at_once.ids
    assert appended.reply_start == len(appended.ids)
    assert opened.reply_start == 0
