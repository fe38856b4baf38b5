"""What a reply is made of: pieces while it is written, and the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextPart:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class ThinkingPart:
    """A piece of the thinking before the answer."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """A call begins: its number in this reply, and the tool's name."""

    index: int
    name: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of the JSON of a call's arguments."""

    index: int
    text: str


@dataclass(frozen=True)
class BadCall:
    """A call that cannot be used: cut off, or no JSON. If it had started, ``index`` is its number."""

    text: str
    index: int | None = None


Part = TextPart | ThinkingPart | CallStart | CallArguments | BadCall


@dataclass(frozen=True)
class ParsedCall:
    """A whole call."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ParsedReply:
    """A whole reply taken apart."""

    text: str
    thinking: str
    calls: list[ParsedCall]
    bad: list[str]
