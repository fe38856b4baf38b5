"""Exports: one zip file with an agent's turns as text and token ids and, if wanted, keys and values.

Text first: K/V are a cache that can be computed again. An import checks names and sizes before it
unpacks anything, holds no pickle, and either makes the whole agent or nothing. Only the current branch
is written. Knows the store's records and the engine's sessions; knows no file of the store.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from agentmem.agent.archive_file import (
    FORMAT,
    MANIFEST,
    TURNS,
    ArchiveReader,
    layout_json,
    new_archive,
    piece_name,
    pieces,
)
from agentmem.agent.in_force import InForce
from agentmem.agent.opening import CONFIG_NOTE
from agentmem.agent.provenance import QUARANTINE_NOTE, moved_ranges
from agentmem.agent.state_id import settings_of, state_id
from agentmem.engine.model import LanguageModel
from agentmem.engine.session import Progress
from agentmem.errors import AgentExistsError, ArchiveError, FingerprintMismatchError, StoreError
from agentmem.memory.blocks import joined_ranges
from agentmem.store.base import AgentIdentity, Home, NewTurn, Store, Turn
from agentmem.store.keys import MemoryKey


def export(home: Home, agent_id: str, path: Path, *, kv: bool, key: MemoryKey | None = None) -> Path:
    """Write an agent to ``path``, which appears whole or not at all, and encrypted if there is a key.

    Raises ArchiveError.
    """
    store = home.open(agent_id, read_only=True)
    part = path.with_name(path.name + ".part")
    try:
        with new_archive(part, key) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            turns = store.turns()
            archive.writestr(MANIFEST, json.dumps(_manifest(store, turns, kv=kv), indent=1))
            archive.writestr(TURNS, "".join(json.dumps(_row(store, turn)) + "\n" for turn in turns))
            if kv:
                _require_whole(store, turns)
                for start, stop in pieces(store.log.committed):
                    data = save_tensors(_read(store, start, stop))
                    archive.writestr(piece_name(start), data, zipfile.ZIP_STORED)
        part.replace(path)
    except OSError as error:
        raise ArchiveError(f"cannot write {path}: {error}") from error
    finally:
        store.close()
        with suppress(OSError):  # why it could not be written is the better story
            part.unlink(missing_ok=True)
    return path


def restore(
    home: Home,
    path: Path,
    agent_id: str | None,
    model: str | Path | LanguageModel | None,
    device: str,
    on_progress: Progress | None,
    key: MemoryKey | None = None,
) -> str:
    """Make an agent from an export; returns its name. Nothing is left behind when it fails.

    Raises:
        ArchiveError: the file is not a whole export.
        AgentExistsError: the name is taken.
        FingerprintMismatchError: the export does not fit the model.
        KeyNeededError, WrongKeyError: the export is encrypted.
    """
    with ArchiveReader(path, key) as archive:
        name: str = agent_id if agent_id is not None else archive.manifest["agent_id"]
        if home.exists(name):
            raise AgentExistsError(f"agent {name!r} is already there; restore under another agent_id")
        wanted = model if model is not None else archive.manifest["model"]
        if not isinstance(wanted, LanguageModel):
            wanted = LanguageModel.load(wanted, device=device, dtype=archive.dtype)
        _check_fits(archive, wanted, name)
        _build(home, archive, name, wanted, on_progress)
    return name


def _require_whole(store: Store, turns: Sequence[Turn]) -> None:
    """Raises ArchiveError when keys and values are set aside: their zeros are nobody's memory."""
    forgotten = joined_ranges((turn.start, turn.stop) for turn in turns if turn.forgotten)
    if list(store.log.dead) != forgotten:
        raise ArchiveError(
            f"agent {store.identity.agent_id!r}: damaged keys and values are set aside; repair it with its model "
            "first, or export its text alone"
        )


# -- writing ---------------------------------------------------------------------------------------


def _manifest(store: Store, turns: Sequence[Turn], *, kv: bool) -> dict[str, Any]:
    identity: AgentIdentity = store.identity
    return {
        "format": FORMAT,
        "agent_id": identity.agent_id,
        "created_at": identity.created_at,
        "model": identity.model,
        "fingerprint": dict(identity.fingerprint),
        "facts": dict(identity.facts),
        "config": store.noted(CONFIG_NOTE),
        "quarantine": store.noted(QUARANTINE_NOTE),
        "layout": layout_json(identity.layout),
        "turns": len(turns),
        "tokens": store.log.committed,
        "kv": kv,
    }


def _row(store: Store, turn: Turn) -> dict[str, Any]:
    return {
        "state_id": turn.state_id,
        "kind": turn.kind,
        "messages": [dict(message) for message in turn.messages],
        "token_ids": store.token_ids(turn.start, turn.stop),
        "pending": turn.pending,
        "created_at": turn.created_at,
        "source": turn.source,
        "part": turn.part,
        "settings": dict(turn.settings),
        "receipt": dict(turn.receipt),
        "forgotten": turn.forgotten,
        "role": turn.role,
        "trust": turn.trust,
    }


def _read(store: Store, start: int, stop: int) -> dict[str, Tensor]:
    layout = store.log.layout
    tensors = {}
    for layer, (heads, dim) in enumerate(layout.layers):
        keys_raw = torch.empty(heads, stop - start, dim, dtype=layout.dtype)
        values = torch.empty_like(keys_raw)
        store.log.read(layer, start, stop, keys_raw, values)
        tensors[f"layers.{layer}.keys"] = keys_raw
        tensors[f"layers.{layer}.values"] = values
    return tensors


# -- reading ---------------------------------------------------------------------------------------


def _check_fits(archive: ArchiveReader, model: LanguageModel, agent_id: str) -> None:
    """With K/V everything must match; without, what turns text into tokens."""
    stored, current = archive.manifest["fingerprint"], model.fingerprint_as(archive.kv_dtype)
    fields = {*stored, *current} if archive.manifest["kv"] else {"tokenizer", "chat_template"}
    differing = {
        key: (str(stored.get(key)), str(current.get(key)))
        for key in fields
        if stored.get(key) != current.get(key)
    }
    if differing:
        raise FingerprintMismatchError(agent_id, differing)


def _build(
    home: Home,
    archive: ArchiveReader,
    agent_id: str,
    model: LanguageModel,
    on_progress: Progress | None,
) -> None:
    """Make the agent out of sight, and put it in its place when it is whole: a kill leaves none."""
    model.check(archive.config)
    layout = (
        archive.layout(model.layout) if archive.manifest["kv"] else model.layout_for(archive.config.kv_dtype)
    )
    home.clear_workshop(agent_id)
    store = home.workshop(agent_id).create(
        agent_id,
        fingerprint=model.fingerprint_as(layout.kv_dtype),
        layout=layout,
        model=model.name,
        facts=archive.manifest["facts"],
    )
    try:
        store.note(CONFIG_NOTE, archive.config.model_dump())
        store.note(QUARANTINE_NOTE, archive.manifest.get("quarantine") or [])
        if archive.manifest["kv"]:
            _fill_from_file(store, archive, on_progress)
        else:
            _fill_by_reading(store, archive, model, on_progress)
        store.close()
        home.put_in_place(agent_id, agent_id)
    except BaseException:
        store.close()
        with suppress(StoreError):
            home.clear_workshop(agent_id)
        raise


def _fill_from_file(store: Store, archive: ArchiveReader, on_progress: Progress | None) -> None:
    """Put the stored K/V back: the new agent is the old one, bit for bit, state ids included."""
    layout = store.log.layout
    for row in archive.rows:
        store.begin()
        start = store.log.committed
        for low, high in pieces(len(row["token_ids"])):
            keys_raw, values = archive.kv(layout, start + low, start + high)
            store.log.append(keys_raw, values)
        turn = store.commit(_new_turn(row))
        if row["forgotten"]:
            store.forget([turn.id])
        if on_progress is not None:
            on_progress(store.log.committed, archive.tokens)


def _fill_by_reading(
    store: Store,
    archive: ArchiveReader,
    model: LanguageModel,
    on_progress: Progress | None,
) -> None:
    """Forward the token ids again. K/V made while decoding differ in rounding, so states get new ids."""
    kept = [row for row in archive.rows if not row["forgotten"]]
    _check_ids(kept, model)
    total = sum(len(row["token_ids"]) for row in kept)
    parent: str | None = None
    places = _places(archive.rows)
    starts = {start: to for start, _, to in places}
    for row in kept:
        store.begin()
        before = store.log.committed
        hidden = moved_ranges(row["settings"].get("hidden", ()), places)
        with model.turn(store.log, store.digests, archive.config, hidden=hidden) as session:
            if row["token_ids"]:
                session.read(row["token_ids"])
            session.memory.flush()
        name = state_id(
            parent=parent,
            uuid=store.identity.uuid,
            token_ids=row["token_ids"],
            pending=row["pending"],
            settings=settings_of(archive.config, hidden),
            fingerprint=store.identity.fingerprint,
        )
        in_force = InForce.moved(row["settings"], starts.get).to_settings()
        changed = dict(row, state_id=name, settings={**in_force, **settings_of(archive.config, hidden)})
        if len(kept) < len(archive.rows):  # positions have moved
            changed["receipt"] = {**row["receipt"], "blocks": []}
        store.commit(_new_turn(changed))
        parent = name
        if on_progress is not None:
            on_progress(before + len(row["token_ids"]), total)


def _places(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, int]]:
    """(start, stop, new start) of each turn that is kept, for when forgotten turns are left out."""
    places, old, new = [], 0, 0
    for row in rows:
        size = len(row["token_ids"])
        if not row["forgotten"]:
            places.append((old, old + size, new))
            new += size
        old += size
    return places


def _check_ids(rows: Sequence[Mapping[str, Any]], model: LanguageModel) -> None:
    known = len(model.tokenizer)
    wrong = next((t for row in rows for t in row["token_ids"] if not 0 <= t < known), None)
    if wrong is not None:
        raise ArchiveError(f"the export holds token id {wrong}, but there are {known} ids; export it again")


def _new_turn(row: Mapping[str, Any]) -> NewTurn:
    return NewTurn(
        state_id=row["state_id"],
        kind=row["kind"],
        messages=row["messages"],
        token_ids=row["token_ids"],
        pending=row["pending"],
        created_at=row["created_at"],
        source=row["source"],
        part=row["part"],
        settings=row["settings"],
        receipt=row["receipt"],
        role=row.get("role"),
        trust=row.get("trust"),
    )
