"""What a repair found and did, as plain records. Knows no files and no turns' text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agentmem.memory.source import DigestLog, TokenLog

Outcome = Literal["exact", "encoded", "set aside"]
"""What became of damaged keys and values:

- ``exact``: they are again what was committed, bit for bit; their checksums say so.
- ``encoded``: computed anew from the token ids, but not to the same bits, or nothing was left to compare with.
- ``set aside``: not replaced yet; nothing attends to these tokens until a repair can compute them.
"""

Encode = Callable[[Sequence[int], TokenLog, DigestLog], None]
"""Forwards ids through a model: their K/V are appended to the log, which stands before them."""


@dataclass(frozen=True)
class RepairedRange:
    """Tokens [start, stop) of a turn whose stored keys and values were damaged."""

    turn: int
    start: int
    stop: int
    file: str
    """Where the damaged bytes lie or lay, within the agent's folder."""
    outcome: Outcome
    text_kept: bool
    """Whether the turn's text and token ids are there."""


@dataclass(frozen=True)
class RepairReport:
    """What was damaged and what became of it. In a dry run: what would at best."""

    dry_run: bool
    ranges: Sequence[RepairedRange]
    rule_states: Sequence[int] = ()
    """Turns whose selection rule's state was computed anew."""
    digest_blocks: int = 0
    """Blocks whose digests are computed again with the next turn that chooses blocks."""
    rebuilt_files: Sequence[str] = ()
    """Files with a broken header or length, whose whole pages were taken over into new ones."""

    def tokens(self, outcome: Outcome) -> int:
        """How many damaged tokens had that outcome."""
        return sum(one.stop - one.start for one in self.ranges if one.outcome == outcome)

    @property
    def found(self) -> bool:
        """Whether anything was damaged."""
        return bool(self.ranges or self.rule_states or self.digest_blocks or self.rebuilt_files)

    @property
    def ok(self) -> bool:
        """True when no token is left set aside."""
        return not self.tokens("set aside")


@dataclass(frozen=True)
class SalvageReport:
    """What was left of a damaged index, and what was not. In a dry run: what is."""

    dry_run: bool
    losses: Sequence[str]
    """What could not be read, table by table; empty when the index was sound."""
    turns: Sequence[int]
    """The turns there are."""
    wordless: Sequence[int] = ()
    """Of these, turns whose messages are lost; their place is kept."""
    without_ids: Sequence[int] = ()
    """Of these, turns whose token ids are lost: a repair cannot compute their K/V."""
    unreachable: Sequence[int] = ()
    """Turns that are gone, since nothing says where they were."""
    repair: RepairReport | None = None
    """What became of keys and values that cannot be checked any more; None in a dry run."""

    @property
    def ok(self) -> bool:
        """True when nothing was lost, and nothing is set aside."""
        whole = self.repair is None or self.repair.ok
        return whole and not (self.losses or self.wordless or self.without_ids or self.unreachable)
