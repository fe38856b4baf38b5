"""Computing damaged keys and values anew: each turn is run again as it was run, its tokens given.

A turn starts from the log alone, so forwarding its ids in its own chunks, what was decoded token by token,
with the options it ran with and everything before it as it was, gives the same bits on the same machine; the
checksums it was committed with tell whether they are. They are not where something before the turn was
forgotten since, where its thinking was cut out of the log, or on other hardware, versions or threads. Knows
no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import ConfigError
from agentmem.memory.source import DigestLog, TokenLog
from agentmem.store.base import Store, Turn
from agentmem.store.mended import Encode, RepairReport


def repair(store: Store, model: LanguageModel | None, *, dry_run: bool) -> RepairReport:
    """See ``AgentMemory.repair``; without a model damaged tokens are set aside."""
    if model is None:
        return store.repair(lambda _: (), dry_run=dry_run)
    return store.repair(partial(_ways, model), dry_run=dry_run)


def options_of(settings: Mapping[str, Any]) -> MemoryConfig:
    """The options a turn ran with. Raises ConfigError when one is not known any more."""
    return MemoryConfig(**{key: value for key, value in settings.items() if key in MemoryConfig.model_fields})


def _ways(model: LanguageModel, turn: Turn) -> Sequence[Encode]:
    """As the receipt says, reading the prompt and decoding the rest; then as an import does, reading it all."""
    try:
        config = options_of(turn.settings)
        model.check(config)
    except ConfigError:
        return ()
    size = turn.stop - turn.start
    read = turn.receipt.get("tokens_prefilled")
    hidden = [(int(start), int(stop)) for start, stop in turn.settings.get("hidden", ())]
    behind = turn.receipt.get("tokens_behind_cut", 0)
    whole = partial(_encode, model, config, hidden, size, size)
    if not isinstance(read, int) or not isinstance(behind, int) or read == size:
        return (whole,)
    if not 0 < read <= size - behind <= size:  # it does not say how it was run
        return (whole,)
    return (partial(_encode, model, config, hidden, read, size - behind), whole)


def _encode(
    model: LanguageModel,
    config: MemoryConfig,
    hidden: Sequence[tuple[int, int]],
    read: int,
    stepped: int,
    ids: Sequence[int],
    log: TokenLog,
    digests: DigestLog,
) -> None:
    """Forward the first ``read`` ids in chunks, those up to ``stepped`` one by one, and the rest in chunks."""
    with model.turn(log, digests, config, hidden=hidden) as session:
        session.read(ids[:read])
        for token in ids[read:stepped]:
            session.step(token)
        session.read(ids[stepped:])
        session.memory.flush()
