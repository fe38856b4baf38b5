"""Exports: one zip file with an agent's turns as text and token ids and, if wanted, keys and values.

Text first: K/V are a cache that can be computed again. An import checks names and sizes before it
unpacks anything, holds no pickle, and either makes the whole agent or nothing. Only the current branch
is written. Knows the store's records and the engine's sessions; knows no file of the store.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from agentmem.agent.opening import CONFIG_NOTE
from agentmem.agent.state_id import state_id
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.engine.session import Progress
from agentmem.errors import AgentExistsError, ArchiveError, FingerprintMismatchError
from agentmem.memory.source import KVLayout
from agentmem.store.base import AgentIdentity, Home, NewTurn, Store, Turn

FORMAT = 1
MANIFEST, TURNS = "manifest.json", "turns.jsonl"
PIECE_TOKENS = 2048
LARGEST_TEXT = 1 << 31
"""An index of more bytes than this is not unpacked."""


def export(home: Home, agent_id: str, path: Path, *, kv: bool) -> Path:
    """Write an agent to ``path``, which appears whole or not at all. Raises ArchiveError."""
    store = home.open(agent_id, read_only=True)
    part = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            turns = store.turns()
            archive.writestr(MANIFEST, json.dumps(_manifest(store, turns, kv), indent=1))
            archive.writestr(TURNS, "".join(json.dumps(_row(store, turn)) + "\n" for turn in turns))
            if kv:
                for start, stop in _pieces(store.log.committed):
                    data = save_tensors(_read(store, start, stop))
                    archive.writestr(_piece_name(start), data, zipfile.ZIP_STORED)
        os.replace(part, path)
    except OSError as error:
        raise ArchiveError(f"cannot write {path}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
        store.close()
    return path


def restore(
    home: Home,
    path: Path,
    agent_id: str | None,
    model: str | Path | LanguageModel | None,
    device: str,
    on_progress: Progress | None,
) -> str:
    """Make an agent from an export; returns its name. Nothing is left behind when it fails.

    Raises:
        ArchiveError: the file is not a whole export.
        AgentExistsError: the name is taken.
        FingerprintMismatchError: the export does not fit the model.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _load_manifest(archive)
            rows = _load_rows(archive)
            name = agent_id if agent_id is not None else manifest["agent_id"]
            if home.exists(name):
                raise AgentExistsError(f"agent {name!r} is already there; restore under another agent_id")
            wanted = model if model is not None else manifest["model"]
            dtype = manifest["layout"]["dtype"]
            if not isinstance(wanted, LanguageModel):
                wanted = LanguageModel.load(wanted, device=device, dtype=dtype)
            _check_fits(manifest, wanted, name)
            _build(home, archive, manifest, rows, name, wanted, on_progress)
    except (zipfile.BadZipFile, json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise ArchiveError(f"{path} is not a whole agentmem export ({error}); export it again") from error
    except OSError as error:
        raise ArchiveError(f"cannot read {path}: {error}") from error
    return name


# -- writing ---------------------------------------------------------------------------------------


def _manifest(store: Store, turns: Sequence[Turn], kv: bool) -> dict[str, Any]:
    identity: AgentIdentity = store.identity
    return {
        "format": FORMAT,
        "agent_id": identity.agent_id,
        "created_at": identity.created_at,
        "model": identity.model,
        "fingerprint": dict(identity.fingerprint),
        "facts": dict(identity.facts),
        "config": store.noted(CONFIG_NOTE),
        "layout": {
            "layers": [list(layer) for layer in identity.layout.layers],
            "dtype": str(identity.layout.dtype).removeprefix("torch."),
        },
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


def _pieces(tokens: int) -> Iterator[tuple[int, int]]:
    for start in range(0, tokens, PIECE_TOKENS):
        yield start, min(start + PIECE_TOKENS, tokens)


def _piece_name(start: int) -> str:
    return f"kv/{start:012d}.safetensors"


# -- reading ---------------------------------------------------------------------------------------


def _load_manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(_member(archive, MANIFEST, 1 << 24))
    if manifest.get("format") != FORMAT:
        raise ArchiveError(f"export format {manifest.get('format')!r} is not {FORMAT}; use a newer agentmem")
    return manifest


def _load_rows(archive: zipfile.ZipFile) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _member(archive, TURNS, LARGEST_TEXT).splitlines()]


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A member's bytes, never more than ``limit``, whatever the file claims."""
    with archive.open(name) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ArchiveError(f"{name} in the export is larger than {limit} bytes")
    return data


def _check_fits(manifest: Mapping[str, Any], model: LanguageModel, agent_id: str) -> None:
    """With K/V everything must match; without, what turns text into tokens."""
    fields = set(manifest["fingerprint"]) if manifest["kv"] else {"tokenizer", "chat_template"}
    stored, current = manifest["fingerprint"], model.fingerprint
    differing = {
        key: (str(stored.get(key)), str(current.get(key)))
        for key in fields
        if stored.get(key) != current.get(key)
    }
    if differing:
        raise FingerprintMismatchError(agent_id, differing)


def _build(
    home: Home,
    archive: zipfile.ZipFile,
    manifest: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    agent_id: str,
    model: LanguageModel,
    on_progress: Progress | None,
) -> None:
    config = MemoryConfig(**manifest["config"])
    model.check(config)
    store = home.create(
        agent_id,
        fingerprint=model.fingerprint,
        layout=model.layout,
        model=model.name,
        facts=manifest["facts"],
    )
    try:
        store.note(CONFIG_NOTE, config.model_dump())
        if manifest["kv"]:
            _fill_from_file(store, archive, rows, on_progress)
        else:
            _fill_by_reading(store, rows, model, config, on_progress)
        store.close()
    except BaseException:
        store.close()
        home.delete(agent_id)
        raise


def _fill_from_file(
    store: Store,
    archive: zipfile.ZipFile,
    rows: Sequence[Mapping[str, Any]],
    on_progress: Progress | None,
) -> None:
    """Put the stored K/V back: the new agent is the old one, bit for bit, state ids included."""
    total = sum(len(row["token_ids"]) for row in rows)
    pieces = _PieceReader(archive, store.log.layout, total)
    for row in rows:
        store.begin()
        start = store.log.committed
        for low, high in _pieces(len(row["token_ids"])):
            keys_raw, values = pieces.tokens(start + low, start + high)
            store.log.append(keys_raw, values)
        turn = store.commit(_new_turn(row, row["state_id"], row["receipt"], row["token_ids"]))
        if row["forgotten"]:
            store.forget([turn.id])
        if on_progress is not None:
            on_progress(store.log.committed, total)


def _fill_by_reading(
    store: Store,
    rows: Sequence[Mapping[str, Any]],
    model: LanguageModel,
    config: MemoryConfig,
    on_progress: Progress | None,
) -> None:
    """Forward the token ids again. K/V made while decoding differ in rounding, so states get new ids."""
    kept = [row for row in rows if not row["forgotten"]]
    total = sum(len(row["token_ids"]) for row in kept)
    parent: str | None = None
    for row in kept:
        store.begin()
        before = store.log.committed
        with model.turn(store.log, store.digests, config) as session:
            if row["token_ids"]:
                session.read(row["token_ids"])
            session.memory.flush()
        name = state_id(
            parent=parent,
            uuid=store.identity.uuid,
            token_ids=row["token_ids"],
            pending=row["pending"],
            settings=row["settings"],
            fingerprint=store.identity.fingerprint,
        )
        receipt = row["receipt"] if len(kept) == len(rows) else {**row["receipt"], "blocks": []}
        store.commit(_new_turn(row, name, receipt, row["token_ids"]))
        parent = name
        if on_progress is not None:
            on_progress(before + len(row["token_ids"]), total)


def _new_turn(
    row: Mapping[str, Any], name: str, receipt: Mapping[str, Any], token_ids: Sequence[int]
) -> NewTurn:
    return NewTurn(
        state_id=name,
        kind=row["kind"],
        messages=row["messages"],
        token_ids=token_ids,
        pending=row["pending"],
        created_at=row["created_at"],
        source=row["source"],
        part=row["part"],
        settings=row["settings"],
        receipt=receipt,
    )


class _PieceReader:
    """Hands out K/V of token ranges from the archive's pieces, one piece in memory at a time."""

    def __init__(self, archive: zipfile.ZipFile, layout: KVLayout, tokens: int) -> None:
        self._archive = archive
        self._layout = layout
        self._tokens = tokens
        self._start = -1
        self._piece: dict[str, Tensor] = {}

    def tokens(self, start: int, stop: int) -> tuple[list[Tensor], list[Tensor]]:
        """Per layer keys and values (Hkv, stop - start, D)."""
        keys_raw: list[list[Tensor]] = [[] for _ in self._layout.layers]
        values: list[list[Tensor]] = [[] for _ in self._layout.layers]
        while start < stop:
            self._turn_to(start - start % PIECE_TOKENS)
            low = start - self._start
            high = min(stop - self._start, PIECE_TOKENS)
            for layer in range(len(self._layout.layers)):
                keys_raw[layer].append(self._piece[f"layers.{layer}.keys"][:, low:high])
                values[layer].append(self._piece[f"layers.{layer}.values"][:, low:high])
            start = self._start + high
        return [torch.cat(part, 1) for part in keys_raw], [torch.cat(part, 1) for part in values]

    def _turn_to(self, start: int) -> None:
        if start == self._start:
            return
        size = min(PIECE_TOKENS, self._tokens - start)
        limit = size * self._layout.bytes_per_token + (1 << 20)
        piece = load_tensors(_member(self._archive, _piece_name(start), limit))
        for layer, (heads, dim) in enumerate(self._layout.layers):
            for kind in ("keys", "values"):
                found = piece[f"layers.{layer}.{kind}"]
                if found.shape != (heads, size, dim) or found.dtype != self._layout.dtype:
                    raise ArchiveError(f"{_piece_name(start)}: layers.{layer}.{kind} has another shape or dtype")
        self._start, self._piece = start, piece
