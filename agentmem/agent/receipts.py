"""What operations hand back: replies and receipts. Plain frozen data; figures are what really happened.

Knows no store and no model. Every record turns into JSON with :func:`as_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from agentmem.memory.residency import CacheUse


@dataclass(frozen=True)
class ResumeReceipt:
    """What opening a memory cost. ``seconds`` leaves out loading the weights."""

    created: bool
    tokens_held: int
    tokens_prefilled: int
    """History tokens forwarded through the model: 0 unless the system prompt changed."""
    turns: int
    bytes_read: int
    seconds: float


@dataclass(frozen=True)
class WriteReceipt:
    """What writing without an answer cost."""

    tokens_prefilled: int
    tokens_held: int
    bytes_written: int
    seconds: float


@dataclass(frozen=True)
class RecalledBlock:
    """A block of the past that was attended to although it is out of the window."""

    turn: int
    """Id of the turn the block's first living token belongs to."""
    start: int
    stop: int
    """Token positions [start, stop) in the log."""
    text: str
    created_at: str
    """When that turn was made, ISO 8601."""
    share: float
    """Part of the attention paid to recalled tokens that this block received; 0 to 1."""


@dataclass(frozen=True)
class RecallReceipt:
    """What a reply stood on. The blocks are those with the largest shares."""

    tokens_held: int
    """Tokens in the memory after the turn."""
    tokens_prefilled: int
    """New tokens read in this turn."""
    tokens_generated: int
    blocks: Sequence[RecalledBlock]
    seconds: float
    tokens_reread: int = 0
    """History tokens forwarded again: always 0, and counted rather than assumed."""
    recalled_mass: float = 0.0
    """Part of all attention that went to recalled tokens; 0 to 1."""
    seconds_to_first: float = 0.0
    """Until the first token of the reply."""
    device_cache: CacheUse | None = None
    """What of the blocks was on the device already; None where none are kept there, as on the CPU."""


@dataclass(frozen=True)
class Usage:
    """Token counts in the form most clients expect."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    """Tokens of the past that were held and not read again."""

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True)
class Reply:
    """An answer. ``str(reply)`` is its text."""

    text: str
    receipt: RecallReceipt
    usage: Usage
    state_id: str | None
    """The state after this turn; None when it was not remembered."""
    finish_reason: str
    """"stop", "stop_string" or "length"."""
    thinking: str = ""
    """Thinking text that the model put before its answer."""
    token_ids: Sequence[int] = field(default=(), repr=False)
    """The sampled ids that make up the text."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class HistoryTurn:
    """One turn as people look at it."""

    turn: int
    state_id: str
    kind: str
    created_at: str
    messages: Sequence[Mapping[str, Any]]
    tokens: int
    source: str | None
    forgotten: bool
    role: str = "user"
    """Whose words these are: the least trusted of them."""
    trust: str = "user"
    """How far they are trusted: a label, by default the role."""
    quarantined: bool = False
    """Whether the source is in quarantine, so that no turn attends to this one."""
    pinned: bool = False
    """Retention never drops it."""
    expires_at: str | None = None
    """When retention may drop it."""


@dataclass(frozen=True)
class SearchHit:
    """A turn whose text holds all the words asked for."""

    turn: int
    state_id: str
    created_at: str
    role: str
    text: str


@dataclass(frozen=True)
class Explanation:
    """What fed the last reply."""

    turn: int | None
    created_at: str | None
    question: str
    answer: str
    recalled_mass: float
    blocks: Sequence[RecalledBlock]

    def __str__(self) -> str:
        if not self.blocks:
            return "The last reply stood on the first tokens and the recent window alone."
        rows = [
            f"{block.share:6.1%}  turn {block.turn}  {block.created_at[:10]}  {block.text!r}"
            for block in self.blocks
        ]
        return "\n".join(rows)


@dataclass(frozen=True)
class ForgetReceipt:
    """What was forgotten, or would be."""

    turns: Sequence[int]
    tokens: int
    dry_run: bool
    residual: str
    """What is left of the forgotten text, in words."""
    mode: str = "drop"
    """"drop", or "rebuild": then later turns were read again."""
    erased: bool = True
    """False: a reader keeps old bytes of the index alive; the next opening for writing removes them."""
    forks: Sequence[str] = ()
    """Other agents of the home that still hold some of it. Exports are out of reach."""
    states: Mapping[str, str] = field(default_factory=dict)
    """After a rebuild: old state ids and those they lead to now."""
    tokens_prefilled: int = 0
    """Tokens read again by a rebuild; for a dry run, about as many as would be."""
    seconds: float = 0.0


@dataclass(frozen=True)
class RetentionReceipt:
    """What retention dropped, or would drop."""

    expired: Sequence[int]
    """Turns whose time was up."""
    over_quota: Sequence[int]
    """Turns that had to make room."""
    tokens: int
    """Tokens of both."""
    tokens_left: int
    """Tokens of the turns that stay, on all branches; before a rebuild joins their ends, about as many."""
    pinned: Sequence[int]
    """Turns that stay whatever happens."""
    needs_rebuild: Sequence[int]
    """Expired turns in the sinks: only mode="rebuild" drops them."""
    dry_run: bool
    mode: str


@dataclass(frozen=True)
class Quarantined:
    """A source that no turn attends to."""

    source: str
    since: str
    """When it was put there, ISO 8601."""
    reason: str | None


@dataclass(frozen=True)
class QuarantineReceipt:
    """What was held, or let go again. Nothing is deleted by either."""

    action: str
    """"quarantine" or "release"."""
    source: str
    turns: Sequence[int]
    """Turns of the current branch that came from it."""
    tokens: int
    held: Sequence[str]
    """All sources in quarantine now."""
    residual: str
    """What is left of the source's influence, in words."""


def as_json(record: Any) -> Any:
    """A record as plain JSON values."""
    if is_dataclass(record) and not isinstance(record, type):
        return asdict(record)
    return record
