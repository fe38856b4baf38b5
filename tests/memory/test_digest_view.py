"""Digests as a rule meets them: whole ones, shared by neighbours, and copied to a GPU once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agentmem.memory.digest_view import FEW, DigestView
from agentmem.memory.selectors import TwoStage
from agentmem.memory.source import KVLayout
from agentmem.store.volatile_digests import VolatileDigestLog

LAYOUT = KVLayout(((2, 8), (1, 4)), torch.float32)


def rows(seed: int, count: int) -> list[Tensor]:
    """Random digests of both layers."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(heads, count, dim, generator=generator) for heads, dim in LAYOUT.layers]


def shown(view: DigestView, layer: int, count: int) -> Tensor:
    """What a rule gets, in one piece on the CPU."""
    return torch.cat([part.cpu() for part in view.parts(layer, count)], dim=1)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_what_is_shown_is_what_is_kept(device: str) -> None:
    """However the log grew since the last look, and when a part of it was replaced by others of the same number."""
    log = VolatileDigestLog(LAYOUT)
    log.select("mean")
    log.append(rows(99, 4))
    view = DigestView(log, TwoStage(), torch.device(device))
    for step in range(2 * FEW + 3):
        log.append(rows(step, 1 + step % 3))
        if step % 5 == 4:
            view.truncate(log.count - 3)
            log.append(rows(100 + step, 3))
        for layer in (0, 1):
            kept = torch.cat(list(log.parts(layer)), dim=1)[:, :, None]
            assert torch.equal(shown(view, layer, log.count), kept)
            assert torch.equal(shown(view, layer, log.count - 1), kept[:, :-1])
            assert all(part.device.type == device for part in view.parts(layer, log.count))


def test_a_cut_through_neighbours_that_share_a_digest_drops_it() -> None:
    """It was made from tokens of both, and one of them is gone."""
    log = VolatileDigestLog(LAYOUT)
    log.select("mean")
    log.append(rows(0, 6))
    view = DigestView(log, TwoStage(digest_span=2), torch.device("cpu"))

    view.truncate(9)

    assert log.count == 4
