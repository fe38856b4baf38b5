"""Thinking text: told apart from the answer, kept in the memory or cut out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory, Reply
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.scripted import Scripted, rendered
from support.session_agent import log_tensors
from support.tiny_language_model import SMALL, language_model
from support.two_lives import counted

AT = "2026-01-02T03:04:05+00:00"
THOUGHT = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. " * 2


@pytest.fixture
def model() -> LanguageModel:
    """A model whose template drops the thinking of old replies."""
    return language_model(template="qwen3")


def opened(model: LanguageModel, home: Home | Path | None = None, **options: Any) -> AgentMemory:
    """The agent."""
    return AgentMemory.resume(
        "ada", model=model, home=home or InMemoryHome(), config=SMALL.changed(**options)
    )


def think(memory: AgentMemory, text: str, thought: str, answer: str) -> Reply:
    """A turn in which the model thinks before it answers."""
    scripted = Scripted(memory.tokenizer, f"<think>\n{thought}\n</think>\n\n{answer}")
    return memory.generate(
        [{"role": "user", "content": text}], logits_processor=[scripted], at=AT, max_new_tokens=400
    )


def text_of(memory: AgentMemory) -> str:
    """What the log says."""
    return str(memory.tokenizer.decode(memory._store.token_ids(0, memory.tokens_held)))


@pytest.mark.parametrize("keep", [True, False])
def test_a_reply_tells_thinking_from_answer(model: LanguageModel, keep: bool) -> None:
    """Reply and history have both; the answer is the text."""
    memory = opened(model, keep_thinking=keep)
    reply = think(memory, "How far?", "Let me see.", "About 12 km.")

    assert (reply.thinking, reply.text) == ("Let me see.", "About 12 km.")
    message = memory.history()[-1].messages[-1]
    assert (message["thinking"], message["content"]) == ("Let me see.", "About 12 km.")
    assert ("Let me see." in text_of(memory)) == keep


def test_without_thinking_the_log_is_the_templates_rendering(model: LanguageModel) -> None:
    """Each reply is in the log as the template writes an old one: the answer alone, whatever was thought."""
    memory = opened(model, keep_thinking=False)
    think(memory, "How far?", THOUGHT, "About 12 km.")
    think(memory, "And back?", "Hm.", "The same.")
    memory.append([{"role": "user", "content": "Thank you."}])
    talk = [
        {"role": "user", "content": "How far?"},
        {"role": "assistant", "content": "About 12 km."},
        {"role": "user", "content": "And back?"},
        {"role": "assistant", "content": "The same."},
        {"role": "user", "content": "Thank you."},
    ]
    wanted = rendered(memory.tokenizer, talk, reply=False)

    assert memory._store.token_ids(0, memory.tokens_held) == wanted[: memory.tokens_held]


def test_reading_the_answer_again_is_no_rereading_of_history(model: LanguageModel) -> None:
    """What is forwarded twice is this turn's own: its answer, and nothing before the turn."""
    memory = opened(model, keep_thinking=False)
    think(memory, "How far?", "Hm.", "About 12 km.")
    held = memory.tokens_held
    with counted(model.binding.model) as lengths:
        reply = think(memory, "And back?", THOUGHT, "The same.")

    assert reply.receipt.tokens_reread == 0
    grown = memory.tokens_held - held
    assert sum(lengths) == reply.receipt.tokens_prefilled + reply.receipt.tokens_generated + lengths[-1]
    assert grown < reply.receipt.tokens_prefilled + lengths[-1] + 4


def test_a_memory_that_dropped_thinking_is_one_that_never_saw_it(
    model: LanguageModel, tmp_path: Path
) -> None:
    """A thought longer than the window leaves no digest behind: goes on as its own export without digests."""
    home = DiskHome(tmp_path / "home")
    memory = opened(model, home, keep_thinking=False, window_tokens=8, recall_tokens=16)
    think(memory, "How far? " * 8, THOUGHT * 2, "About 12 km.")
    think(memory, "And? " * 12, THOUGHT, "Yes.")
    path = AgentMemory.export("ada", tmp_path / "ada.agentmem", kv=True, home=home)
    twin = AgentMemory.restore(path, model=model, home=InMemoryHome())
    assert memory._store.digests.count * 8 + 8 <= memory.tokens_held
    for question in ("What is my dog called?", "How far is it?", "And again?"):
        replies = [one.chat(question, max_new_tokens=16, at=AT) for one in (memory, twin)]
        assert replies[0].token_ids == replies[1].token_ids
        blocks = [[(b.start, b.share) for b in reply.receipt.blocks] for reply in replies]
        assert blocks[0] == blocks[1] != []
    pairs = zip(log_tensors(memory._store), log_tensors(twin._store), strict=True)
    assert all(bool((a == b).all()) for a, b in pairs)


def test_an_unfinished_thought_is_no_answer(model: LanguageModel) -> None:
    """Cut by its length in the middle of thinking: the text is empty, and the next turn can be had."""
    for keep in (True, False):
        memory = opened(model, keep_thinking=keep)
        scripted = Scripted(memory.tokenizer, f"<think>\n{THOUGHT}")
        message = {"role": "user", "content": "How far?"}
        reply = memory.generate([message], logits_processor=[scripted], max_new_tokens=20)
        assert reply.text == ""
        assert reply.thinking.startswith("The quick")
        assert reply.finish_reason == "length"
        assert think(memory, "Well?", "Hm.", "Yes.").text == "Yes."
