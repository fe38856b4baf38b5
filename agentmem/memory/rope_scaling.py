"""Stretching a model's rotation over more positions than it was trained on, without training.

Both ways change the rotary frequencies only. They concern the dense reference modes: a working set that
stays within the trained length needs neither. Because keys are stored raw, before any rotation, one and
the same log can be read with the model's own rotation, with interpolated positions or with NTK-aware
frequencies, from one turn to the next; nothing stored is tied to the choice. What a turn *adds* is not
independent of it: above the first layer, keys and values depend on what the layers below attended to.
Knows frequencies as numbers; no model and no tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, arange


def interpolated(frequencies: Tensor, factor: float) -> Tensor:
    """Position Interpolation (Chen et al., arXiv 2306.15595): position p becomes p / factor.

    Frequencies (D/2,) -> (D/2,): dividing every frequency is the same as dividing every position. It
    changes how raw keys are read, and it can do so for keys already stored only because they are raw.
    """
    return frequencies / factor


def ntk_aware(frequencies: Tensor, factor: float) -> Tensor:
    """NTK-aware scaling (bloc97, 2023; named in arXiv 2309.00071 §3.1): the base grows, high frequencies stay.

    base' = base * factor ** (D / (D - 2)), that is theta_i' = theta_i * factor ** (-2 i / (D - 2)) for
    i = 0 .. D/2 - 1: the fastest dim turns as before, the slowest as if interpolated. It changes how raw
    keys are read, and it can do so for keys already stored only because they are raw.
    """
    half = frequencies.shape[-1]
    if half < 2:
        return interpolated(frequencies, factor)
    exponents = -arange(half, dtype=frequencies.dtype, device=frequencies.device) / (half - 1)
    return frequencies * factor**exponents


SCALINGS: Mapping[str, Callable[[Tensor, float], Tensor]] = {"linear": interpolated, "ntk": ntk_aware}
"""``MemoryConfig.rope`` -> how frequencies are stretched; "model" stretches nothing."""
