"""Blocks that stay on a GPU: the same bits with and without them, through pinned memory and a stream of its own."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from agentmem.agent import AgentMemory
from agentmem.memory.couriers import Shipping
from agentmem.store import DiskHome
from support.hot_life import WHOLE, HotLife, held_and_wrong, model_with
from support.tiny_language_model import SMALL

pytestmark = pytest.mark.gpu

BUDGETS = {"scarce": 40 << 10, "plenty": 4 << 20, "default": None}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", BUDGETS)
def test_a_life_on_cuda_is_the_same_with_and_without_it(name: str, dtype: str, tmp_path: Path) -> None:
    """Every step's ids, logits, keys and values, bit for bit; what is resident is what the log holds."""
    plain_model, model = (model_with(size, dtype=dtype, device="cuda") for size in (0, BUDGETS[name]))
    AgentMemory.resume("ada", model=plain_model, home=tmp_path / "plain", config=SMALL).close()
    shutil.copytree(tmp_path / "plain", tmp_path / "cached")
    plain = HotLife(AgentMemory.resume("ada", model=plain_model, home=tmp_path / "plain"))
    cached = HotLife(AgentMemory.resume("ada", model=model, home=tmp_path / "cached"))
    for step in WHOLE:
        plain.step(step)
        cached.step(step)
        assert cached.told[-1] == plain.told[-1]
        assert held_and_wrong(cached.memory)[1] == [], step

    assert {None} == set(plain.uses)
    assert sum(use.hits for use in cached.uses if use) > 0
    assert sum(use.bytes_copied for use in cached.uses if use) > 0


def test_the_budget_is_what_the_device_lends(tmp_path: Path) -> None:
    """The allocator sees at most the budget and its own rounding of three allocations."""
    budget = 8 << 20
    model = model_with(budget, device="cuda")
    before = torch.cuda.memory_allocated()
    share = model.device_cache.share(None, SMALL.block_tokens)
    assert share is not None
    assert budget // 2 < torch.cuda.memory_allocated() - before <= budget + 3 * 512
    del share
    model.device_cache.set_budget(0)
    gc.collect()
    assert torch.cuda.memory_allocated() <= before


def test_an_agent_moves_between_devices_with_a_cache(tmp_path: Path) -> None:
    """A GPU's blocks are the log's, so what a CPU reads afterwards is what was written."""
    home = DiskHome(tmp_path)
    life = HotLife(AgentMemory.resume("ada", model=model_with(None, device="cuda"), home=home, config=SMALL))
    for step in WHOLE[:6]:
        life.step(step)
    kept = life.told[-1][2:]
    life.memory.close()
    here = HotLife(AgentMemory.resume("ada", model=model_with(1 << 20), home=home))
    assert here.memory.resumed.tokens_prefilled == 0
    here.step("wait")
    assert kept == here.told[-1][2:]


@pytest.mark.parametrize("elements", [1 << 10, 1 << 14, 1 << 20])
def test_batches_do_not_overtake_each_other(elements: int) -> None:
    """Many batches through two halves, with the device kept busy: every column arrives as it was read."""
    device = torch.device("cuda")
    courier = Shipping(elements, torch.float32, device)
    source = torch.randn(4, 3000, 64)
    for _ in range(5):
        arrived = torch.zeros(4, 3000, 64, device=device)
        load = torch.randn(2048, 2048, device=device)

        def read(start: int, stop: int, room: Tensor) -> None:
            room.copy_(source[:, start:stop])

        def take(
            start: int, stop: int, landed: Tensor, arrived: Tensor = arrived, load: Tensor = load
        ) -> None:
            load @ load  # what comes later in the stream must still see this batch
            arrived[:, start:stop] = landed

        moved = courier.bring(4, 3000, 64, read, take)
        assert source.numel() * 4 == moved
        assert torch.equal(arrived.cpu(), source)
    assert courier.device_bytes == 2 * elements * 4
