"""The public API: joins the engine and the store into :class:`AgentMemory`."""

from agentmem.agent.memory import AgentMemory
from agentmem.agent.receipts import (
    Explanation,
    ForgetReceipt,
    HistoryTurn,
    Quarantined,
    QuarantineReceipt,
    RecalledBlock,
    RecallReceipt,
    Reply,
    ResumeReceipt,
    RetentionReceipt,
    SearchHit,
    Usage,
    WriteReceipt,
    as_json,
)
from agentmem.agent.streams import AsyncReplyStream, ReplyStream

__all__ = [
    "AgentMemory",
    "AsyncReplyStream",
    "Explanation",
    "ForgetReceipt",
    "HistoryTurn",
    "QuarantineReceipt",
    "Quarantined",
    "RecallReceipt",
    "RecalledBlock",
    "Reply",
    "ReplyStream",
    "ResumeReceipt",
    "RetentionReceipt",
    "SearchHit",
    "Usage",
    "WriteReceipt",
    "as_json",
]
