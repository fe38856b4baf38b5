"""What a store is: one agent's identity, turns, token ids and K/V, committed a turn at a time.

Records and protocols only. Two implementations share one contract test: ``DiskStore`` (files and
SQLite) and ``InMemoryStore`` (a public test double). Knows no model: token ids and tensors go in,
token ids and tensors come out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from agentmem.memory.source import DigestLog, KVLayout, TokenLog
from agentmem.store.mended import Encode, RepairReport, SalvageReport
from agentmem.store.upkeep import Reason, Upkeep

Json = Any

HEAD: Final = "head"
"""Where a turn goes on from, and which branch is looked at, unless a state id or None is given."""


@dataclass(frozen=True)
class AgentIdentity:
    """What an agent is from birth on; never changes."""

    agent_id: str
    uuid: str
    created_at: str
    """ISO 8601 with offset; for people, never for logic."""
    fingerprint: Mapping[str, str]
    """Field -> digest or value of everything that changes K/V (weights, rope, tokenizer, ...)."""
    layout: KVLayout
    model: str
    """How to find the model again: the name or path given at creation."""
    facts: Mapping[str, Json]
    """Settings fixed at creation, such as chunk_tokens; opaque to the store."""


@dataclass(frozen=True)
class NewTurn:
    """A finished turn, ready to be committed. Its K/V were appended to the log beforehand."""

    state_id: str
    kind: str
    """"chat", "observe", "append" or "system"."""
    messages: Sequence[Mapping[str, Json]]
    """The turn's new messages, reply included, as {"role", "content", ...}; kept verbatim."""
    token_ids: Sequence[int]
    """Ids of exactly the tokens the turn added to the log, in order."""
    pending: Json
    """What must be forwarded first in the next turn; opaque to the store."""
    created_at: str
    """ISO 8601 with offset."""
    source: str | None = None
    part: int | None = None
    """For a long observation: which part of ``source`` this is, from 0."""
    settings: Mapping[str, Json] = field(default_factory=dict)
    """Retrieval settings the turn ran with."""
    receipt: Mapping[str, Json] = field(default_factory=dict)
    """Receipt of the turn, recalled blocks included, as plain JSON."""
    role: str | None = None
    """Whose words these are; None: as :func:`agentmem.store.origins.role_of` has it."""
    trust: str | None = None
    """How far they are trusted: a label of the caller's; None: the name of the role."""
    expires_at: str | None = None
    """When retention may drop it, ISO 8601 with offset; None: never."""


@dataclass(frozen=True)
class Turn:
    """A committed turn. ``start`` and ``stop`` are its token positions in the log."""

    id: int
    parent: int | None
    start: int
    stop: int
    state_id: str
    kind: str
    messages: Sequence[Mapping[str, Json]]
    pending: Json
    created_at: str
    source: str | None
    part: int | None
    settings: Mapping[str, Json]
    receipt: Mapping[str, Json]
    forgotten: bool = False
    role: str = "user"
    trust: str = "user"


@dataclass(frozen=True)
class Origin:
    """Where the words of a turn came from, and where they lie: tokens [start, stop)."""

    turn: int
    start: int
    stop: int
    role: str
    source: str | None
    trust: str


@dataclass(frozen=True)
class AgentInfo:
    """One row of ``AgentMemory.list``."""

    agent_id: str
    turns: int
    tokens: int
    bytes: int
    """Bytes the agent's folder takes on disk (blocks in use, not sparse length)."""
    created_at: str
    last_used: str | None
    """created_at of the head turn; None when empty."""
    model: str


@dataclass(frozen=True)
class Finding:
    """One problem found by ``verify``."""

    file: str
    where: str
    detail: str
    turns: Sequence[int] = ()
    """Turns whose tokens lie there; a repair computes them again."""


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify`` looked at and found."""

    deep: bool
    pages: int
    bytes: int
    findings: Sequence[Finding]

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.findings


@dataclass(frozen=True)
class CollectReport:
    """What garbage collection freed."""

    turns: int
    tokens: int
    files: int
    bytes: int


class Store(Protocol):
    """One open agent. One writer at a time; every change is all or nothing."""

    @property
    def identity(self) -> AgentIdentity:
        """Who this is."""
        ...

    @property
    def read_only(self) -> bool:
        """True when nothing may be committed."""
        ...

    @property
    def log(self) -> TokenLog:
        """Raw K/V of the current branch."""
        ...

    @property
    def digests(self) -> DigestLog:
        """Block digests of the current branch."""
        ...

    @property
    def upkeep(self) -> Upkeep:
        """Pins, expiries, the audit of what was dropped, and rebuilding."""
        ...

    @property
    def head(self) -> Turn | None:
        """The current turn; None for an empty memory."""
        ...

    @property
    def bytes_read(self) -> int:
        """K/V and digest bytes read from files since opening."""
        ...

    @property
    def turn_count(self) -> int:
        """How many turns there are from the root to the head; reads none of them."""
        ...

    def turns(self, *, limit: int | None = None, at: str | None = HEAD) -> list[Turn]:
        """The turns from the root to the head, oldest first; with ``limit``, the newest ones.

        With a state id for ``at`` the branch that ends there. Raises StateNotFoundError, StateForgottenError.
        """
        ...

    def every_turn(self) -> list[Turn]:
        """The turns of all branches, by number; forgotten ones too."""
        ...

    def turn(self, turn_id: int) -> Turn:
        """One turn of any branch. Raises StateNotFoundError."""
        ...

    def turn_at(self, position: int) -> Turn:
        """The turn of the current branch that holds token ``position``."""
        ...

    def find_state(self, state_id: str) -> Turn:
        """The turn of that state id, of any branch. Raises StateNotFoundError, StateForgottenError."""
        ...

    def observed_parts(self, source: str) -> list[Turn]:
        """Turns of the current branch with this source and a part number, in order."""
        ...

    def origins(self, sources: Collection[str] | None = None) -> list[Origin]:
        """Where the words of the current branch's turns came from, oldest first; forgotten ones are left out.

        With ``sources`` only the turns that have one of these, which reads no others.
        """
        ...

    def token_ids(self, start: int, stop: int) -> list[int]:
        """Ids of tokens [start, stop) of the current branch, the open turn not included."""
        ...

    def search(self, query: str, *, limit: int = 20) -> list[Turn]:
        """Turns of the current branch whose text holds all the words, newest first."""
        ...

    def begin(self, after: str | None = HEAD) -> None:
        """Open a turn that goes on from the head, from another state of any branch, or (None) from nothing.

        While it is open this object stands on ``after``. The head itself moves with the commit alone:
        after an abort, a close or a kill it is where it was. Digests beyond the last turn that both
        branches share are dropped either way; they are a cache. An open turn is an error of ours.

        Raises:
            ReadOnlyError, StaleWriterError, StateNotFoundError, StateForgottenError: nothing has changed.
        """
        ...

    def commit(self, turn: NewTurn) -> Turn:
        """Make the open turn durable, then return it. Only now does it exist."""
        ...

    def abort(self) -> None:
        """Drop the open turn, if any: head, log and digests are as they were before it (see ``begin``)."""
        ...

    def rewind(self, state_id: str | None) -> None:
        """Move the head to that state (None: before the first turn). Later turns stay reachable by id."""
        ...

    def forget(self, turn_ids: Sequence[int], *, reason: Reason | None = None) -> int:
        """Drop turns' text, ids and K/V for good; returns the tokens dropped. Ranges become dead.

        With a reason the audit notes it.
        """
        ...

    def collect(self, *, prune: bool = False) -> CollectReport:
        """Free slots no turn reaches; with ``prune`` drop the branches the head does not stand on first."""
        ...

    def verify(self, *, deep: bool = False) -> VerifyReport:
        """Check the index, file sizes and (deep) every checksum. Never raises for damage it can report."""
        ...

    def repair(self, ways: Callable[[Turn], Sequence[Encode]], *, dry_run: bool = False) -> RepairReport:
        """Replace damaged K/V, all in one commit at the end; with ``dry_run`` only say what is damaged.

        ``ways`` names the ways to compute a turn's K/V anew, best guess first; the first that agrees with
        what is left of the turn is taken. Tokens for which there is none are set aside: dead, but not
        forgotten, until a later repair. Raises StoreError when the disk fails; nothing has changed then.
        """
        ...

    def note(self, key: str, value: Json) -> None:
        """Store a small named JSON value (settings, last config), durable at once."""
        ...

    def noted(self, key: str) -> Json:
        """A value stored by ``note``; None when there is none."""
        ...

    def park(self) -> None:
        """Give the right to write up until ``unpark``, and keep all that was read and checked.

        Meanwhile other writers may open the agent, and every call but ``unpark`` and ``close`` raises
        ClosedError; the log and the digests must not be used. Parking twice is fine. Raises StoreError
        while a turn is open, ReadOnlyError, StaleWriterError.
        """
        ...

    def unpark(self, wait: float = 0.0) -> bool:
        """Take the right to write again, waiting that many seconds for another holder.

        False: another writer opened the agent meanwhile, or it was deleted; what is held here may be out
        of date, so the store is closed. A store that is not parked stays as it is.

        Raises:
            AgentBusyError: another writer holds it; the store stays parked.
            ClosedError: the store was closed.
        """
        ...

    def close(self) -> None:
        """Release the agent; the open turn is dropped. Closing twice is fine."""
        ...


class Home(Protocol):
    """All agents of one place."""

    def exists(self, agent_id: str) -> bool:
        """Whether there is such an agent."""
        ...

    def create(
        self,
        agent_id: str,
        *,
        fingerprint: Mapping[str, str],
        layout: KVLayout,
        model: str,
        facts: Mapping[str, Json],
        wait: float = 0.0,
    ) -> Store:
        """Make a new, empty agent and open it. Raises AgentExistsError, AgentBusyError."""
        ...

    def open(self, agent_id: str, *, wait: float = 0.0, read_only: bool = False) -> Store:
        """Open an agent. Raises AgentNotFoundError, AgentBusyError, DamagedError, FormatVersionError."""
        ...

    def peek(self, agent_id: str) -> AgentIdentity:
        """Who that is, without the lock. Raises AgentNotFoundError."""
        ...

    def fork(self, agent_id: str, new_id: str) -> None:
        """A new agent with the same past, sharing sealed files. The source may be open in this process."""
        ...

    def workshop(self, agent_id: str) -> Home:
        """A home out of sight where new agents are made from this one, whole before they are seen; gone with it."""
        ...

    def put_in_place(self, agent_id: str, new_id: str, *, over: tuple[str, str | None] | None = None) -> None:
        """Move agent ``new_id`` from the workshop of ``agent_id`` here, in one step; clears the workshop.

        Args:
            agent_id: whose workshop.
            new_id: the agent, closed.
            over: the (uuid, head state id) of the agent of that name that it replaces; None: there is none.

        Raises:
            AgentExistsError, AgentNotFoundError, AgentBusyError, StoreError: nothing has changed.
            StaleWriterError: the agent to be replaced does not stand there any more; nothing has changed.
        """
        ...

    def clear_workshop(self, agent_id: str) -> None:
        """Remove unfinished agents that were being made from this one."""
        ...

    def salvage(self, agent_id: str, *, dry_run: bool = False) -> SalvageReport:
        """Make a damaged agent usable again without its model.

        A damaged index is replaced, in one step, by a new one of all rows that can be read and are what was
        written; K/V that are damaged, or cannot be checked any more, are set aside. With ``dry_run`` only say.

        Raises:
            AgentNotFoundError, AgentBusyError, StoreError: nothing has changed.
            DamagedError: not enough is left to know whose it is.
        """
        ...

    def list(self) -> list[AgentInfo]:
        """Every agent, most recently used first."""
        ...

    def delete(self, agent_id: str) -> None:
        """Remove an agent and its files. Raises AgentNotFoundError, AgentBusyError."""
        ...
