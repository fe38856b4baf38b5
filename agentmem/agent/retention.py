"""Retention: turns go when they expire, and the oldest ones when there are more than a quota allows.

Pinned turns never go. Turns in the sinks go only in a rebuild; with ``mode="drop"`` they stay, and the receipt names
them. Says what would be done before it does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from agentmem.agent.forgetting import in_sinks, now
from agentmem.agent.places import moment
from agentmem.agent.rebuilding import rebuild
from agentmem.agent.receipts import RetentionReceipt
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.engine.session import Progress
from agentmem.errors import InputError
from agentmem.store.base import Store, Turn
from agentmem.store.upkeep import Reason

POLICIES = ("oldest", "least-recalled")


@dataclass(frozen=True)
class Quota:
    """How much may stay, and which go first when it is more."""

    max_tokens: int | None = None
    max_bytes: int | None = None
    policy: str = "oldest"
    at: datetime | str | None = None
    """When it is now, for what expires; None: the clock."""

    def check(self) -> None:
        """Raise InputError for what cannot be."""
        for name in ("max_tokens", "max_bytes"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 0):
                raise InputError(f"{name}={value!r}: give a number of 0 or more, or None for no quota")
        if self.policy not in POLICIES:
            raise InputError(f"policy={self.policy!r}: use one of {', '.join(POLICIES)}")

    def tokens(self, bytes_per_token: int) -> int | None:
        """The quota in tokens; None: there is none."""
        both = [self.max_tokens, None if self.max_bytes is None else self.max_bytes // bytes_per_token]
        return min((one for one in both if one is not None), default=None)


def apply_retention(
    store: Store,
    model: Callable[[], LanguageModel],
    config: MemoryConfig,
    quota: Quota,
    *,
    mode: str,
    dry_run: bool,
    on_progress: Progress | None = None,
) -> RetentionReceipt:
    """See ``AgentMemory.apply_retention``."""
    quota.check()
    if mode not in {"drop", "rebuild"}:
        raise InputError(f'mode={mode!r} is unknown; use mode="drop" or mode="rebuild"')
    living = [turn for turn in store.every_turn() if not turn.forgotten]
    marks = store.upkeep.marks()
    pinned = {turn.id for turn in living if turn.id in marks and marks[turn.id].pinned}
    held = {turn.id for turn in in_sinks(store, config, living)} if mode == "drop" else set()
    time = moment(quota.at)
    ends = {number: mark.expires_at for number, mark in marks.items() if mark.expires_at is not None}
    due = [turn for turn in living if turn.id in ends and datetime.fromisoformat(ends[turn.id]) <= time]
    kept = pinned | held
    expired = [turn for turn in due if turn.id not in kept]
    ended = {turn.id for turn in expired}
    stays = [turn for turn in living if turn.id not in ended]
    over = _over(stays, kept, quota, store.log.layout.bytes_per_token)
    gone = sorted([*expired, *over], key=lambda turn: turn.id)
    receipt = RetentionReceipt(
        expired=[turn.id for turn in expired],
        over_quota=[turn.id for turn in over],
        tokens=sum(turn.stop - turn.start for turn in gone),
        tokens_left=sum(turn.stop - turn.start for turn in stays)
        - sum(turn.stop - turn.start for turn in over),
        pinned=sorted(pinned),
        needs_rebuild=[turn.id for turn in due if turn.id in held - pinned],
        dry_run=dry_run,
        mode=mode,
    )
    if gone and not dry_run:
        why = ", ".join(name for name, some in (("expired", expired), ("quota", over)) if some)
        reason, ids = Reason("retention", why, now()), [turn.id for turn in gone]
        if mode == "drop":
            store.forget(ids, reason=reason)
        else:
            rebuild(store, model(), config, ids, reason, on_progress)
            left = (turn for turn in store.every_turn() if not turn.forgotten)  # their ends were joined anew
            receipt = replace(receipt, tokens_left=sum(turn.stop - turn.start for turn in left))
    return receipt


def _over(turns: Sequence[Turn], kept: set[int], quota: Quota, bytes_per_token: int) -> list[Turn]:
    """The turns that must go so that the others fit the quota, as far as they may."""
    most = quota.tokens(bytes_per_token)
    total = sum(turn.stop - turn.start for turn in turns)
    over: list[Turn] = []
    shares = _shares(turns) if quota.policy == "least-recalled" else {}
    for turn in sorted(turns, key=lambda one: (shares.get(one.id, 0.0), one.id)):
        if most is None or total <= most:
            break
        if turn.id not in kept and turn.stop > turn.start:
            over.append(turn)
            total -= turn.stop - turn.start
    return over


def _shares(turns: Sequence[Turn]) -> Mapping[int, float]:
    """How much attention each turn got from later replies, by their receipts, per token of it."""
    parents = {turn.id: turn for turn in turns}
    found = dict.fromkeys(parents, 0.0)
    for turn in turns:
        blocks = [(int(low), int(high), float(share)) for low, high, share in turn.receipt.get("blocks", ())]
        at = parents.get(turn.parent or -1)
        while blocks and at is not None:
            for low, high, share in blocks:
                inside = min(high, at.stop) - max(low, at.start)
                if inside > 0:
                    found[at.id] += share * inside / (high - low) / (at.stop - at.start)
            at = parents.get(at.parent or -1)
    return found
