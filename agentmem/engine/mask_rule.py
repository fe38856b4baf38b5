"""Which keys a layer may see, read from the mask function transformers would have used.

During the probe the model runs under a name whose mask function returns a token that keeps the rule;
the token a layer's attention receives tells which rule is the layer's. Knows no layers and no models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Far beyond any window; prime-like, so no chunk boundary falls on all three by accident.
_FAR_QUERIES = (1_048_583, 1_310_737, 1_572_869)
_BEYOND = 64

MaskFunction = Callable[[Any, Any, Any, Any], Any]


class MaskToken(Tensor):
    """A (1, 1, T, S) stand-in for a mask; ``rule`` says which (batch, head, query, key) is visible."""

    rule: MaskFunction

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Keep the rule through slicing and moving, which some models and accelerate do."""
        result = super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        if args and isinstance(args[0], MaskToken) and isinstance(result, MaskToken):
            result.rule = args[0].rule
        return result


def mask_token(*, q_length: int, kv_length: int, mask_function: MaskFunction, **_: Any) -> MaskToken:
    """What transformers calls to make a mask. Returns a token that keeps the rule instead."""
    token: MaskToken = torch.zeros(1, 1, int(q_length), int(kv_length)).as_subclass(MaskToken)
    token.rule = mask_function
    return token


def read_rule(token: object) -> MaskFunction:
    """The rule a token keeps. Raises ValueError when it is no token of ours."""
    if not isinstance(token, MaskToken) or not hasattr(token, "rule"):
        raise ValueError("its mask was not made by transformers' mask functions, so its rule is unknown")
    return token.rule


def read_window(rule: MaskFunction) -> int | None:
    """The window of a rule: None when a token sees all that came before it.

    Raises:
        ValueError: the rule cannot be asked, looks ahead, or depends on where a token stands.
    """
    windows = {_window_at(rule, query) for query in _FAR_QUERIES}
    if len(windows) != 1:
        raise ValueError(f"its mask depends on absolute positions (it sees {sorted(map(str, windows))})")
    return windows.pop()


def _window_at(rule: MaskFunction, query: int) -> int | None:
    """The window as seen from one query position; None for all."""
    zero = torch.tensor(0)
    keys = torch.arange(query + _BEYOND)
    try:
        visible = rule(zero, zero, torch.tensor(query), keys).expand(keys.shape)
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"its mask rule cannot be asked about far positions ({error})") from error
    count = int(visible.sum())
    if visible[query + 1 :].any():
        raise ValueError("its mask lets a token see later ones")
    if count == 0 or not visible[query + 1 - count : query + 1].all():
        raise ValueError("its mask is neither causal nor a sliding window")
    return None if count == query + 1 else count
