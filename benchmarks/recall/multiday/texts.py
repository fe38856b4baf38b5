"""The hand-written texts, read from `texts/`: what users tell, what they ask, what the assistant replies.

Knows how the files are written, and nothing of persons, days or histories.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "texts"
MARKS = {"-": "tell", "*": "change", "^": "return"}
"""First letter of a user's line -> what the line does to the value."""


@dataclass(frozen=True)
class Scene:
    """A user's message and the reply to it, with slots in braces."""

    user: str
    reply: str


@dataclass(frozen=True)
class Value:
    """What may fill a slot: its text, and by which names a reader may call it (the text among them)."""

    text: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """One block of a file: its name, its `key: value` lines, its scenes by mark."""

    name: str
    lines: Mapping[str, Sequence[str]]
    scenes: Mapping[str, Sequence[Scene]] = field(default_factory=dict)

    def one(self, key: str) -> str:
        """The only value of `key`; KeyError where the block has none or several."""
        (value,) = self.lines[key]
        return value

    def parts(self, key: str) -> tuple[str, ...]:
        """The only value of `key`, cut at its bars; () where the block has none."""
        return _cut(self.one(key), "|") if key in self.lines else ()

    @property
    def values(self) -> tuple[Value, ...]:
        """What `values` offers, with other names after an equals sign."""
        found = []
        for part in self.parts("values"):
            names = _cut(part, "=")
            found.append(Value(names[0], names))
        return tuple(found)

    @property
    def cues(self) -> tuple[str, ...]:
        """Phrases that show a message to be about this block's matter."""
        return self.parts("cue")


@dataclass(frozen=True)
class Catalogue:
    """All blocks by file: name -> block."""

    attributes: Mapping[str, Block]
    assistant: Mapping[str, Block]
    preferences: Mapping[str, Block]
    collections: Mapping[str, Block]
    events: Mapping[str, Block]
    threads: Mapping[str, Block]


@cache
def catalogue() -> Catalogue:
    """The texts of this folder."""
    return Catalogue(
        *(
            read_blocks((FOLDER / f"{name}.txt").read_text(encoding="utf-8"))
            for name in ("attributes", "assistant", "preferences", "collections", "events", "threads")
        )
    )


def read_blocks(text: str) -> Mapping[str, Block]:
    """The blocks of one file: name -> block.

    Raises:
        ValueError: a line that is none of the kinds, a reply without a message, a name given twice.
    """
    blocks: dict[str, Block] = {}
    for chunk in re.split(r"^# ", text, flags=re.MULTILINE)[1:]:
        block = _read_block(chunk)
        if block.name in blocks:
            raise ValueError(f"two blocks are called {block.name!r}: rename one of them")
        blocks[block.name] = block
    return blocks


def _read_block(chunk: str) -> Block:
    name, *rest = (line.strip() for line in chunk.splitlines() if line.strip())
    lines: dict[str, list[str]] = {}
    scenes: dict[str, list[Scene]] = {}
    said: tuple[str, str] | None = None
    for line in rest:
        mark, _, text = line.partition(" ")
        if mark in MARKS and said is None:
            said = (MARKS[mark], text)
        elif mark == ">" and said is not None:
            scenes.setdefault(said[0], []).append(Scene(said[1], text))
            said = None
        elif mark.endswith(":") and said is None:
            lines.setdefault(mark[:-1], []).append(text)
        else:
            raise ValueError(f"block {name!r}: cannot read the line {line!r}; see the head of the file")
    if said is not None:
        raise ValueError(f"block {name!r}: no reply follows {said[1]!r}")
    return Block(name, lines, scenes)


def _cut(text: str, separator: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(separator))


def sentence_with(text: str, needles: Sequence[str]) -> str:
    """The stretch of whole sentences of `text` that holds all of `needles`.

    Raises:
        ValueError: one of them does not occur.
    """
    starts = [0] + [match.end() for match in re.finditer(r"(?<!Dr)(?<!Mr)(?<!Mrs)[.!?]\"? +(?=\S)", text)]
    ends = [*starts[1:], len(text)]
    wanted = [text.index(needle) for needle in needles]
    first = max(index for index, start in enumerate(starts) if start <= min(wanted))
    last_letter = max(at + len(needle) for at, needle in zip(wanted, needles, strict=True))
    last = min(index for index, end in enumerate(ends) if end >= last_letter)
    return text[starts[first] : ends[last]].rstrip()
