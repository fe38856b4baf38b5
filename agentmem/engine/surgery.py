"""Reversible changes to one model instance: every change is written down and can be undone.

A model's attention implementation is written in its config *object*, which ``from_config`` shares
between instances; so the instance first gets a deep copy of its own.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from agentmem.errors import UnsupportedModelError


class Surgery:
    """What was changed in ``model``, newest last. Knows nothing of why."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._undo: list[tuple[nn.Module, str, Any]] = []

    def replace_module(self, name: str, new: nn.Module) -> None:
        """Put ``new`` where the submodule of that dotted name is."""
        parent_name, _, child = name.rpartition(".")
        self._set(self._model.get_submodule(parent_name), child, new)

    def own_config(self) -> None:
        """Give the instance its own copy of its config, on every submodule that holds the old one."""
        memo: dict[int, Any] = {}
        copy.deepcopy(self._model.config, memo)
        for module in self._model.modules():
            held = [(n, v) for n, v in vars(module).items() if isinstance(v, PreTrainedConfig)]
            for name, config in held:
                if id(config) in memo:
                    self._set(module, name, memo[id(config)])

    def set_attention(self, name: str) -> None:
        """Choose the attention implementation of the text model; only after :meth:`own_config`.

        Raises UnsupportedModelError when the class does not go through transformers' interface.
        """
        config = self._model.config
        text = config.get_text_config()
        keys = [k for k in config.sub_configs if getattr(config, k, None) is text]
        if type(self._model)._can_set_attn_implementation():  # noqa: SLF001 no public way to ask
            self._model.set_attn_implementation({keys[0]: name} if keys else name)
        if text._attn_implementation != name:  # noqa: SLF001 set_attn_implementation only warns
            raise UnsupportedModelError(
                f"{type(self._model).__name__} cannot be bound: it does not call attention through "
                "transformers' AttentionInterface"
            )

    def undo(self) -> None:
        """Put everything back, newest change first. Modules go to where the model is now."""
        device, _ = whereabouts(self._model)
        while self._undo:
            module, name, old = self._undo.pop()
            setattr(module, name, old.to(device) if isinstance(old, nn.Module) else old)

    def _set(self, module: nn.Module, name: str, new: Any) -> None:
        self._undo.append((module, name, getattr(module, name)))
        setattr(module, name, new)


def whereabouts(model: PreTrainedModel) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the token embeddings: where ids go in, and what the model computes in."""
    weight: Any = model.get_input_embeddings().weight
    return weight.device, weight.dtype
