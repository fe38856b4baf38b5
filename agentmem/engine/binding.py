"""Binding one model instance: raw q, k and v to a context of ours, and nothing patched globally.

A bound model has an inert rotary module, its own copy of its config, and an attention function that
asks the context of the call. Everything is found by probing, so an architecture either binds exactly or
is refused. Knows neither logs, selections nor tokenizers.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from agentmem.engine.attention import ATTENTION_NAME, CONTEXT_KEYWORD, AttentionContext, BoundCall
from agentmem.engine.inert import InertRotary
from agentmem.engine.probe import PROBE_NAME, LayerFinding, probe, refusal
from agentmem.engine.rotary import Extra, Stretch, build_table, rope_facts, short_limit
from agentmem.engine.surgery import Surgery, whereabouts
from agentmem.errors import ClosedError, ConfigError, InputError, UnsupportedModelError
from agentmem.memory.rope_scaling import SCALINGS
from agentmem.memory.rotation import LayerSpec, RotaryTable

__all__ = ["AttentionContext", "Binding", "bind"]

DEFAULT_POSITIONS = 32_768
"""Rotary tables are this long unless asked otherwise: no working set of the default options is longer."""
_TABLE_STEP = 8_192
"""Stretched tables grow by so many positions: each length of history asks for another one."""
_ATTRIBUTE = "_agentmem_binding"
_one_at_a_time = threading.Lock()


class Binding:
    """A bound model instance. Made by :func:`bind`; may serve many threads, one context per call."""

    def __init__(
        self,
        model: PreTrainedModel,
        surgery: Surgery,
        findings: list[LayerFinding],
        layers: tuple[LayerSpec, ...],
        *,
        trained_length: int,
        max_positions: int,
        facts: Mapping[str, str],
    ) -> None:
        self.model = model
        self.layers = layers
        self.trained_length = trained_length
        self.max_positions = max_positions
        self.rope_facts: Mapping[str, str] = dict(facts)
        self._surgery = surgery
        self._findings = findings
        self._stretched: dict[tuple[str, float], tuple[int, tuple[LayerSpec, ...]]] = {}
        self._index_of = {finding.module: index for index, finding in enumerate(findings)}
        self._keeps = "logits_to_keep" in inspect.signature(type(model).forward).parameters
        self._made_on = self._whereabouts()

    @property
    def full_layers(self) -> tuple[int, ...]:
        """Indices of the layers that see everything and so can recall; never empty."""
        return tuple(layer.index for layer in self.layers if layer.window is None)

    def stretched(self, rope: str, factor: float, positions: int) -> tuple[LayerSpec, ...]:
        """The layers with frequencies stretched by a rule of :data:`SCALINGS`, for so many positions.

        Raises ConfigError when this model's rotation cannot be stretched.
        """
        with _one_at_a_time, torch.inference_mode(False), torch.no_grad():
            held, layers = self._stretched.get((rope, factor), (0, ()))
            if held < positions:
                rule, held = SCALINGS[rope], -(-positions // _TABLE_STEP) * _TABLE_STEP
                try:
                    layers = _build_layers(
                        self.model, self._findings, held, lambda frequencies: rule(frequencies, factor)
                    )
                except UnsupportedModelError as error:
                    raise ConfigError(f"rope={rope!r}: {error}") from error
                self._stretched[rope, factor] = held, layers
            return layers

    @property
    def dtype(self) -> torch.dtype:
        """The model's dtype, which its keys and values have too."""
        return self._made_on[1]

    @property
    def device(self) -> torch.device:
        """Where token ids go in."""
        return self._made_on[0]

    @property
    def bound(self) -> bool:
        """False once unbound."""
        return vars(self.model).get(_ATTRIBUTE) is self

    def forward(self, ids: Tensor, context: AttentionContext, *, logits_to_keep: int = 1) -> Tensor:
        """Forward T new tokens, ids (1, T) int64; ``context`` answers every layer's attention.

        Returns the logits (1, keep, V) of the last ``logits_to_keep`` tokens; 0 computes none. What the
        context is handed, or allocates, carries no gradient and may be kept and written anywhere: an
        inference mode of the caller is left, since tensors born in it cannot be written outside it.

        Raises:
            InputError: ids are not one non-empty sequence.
            ClosedError: the model was unbound, or moved or cast since it was bound.
        """
        if ids.ndim != 2 or ids.shape[0] != 1 or ids.shape[1] == 0:
            raise InputError(f"ids: expected (1, T) with T > 0, got {tuple(ids.shape)}")
        if logits_to_keep < 0:
            raise InputError(f"logits_to_keep: expected 0 or more, got {logits_to_keep}")
        return self._run(ids, BoundCall([context], self._index_of), logits_to_keep)

    def forward_rows(
        self, ids: Tensor, contexts: Sequence[AttentionContext]
    ) -> tuple[Tensor, list[Exception | None]]:
        """Forward one new token for each of B contexts, ids (B, 1) int64, as one pass.

        Returns the logits (B, V), and for each row what its context raised, if it did: the others are as if
        it had not been there, and its own logits mean nothing.

        Raises as :meth:`forward` does.
        """
        if not contexts or ids.shape != (len(contexts), 1):
            raise InputError(
                f"ids: expected ({len(contexts)}, 1) and a context at least, got {tuple(ids.shape)}"
            )
        call = BoundCall(contexts, self._index_of)
        logits = self._run(ids, call, 1)[:, -1]
        return logits, call.errors

    def _run(self, ids: Tensor, call: BoundCall, logits_to_keep: int) -> Tensor:
        """One pass of the model: logits (B, keep, V)."""
        self._check_usable()
        keywords: dict[str, Any] = {CONTEXT_KEYWORD: call}
        if self._keeps:  # as an index, since the number 0 would mean all
            keep = min(logits_to_keep, ids.shape[1])
            keywords["logits_to_keep"] = keep or torch.empty(0, dtype=torch.long, device=ids.device)
        with torch.inference_mode(False), torch.no_grad():
            output = self.model(input_ids=ids, past_key_values=None, use_cache=False, **keywords)
        logits: Tensor = output.logits
        return logits if self._keeps else logits[:, logits.shape[1] - min(logits_to_keep, ids.shape[1]) :]

    def unbind(self) -> None:
        """Put the instance back as it was; its logits are bit-identical to before. Twice is fine."""
        if self.bound:
            delattr(self.model, _ATTRIBUTE)
            self._surgery.undo()

    def _check_usable(self) -> None:
        if not self.bound:
            raise ClosedError("the model was unbound; bind it again")
        now = self._whereabouts()
        if now != self._made_on:
            raise ClosedError(
                f"the model was bound on {self._made_on[0]} in {self._made_on[1]} and is now on {now[0]} in "
                f"{now[1]}; unbind it, then bind it again"
            )

    def _whereabouts(self) -> tuple[torch.device, torch.dtype]:
        return whereabouts(self.model)


def bind(model: PreTrainedModel, *, max_positions: int | None = None) -> Binding:
    """Bind a causal language model of transformers 5, or return the binding it already has.

    Args:
        model: in eval mode, loaded in the dtype it will run in. Only this instance is changed.
        max_positions: length of the rotary tables: the longest working set, new tokens included. None:
            the trained length, at most 32,768 and, for longrope, at most where its short factors end.

    Raises:
        UnsupportedModelError: the architecture cannot be bound exactly; names class, layer and reason.
            The instance is left as it was.
        ConfigError: max_positions exceeds what the model was trained for, or the existing binding's.
    """
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(f"{type(model).__name__} is not a transformers model")
    with _one_at_a_time:
        existing = vars(model).get(_ATTRIBUTE)
        if isinstance(existing, Binding):
            return _reuse(existing, max_positions)
        surgery = Surgery(model)
        try:
            # Tables and stand-ins must be usable in and out of inference mode.
            with torch.inference_mode(False), torch.no_grad():
                binding = _bind(model, surgery, max_positions)
        except BaseException:
            surgery.undo()
            raise
        setattr(model, _ATTRIBUTE, binding)
        return binding


def _reuse(existing: Binding, max_positions: int | None) -> Binding:
    if max_positions is not None and max_positions > existing.max_positions:
        raise ConfigError(
            f"max_positions={max_positions}, but the model is already bound for {existing.max_positions} "
            "positions; unbind it first"
        )
    return existing


def _bind(model: PreTrainedModel, surgery: Surgery, max_positions: int | None) -> Binding:
    """Probe and rebuild; the caller undoes on any error."""
    trained_length, rotaries = _examine(model)
    surgery.own_config()
    surgery.set_attention(PROBE_NAME)
    findings = probe(model, surgery, rotaries, trained_length)
    if all(finding.window is not None for finding in findings):
        window = max(finding.window or 0 for finding in findings)
        raise refusal(
            model,
            f"all of its {len(findings)} layers have a sliding window (of at most {window} tokens), so "
            "there is no full-attention layer that could recall",
        )
    used = {f.source.name: f.source.module for f in findings if f.source is not None}
    positions = _choose_positions(max_positions, trained_length, used)
    layers = _build_layers(model, findings, positions)
    surgery.set_attention(ATTENTION_NAME)
    facts = {"trained_length": str(trained_length)}
    for name, module in sorted(used.items()):
        facts |= {f"{name}.{key}": value for key, value in rope_facts(module, positions).items()}
    return Binding(
        model, surgery, findings, layers, trained_length=trained_length, max_positions=positions, facts=facts
    )


def _examine(model: PreTrainedModel) -> tuple[int, dict[str, nn.Module]]:
    """The trained length and the rotary modules by name; refuses what lacks them."""
    if model.training:
        raise refusal(model, "it is in training mode; call model.eval() first")
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(length, int) or length < 16:
        raise refusal(model, f"its config names no trained length (max_position_embeddings={length!r})")
    found = {n: m for n, m in model.named_modules() if type(m).__name__.endswith("RotaryEmbedding")}
    if any(isinstance(m, InertRotary) for m in model.modules()):
        raise refusal(model, "another binding's stand-ins are still in it; load it anew")
    if not found:
        raise refusal(model, "it has no rotary module, so its keys cannot be moved to other positions")
    return length, found


def _choose_positions(wanted: int | None, trained_length: int, used: Mapping[str, nn.Module]) -> int:
    if wanted is not None:
        if not 1 <= wanted <= trained_length:
            raise ConfigError(
                f"max_positions={wanted} is outside 1..{trained_length}, the length the model was trained for"
            )
        return wanted
    limits = [limit for limit in map(short_limit, used.values()) if limit is not None]
    return min([trained_length, DEFAULT_POSITIONS, *limits])


def _build_layers(
    model: PreTrainedModel, findings: list[LayerFinding], positions: int, stretch: Stretch | None = None
) -> tuple[LayerSpec, ...]:
    """One spec per layer; layers that rotate alike share one table."""
    tables: dict[tuple[str, Extra, Any, int, torch.dtype, torch.device], RotaryTable] = {}
    specs = []
    for index, found in enumerate(findings):
        table = None
        if found.source is not None:
            s = found.source
            key = (s.name, s.extra, s.function, found.head_dim, found.dtype, found.device)
            if key not in tables:
                try:
                    tables[key] = build_table(
                        s, positions, found.head_dim, found.dtype, found.device, stretch
                    )
                except ValueError as error:
                    raise refusal(model, f"layer {index}: {error}") from error
            table = tables[key]
        specs.append(
            LayerSpec(index, found.num_q_heads, found.num_kv_heads, found.head_dim, found.window, table)
        )
    return tuple(specs)
