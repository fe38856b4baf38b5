"""Forgetting turns for good: which ones, whether they can be dropped, and what is left of them.

``mode="drop"`` removes a turn's text, ids, keys and values: it is never attended to again, neither in
blocks nor in the window. Later turns' K/V were made while it was visible, so a trace of it stays in
them (measured: behaviour as if never seen, later keys still differ by 8 %); the receipt says so. What
lies in the sinks was attended to by every later token, and needs ``mode="rebuild"``: all later turns are
read again without it, and no trace stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from agentmem.agent.finding import Wanted, find
from agentmem.agent.forks import holders
from agentmem.agent.rebuilding import rebuild, tokens_to_read
from agentmem.agent.receipts import ForgetReceipt
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.engine.session import Progress
from agentmem.errors import InputError, RebuildNeededError
from agentmem.store.base import Home, Store, Turn
from agentmem.store.upkeep import Reason

RESIDUAL = (
    "text, token ids, keys and values are gone; keys and values of later turns were computed while the "
    "turn was visible and may still carry a trace of it"
)

CUT = "; the last token of a reply that was cut short stands at the start of the turn after it"
"""Of turns that an earlier version wrote: now a turn holds its reply whole."""

REBUILT = "nothing is left: later turns were read again without it"

LATE = (
    "; another process is reading this agent: until it ends, old bytes of the text lie in agent.db or agent.db-wal. "
    "The next opening for writing removes them"
)

EXPORTS = "; exports and backups made before still hold it"


def forget(
    store: Store,
    home: Home,
    model: Callable[[], LanguageModel],
    config: MemoryConfig,
    wanted: Wanted,
    *,
    mode: str,
    dry_run: bool,
    on_progress: Progress | None = None,
) -> ForgetReceipt:
    """See ``AgentMemory.forget``."""
    started = time.perf_counter()
    if mode not in {"drop", "rebuild"}:
        raise InputError(f'mode={mode!r} is unknown; use mode="drop" or mode="rebuild"')
    if wanted.everything:
        mode = "rebuild"  # what is empty needs no reading, and keeps no sinks
    found = find(store, wanted, forgotten=mode == "rebuild" and wanted.turn is not None)
    if mode == "drop":
        refuse_sinks(store, config, found)
    ids, living = [one.id for one in found], [one for one in found if not one.forgotten]
    forks = holders(home, store, [one.state_id for one in living])
    states: dict[str, str] = {}
    prefilled = tokens_to_read(store, ids) if mode == "rebuild" and found else 0
    residual = _residual(living, mode, found=bool(found))
    if found and not dry_run:
        reason = Reason("rebuild" if mode == "rebuild" else "forget", wanted.why, now())
        if mode == "drop":
            store.forget(ids, reason=reason)
        else:
            done = rebuild(store, model() if prefilled else None, config, ids, reason, on_progress)
            states, prefilled = dict(done.states), done.tokens_prefilled
    erased = dry_run or not store.upkeep.erasure_due
    return ForgetReceipt(
        turns=[one.id for one in living] or ids,
        tokens=sum(one.stop - one.start for one in living),
        dry_run=dry_run,
        residual=residual + ("" if erased else LATE) + (EXPORTS if found else ""),
        mode=mode,
        erased=erased,
        forks=forks,
        states=states,
        tokens_prefilled=prefilled,
        seconds=time.perf_counter() - started,
    )


def refuse_sinks(store: Store, config: MemoryConfig, found: Sequence[Turn]) -> None:
    """Raise RebuildNeededError when a turn lies in the first tokens that later ones always attended to."""
    held = in_sinks(store, config, found)
    if held:
        names = ", ".join(str(one.id) for one in held)
        raise RebuildNeededError(
            f"turn {names} lies in the first {sinks_of(store, config)} tokens (the sinks), which every later token "
            'attended to; forget it with mode="rebuild", which reads the later turns again'
        )


def in_sinks(store: Store, config: MemoryConfig, turns: Sequence[Turn]) -> list[Turn]:
    """Those turns that lie in the sinks, at least in part."""
    sinks = sinks_of(store, config)
    return [one for one in turns if one.start < sinks and one.stop > one.start]


def sinks_of(store: Store, config: MemoryConfig) -> int:
    """The most sinks that any turn was made with; the option may have been changed since."""
    used = [int(turn.settings.get("sink_tokens", 0)) for turn in store.every_turn()]
    return max(config.sink_tokens, *used, 0)


def now() -> str:
    """The time for the audit."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _residual(turns: Sequence[Turn], mode: str, *, found: bool) -> str:
    if not found:
        return "nothing found"
    if mode == "rebuild":
        return REBUILT
    return RESIDUAL + (CUT if any(turn.pending and turn.pending["ids"] for turn in turns) else "")
