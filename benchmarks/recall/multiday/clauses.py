"""An answer cut into clauses, with the candidate values found in it.

A clause is a list of words in which each candidate stands as one mark, so that commas, "and" or full stops
inside a value do not cut it. Knows which words deny, contrast or put into the past; knows no questions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.recall.multiday.wording import normalised

_TITLES = re.compile(r"\b(Dr|Mr|Mrs|Ms|St)\.", re.IGNORECASE)
_RATIO = re.compile(r"(?<=\d)\s*:\s*(?=\d)")
_BREAKS = re.compile(r"[.;!?\n,:()\u2013\u2014*|]+(?=\s|$|[\"'”*])|\s-+\s|[;!?\n()\u2013\u2014]")
_WORD_BREAKS = {"but", "and", "then", "while", "whereas", "although", "though", "however", "so", "because"}
_DENIALS = {"not", "no", "never", "neither", "nor", "cannot", "without", "except", "unlike"}
_CONTRAST = re.compile(
    r"\b(?:instead of|rather than|as opposed to|other than|no longer|replacing|over|than)\b"
    r"(?: (?:the|a|an|your|my|his|her))?$|\bafter(?: \w+){0,4}$"
)
_LEFT = re.compile(
    r"\b(replac\w+|swap\w*|switch\w*|chang\w+|exchang\w+|left|quit|gave up|given up|dropped|moved on)\b"
    r"(?: \w+){0,2}$"
)
_PAST = re.compile(
    r"\b(used to|previous\w*|former\w*|before|original\w*|initial\w*|at first|earlier|old|until|had been|"
    r"no longer|any ?more|once(?! (?:more|again))|in the past|back then|prior)\b"
)


@dataclass(frozen=True)
class Clause:
    """Words, with each candidate found as "@" and its number among the candidates."""

    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words in one string."""
        return " ".join(self.words)

    @property
    def found(self) -> tuple[int, ...]:
        """The candidates named, denied ones among them, in order."""
        return tuple(int(word[1:]) for word in self.words if word.startswith("@"))

    @property
    def held(self) -> tuple[int, ...]:
        """The candidates named and neither denied nor set apart ("instead of @1", "not @1")."""
        return tuple(
            int(word[1:])
            for at, word in enumerate(self.words)
            if word.startswith("@") and not _set_apart(self.words[:at], self.words[at + 1 :])
        )

    @property
    def past(self) -> bool:
        """Whether it speaks of how things were."""
        return bool(_PAST.search(self.text))


def _set_apart(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether the words round a candidate deny it or contrast it with another."""
    since: list[str] = []
    for word in before:
        # "@0 not @1": only the words after @0 are about @1.
        since = [] if word.startswith("@") else [*since, word]
    if any(word in _DENIALS or word.endswith("n't") for word in since):
        return True
    if "to" in after and re.search(r"\bfrom\b(?: \w+)?$", " ".join(since)):
        return True
    if "to" not in since and _LEFT.search(" ".join(since)):
        return True
    return bool(_CONTRAST.search(" ".join(since)))


def clauses(text: str, candidates: Sequence[Sequence[str]]) -> list[Clause]:
    """The clauses of `text`, with the candidates (each a list of names) marked by their number."""
    names = {
        normalised(name): number for number, candidate in enumerate(candidates) for name in candidate if name
    }
    found: list[Clause] = []
    for segment in _BREAKS.split(_RATIO.sub(" to ", _TITLES.sub(r"\1", text))):
        found += _parts(_marked(normalised(segment), names).split())
    return [clause for clause in found if clause.words]


def _parts(words: Sequence[str]) -> list[Clause]:
    """The clauses of a segment: cut at "but", "then", "and", though not between two candidates ("@0 and @1")."""
    parts: list[list[str]] = [[]]
    for at, word in enumerate(words):
        near = (*words[max(at - 1, 0) : at], *words[at + 1 : at + 2])
        joins = word == "and" and len(near) == 2 and all(one.startswith("@") for one in near)
        joins |= words[at - 1 : at + 1] == ["a", "while"]
        if word in _WORD_BREAKS and not joins:
            parts.append([])
        else:
            parts[-1].append(word)
    return [Clause(tuple(part)) for part in parts]


def _marked(plain: str, names: Mapping[str, int]) -> str:
    """Normalised text with each name, longest first, replaced by its mark."""
    padded = f" {plain} ".replace(" ", "  ")  # two blanks, so that neighbours do not share one
    for name in sorted(names, key=len, reverse=True):
        padded = padded.replace(f" {name.replace(' ', '  ')} ", f" @{names[name]} ")
    return padded
