"""The rule of a layer's mask is read by asking it; what arrives at a bound model's attention is checked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import masking_utils

from agentmem.engine.attention import BoundCall, attend_through_context
from agentmem.engine.mask_rule import mask_token, read_rule, read_window
from agentmem.errors import InputError, UnsupportedModelError


def _token(rule: Any) -> Any:
    return mask_token(q_length=8, kv_length=8, mask_function=rule, dtype=torch.float32)


@pytest.mark.parametrize("window", [1, 12, 4096, 131_072])
def test_a_window_counts_the_query_itself(window: int) -> None:
    """transformers' sliding window of w lets a token see itself and the w - 1 before it."""
    assert read_window(masking_utils.sliding_window_causal_mask_function(window)) == window


def test_causal_means_no_window() -> None:
    """A plain causal mask is full attention."""
    assert read_window(masking_utils.causal_mask_function) is None


def test_the_rule_survives_slicing_and_moving() -> None:
    """Some models slice the mask they get, and accelerate moves it: the rule stays readable."""
    token = _token(masking_utils.sliding_window_causal_mask_function(5))

    assert read_window(read_rule(token[:, :, -3:, :4].to("cpu", torch.float64))) == 5


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (masking_utils.bidirectional_mask_function, "later ones"),
        (
            masking_utils.chunked_causal_mask_function(8192, torch.zeros(1, dtype=torch.long)),
            "absolute positions",
        ),
        (masking_utils.blockwise_overlay(torch.zeros(1, 8, dtype=torch.long)), "far positions"),
        (lambda _b, _h, q, kv: (kv <= q) & (kv % 2 == 0), "neither causal"),
        (lambda _b, _h, q, kv: kv > q + len("nothing") + kv, "neither causal"),
    ],
)
def test_other_rules_are_refused(rule: Any, reason: str) -> None:
    """Masks that look ahead, come in chunks, or have holes cannot be kept by hand."""
    with pytest.raises(ValueError, match=reason):
        read_window(rule)


@pytest.mark.parametrize("mask", [None, torch.zeros(1, 1, 8, 8)])
def test_a_mask_of_unknown_origin_is_refused(mask: Tensor | None) -> None:
    """Without transformers' mask function nothing says what a layer may see."""
    with pytest.raises(ValueError, match="unknown"):
        read_rule(mask)


class _Echo:
    """A context that answers with the queries, and notes what it was told."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def attend(self, layer: int, q_raw: Tensor, k_raw: Tensor, v: Tensor, **told: Any) -> Tensor:
        self.told = {"layer": layer, **told}
        return q_raw


def _call(batch: int = 1, mask: Tensor | None = None, **keywords: Any) -> tuple[Tensor, _Echo]:
    module, echo = nn.Identity(), _Echo()
    q, k = torch.randn(batch, 4, 3, 16), torch.randn(batch, 2, 3, 16)
    call = BoundCall([echo], {module: 7})
    out, weights = attend_through_context(module, q, k, k, mask, mem_ctx=call, **keywords)
    assert weights is None
    assert torch.equal(out, q.transpose(1, 2))
    return out, echo


def test_the_context_is_told_what_the_layer_says() -> None:
    """Layer index, scaling, softcap and sinks arrive; harmless keywords and Nones do not matter."""
    sinks = torch.zeros(4)
    _, echo = _call(scaling=0.5, softcap=30.0, s_aux=sinks, sliding_window=12, use_cache=False, other=None)

    assert echo.told == {"layer": 7, "scaling": 0.5, "softcap": 30.0, "sinks": sinks}


def test_scaling_defaults_to_the_head_size() -> None:
    """A layer that names no scaling means one over the root of the head size."""
    assert _call()[1].told == {"layer": 7, "scaling": 0.25, "softcap": None, "sinks": None}


@pytest.mark.parametrize(
    ("keywords", "error", "reason"),
    [
        ({"batch": 2}, InputError, "batch of 2"),
        ({"mask": torch.zeros(1, 1, 3, 3)}, InputError, "no attention mask"),
        ({"head_mask": torch.ones(4)}, UnsupportedModelError, "head_mask"),
        ({"dropout": 0.1}, UnsupportedModelError, "dropout"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(
    keywords: dict[str, Any], error: type[Exception], reason: str
) -> None:
    """Batches, masks, dropout and keywords nobody knows raise instead of being ignored."""
    with pytest.raises(error, match=reason):
        _call(**keywords)
