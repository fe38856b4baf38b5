"""The name of an exact state: a hash over everything the state depends on, and no clock.

Knows no store and no model; plain values in, a hex string out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentmem.config import MemoryConfig

_NOT_IN_KV = {"stamp", "keep_thinking"}
"""Options that act through the token ids alone, which are hashed themselves."""


_LATER = ("rope", "rope_factor")
"""Options younger than the first format: left out at their defaults, so that older state ids stay as they are."""


def settings_of(config: MemoryConfig, hidden: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    """What changes K/V, as stored with a turn: options, and the tokens that the turn could not attend to."""
    defaults = {name: MemoryConfig.model_fields[name].default for name in _LATER}
    settings = {
        key: value
        for key, value in config.model_dump().items()
        if key not in _NOT_IN_KV and not (key in defaults and value == defaults[key])
    }
    return {**settings, "hidden": [list(one) for one in hidden]} if hidden else settings


def state_id(
    *,
    parent: str | None,
    uuid: str,
    token_ids: Sequence[int],
    pending: Any,
    settings: Mapping[str, Any],
    fingerprint: Mapping[str, str],
) -> str:
    """32 hex digits naming the state after a turn."""
    facts = [parent, uuid, list(token_ids), pending, dict(settings), dict(fingerprint)]
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
