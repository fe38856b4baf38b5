"""Learning what a model does by running it: two short passes whose attention returns zeros.

The *true* pass uses the real rotary modules at spread-out positions, the *raw* pass inert ones at
positions 0..7. As attention returns zeros, hidden states do not depend on it, so the two must differ
exactly by the rotation; whatever else differs cannot be bound. No architecture is known by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from agentmem.engine.attention import CONTEXT_KEYWORD, foreign_keywords
from agentmem.engine.inert import InertRotary, RecordingRotary, RotaryCall
from agentmem.engine.mask_rule import MaskFunction, mask_token, read_rule, read_window
from agentmem.engine.rotary import RotarySource, rotate_function, rotate_one
from agentmem.engine.surgery import Surgery, whereabouts
from agentmem.errors import UnsupportedModelError

PROBE_NAME = "agentmem_probe"
_TOKENS = 8


@dataclass(frozen=True)
class Seen:
    """What one layer's attention was handed in one pass."""

    module: nn.Module
    q: Tensor
    k: Tensor
    v: Tensor
    mask: object
    foreign: tuple[str, ...]


@dataclass(frozen=True)
class LayerFinding:
    """What the probe found out about one layer, in the order of execution."""

    module: nn.Module
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    window: int | None
    source: RotarySource | None


class _Notes:
    """Collects one pass. A plain object: it travels as a keyword through the model."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []


def _note_and_return_zeros(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **keywords: Any,
) -> tuple[Tensor, None]:
    notes = keywords.get(CONTEXT_KEYWORD)
    if not isinstance(notes, _Notes):
        raise UnsupportedModelError("keyword arguments of the model do not reach its attention")
    foreign = tuple(foreign_keywords(dropout, keywords))
    notes.seen.append(Seen(module, query, key, value, attention_mask, foreign))
    B, Hq, T, _ = query.shape
    return value.new_zeros(B, T, Hq, value.shape[-1]), None


AttentionInterface.register(PROBE_NAME, _note_and_return_zeros)
AttentionMaskInterface.register(PROBE_NAME, mask_token)


def probe(
    model: PreTrainedModel, surgery: Surgery, rotaries: dict[str, nn.Module], trained_length: int
) -> list[LayerFinding]:
    """Run both passes and explain every layer. Leaves the called rotary modules inert in ``model``.

    ``rotaries`` are its rotary modules by dotted name; ``surgery`` already chose PROBE_NAME.
    Raises UnsupportedModelError naming class, layer and reason.
    """
    calls: list[RotaryCall] = []
    for name, rotary in rotaries.items():
        surgery.replace_module(name, RecordingRotary(name, rotary, calls))
    true = _run(model, _spread(trained_length))
    for name, rotary in rotaries.items():
        answers = {c.extra: (c.cos.shape[-1], c.cos.dtype) for c in calls if c.name == name}
        surgery.replace_module(name, InertRotary(answers) if answers else rotary)
    distinct = list({(call.name, call.extra): call for call in calls}.values())
    raw = _run(model, list(range(_TOKENS)))
    _check_layers(model, true, raw)
    names = {module: name for name, module in model.named_modules()}
    window_of = functools.cache(read_window)  # layers share a few rules, and asking takes 0.1 s
    findings = []
    for index, (t, r) in enumerate(zip(true, raw, strict=True)):
        try:
            findings.append(_explain(t, r, distinct, window_of))
        except ValueError as error:
            raise refusal(model, f"layer {index} ({names[r.module]}): {error}") from error
    return findings


def refusal(model: nn.Module, reason: str) -> UnsupportedModelError:
    """The error for a model that cannot be bound, naming its class."""
    return UnsupportedModelError(f"{type(model).__name__} cannot be bound: {reason}")


def _spread(trained_length: int) -> list[int]:
    """Eight ascending positions from the first to the last trained one."""
    last = trained_length - 1
    chosen = sorted({0, 1, 5, 17, last // 3, last // 2, last - 1, last})
    if len(chosen) == _TOKENS and chosen[-1] == last:
        return chosen
    return [round(i * last / (_TOKENS - 1)) for i in range(_TOKENS)]


def _run(model: PreTrainedModel, positions: list[int]) -> list[Seen]:
    """One pass over eight different tokens; what each layer's attention saw."""
    device, _ = whereabouts(model)
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.linspace(1, vocabulary - 2, _TOKENS).long().unsqueeze(0)
    notes = _Notes()
    keywords: dict[str, Any] = {CONTEXT_KEYWORD: notes, "use_cache": False, "logits_to_keep": 1}
    try:
        model(
            input_ids=ids.to(device),
            position_ids=torch.tensor([positions], device=device),
            **keywords,
        )
    except UnsupportedModelError as error:
        raise refusal(model, str(error)) from error
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, IndexError) as error:
        raise refusal(model, f"it cannot be probed ({type(error).__name__}: {error})") from error
    return notes.seen


def _check_layers(model: PreTrainedModel, true: list[Seen], raw: list[Seen]) -> None:
    """Every layer must reach the attention function exactly once, in the same order in both passes."""
    count = int(model.config.get_text_config().num_hidden_layers)
    modules = [seen.module for seen in raw]
    if [seen.module for seen in true] != modules:
        raise refusal(model, "its layers run in another order when called again")
    if len(set(modules)) != len(modules):
        raise refusal(model, "a layer calls attention more than once in a pass")
    if len(modules) != count:
        reached = {getattr(module, "layer_idx", None) for module in modules}
        missing = [index for index in range(count) if index not in reached]
        raise refusal(
            model,
            f"only {len(modules)} of {count} layers call attention (layers {missing} do not); "
            "the others keep state outside keys and values",
        )


def _explain(
    true: Seen, raw: Seen, calls: list[RotaryCall], window_of: Callable[[MaskFunction], int | None]
) -> LayerFinding:
    """One layer's facts. Raises ValueError with the reason when it cannot be bound exactly."""
    _check_tensors(raw)
    tolerance = _noise(true.v, raw.v)
    source: RotarySource | None = None
    if not (_same(true.q, raw.q, tolerance) and _same(true.k, raw.k, tolerance)):
        source = _find_rotation(true, raw, calls, tolerance)
    return LayerFinding(
        module=raw.module,
        num_q_heads=raw.q.shape[1],
        num_kv_heads=raw.k.shape[1],
        head_dim=raw.k.shape[-1],
        dtype=raw.k.dtype,
        device=raw.k.device,
        window=window_of(read_rule(raw.mask)),
        source=source,
    )


def _check_tensors(seen: Seen) -> None:
    q, k, v = seen.q, seen.k, seen.v
    if seen.foreign:
        raise ValueError(f"its attention is handed {', '.join(seen.foreign)}, which agentmem does not know")
    if k.shape != v.shape:
        raise ValueError(f"keys {tuple(k.shape)} and values {tuple(v.shape)} differ in shape")
    if q.shape[2] != _TOKENS or k.shape[2] != _TOKENS:
        raise ValueError(
            f"{q.shape[2]} queries and {k.shape[2]} keys for {_TOKENS} tokens; layers that share or drop "
            "tokens are not supported"
        )
    if q.shape[1] % k.shape[1] or q.shape[-1] != k.shape[-1]:
        raise ValueError(f"queries {tuple(q.shape)} do not fit keys {tuple(k.shape)}")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"queries, keys and values differ in dtype ({q.dtype}, {k.dtype}, {v.dtype})")


def _noise(true_v: Tensor, raw_v: Tensor) -> float:
    """What q and k may be off by: 0 when the two passes gave the same values, as on the CPU.

    Kernels with atomics are not exact; their error shows in the values, which must not depend on
    positions. Raises ValueError when they do: no rotation of q and k explains that.
    """
    noise = float((true_v - raw_v).abs().max() / raw_v.abs().max().clamp_min(1e-30))
    if not noise <= min(64 * torch.finfo(raw_v.dtype).eps, 0.02):
        raise ValueError("its values depend on positions")
    return 4 * noise


def _same(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape:
        return False
    return torch.equal(a, b) or float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def _find_rotation(true: Seen, raw: Seen, calls: list[RotaryCall], tolerance: float) -> RotarySource:
    """The rotary call whose cos and sin turn this layer's raw q and k into the true ones."""
    function = rotate_function(raw.module)
    if function is None:
        raise ValueError("its queries and keys depend on positions, but not by an apply_rotary_pos_emb")
    half = ""
    for call in calls:
        cos, sin = call.cos.to(raw.k.device), call.sin.to(raw.k.device)
        try:
            q, k = (rotate_one(function, x, cos, sin) for x in (raw.q, raw.k))
        except (RuntimeError, TypeError, IndexError):
            continue  # made for another head size
        q_fits, k_fits = _same(true.q, q, tolerance), _same(true.k, k, tolerance)
        if q_fits and k_fits:
            return RotarySource(call.name, call.module, call.extra, function)
        if q_fits or k_fits:
            half = "queries" if k_fits else "keys"
    if half:
        raise ValueError(f"positions change its {half} in more ways than by rotation")
    raise ValueError(
        "its queries and keys are not the raw ones rotated: they are changed after the rotation (such as by "
        "a norm), rotated in part of their own making (MLA), or in an unknown way"
    )
