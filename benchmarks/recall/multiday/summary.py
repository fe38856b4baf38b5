"""What was generated, in numbers: tokens, sessions, turns, questions by kind, where the evidence lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from statistics import mean, median

from benchmarks.recall.multiday.diary import Diary, Message
from benchmarks.recall.multiday.storylines import KINDS


def summary(diaries: Sequence[Diary], count_tokens: Callable[[str], int]) -> Iterator[str]:
    """Lines to print about some diaries, by the tokens that `count_tokens` sees in their messages."""
    sizes = [[_session_tokens(session.messages, count_tokens) for session in one.sessions] for one in diaries]
    totals = [sum(one) for one in sizes]
    each = [tokens for one in sizes for tokens in one]
    turns = [len(session.messages) for one in diaries for session in one.sessions]
    yield f"diaries    {len(diaries)}, of {diaries[0].days} days"
    yield f"tokens     {min(totals):,} to {max(totals):,}, mean {mean(totals):,.0f}"
    yield f"sessions   {len(each):,}; tokens {min(each)} to {max(each)}, median {median(each):.0f}"
    yield f"turns      {sum(turns):,}; a session {min(turns)} to {max(turns)}, mean {mean(turns):.1f}"
    kinds = Counter(query.question.kind for one in diaries for query in one.queries)
    evidence = Counter[str]()
    for one in diaries:
        for query in one.queries:
            evidence[query.question.kind] += len(query.question.evidence)
    yield f"questions  {kinds.total()}"
    for kind in KINDS:
        if kinds[kind]:
            yield f"  {kind:<26}{kinds[kind]:>5}   evidence messages {evidence[kind] / kinds[kind]:.2f}"
    depths = [depth for one in diaries for depth in _depths(one, count_tokens)]
    if depths:
        yield f"evidence   at {min(depths):.0%} to {max(depths):.0%} of the history, median {median(depths):.0%}"


def _session_tokens(messages: Sequence[Message], count_tokens: Callable[[str], int]) -> int:
    return sum(count_tokens(message.text) for message in messages)


def _depths(diary: Diary, count_tokens: Callable[[str], int]) -> Iterator[float]:
    """How far into a diary each message of evidence begins, 0 to 1."""
    messages = [message for _, message in diary.messages()]
    ends = list(accumulate(count_tokens(message.text) for message in messages))
    for message, end in zip(messages, ends, strict=True):
        if message.answers:
            yield (end - count_tokens(message.text)) / ends[-1]
