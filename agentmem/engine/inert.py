"""Two stand-ins for a model's rotary module: one that records its calls, one that does not rotate.

The original is never a child of a stand-in: ``model.to(bfloat16)`` would reach its frequencies and
round them (up to 4.7 rad wrong at position 4096), and a state dict or a second bind would find it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agentmem.engine.rotary import Extra, call_rotary, pristine
from agentmem.errors import UnsupportedModelError


@dataclass(frozen=True)
class RotaryCall:
    """One recorded call: a pristine module, its extra arguments, the cos and sin (1, T, W) it returned."""

    name: str
    module: nn.Module
    extra: Extra
    cos: Tensor
    sin: Tensor


class RecordingRotary(nn.Module):
    """Answers with a pristine original's cos and sin and writes each call down."""

    def __init__(self, name: str, original: nn.Module, calls: list[RotaryCall]) -> None:
        super().__init__()
        self._name = name
        self._original = (original,)  # in a tuple: not a child
        self._pristine: list[nn.Module] = []  # made when called: an image tower's may never be
        self._calls = calls

    def forward(self, x: Tensor, *args: Any, **keywords: Any) -> tuple[Tensor, Tensor]:
        """The original's answer. Raises UnsupportedModelError unless it is (cos, sin), each (1, T, W)."""
        positions, extra = _split(args, keywords)
        if not self._pristine:
            self._pristine.append(pristine(self._original[0]))
        answer = call_rotary(self._pristine[0], x, positions, extra)
        if not _is_cos_sin(answer, positions):
            raise UnsupportedModelError(
                f"rotary module {self._name} ({type(self._original[0]).__name__}) does not return "
                "(cos, sin) by position; complex and multi-axis rotations are not supported"
            )
        cos, sin = answer
        self._calls.append(RotaryCall(self._name, self._pristine[0], extra, cos, sin))
        return cos, sin


class InertRotary(nn.Module):
    """Rotates by nothing: cos = 1 and sin = 0, in the width and dtype of the original's answers."""

    def __init__(self, answers: Mapping[Extra, tuple[int, torch.dtype]]) -> None:
        super().__init__()
        self._answers = dict(answers)

    def forward(self, x: Tensor, *args: Any, **keywords: Any) -> tuple[Tensor, Tensor]:
        """Give cos and sin (1, T, W) that leave every query and key as it is."""
        positions, extra = _split(args, keywords)
        width, dtype = self._answers[extra]
        one = torch.ones(1, dtype=dtype, device=x.device)
        shape = (*positions.shape, width)
        return one.expand(shape), torch.zeros_like(one).expand(shape)


def _split(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[Tensor, Extra]:
    """The positions, and everything else, of a rotary module's call."""
    rest = {name: value for name, value in keywords.items() if name != "position_ids"}
    if "position_ids" in keywords:
        positions = keywords["position_ids"]
    elif args:
        positions, args = args[0], args[1:]
    else:
        positions = None
    if not isinstance(positions, Tensor) or positions.ndim != 2:
        raise UnsupportedModelError("the model's rotary module is not called with positions (B, T)")
    return positions, (args, tuple(sorted(rest.items())))


def _is_cos_sin(answer: Any, positions: Tensor) -> bool:
    if not isinstance(answer, tuple) or len(answer) != 2:
        return False
    cos, sin = answer
    fits = isinstance(cos, Tensor) and isinstance(sin, Tensor) and cos.is_floating_point()
    return fits and cos.shape == sin.shape and cos.shape[:-1] == positions.shape
