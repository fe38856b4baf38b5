"""Attention written out: the kernels' specification, and what every key received."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agentmem.memory import explicit
from agentmem.memory.explicit import attend_and_count
from agentmem.memory.placements import Sight
from agentmem.memory.rooms import Rooms
from agentmem_kernels import reference

HQ, HKV, T, S, D = 6, 2, 5, 11, 4
CASES = {
    "plain": (None, None),
    "softcap": (3.0, None),
    "sinks": (None, torch.linspace(-1, 2, HQ)),
    "both": (2.0, torch.linspace(-1, 2, HQ)),
}


def sight_of(mask: Tensor | None, *, pairs: bool) -> Sight:
    """Random queries, keys and values; of pairs, four far keys and then near ones."""
    random = torch.Generator().manual_seed(0)
    E = 2 * D if pairs else D
    keys = torch.randn(HKV, S, E, generator=random)
    if pairs:
        keys[:, :4, D:], keys[:, 4:, :D] = 0, 0
    queries = torch.randn(1, HQ, T, E, generator=random)
    values = torch.randn(HKV, S, E, generator=random)
    return Sight(queries, keys, values, mask, slice(0, 0), 4, 0, pairs)


def causal() -> Tensor:
    """(T, S), the last T keys are the queries' own."""
    return torch.zeros(T, S).masked_fill(torch.ones(T, S).triu(S - T + 1).bool(), -torch.inf)


def dead() -> Tensor:
    """(Hq, 1, S): the heads of one group do not see key 3."""
    mask = torch.zeros(HQ, 1, S)
    mask[: HQ // HKV, :, 3] = -torch.inf
    return mask


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(
    "mask", [None, causal(), dead(), causal() + dead()], ids=["none", "causal", "dead", "both"]
)
@pytest.mark.parametrize("logits", [1 << 22, 1], ids=["at once", "query by query"])
def test_output_and_mass_are_those_of_the_specification(
    case: str, pairs: bool, mask: Tensor | None, logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output is the reference's; what keys received is what unit values would have brought out."""
    monkeypatch.setattr(explicit, "_LOGITS", logits)
    softcap, sinks = CASES[case]
    sight = sight_of(mask, pairs=pairs)
    out, received = attend_and_count(
        sight, Rooms(torch.device("cpu")), scaling=0.5, softcap=softcap, sinks=sinks
    )
    full = None if mask is None else mask.expand(HQ, T, S)
    options = {"scaling": 0.5, "mask": full, "softcap": softcap, "sinks": sinks}
    wanted = reference.attend(sight.queries, sight.keys[None], sight.values[None], **options)
    mass = torch.zeros(HQ, S)
    for key in range(S):
        units = torch.zeros_like(sight.values)
        units[:, key] = 1
        mass[:, key] = reference.attend(sight.queries, sight.keys[None], units[None], **options)[
            0, :, :, 0
        ].sum(1)

    assert torch.allclose(out, wanted, atol=1e-5)
    assert torch.allclose(received, mass, atol=1e-5)
