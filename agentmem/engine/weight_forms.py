"""How a loaded model's weights are held: packed for the CPU, or rounded to int8.

The form is part of a model's name: ``qwen2.5-coder-0.5b:int8``. It is so everywhere a model is named, and an
agent finds again the form it was made with. Packed weights give the ordinary ones' bits, so they need no name;
int8 is another model to a memory, and says so in the fingerprint. Knows no agent.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from agentmem.engine.int8 import round_linears
from agentmem.engine.packed import pack_linears

Form = Literal["packed", "int8"]
INT8_SUFFIX = ":int8"
_ROUNDING = "int8-rows-1"
"""How weights are rounded, in a fingerprint; another rounding needs another number."""


def split_form(name: str) -> tuple[str, Form]:
    """A model's name without its form, and the form."""
    if name.endswith(INT8_SUFFIX):
        return name.removesuffix(INT8_SUFFIX), "int8"
    return name, "packed"


def hold_weights(model: nn.Module, form: Form) -> None:
    """Bring a model's linear layers into a form, in place.

    Raises UnsupportedModelError when they cannot be int8; where they cannot be packed they stay as they are.
    """
    if form == "int8":
        round_linears(model)
    else:
        pack_linears(model)


def digest_of(weights_digest: str, form: Form) -> str:
    """What a fingerprint says of weights in a form; ``weights_digest`` names them as they are stored."""
    return f"{_ROUNDING}({weights_digest})" if form == "int8" else weights_digest
