"""From a model's own rotary module and rotation function to a :class:`RotaryTable`.

Nothing is known of Llama or Gemma here: the table's C, S and perm are read off the model's function by
feeding it ones, zeros and unit vectors. See docs of transformers' ``modeling_rope_utils`` for rope types.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agentmem.errors import UnsupportedModelError
from agentmem.memory.rotation import RotaryTable

Extra = tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]
"""What a rotary module is called with beyond hidden states and positions (Gemma 3: a layer type)."""

RotateFunction = Callable[..., Any]
Stretch = Callable[[Tensor], Tensor]
"""Frequencies (D/2,) fp32 -> (D/2,); see :mod:`agentmem.memory.rope_scaling`."""
_STATEFUL = ("dynamic", "longrope")
# bf16 keeps 8 bits: a rotation computed in another order of rounding stays within this.
_ROUNDING = 2.0**-6


@dataclass(frozen=True)
class RotarySource:
    """Where a layer's rotation comes from: a pristine module, its extra arguments, the rotate function."""

    name: str
    module: nn.Module
    extra: Extra
    function: RotateFunction


def call_rotary(rotary: nn.Module, x: Tensor, positions: Tensor, extra: Extra) -> Any:
    """Ask a rotary module for positions (1, T); ``x`` gives only dtype and device."""
    args, keywords = extra
    return rotary(x, positions, *args, **dict(keywords))


def rotate_function(attention: nn.Module) -> RotateFunction | None:
    """The ``apply_rotary_pos_emb`` an attention module's code uses, or None."""
    forward = inspect.unwrap(type(attention).forward)
    found = getattr(forward, "__globals__", {}).get("apply_rotary_pos_emb")
    return found if callable(found) else None


def rotate_one(function: RotateFunction, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate one tensor (1, H, T, D) with a function made for q and k, or (Gemma 4) for one."""
    second = list(inspect.signature(function).parameters)[1]
    if second == "cos":
        return _tensor(function(x, cos, sin))
    return _tensor(function(x, x[:, :0], cos, sin)[0])  # a partner of zero heads


def pristine(rotary: nn.Module) -> nn.Module:
    """A copy of a rotary module with fp32 frequencies and, where it keeps state, none of its past.

    ``model.to(bfloat16)`` rounds the frequencies, silently and for good; they are computed anew then.
    Raises UnsupportedModelError when that is needed and cannot be done.
    """
    held = copy.deepcopy(rotary)
    rounded = _rounded_dtype(held)
    stateful = any(kind in rope_types(rotary) for kind in _STATEFUL)
    if rounded is None and not stateful:
        fresh = _rebuilt(rotary)
        return fresh if fresh is not None and _was_rounded(held, fresh) else held
    fresh = _rebuilt(rotary)
    if fresh is None:
        reason = f"were rounded to {rounded}" if rounded else "depend on earlier calls"
        raise UnsupportedModelError(
            f"the frequencies of {type(rotary).__name__} {reason} and cannot be computed anew; "
            "load the model with from_pretrained(..., dtype=...) instead of .to(...)"
        )
    if not stateful and not _agree(held, fresh, tolerance=0.01):
        raise UnsupportedModelError(
            f"the frequencies of {type(rotary).__name__} were rounded to {rounded} and are not those of "
            "its config; load the model with from_pretrained(..., dtype=...) instead of .to(...)"
        )
    return fresh


def rope_types(rotary: nn.Module) -> set[str]:
    """The rope types of a rotary module; Gemma 3 has one per layer type."""
    kind = getattr(rotary, "rope_type", "default")
    return set(map(str, kind.values())) if isinstance(kind, dict) else {str(kind)}


def short_limit(rotary: nn.Module) -> int | None:
    """For longrope the length up to which the short factors hold; None for every other type."""
    if "longrope" not in rope_types(rotary):
        return None
    config: Any = rotary.config
    stack: list[dict[str, Any]] = [config.rope_parameters]
    while stack:
        node = stack.pop()
        if "original_max_position_embeddings" in node:
            return int(node["original_max_position_embeddings"])
        stack.extend(value for value in node.values() if isinstance(value, dict))
    raise UnsupportedModelError(
        f"{type(rotary).__name__} uses longrope, but its config names no original_max_position_embeddings"
    )


def rope_facts(rotary: nn.Module, positions: int) -> dict[str, str]:
    """What belongs in a fingerprint: rope type, parameters and, for longrope, the pinned choice."""
    config: Any = getattr(rotary, "config", None)
    parameters = getattr(config, "rope_parameters", None)
    facts = {
        "rope_type": ",".join(sorted(rope_types(rotary))),
        "rope_parameters": json.dumps(parameters, sort_keys=True, default=str),
    }
    limit = short_limit(rotary)
    if limit is not None:
        facts["longrope"] = "short" if positions <= limit else "long"
    return facts


def build_table(
    source: RotarySource,
    positions: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    stretch: Stretch | None = None,
) -> RotaryTable:
    """The table of positions [0, ``positions``) for heads of ``head_dim``; on ``device``.

    ``stretch`` changes the module's frequencies first. Raises ValueError when it cannot, or when the
    function is no rotation of the form x * C + x[perm] * S.
    """
    # A copy, asked once: dynamic and longrope modules change with the largest position they have seen.
    module = copy.deepcopy(source.module)
    if stretch is not None:
        _stretch(module, stretch)
    hidden = torch.empty(1, 1, 1, dtype=dtype, device=device)
    index = torch.arange(positions, device=device).unsqueeze(0)
    cos, sin = (t.to(device) for t in call_rotary(module, hidden, index, source.extra))
    ones = torch.ones(1, 1, positions, head_dim, device=device)  # fp32: keeps what cos holds exactly
    perm, rotated = _partners(source.function, cos, head_dim)
    C = rotate_one(source.function, ones, cos, torch.zeros_like(sin))[0, 0]
    S = rotate_one(source.function, ones, torch.zeros_like(cos), sin)[0, 0] * rotated
    return _in_model_precision(source.function, C, S, perm, cos, sin, dtype)


def _stretch(module: nn.Module, stretch: Stretch) -> None:
    if stateful := sorted(rope_types(module) & set(_STATEFUL)):
        raise ValueError(
            f"rope type {', '.join(stateful)} chooses its own frequencies and cannot be stretched"
        )
    found = [buffer for name, buffer in module.named_buffers() if name.endswith("inv_freq")]
    if not found:
        raise ValueError(f"{type(module).__name__} keeps no frequencies that could be stretched")
    for buffer in found:
        buffer.copy_(stretch(buffer.float()))


def _in_model_precision(
    function: RotateFunction, C: Tensor, S: Tensor, perm: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype
) -> RotaryTable:
    """Multiply in the model's dtype or in fp32, whichever gives the model's own bits."""
    rows = min(C.shape[0], 64)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 2, rows, C.shape[1], generator=generator).to(C.device, dtype)
    wanted = rotate_one(function, sample, cos[:, :rows], sin[:, :rows])
    tables = [RotaryTable(C.to(dtype), S.to(dtype), perm, in_fp32=False)]
    if dtype != torch.float32:
        tables.append(RotaryTable(C.float(), S.float(), perm, in_fp32=True))
    errors = [float((t.rotate(sample, range(rows)) - wanted).abs().max()) for t in tables]
    best = min(range(len(tables)), key=errors.__getitem__)
    limit = 1e-5 if dtype == torch.float32 else _ROUNDING
    if not errors[best] <= limit * float(wanted.abs().max()):
        raise ValueError(f"its rotation is not x * C + x[perm] * S (off by {errors[best]:.2g})")
    return tables[best]


def _partners(function: RotateFunction, cos: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Give perm (D,) and a (D,) 0/1 vector of the rotated dims, from unit vectors as 'positions'."""
    units = torch.eye(head_dim, device=cos.device).view(1, 1, head_dim, head_dim)
    zeros = torch.zeros(1, head_dim, cos.shape[-1], device=cos.device)
    passed = rotate_one(function, units, zeros, zeros)[0, 0].diagonal() != 0
    effect = rotate_one(function, units, zeros, torch.ones_like(zeros))[0, 0] != 0  # (from, to)
    if not (effect.sum(0) == 1).all() or not (effect.sum(1) == 1).all():
        raise ValueError("its rotation does not pair each dim with exactly one other")
    return effect.long().argmax(0), (~passed).float()


def _rounded_dtype(rotary: nn.Module) -> torch.dtype | None:
    """The dtype frequencies were cast to, None while they are fp32 (or fp64)."""
    for buffer in rotary.buffers():
        if buffer.is_floating_point() and buffer.dtype not in (torch.float32, torch.float64):
            return buffer.dtype
    return None


def _rebuilt(rotary: nn.Module) -> nn.Module | None:
    """The same class made again from its config, on the same device; None when its class cannot."""
    try:
        fresh = type(rotary)(config=getattr(rotary, "config", None))
    except (TypeError, AttributeError, KeyError, ValueError):
        return None
    buffer = next(rotary.buffers(), None)
    same = [n for n, _ in rotary.named_buffers()] == [n for n, _ in fresh.named_buffers()]
    return fresh.to(buffer.device) if buffer is not None and same else None


def _was_rounded(held: nn.Module, fresh: nn.Module) -> bool:
    """Whether fp32 frequencies went through a shorter dtype and back."""
    pairs = list(zip(held.buffers(), fresh.buffers(), strict=True))
    if all(torch.equal(a, b) for a, b in pairs):
        return False
    return any(
        all(torch.equal(a, b.to(short).to(a.dtype)) for a, b in pairs)
        for short in (torch.bfloat16, torch.float16)
    )


def _agree(held: nn.Module, fresh: nn.Module, tolerance: float) -> bool:
    pairs = zip(held.buffers(), fresh.buffers(), strict=True)
    return all(a.shape == b.shape and torch.allclose(a.float(), b.float(), tolerance, 1e-6) for a, b in pairs)


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError("its rotation function does not return tensors")
    return value
