"""Opening an agent: find its folder and its model, compare fingerprints, settle the configuration.

Refuses before it changes anything: a refused or failed opening leaves files and live agents as they were.
Knows no turns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agentmem.agent.provenance import QUARANTINE_NOTE
from agentmem.config import MemoryConfig
from agentmem.engine.catalog import DEFAULT_MODEL
from agentmem.engine.model import LanguageModel
from agentmem.errors import (
    AgentExistsError,
    AgentNotFoundError,
    ConfigError,
    DamagedError,
    FingerprintMismatchError,
    InputError,
    StateForgottenError,
    StateNotFoundError,
)
from agentmem.store.base import AgentIdentity, Home, Store

CONFIG_NOTE = "config"


@dataclass(frozen=True)
class Asked:
    """What ``resume`` was asked for; None means "as stored", else the default."""

    agent_id: str
    model: str | Path | LanguageModel | None
    home: Home
    device: str
    dtype: str
    config: MemoryConfig | None
    create: bool
    wait: float
    read_only: bool
    expect_state: str | None = None


class ModelRef:
    """A model that is loaded when it is first needed: looking at a history needs none."""

    def __init__(self, asked: Asked, identity: AgentIdentity | None) -> None:
        self._asked = asked
        self._identity = identity
        self._model: LanguageModel | None = None
        self.seconds = 0.0
        """Time spent on loading weights."""

    def get(self) -> LanguageModel:
        """The model, checked against the agent's fingerprint. Raises FingerprintMismatchError."""
        if self._model is None:
            started = time.perf_counter()
            model = self._load()
            self.seconds += time.perf_counter() - started
            if self._identity is not None:
                _compare(self._identity, model.fingerprint_as(self._identity.layout.kv_dtype))
            self._model = model
        return self._model

    def _load(self) -> LanguageModel:
        asked, identity = self._asked, self._identity
        if isinstance(asked.model, LanguageModel):
            return asked.model
        stored = identity.model if identity is not None else DEFAULT_MODEL
        dtype = asked.dtype
        if dtype == "auto" and identity is not None:
            dtype = str(identity.layout.decoded.dtype).removeprefix("torch.")
        return LanguageModel.load(asked.model or stored, device=asked.device, dtype=dtype)


@dataclass(frozen=True)
class Opened:
    """An open agent, before its first turn in this process."""

    store: Store
    model: ModelRef
    config: MemoryConfig
    created: bool


def open_agent(asked: Asked) -> Opened:
    """Open or create an agent.

    Raises:
        AgentNotFoundError, AgentBusyError, FingerprintMismatchError, ConfigError, DamagedError, ModelError.
        StateNotFoundError: it does not hold the state that was expected.
    """
    _check_types(asked)
    home = asked.home
    if not home.exists(asked.agent_id):
        with suppress(AgentExistsError):  # somebody made it in this moment: open it
            return _create(asked)
    identity = home.peek(asked.agent_id)
    model = ModelRef(asked, identity)
    if not asked.read_only or isinstance(asked.model, LanguageModel):
        model.get()
    store = home.open(asked.agent_id, wait=asked.wait, read_only=asked.read_only)
    try:
        _require_state(asked, store)
        return Opened(store, model, _settle_config(asked, store, model), created=False)
    except BaseException:
        store.close()
        raise


def _check_types(asked: Asked) -> None:
    """Raises ConfigError or InputError for what would fail later, or pass unnoticed."""
    if asked.config is not None and not isinstance(asked.config, MemoryConfig):
        raise ConfigError(f"config must be a MemoryConfig, got {type(asked.config).__name__}")
    if isinstance(asked.wait, bool) or not isinstance(asked.wait, (int, float)) or not asked.wait >= 0:
        raise InputError(f"wait={asked.wait!r}: give seconds, 0 or more")


def _create(asked: Asked) -> Opened:
    if not asked.create or asked.read_only:
        raise AgentNotFoundError(
            f"there is no agent {asked.agent_id!r}; `agentmem list` or AgentMemory.list() shows those there are"
        )
    if asked.expect_state is not None:
        raise AgentNotFoundError(
            f"there is no agent {asked.agent_id!r}, but state {asked.expect_state!r} of it is expected; look for its "
            "files, or restore an export"
        )
    model = ModelRef(asked, None)
    config = asked.config or MemoryConfig()
    model.get().check(config)
    layout = model.get().layout_for(config.kv_dtype)
    store = asked.home.create(
        asked.agent_id,
        fingerprint=model.get().fingerprint_as(config.kv_dtype),
        layout=layout,
        model=model.get().name,
        facts={"chunk_tokens": config.chunk_tokens},
        wait=asked.wait,
    )
    try:
        store.note(CONFIG_NOTE, config.model_dump())
        store.note(QUARANTINE_NOTE, [])  # each turn asks for it, and a note that is missing is looked for
    except BaseException:
        store.close()
        raise
    return Opened(store, model, config, created=True)


def _require_state(asked: Asked, store: Store) -> None:
    """Raises StateNotFoundError when the agent never came to the state that is expected."""
    if asked.expect_state is None:
        return
    try:
        store.find_state(asked.expect_state)
    except StateForgottenError:
        return  # it was there
    except StateNotFoundError:
        raise StateNotFoundError(
            f"agent {asked.agent_id!r} does not hold state {asked.expect_state!r}, which was expected: it may be an older "
            "copy of its files that was put back, or the branch was pruned. Look for the newer files; without "
            "expect_state it is opened as it is."
        ) from None


def _settle_config(asked: Asked, store: Store, model: ModelRef) -> MemoryConfig:
    """The given configuration, else the stored one; chunk_tokens and kv_dtype stay what they were at creation."""
    noted = store.noted(CONFIG_NOTE) or {}
    if not isinstance(noted, dict):
        raise DamagedError(asked.agent_id, "agent.db", f"note {CONFIG_NOTE!r}", "it is not a set of options")
    kept = store.identity.layout.kv_dtype
    stored = MemoryConfig(**{**noted, "kv_dtype": kept})
    config = asked.config or stored
    fixed = store.identity.facts["chunk_tokens"]
    if config.chunk_tokens != fixed:
        raise ConfigError(
            f"chunk_tokens={config.chunk_tokens}: agent {asked.agent_id!r} was made with chunk_tokens={fixed}, "
            "which is fixed at creation because K/V depend on it. Leave it at that."
        )
    if config.kv_dtype != kept:
        raise ConfigError(
            f"kv_dtype={config.kv_dtype!r}: agent {asked.agent_id!r} was made with kv_dtype={kept!r}, which is fixed "
            "at creation because all its keys and values are kept so. Leave it at that, or let reencode() with that "
            "config make a new agent of its text."
        )
    if not asked.read_only:
        model.get().check(config)
        if config != stored:
            store.note(CONFIG_NOTE, config.model_dump())
        if store.noted(QUARANTINE_NOTE) is None:
            store.note(QUARANTINE_NOTE, [])
    return config


def _compare(identity: AgentIdentity, current: Mapping[str, str]) -> None:
    stored = identity.fingerprint
    differing = {
        key: (stored.get(key, "-"), current.get(key, "-"))
        for key in sorted({*stored, *current})
        if stored.get(key) != current.get(key)
    }
    if differing:
        raise FingerprintMismatchError(identity.agent_id, differing, identity.model)
