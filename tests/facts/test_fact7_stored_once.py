"""Fact 7: a recalled block is never stored again as new memory."""

from __future__ import annotations

from pathlib import Path

from agentmem.agent import AgentMemory
from support.tiny_language_model import SMALL, language_model
from support.two_lives import counted


def test_the_log_grows_by_the_forwarded_tokens_and_no_more(tmp_path: Path) -> None:
    """Turn after turn with recalled blocks: the log grows by what the model's forward counted."""
    model = language_model()
    memory = AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL)
    recalled = 0
    for number in range(8):
        held = memory.tokens_held
        with counted(model.binding.model) as lengths:
            reply = memory.chat(f"My dog number {number} is called Biscuit.", max_new_tokens=10)
        recalled += len(reply.receipt.blocks)
        new = reply.receipt.tokens_prefilled + len(reply.token_ids)
        assert memory.tokens_held - held == sum(lengths) == new
        assert len(memory._store.token_ids(held, memory.tokens_held)) == sum(lengths)
    assert recalled
