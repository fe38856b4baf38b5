"""A message delivered twice: answered before, sent again by itself, when others have spoken since.

Going back to answer it anew would leave what was said since behind, so the answer that is held is given again. Only
message ids tell a redelivery; a thread that goes back to an earlier point (time travel) is none.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentmem import AgentMemory, RecallReceipt, Reply, Usage
from langchain_agentmem.held import Held, Said
from langchain_agentmem.reconcile import Plan


def answered_state(
    held: Sequence[Held], said: Sequence[Said], plan: Plan, *, thread: str | None
) -> str | None:
    """The state whose answer is to be given again; None when the plan stands."""
    if thread is not None or plan.kind != "regenerate":
        return None
    if any(one.message["role"] == "assistant" for one in said):
        return None
    turns = {one.turn for one in held if one.id is not None and one.id == said[-1].id}
    answers = [one for one in held if one.turn in turns and one.ours]
    if not answers or answers[-1].turn == held[-1].turn:
        return None
    return answers[-1].state_id


def stored_reply(memory: AgentMemory, state_id: str) -> Reply:
    """The reply that a state ended with, as far as it is kept: nothing was read or decoded for it now."""
    message = memory.history(limit=1, at=state_id)[-1].messages[-1]
    held = memory.tokens_held
    return Reply(
        text=str(message["content"]),
        receipt=RecallReceipt(held, 0, 0, (), 0.0),
        usage=Usage(0, 0, held),
        state_id=state_id,
        finish_reason="stop",
        thinking=str(message.get("thinking") or ""),
    )
