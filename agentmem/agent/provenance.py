"""Whom a turn listens to: filters by role, source and trust, and sources in quarantine.

What is not admitted is handled as forgotten tokens are, but for one turn only: its blocks are not recalled,
and in the sinks, the window and half-covered blocks its tokens are masked. Nothing is deleted. Knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from agentmem.agent.places import end_of
from agentmem.agent.receipts import Quarantined, QuarantineReceipt
from agentmem.errors import DamagedError, InputError
from agentmem.memory.blocks import joined_ranges
from agentmem.store.base import Origin, Store
from agentmem.store.origins import MAX_TRUST_CHARACTERS

QUARANTINE_NOTE = "quarantine"
RecallFrom = Mapping[str, Sequence[str | None] | str]
"""Any of "role", "source", "trust" -> the values that are listened to; None as a source: turns without one."""

RESIDUAL = (
    "nothing was deleted; keys and values of later turns were computed while the source was attended to and may "
    "still carry a trace of it"
)
_FIELDS = ("role", "source", "trust")


class Labelled(Protocol):
    """A turn, or what is known of its origin."""

    @property
    def role(self) -> str:
        """Whose words these are."""
        ...

    @property
    def source(self) -> str | None:
        """Where they came from."""
        ...

    @property
    def trust(self) -> str:
        """How far they are trusted."""
        ...


@dataclass(frozen=True)
class Admission:
    """Which turns may be attended to: those of no quarantined source that fit every filter.

    Turns of trust "system" pass every filter, since they are what the agent works under; a quarantine holds
    them too.
    """

    quarantined: frozenset[str] = frozenset()
    filters: Mapping[str, frozenset[str | None]] = field(default_factory=dict)

    @classmethod
    def standing(cls, store: Store) -> Admission:
        """What holds for every turn of an agent."""
        return cls(frozenset(row.source for row in quarantined(store)))

    def narrowed(self, recall_from: RecallFrom | None) -> Admission:
        """For one turn: those that fit ``recall_from`` too, which was checked."""
        if recall_from is None:
            return self
        return replace(self, filters={name: frozenset(values) for name, values in recall_from.items()})

    def admits(self, turn: Labelled) -> bool:
        """Whether a turn may be attended to."""
        if turn.source in self.quarantined:
            return False
        return turn.trust == "system" or all(
            getattr(turn, name) in wanted for name, wanted in self.filters.items()
        )

    def hidden(self, store: Store) -> list[tuple[int, int]]:
        """Token ranges of the current branch that may not be attended to, beside the forgotten ones."""
        if not self.quarantined and not self.filters:
            return []
        asked = store.origins() if self.filters else store.origins(self.quarantined)
        return joined_ranges((one.start, one.stop) for one in asked if not self.admits(one))


def origin_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take ``source``, ``trust``, ``recall_from`` and ``expires_at`` out of keyword options. Raises InputError."""
    return {
        "source": checked_source(options.pop("source", None)),
        "trust": checked_trust(options.pop("trust", None)),
        "recall_from": checked_recall(options.pop("recall_from", None)),
        "expires_at": end_of(options.pop("expires_at", None)),
    }


def checked_recall(recall_from: RecallFrom | None) -> dict[str, tuple[str | None, ...]] | None:
    """The filter as tuples. Raises InputError."""
    if recall_from is None:
        return None
    if not isinstance(recall_from, Mapping) or not recall_from:
        raise InputError(
            f"recall_from={recall_from!r}: give a dict such as {{'trust': ['system', 'user']}}, or None"
        )
    found = {}
    for name, values in recall_from.items():
        if name not in _FIELDS:
            raise InputError(f"recall_from has {name!r}; use one of {', '.join(_FIELDS)}")
        several = (
            (values,) if isinstance(values, str) else tuple(values) if isinstance(values, Iterable) else None
        )
        allowed = (str, type(None)) if name == "source" else (str,)
        if several is None or not all(isinstance(value, allowed) for value in several):
            raise InputError(f"recall_from[{name!r}]={values!r}: give a list of texts")
        found[name] = several
    return found


def checked_trust(trust: str | None) -> str | None:
    """A label of trust. Raises InputError."""
    if trust is None:
        return None
    fits = isinstance(trust, str) and re.fullmatch(r"\w[\w .:/@+-]*", trust)
    if not fits or len(trust) > MAX_TRUST_CHARACTERS:
        raise InputError(
            f"trust={trust!r}: give a label such as 'user', 'tool' or 'web' of at most {MAX_TRUST_CHARACTERS} "
            "letters, digits, spaces and .:/@+-_"
        )
    return trust


def checked_source(source: str | None) -> str | None:
    """The name of a source. Raises InputError."""
    if source is not None and (not isinstance(source, str) or not source.strip()):
        raise InputError(f"source={source!r}: give a name, or None")
    if source is not None and any("\ud800" <= character <= "\udfff" for character in source):
        raise InputError(f"source={source!r}: half of a surrogate pair cannot be part of a name")
    return source


def quarantined(store: Store) -> list[Quarantined]:
    """The sources in quarantine, oldest first. Raises DamagedError."""
    noted = store.noted(QUARANTINE_NOTE) or ()
    try:
        return [Quarantined(**row) for row in noted]
    except TypeError as error:
        where = f"note {QUARANTINE_NOTE!r}"
        raise DamagedError(
            store.identity.agent_id, "agent.db", where, "it is not a list of sources"
        ) from error


def quarantine(store: Store, source: str, reason: str | None, when: datetime) -> QuarantineReceipt:
    """Hold a source: from now on no turn attends to what came from it. Doing so twice is fine."""
    if checked_source(source) is None or not isinstance(reason, str | None):
        raise InputError("say which source= shall be held, and why as text or None")
    rows = quarantined(store)
    if source not in {row.source for row in rows}:
        rows.append(Quarantined(source, when.isoformat(), reason))
        _note(store, rows)
    return _receipt(store, source, "quarantine", rows, RESIDUAL)


def release(store: Store, source: str) -> QuarantineReceipt:
    """Let a source be attended to again. Raises InputError when it is not in quarantine."""
    rows = quarantined(store)
    kept = [row for row in rows if row.source != source]
    if len(kept) == len(rows):
        held = ", ".join(repr(row.source) for row in rows) or "none"
        raise InputError(f"source={source!r} is not in quarantine; held are: {held}")
    _note(store, kept)
    return _receipt(store, source, "release", kept, "turns made meanwhile did not see it")


def moved_ranges(
    ranges: Iterable[Sequence[int]], places: Sequence[tuple[int, int, int]]
) -> list[tuple[int, int]]:
    """Token ranges after tokens [start, stop) of ``places`` moved to their third number; others are gone."""
    return joined_ranges(
        (max(low, start) - start + to, min(high, stop) - start + to)
        for low, high in ranges
        for start, stop, to in places
        if max(low, start) < min(high, stop)
    )


def _note(store: Store, rows: Sequence[Quarantined]) -> None:
    as_rows: list[dict[str, Any]] = [
        {"source": row.source, "since": row.since, "reason": row.reason} for row in rows
    ]
    store.note(QUARANTINE_NOTE, as_rows)


def _receipt(
    store: Store, source: str, action: str, rows: Sequence[Quarantined], residual: str
) -> QuarantineReceipt:
    held: list[Origin] = store.origins({source})
    return QuarantineReceipt(
        action=action,
        source=source,
        turns=[origin.turn for origin in held],
        tokens=sum(origin.stop - origin.start for origin in held),
        held=[row.source for row in rows],
        residual=residual,
    )
