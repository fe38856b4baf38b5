"""A language model ready to serve agents: weights, tokenizer, template, binding, fingerprint.

One object per model and process; any number of agents share it, each turn with its own context.
Knows no agent's files: a log and digests are handed in for each turn.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agentmem.config import MemoryConfig
from agentmem.engine.binding import Binding, bind
from agentmem.engine.device_cache import DeviceCache
from agentmem.engine.fingerprint import fingerprint, state_dict_digest, stored_as
from agentmem.engine.key_channels import MeasuredKeys
from agentmem.engine.lean import make_lean
from agentmem.engine.loading import load, resolve
from agentmem.engine.progress import SILENT
from agentmem.engine.rich_progress import RichProgress
from agentmem.engine.session import Session
from agentmem.engine.steps import BatchRule, Steps
from agentmem.engine.template import ChatTemplate
from agentmem.engine.weight_forms import digest_of, hold_weights
from agentmem.errors import ConfigError
from agentmem.memory.buffers import Workspace, WorkspaceSize
from agentmem.memory.int8_log import readable
from agentmem.memory.placements import POSITION_RULES
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import make_selector
from agentmem.memory.slab import Share
from agentmem.memory.source import DigestLog, KVLayout, TokenLog
from agentmem.memory.witness import Witness
from agentmem.memory.working_memory import WorkingMemory

Tokenizer = PreTrainedTokenizerBase

_loaded: dict[tuple[str, str, str], LanguageModel] = {}
"""By name, device and dtype, as asked for and as they turned out to be: "auto" is what it became."""
_loading = threading.Lock()


class LanguageModel:
    """A bound model. Made by :meth:`load` (by name, shared) or :meth:`wrap` (from objects).

    Raises:
        UnsupportedModelError: the architecture cannot be bound exactly.
        TemplateError: its chat template cannot be used.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str, weights_digest: str
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer, eos_ids=_eos_ids(model))
        self.binding: Binding = bind(model)
        self.device = model.device
        self.layout = KVLayout(
            tuple((spec.num_kv_heads, spec.head_dim) for spec in self.binding.layers), model.dtype
        )
        self.device_cache = DeviceCache(self.binding.layers, model.dtype, self.device)
        """Blocks of all its agents that stay on the device; ``set_budget`` says how many bytes they may take."""
        self.fingerprint: Mapping[str, str] = fingerprint(
            model,
            tokenizer,
            weights_digest=weights_digest,
            template_digest=self.template.digest,
            rope_facts=self.binding.rope_facts,
            dtype=model.dtype,
        )
        self._keys = MeasuredKeys(self.binding, tokenizer)
        self._steps = Steps(self.binding)
        self._workspaces: list[Workspace] = []
        self._lock = threading.Lock()

    @classmethod
    def load(cls, name: str | Path, *, device: str = "auto", dtype: str = "auto") -> LanguageModel:
        """The model of that name; loaded once per process, device and dtype, then shared.

        A first use downloads and converts it, which shows on a terminal and is silent elsewhere.

        Raises:
            ModelNotFoundError, DownloadError, HashMismatchError, UnsupportedModelError.
        """
        resolved = resolve(name)
        asked = (resolved.name, device, dtype)
        with _loading:
            if asked not in _loaded:
                progress = RichProgress() if sys.stderr.isatty() else SILENT
                found = load(resolved, device=device, dtype=dtype, progress=progress)
                kind = str(found.model.dtype).removeprefix("torch.")
                exact = (resolved.name, str(found.model.device), kind)
                if exact not in _loaded:
                    digest = digest_of(found.weights_digest, resolved.form)
                    made = cls(found.model, found.tokenizer, name=resolved.name, weights_digest=digest)
                    make_lean(found.model, partial(hold_weights, form=resolved.form))
                    hold_weights(found.model, resolved.form)
                    _loaded[exact] = made
                _loaded[asked] = _loaded[resolved.name, device, kind] = _loaded[exact]
            return _loaded[asked]

    @classmethod
    def wrap(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str = "custom"
    ) -> LanguageModel:
        """A model that is already in memory, such as a fine-tuned or a test one."""
        return cls(model.eval(), tokenizer, name=name, weights_digest=state_dict_digest(model))

    @staticmethod
    def unload() -> None:
        """Let go of every shared model; open agents keep theirs."""
        with _loading:
            _loaded.clear()

    def check(self, config: MemoryConfig) -> None:
        """Raise ConfigError when a configuration does not fit the positions this model knows."""
        known = self.binding.max_positions
        if config.rope != "model":
            known = int(self.binding.trained_length * config.rope_factor)
        longest = self._positions(config)
        if longest > known:
            raise ConfigError(
                f"{self.name} can place {known} tokens (it was trained on {self.binding.trained_length}), but "
                f"the working set may take {longest}: dense_tokens, or the budget with chunk_tokens and "
                "reselect_every if that is more. Make sink_tokens, window_tokens, recall_tokens or dense_tokens "
                "smaller."
            )
        self._layers(config)

    def layout_for(self, kv_dtype: str) -> KVLayout:
        """What a new agent's K/V are kept in: this model's layout, or the same in int8, for which keys are measured once.

        Raises ClosedError: the model was unbound.
        """
        return self.layout if kv_dtype == "model" else self.layout.in_int8(self._keys.channels())

    def fingerprint_as(self, kv_dtype: str) -> Mapping[str, str]:
        """The fingerprint of agents of this model whose K/V are kept so."""
        return self.fingerprint if kv_dtype == "model" else stored_as(self.fingerprint, kv_dtype)

    def batch_steps(self, rule: BatchRule) -> None:
        """Say when agents on this model that decode at the same time share passes; for all of them, from now on.

        Args:
            rule: "exact", the default: where each row is known to get the bits it gets alone (bfloat16 or int8
                weights on the CPU), so nobody can tell. "always": elsewhere too; a reply then equals the one it
                would be alone up to the dtype's rounding, so a greedy choice may differ and a turn may not be
                made again bit for bit. What is stored is as durable. "never": each step alone.

        Raises:
            ConfigError: there is no such rule.
        """
        self._steps.set_rule(rule)

    @contextmanager
    def turn(
        self,
        log: TokenLog,
        digests: DigestLog,
        config: MemoryConfig,
        witness: Witness | None = None,
        hidden: Sequence[tuple[int, int]] = (),
        share: Share | None = None,
    ) -> Iterator[Session]:
        """A session for one turn of one agent; its buffers are handed on to the next turn.

        ``witness``, ``hidden`` and ``share`` are as in :class:`~agentmem.memory.working_memory.WorkingMemory`.
        """
        layers = self._layers(config)
        workspace = self._lease(_workspace_size(config), layers)
        try:
            selector = make_selector(config.selector)
            log = readable(log, workspace.rows)
            memory = WorkingMemory(layers, log, digests, config, selector, workspace, witness, hidden, share)
            session = Session(self.binding, memory, config.chunk_tokens, self.device, self._steps)
            try:
                yield session
            finally:
                self._steps.leave(session)
        finally:
            workspace.rooms.clear()  # what a selection needs grows with the history: kept for a turn, not for ever
            with self._lock:
                self._workspaces.append(workspace)

    def _positions(self, config: MemoryConfig) -> int:
        """The most positions a configuration may use."""
        size = _workspace_size(config)
        return max(size.positions(spec) for spec in self.binding.layers)

    def _layers(self, config: MemoryConfig) -> tuple[LayerSpec, ...]:
        """The model's layers, with its own rotation or a stretched one."""
        if config.rope == "model":
            return self.binding.layers
        return self.binding.stretched(config.rope, config.rope_factor, self._positions(config))

    def _lease(self, size: WorkspaceSize, layers: tuple[LayerSpec, ...]) -> Workspace:
        """A free workspace of that size and rotation, else a new one; others are let go, not hoarded."""
        with self._lock:
            free = [kept for kept in self._workspaces if kept.size == size and kept.specs is layers]
            self._workspaces = free[1:]
        if free:
            return free[0]
        return Workspace(layers, size, self.layout.dtype, self.device)


def _eos_ids(model: PreTrainedModel) -> list[int]:
    """Ids that end a reply according to the model's generation config: one, several or none."""
    config = model.generation_config
    eos = None if config is None else config.eos_token_id
    if eos is None:
        return []
    return [int(eos)] if isinstance(eos, int) else [int(token) for token in eos]


def _workspace_size(config: MemoryConfig) -> WorkspaceSize:
    return POSITION_RULES[config.positions].size(config, make_selector(config.selector))
