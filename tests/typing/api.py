"""The public API as a user's code meets it. Never run: mypy --strict reads it (`make typecheck`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import assert_type

from agentmem import (
    AgentBusyError,
    AgentInfo,
    AgentMemError,
    AgentMemory,
    AuditRow,
    Explanation,
    ForgetReceipt,
    HistoryTurn,
    LanguageModel,
    MemoryConfig,
    MemoryKey,
    Quarantined,
    QuarantineReceipt,
    RecalledBlock,
    RecallReceipt,
    RepairedRange,
    RepairReport,
    Reply,
    ResumeReceipt,
    RetentionReceipt,
    SalvageReport,
    SearchHit,
    VerifyReport,
    WriteReceipt,
)


def opening(folder: Path) -> None:
    """Open by name, with or without options; look at all agents."""
    memory = AgentMemory.resume("ada")
    assert_type(memory, AgentMemory)
    assert_type(memory.resumed, ResumeReceipt)
    config = MemoryConfig(window_tokens=512, recall_tokens=512)
    assert_type(config.changed(recall_tokens=256).budget, int)
    with AgentMemory.resume(
        "ada", model="smollm2-135m", home=folder, device="cpu", dtype="auto", config=config,
        system="You are kind.", create=True, wait=5.0, read_only=False,
    ) as opened:  # fmt: skip
        assert_type(opened, AgentMemory)
        assert_type(opened.agent_id, str)
    memory.park()
    assert_type(memory.unpark(wait=1.0), bool)
    memory.close()
    assert_type(AgentMemory.list(home=folder), list[AgentInfo])
    assert_type(AgentMemory.salvage("ada", home=folder, dry_run=True), SalvageReport)
    AgentMemory.delete("ada", home=folder)
    key = MemoryKey.read(MemoryKey.generate().save(folder / "my.key"))
    assert_type(AgentMemory.resume("eve", home=folder, key=key), AgentMemory)
    AgentMemory.change_key("eve", MemoryKey.from_passphrase("open sesame"), home=folder, key=key)


def talking(memory: AgentMemory) -> None:
    """Answers, pieces of answers, and text without an answer."""
    reply = memory.chat("Hello", at=datetime(2026, 3, 1).astimezone(), speaker="Ada", temperature=0.7, seed=1)
    assert_type(reply, Reply)
    assert_type(reply.text, str)
    assert_type(reply.receipt, RecallReceipt)
    assert_type(reply.receipt.blocks, Sequence[RecalledBlock])
    assert_type(reply.receipt.blocks[0].share, float)
    assert_type(reply.usage.total_tokens, int)
    assert_type(reply.state_id, str | None)
    stream = memory.stream("Hello", max_new_tokens=16, stop=("\n",))
    for piece in stream:
        assert_type(piece, str)
    assert_type(stream.reply, Reply)
    messages = [{"role": "user", "content": "Hello"}]
    assert_type(memory.generate(messages, tools=None, remember=False), Reply)
    assert_type(memory.generate(messages, after=reply.state_id), Reply)
    assert_type(memory.append([{**messages[0], "metadata": {"id": 1}}], after=None), WriteReceipt)
    assert_type(memory.observe("A long text", source="notes.txt", expires_at="2027-01-01"), WriteReceipt)


async def talking_later(memory: AgentMemory) -> None:
    """The async twins."""
    assert_type(await memory.achat("Hello"), Reply)
    async for piece in memory.astream("Hello"):
        assert_type(piece, str)
    assert_type(await memory.agenerate([{"role": "user", "content": "Hello"}], after="head"), Reply)


def looking(memory: AgentMemory) -> None:
    """What fed a reply, what was said, what the files are like."""
    assert_type(memory.explain(), Explanation)
    assert_type(memory.history(limit=3), list[HistoryTurn])
    assert_type(memory.history(at=memory.checkpoint()), list[HistoryTurn])
    assert_type(memory.language_model, LanguageModel)
    assert_type(memory.search("biscuit"), list[SearchHit])
    assert_type(memory.verify(deep=True), VerifyReport)
    assert_type(memory.repair(dry_run=True), RepairReport)
    assert_type(memory.repair(encode=False).ranges, Sequence[RepairedRange])
    assert_type(memory.checkpoint(), str | None)
    assert_type(memory.quarantined, Sequence[Quarantined])


def changing(memory: AgentMemory, folder: Path) -> None:
    """Fork, go back, forget, carry away and bring back."""
    assert_type(memory.fork("ada-2"), AgentMemory)
    assert_type(memory.reencode("qwen2.5-coder-0.5b", agent_id="ada-3"), AgentMemory)
    memory.rewind(memory.checkpoint())
    assert_type(memory.quarantine("page", reason="it gives orders"), QuarantineReceipt)
    assert_type(memory.release("page").held, Sequence[str])
    assert_type(memory.chat("Hello", trust="web", recall_from={"trust": ["system", "user"]}), Reply)
    assert_type(memory.forget(match="secret", dry_run=True), ForgetReceipt)
    assert_type(memory.forget(turn=1, mode="rebuild").forks, Sequence[str])
    assert_type(memory.apply_retention(max_tokens=100_000, policy="oldest", dry_run=True), RetentionReceipt)
    memory.pin(1)
    assert_type(memory.audit(), Sequence[AuditRow])
    AgentMemory.export("ada", folder / "ada.agentmem")
    assert_type(AgentMemory.restore(folder / "ada.agentmem", agent_id="eve"), AgentMemory)


def failing() -> str:
    """Errors are typed, and share one base."""
    try:
        AgentMemory.resume("ada", create=False)
    except AgentBusyError:
        return "busy"
    except AgentMemError as error:
        return str(error)
    return "open"
