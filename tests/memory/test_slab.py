"""The slab: what comes through it is what the log holds, within its bytes, whatever was asked before or failed."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from agentmem.errors import ConfigError, StoreError
from agentmem.memory.blocks import BlockGrid
from agentmem.memory.couriers import Carrying
from agentmem.memory.log_blocks import BlocksState
from agentmem.memory.resident import resident_of
from agentmem.memory.rooms import Rooms
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.slab import Share, Slab, smallest_budget
from agentmem.memory.source import KVLayout
from agentmem.store.in_memory_log import InMemoryTokenLog

GRID = BlockGrid(sinks=3, size=4)
SPECS = (LayerSpec(0, 4, 2, 8, None, None), LayerSpec(1, 4, 1, 8, 6, None), LayerSpec(2, 4, 4, 6, None, None))
LAYOUT = KVLayout(((2, 8), (1, 8), (4, 6)), torch.bfloat16)
CPU = torch.device("cpu")
BLOCKS = 40
SMALLEST = smallest_budget(SPECS, 4, torch.bfloat16)


class Brittle(InMemoryTokenLog):
    """A log that can be told to fail; ``reads`` counts tokens that were read."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(LAYOUT)
        generator = torch.Generator().manual_seed(seed)
        tokens = GRID.sinks + BLOCKS * GRID.size

        def random_tokens() -> list[Tensor]:
            return [
                torch.randn(heads, tokens, dim, generator=generator).to(LAYOUT.dtype)
                for heads, dim in LAYOUT.layers
            ]

        self.load([(random_tokens(), random_tokens())], [])
        self.reads = 0
        self.fails_after = 1 << 30

    def gather(self, layer: int, tokens: Tensor, keys_out: Tensor | None, values_out: Tensor | None) -> None:
        self.reads += tokens.numel()
        super().gather(layer, tokens, keys_out, values_out)
        self.fails_after -= 1
        if self.fails_after < 0:
            raise StoreError("the disk failed")


def slab_of(budget: int = 1 << 16, decay: float = 0.1) -> Slab:
    return Slab(SPECS, GRID.size, budget, LAYOUT.dtype, CPU, decay=decay)


class Reader:
    """Asks a share for blocks, and says what the log has there."""

    def __init__(self, share: Share, log: Brittle) -> None:
        self.log = log
        self.share = share
        resident = resident_of(share, log, Rooms(CPU))
        assert resident is not None
        self.resident = resident
        self._state = BlocksState(GRID, BLOCKS, [], CPU)

    def both(self, spec: LayerSpec, blocks: Tensor, *, values: bool) -> tuple[Tensor, Tensor]:
        read = self.resident.values if values else self.resident.keys_raw
        found = read(spec, blocks, self._state.tokens)
        true = torch.empty(*self._state.tokens(blocks).shape, spec.head_dim, dtype=LAYOUT.dtype)
        outs = (None, true) if values else (true, None)
        InMemoryTokenLog.gather(self.log, spec.index, self._state.tokens(blocks), *outs)
        return found, true.view(found.shape)

    def is_true(self, spec: LayerSpec, blocks: Tensor, *, values: bool = False) -> bool:
        return torch.equal(*self.both(spec, blocks, values=values))


def some_blocks(chance: random.Random, spec: LayerSpec, most: int = 12) -> Tensor:
    """(Hkv, C), ascending in each row, other ones for each head."""
    count = chance.randint(1, most)
    rows = [sorted(chance.sample(range(BLOCKS), count)) for _ in range(spec.num_kv_heads)]
    return torch.tensor(rows)


@pytest.mark.parametrize("decay", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("budget", [SMALLEST, 5000, 1 << 16])
def test_what_comes_through_is_what_the_log_holds(budget: int, decay: float) -> None:
    """Random asks of two agents, some of them cut back in between: the log's bytes each time, hits or not."""
    chance, slab = random.Random(7), slab_of(budget, decay)
    readers = [Reader(slab.share(), Brittle(seed)) for seed in (1, 2)]
    for _ in range(150):
        reader, spec = chance.choice(readers), chance.choice([SPECS[0], SPECS[2]])
        assert reader.is_true(spec, some_blocks(chance, spec), values=chance.random() < 0.4)
        if chance.random() < 0.1:
            reader.share.keep_before(chance.randint(0, BLOCKS))
        assert slab.device_bytes <= budget
    assert all(reader.share.use.misses > 0 for reader in readers)
    assert budget == SMALLEST or all(reader.share.use.hits > 0 for reader in readers)


def test_a_cut_log_is_read_anew() -> None:
    """Blocks from the cut on are dropped, of this agent alone; those before it stay."""
    slab = slab_of()
    mine, other = (Reader(slab.share(), Brittle()) for _ in range(2))
    blocks = torch.arange(10).expand(2, -1)
    for reader in (mine, other):
        assert reader.is_true(SPECS[0], blocks)
    mine.share.keep_before(6)
    mine.log.load([([t + 1 for t in mine.log._keys], mine.log._values)], [])
    mine.share.start_turn()
    other.share.start_turn()
    assert mine.is_true(SPECS[0], blocks[:, 6:])
    assert other.is_true(SPECS[0], blocks)
    assert (0, 8) == (mine.share.use.hits, mine.share.use.misses)
    assert (20, 0) == (other.share.use.hits, other.share.use.misses)


def test_a_hit_reads_nothing() -> None:
    """What is resident is not asked of the log; a head that lacks nothing reads along where another lacks something."""
    slab = slab_of()
    reader = Reader(slab.share(), Brittle())
    blocks = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert reader.is_true(SPECS[0], blocks)
    assert 6 * GRID.size == reader.log.reads
    assert reader.is_true(SPECS[0], blocks)
    assert 6 * GRID.size == reader.log.reads
    assert reader.is_true(SPECS[0], torch.tensor([[1, 2, 3], [4, 5, 9]]))
    assert 8 * GRID.size == reader.log.reads
    assert (11, 7) == (reader.share.use.hits, reader.share.use.misses)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_read_that_fails_leaves_nothing_wrong(step: int) -> None:
    """In whichever batch it fails: the error comes through, and the next ask gets the log's bytes."""
    slab = slab_of(SMALLEST + 200)  # batches of a block per head
    reader = Reader(slab.share(), Brittle())
    reader.log.fails_after = step
    blocks = torch.arange(4).expand(4, -1)
    with pytest.raises(StoreError):
        reader.both(SPECS[2], blocks, values=False)
    reader.log.fails_after = 1 << 30
    assert reader.is_true(SPECS[2], blocks)
    assert reader.is_true(SPECS[2], blocks + 4)


def test_an_interrupt_between_reading_and_keeping_leaves_nothing_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A place that was emptied and not filled holds no block."""
    slab = slab_of()
    reader = Reader(slab.share(), Brittle())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    blocks = torch.arange(4).expand(2, -1)
    with monkeypatch.context() as patch:
        patch.setattr(slab.resident[0], "hold", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reader.both(SPECS[0], blocks, values=False)
    assert 0 == len(slab.resident[0])
    assert reader.is_true(SPECS[0], blocks)


@pytest.mark.parametrize("budget", [SMALLEST, SMALLEST + 1, 4321, 9999, 123_456, 10_000_000])
def test_the_budget_is_all_it_takes(budget: int) -> None:
    """Allocated at once, at most the budget, nearly all of it, and a place for every head of every full layer."""
    slab = slab_of(budget)
    left = 2 * sum(spec.num_kv_heads * spec.head_dim * GRID.size * 2 for spec in (SPECS[0], SPECS[2]))
    assert budget - left <= slab.device_bytes <= budget
    assert sorted(slab.places) == [0, 2]  # layer 1 has a window and recalls nothing
    for spec in (SPECS[0], SPECS[2]):
        assert slab.resident[spec.index].num_slots == len(slab.places[spec.index]) >= spec.num_kv_heads


def test_a_budget_without_room_is_refused() -> None:
    """The message names the least that would do."""
    with pytest.raises(ConfigError, match=f"{SMALLEST} bytes at least"):
        slab_of(SMALLEST - 1)


def test_places_of_an_agent_that_went_are_free_again() -> None:
    """A share that nobody holds any more holds nothing; numbers are not used twice."""
    slab = slab_of()
    gone = Reader(slab.share(), Brittle())
    assert gone.is_true(SPECS[0], torch.arange(6).expand(2, -1))
    assert slab.shared and 12 == len(slab.resident[0])
    del gone
    assert not slab.shared
    reader = Reader(slab.share(), Brittle(seed=3))
    assert reader.is_true(SPECS[0], torch.arange(3).expand(2, -1))
    assert 6 == len(slab.resident[0]) == reader.share.use.misses


def test_a_courier_brings_all_columns_in_order() -> None:
    """As many at a time as fit, at least one."""
    for elements, batches in ((6, 7), (12, 4), (50, 1)):
        seen: list[tuple[int, int]] = []
        whole = torch.zeros(2, 7, 3, dtype=torch.int64)

        def read(start: int, stop: int, room: Tensor) -> None:
            room.copy_(torch.arange(start, stop)[None, :, None].expand_as(room))

        def take(start: int, stop: int, landed: Tensor, whole: Tensor = whole, seen: list = seen) -> None:
            seen.append((start, stop))
            whole[:, start:stop] = landed

        assert 0 == Carrying(elements, torch.int64).bring(2, 7, 3, read, take)
        assert torch.equal(whole, torch.arange(7)[None, :, None].expand(2, 7, 3))
        assert batches == len(seen) and seen == sorted(seen)


def test_a_slab_that_was_let_go_is_read_past() -> None:
    """A share does not keep it alive; a turn that uses it does."""
    share = slab_of().share()
    assert share.slab is None
    assert resident_of(share, Brittle(), Rooms(CPU)) is None
    share.keep_before(0)
