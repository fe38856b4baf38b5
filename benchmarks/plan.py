"""What one run measures: sizes, options, and the samples it collects. Knows no model and no machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

QUESTION = "What do you remember about the lantern, and who was asked for money? Tell me all of it."


@dataclass(frozen=True)
class Plan:
    """Sizes of a run, in tokens unless said otherwise."""

    models: Sequence[str]
    lengths: Sequence[int]
    repeats: int
    """Rounds over all lengths; medians are taken over them."""
    reply: int
    """Tokens decoded in a turn."""
    ingest: int
    """Tokens read in one timed observation at each length."""
    resumes: int
    """Warm resumes in a round."""
    peer: bool
    peer_reply: int
    """As ``reply``; fewer, since full attention is slow and knows no reselection to average over."""
    peer_ingest: int
    peer_read: int
    """The peer really reads so much; a longer cache is filled up with copies of what it holds."""
    seed: int = 20


@dataclass
class Samples:
    """Measured values by (model, length, metric), and what failed or was left out."""

    values: dict[tuple[str, int, str], list[float]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, model: str, length: int, metric: str, value: float | None) -> None:
        """Keep one value; None (not measurable here) is left out."""
        if value is not None:
            self.values.setdefault((model, length, metric), []).append(value)

    def of(self, model: str, length: int, metric: str) -> list[float]:
        """All values, in the order they were measured; those of one round stand at one index."""
        return self.values.get((model, length, metric), [])

    def middle(self, model: str, length: int, metric: str) -> float | None:
        """The median; None when nothing was measured."""
        found = self.of(model, length, metric)
        return statistics.median(found) if found else None

    def ratio(self, model: str, top: tuple[int, str], bottom: tuple[int, str]) -> float | None:
        """Median of the rounds' own ratios, since neighbours in time share the machine's mood."""
        pairs = zip(self.of(model, *top), self.of(model, *bottom), strict=False)
        ratios = [a / b for a, b in pairs if b]
        return statistics.median(ratios) if ratios else None

    def skip(self, line: str) -> None:
        """Note once what is not measured, and why."""
        if line not in self.skipped:
            self.skipped.append(line)
