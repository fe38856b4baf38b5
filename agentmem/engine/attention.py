"""The attention functions registered with transformers, and what a call of the model carries to them.

A bound model's layers hand raw (not yet rotated) q, k and v to :func:`attend_through_context`, which
passes them to the context of the call. The context travels as a keyword of the model's forward pass,
so nothing here is shared between calls, threads or models. Knows neither logs nor working sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from agentmem.errors import InputError, UnsupportedModelError

ATTENTION_NAME = "agentmem"
"""The attention implementation of a bound model. No mask function has this name: masks are skipped."""
CONTEXT_KEYWORD = "mem_ctx"
"""How the context of a call is named on its way through the model."""

# What accepted models pass without an effect on the result: the window is known from the mask probe.
_HARMLESS = frozenset({"sliding_window", "position_ids", "use_cache", "output_router_logits"})
_USED = frozenset({"softcap", "s_aux", CONTEXT_KEYWORD})


class AttentionContext(Protocol):
    """Answers the attention of one forward pass, layer after layer."""

    def attend(
        self,
        layer: int,
        q_raw: Tensor,
        k_raw: Tensor,
        v: Tensor,
        *,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """Attend for T new tokens: q_raw (1, Hq, T, D), k_raw and v (1, Hkv, T, D) -> (1, Hq, T, D).

        ``layer`` counts in log order. Keys and queries carry no position yet. ``scaling`` multiplies
        the rotated q.k; ``softcap`` and ``sinks`` (Hq,) are None unless the model has them.
        """
        ...


class BoundCall:
    """One forward pass: the context of each of its rows, and the log index of every attention module.

    What a context raises ends the pass when it is the only one; among several it ends its own row alone, whose
    error is kept and whose attention is zero from there on.
    A plain object on purpose: accelerate copies dicts among keywords and calls anything's ``.to``.
    """

    __slots__ = ("contexts", "errors", "index_of")

    def __init__(self, contexts: Sequence[AttentionContext], index_of: Mapping[nn.Module, int]) -> None:
        self.contexts = contexts
        self.index_of = index_of
        self.errors: list[Exception | None] = [None] * len(contexts)

    def attend(self, module: nn.Module, q_raw: Tensor, k_raw: Tensor, v: Tensor, **how: Any) -> Tensor:
        """Attend for B rows, each with its own context; shapes and ``how`` as in :class:`AttentionContext`."""
        layer = self.index_of[module]
        if len(self.contexts) == 1:
            return self.contexts[0].attend(layer, q_raw, k_raw, v, **how)
        out = torch.zeros_like(q_raw)
        for number, context in enumerate(self.contexts):
            row = slice(number, number + 1)
            if self.errors[number] is None:
                try:
                    out[row] = context.attend(layer, q_raw[row], k_raw[row], v[row], **how)
                except Exception as error:  # noqa: BLE001 it is raised again, where the row was asked for
                    self.errors[number] = error
        return out


def foreign_keywords(dropout: float, keywords: Mapping[str, Any]) -> list[str]:
    """Keywords of an attention call that would change the result in a way we do not know."""
    known = _HARMLESS | _USED
    foreign = sorted(name for name, value in keywords.items() if value is not None and name not in known)
    return [*foreign, "dropout"] if dropout else foreign


def attend_through_context(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """What a bound model calls instead of its own attention. Returns (B, T, Hq, D) and no weights.

    Raises:
        InputError: called without a context, for another number of sequences than it has, or with a mask.
        UnsupportedModelError: a keyword arrives that would change the result in an unknown way.
    """
    call = keywords.get(CONTEXT_KEYWORD)
    if not isinstance(call, BoundCall):
        raise InputError(
            "this model is bound to agentmem and was called without a memory; "
            "call Binding.forward, or Binding.unbind() to use the model alone"
        )
    if query.shape[0] != len(call.contexts):
        raise InputError(
            f"a bound model reads one sequence for each context, got a batch of {query.shape[0]} for "
            f"{len(call.contexts)}"
        )
    if attention_mask is not None:
        raise InputError("a bound model takes no attention mask: a memory has no padding")
    if foreign := foreign_keywords(dropout, keywords):
        raise UnsupportedModelError(
            f"{type(module).__name__} was handed {', '.join(foreign)}, which agentmem does not know; "
            "leave it out (and call model.eval())"
        )
    out = call.attend(
        module,
        query,
        key,
        value,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=keywords.get("softcap"),
        sinks=keywords.get("s_aux"),
    )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION_NAME, attend_through_context)
