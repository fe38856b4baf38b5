"""What earlier turns put in force for the later ones: a system prompt, and tools.

Each turn's settings note a digest of both and the token where they were written, so that nothing is
written twice, and what was forgotten counts as not given. Knows no store and no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class InForce:
    """Digests of the system prompt and of the tools, each with the token its turn starts at."""

    system: str | None = None
    system_at: int | None = None
    tools: str | None = None
    tools_at: int | None = None

    @classmethod
    def after(cls, settings: Mapping[str, Any], dead: Iterable[tuple[int, int]]) -> InForce:
        """What is in force after a turn with these settings, when the ranges ``dead`` were forgotten."""
        gone = list(dead)
        return cls.moved(settings, lambda token: None if _lies_in(token, gone) else token)

    @classmethod
    def moved(cls, settings: Mapping[str, Any], place: Callable[[int], int | None]) -> InForce:
        """What is in force after a turn with these settings, whose tokens now lie where ``place`` says, or nowhere.

        Settings that note no token are of an older version; what they name counts as given.
        """
        found: dict[str, Any] = {}
        for name in ("system", "tools"):
            digest, token = settings.get(name), settings.get(f"{name}_at")
            if isinstance(token, int):
                token = place(token)
                digest = None if token is None else digest
            found |= {name: digest, f"{name}_at": token}
        return cls(**found)

    def with_turn(
        self,
        kind: str,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        start: int,
    ) -> InForce:
        """What is in force after one more turn, which starts at token ``start``."""
        changed = self
        prompts = [message["content"] for message in messages if _is_prompt(message)]
        if prompts and kind != "observe":
            changed = replace(changed, system=system_digest(prompts[-1]), system_at=start)
        if tools and tools_digest(tools) != self.tools:
            changed = replace(changed, tools=tools_digest(tools), tools_at=start)
        return changed

    def to_settings(self) -> dict[str, Any]:
        """What a turn's settings note."""
        return {
            "system": self.system,
            "system_at": self.system_at,
            "tools": self.tools,
            "tools_at": self.tools_at,
        }


def system_digest(text: str) -> str:
    """How a turn notes which system prompt is in force."""
    return _digest(text)


def tools_digest(tools: Sequence[Mapping[str, Any]]) -> str:
    """How a turn notes which tools are in force; their order does not count."""
    return _digest("\n".join(sorted(json.dumps(tool, sort_keys=True) for tool in tools)))


def _is_prompt(message: Mapping[str, Any]) -> bool:
    """A system message, but no other instruction that a program made, which its metadata tells by "made"."""
    return message["role"] == "system" and (message.get("metadata") or {}).get("made") in {None, "system"}


def _lies_in(token: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(start <= token < stop for start, stop in ranges)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
