"""agentmem: an agent's whole past, kept in the model's own KV cache on disk.

Names are loaded when they are first used, so importing agentmem does not import torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import typing

from agentmem.errors import (
    AgentBusyError,
    AgentExistsError,
    AgentMemError,
    AgentNotFoundError,
    ArchiveError,
    ClosedError,
    ConfigError,
    DamagedError,
    DownloadError,
    FingerprintMismatchError,
    FormatVersionError,
    HashMismatchError,
    HistoryChangedError,
    InputError,
    KeyNeededError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
    ReadOnlyError,
    RebuildNeededError,
    ShapeError,
    StaleReaderError,
    StaleWriterError,
    StateForgottenError,
    StateNotFoundError,
    StoreError,
    TemplateError,
    TurnTimeoutError,
    UnsupportedModelError,
    WrongKeyError,
)

if typing.TYPE_CHECKING:
    from agentmem.agent import (
        AgentMemory,
        AsyncReplyStream,
        Explanation,
        ForgetReceipt,
        HistoryTurn,
        Quarantined,
        QuarantineReceipt,
        RecalledBlock,
        RecallReceipt,
        Reply,
        ReplyStream,
        ResumeReceipt,
        RetentionReceipt,
        SearchHit,
        Usage,
        WriteReceipt,
    )
    from agentmem.config import MemoryConfig
    from agentmem.engine.model import LanguageModel
    from agentmem.store import InMemoryHome, InMemoryStore, MemoryKey
    from agentmem.store.base import AgentInfo, Finding, VerifyReport
    from agentmem.store.mended import RepairedRange, RepairReport, SalvageReport
    from agentmem.store.upkeep import AuditRow

__all__ = [
    "AgentBusyError",
    "AgentExistsError",
    "AgentInfo",
    "AgentMemError",
    "AgentMemory",
    "AgentNotFoundError",
    "ArchiveError",
    "AsyncReplyStream",
    "AuditRow",
    "ClosedError",
    "ConfigError",
    "DamagedError",
    "DownloadError",
    "Explanation",
    "Finding",
    "FingerprintMismatchError",
    "ForgetReceipt",
    "FormatVersionError",
    "HashMismatchError",
    "HistoryChangedError",
    "HistoryTurn",
    "InMemoryHome",
    "InMemoryStore",
    "InputError",
    "KeyNeededError",
    "LanguageModel",
    "MemoryConfig",
    "MemoryKey",
    "MissingExtraError",
    "ModelError",
    "ModelNotFoundError",
    "QuarantineReceipt",
    "Quarantined",
    "ReadOnlyError",
    "RebuildNeededError",
    "RecallReceipt",
    "RecalledBlock",
    "RepairReport",
    "RepairedRange",
    "Reply",
    "ReplyStream",
    "ResumeReceipt",
    "RetentionReceipt",
    "SalvageReport",
    "SearchHit",
    "ShapeError",
    "StaleReaderError",
    "StaleWriterError",
    "StateForgottenError",
    "StateNotFoundError",
    "StoreError",
    "TemplateError",
    "TurnTimeoutError",
    "UnsupportedModelError",
    "Usage",
    "VerifyReport",
    "WriteReceipt",
    "WrongKeyError",
    "__version__",
]

_PLACES = {
    "AgentInfo": "agentmem.store.base",
    "AuditRow": "agentmem.store.upkeep",
    "Finding": "agentmem.store.base",
    "InMemoryHome": "agentmem.store",
    "InMemoryStore": "agentmem.store",
    "LanguageModel": "agentmem.engine.model",
    "MemoryConfig": "agentmem.config",
    "MemoryKey": "agentmem.store",
    "RepairReport": "agentmem.store.mended",
    "RepairedRange": "agentmem.store.mended",
    "SalvageReport": "agentmem.store.mended",
    "VerifyReport": "agentmem.store.base",
}
"""Names that are not in agentmem.agent."""


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'agentmem' has no attribute {name!r}")
    value: object
    if name == "__version__":
        value = importlib.metadata.version("agentmem-kv")
    else:
        value = getattr(importlib.import_module(_PLACES.get(name, "agentmem.agent")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
