"""Where evidence lies in a token log, and whether it is out of sight: in neither sinks nor window.

Reads token ids through the store, below the public API, since it compares token by token. Knows no task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from agentmem import MemoryConfig
from agentmem.engine.model import Tokenizer
from agentmem.memory.blocks import BlockGrid
from agentmem.store import DiskHome
from benchmarks.recall.items import Question

LEAST_STEP = 128
"""Tokens between the starts of two windows of text; each is twice as long."""
FORGOTTEN = "\N{REPLACEMENT CHARACTER}\0"
"""Stands for tokens that were dropped from the log."""

Ranges = Sequence[tuple[int, int]]


class EvidenceError(Exception):
    """Evidence of a question is not in the log, or is in plain sight."""


class LogText:
    """The log as overlapping windows of text, so that a snippet's tokens are found for any tokenizer."""

    def __init__(self, ids: Sequence[int], tokenizer: Tokenizer, longest: int) -> None:
        """``longest``: tokens of the longest snippet that will be looked for."""
        self._ids = ids
        self._tokenizer = tokenizer
        self._step = max(LEAST_STEP, 2 * longest)
        self._texts = [self._decode(ids[start : start + 2 * self._step]) for start in self._starts()]

    def find(self, snippet: str) -> list[tuple[int, int]]:
        """The token ranges [start, stop) that spell the snippet, each as short as can be."""
        found = set()
        for start, text in zip(self._starts(), self._texts, strict=True):
            if snippet in text:
                found |= set(self._inside(snippet, start, min(len(self._ids), start + 2 * self._step)))
        return sorted(found)

    def _decode(self, ids: Sequence[int]) -> str:
        """The text; forgotten tokens are a mark that no snippet holds."""
        runs = groupby(ids, key=lambda token: token < 0)
        return "".join(FORGOTTEN if gone else str(self._tokenizer.decode(list(run))) for gone, run in runs)

    def _starts(self) -> range:
        return range(0, max(1, len(self._ids)), self._step)

    def _inside(self, snippet: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Every occurrence in tokens [start, stop): its end by halving, then its start."""
        while snippet in self._decode(self._ids[start:stop]):
            last = _least(start + 1, stop, lambda n: snippet in self._decode(self._ids[start:n]))  # noqa: B023
            back = _least(1, last - start, lambda n: snippet in self._decode(self._ids[last - n : last]))  # noqa: B023
            yield last - back, last
            start = last


def find_evidence(
    ids: Sequence[int], tokenizer: Tokenizer, questions: Sequence[Question]
) -> Mapping[str, list[tuple[int, int]]]:
    """Question id -> the token ranges of all its evidence.

    Raises:
        EvidenceError: a snippet is nowhere in the log.
    """
    snippets = sorted({snippet for question in questions for snippet in question.evidence})
    sizes = [len(tokenizer(snippet, add_special_tokens=False)["input_ids"]) for snippet in snippets]
    text = LogText(ids, tokenizer, max(sizes, default=1))
    ranges = {snippet: text.find(snippet) for snippet in snippets}
    for snippet, found in ranges.items():
        if not found:
            raise EvidenceError(
                f"the evidence {snippet!r} is nowhere in the {len(ids)} tokens that were read"
            )
    return {
        question.id: [place for snippet in question.evidence for place in ranges[snippet]]
        for question in questions
    }


def check_out_of_sight(
    evidence: Mapping[str, Ranges], length: int, config: MemoryConfig, *, dense: bool
) -> None:
    """Check that a question asked now sees its evidence by recall alone.

    Args:
        evidence: question id -> token ranges.
        length: tokens held when the questions are asked.
        config: the arm's options.
        dense: the arm sees everything by intention.

    Raises:
        EvidenceError: evidence lies in the sinks or the window, or everything is attended to.
    """
    if not dense and length <= config.dense_limit:
        raise EvidenceError(f"{length} tokens are all attended to (up to {config.dense_limit}): ask for more")
    split = BlockGrid(config.sink_tokens, config.block_tokens).split(length, config.window_tokens)
    for name, ranges in evidence.items():
        for start, stop in ranges:
            if start < split.sink_stop:
                raise EvidenceError(f"{name}: evidence [{start}, {stop}) is in the {split.sink_stop} sinks")
            if stop > split.window_start:
                raise EvidenceError(
                    f"{name}: evidence [{start}, {stop}) is in the window from {split.window_start}"
                )


def token_ids(home: Path, agent_id: str) -> list[int]:
    """All token ids an agent holds; it may be open at the same time."""
    store = DiskHome(home).open(agent_id, read_only=True)
    try:
        return store.token_ids(0, store.log.committed)
    finally:
        store.close()


def _least(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least n in [low, high] that holds, when all greater ones do."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
