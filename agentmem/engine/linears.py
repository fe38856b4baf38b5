"""Putting other modules in the place of a model's linear layers, for good. Knows no kind of them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def replace_linears(model: nn.Module, make: Callable[[nn.Linear], nn.Module | None]) -> int:
    """Replace each plain ``nn.Linear`` by what ``make`` gives for it; None leaves it. Returns how many.

    Subclasses and layers with hooks are left: what they do is not known. One layer at a time, so that no more
    than one of them is held twice.
    """
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    count = 0
    for parent, name in places:
        layer = getattr(parent, name)
        new = None if layer._forward_hooks or layer._forward_pre_hooks else make(layer)  # noqa: SLF001
        if new is not None:
            setattr(parent, name, new)
            count += 1
    return count
