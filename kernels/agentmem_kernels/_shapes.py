"""Shape checks shared by every implementation: the message names the tensor, the dimension and the value."""

from __future__ import annotations

from torch import Tensor


def check(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, sinks: Tensor | None) -> None:
    """Raise ValueError unless q (B, Hq, T, D), keys and values (B, Hkv, S, D) fit together.

    ``mask`` must broadcast to (B, Hq, T, S) and have at least the two dimensions (T, S); ``sinks`` is (Hq,).
    """
    if q.ndim != 4 or keys.ndim != 4:
        raise ValueError(
            f"q and keys: expected four dimensions, got {tuple(q.shape)} and {tuple(keys.shape)}"
        )
    B, Hq, T, D = q.shape
    _, Hkv, S, _ = keys.shape
    if tuple(keys.shape) != (B, Hkv, S, D):
        raise ValueError(f"keys: expected (B, Hkv, S, D) with B={B}, D={D}, got {tuple(keys.shape)}")
    if values.shape != keys.shape:
        raise ValueError(f"values: expected the shape of keys {tuple(keys.shape)}, got {tuple(values.shape)}")
    if Hkv == 0 or Hq % Hkv:
        raise ValueError(f"q has {Hq} heads, not a multiple of the {Hkv} key/value heads")
    if mask is not None:
        _check_mask(mask, (B, Hq, T, S))
    if sinks is not None and tuple(sinks.shape) != (Hq,):
        raise ValueError(f"sinks: expected (Hq,) = ({Hq},), got {tuple(sinks.shape)}")


def _check_mask(mask: Tensor, full: tuple[int, int, int, int]) -> None:
    fits = 2 <= mask.ndim <= 4 and tuple(mask.shape[-2:]) == full[-2:]
    fits = fits and all(n in (1, m) for n, m in zip(mask.shape[::-1], full[::-1], strict=False))
    if not fits:
        raise ValueError(f"mask: expected (..., T, S) that broadcasts to {full}, got {tuple(mask.shape)}")
    if not mask.is_floating_point():
        raise ValueError(f"mask: expected an additive mask of a floating dtype, got {mask.dtype}")
