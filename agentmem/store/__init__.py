"""The store: agents on disk. Knows no model and no transformers.

Reading order: base (the contract), tensor_file, extents, pages, segment, log, digest_log, schema, index,
turn_rows, slot_rows, disk, birth, home; in_memory is the same contract in a few lists.
"""

from agentmem.store.base import (
    AgentIdentity,
    AgentInfo,
    CollectReport,
    Finding,
    Home,
    NewTurn,
    Origin,
    Store,
    Turn,
    VerifyReport,
)
from agentmem.store.disk import DiskStore
from agentmem.store.home import DiskHome
from agentmem.store.in_memory import InMemoryHome
from agentmem.store.in_memory_store import InMemoryStore
from agentmem.store.keys import MemoryKey

__all__ = [
    "AgentIdentity",
    "AgentInfo",
    "CollectReport",
    "DiskHome",
    "DiskStore",
    "Finding",
    "Home",
    "InMemoryHome",
    "InMemoryStore",
    "MemoryKey",
    "NewTurn",
    "Origin",
    "Store",
    "Turn",
    "VerifyReport",
]
