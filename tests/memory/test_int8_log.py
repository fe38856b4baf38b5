"""A log in one byte an element: half the bytes, nearly the same numbers, and the same ones however it is written."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from agentmem.errors import ShapeError
from agentmem.memory import int8_log
from agentmem.memory.int8_log import Int8Log, readable
from agentmem.memory.rooms import Rooms
from agentmem.memory.source import KVLayout, TokenLog
from agentmem.store import InMemoryHome, Store
from support.stores import create, kv, new_turn, same

DEFAULT = KVLayout(((2, 64),) * 24, torch.bfloat16)
"""The default model's."""


def channels(layout: KVLayout, seed: int = 0) -> bytes:
    """Key channels of different places and reaches."""
    random = torch.Generator().manual_seed(seed)
    count = sum(heads * dim for heads, dim in layout.layers)
    offsets, factors = torch.randn(count, generator=random) * 9, torch.rand(count, generator=random) + 0.1
    return torch.cat([offsets, factors]).bfloat16().view(torch.uint8).numpy().tobytes()


def shaped(keys: list[Tensor], layout: KVLayout) -> list[Tensor]:
    """Random keys as those channels have them."""
    flat = torch.frombuffer(bytearray(channels(layout)), dtype=torch.bfloat16).float()
    offsets, factors = flat.chunk(2)
    sizes = [heads * dim for heads, dim in layout.layers]
    shapes = [(heads, 1, dim) for heads, dim in layout.layers]
    parts = zip(keys, offsets.split(sizes), factors.split(sizes), shapes, strict=True)
    return [
        (offset.view(shape) + factor.view(shape) * key.float()).to(layout.dtype)
        for key, offset, factor, shape in parts
    ]


class Agent:
    """An open turn of an int8 agent; ``log`` is what the model sees of it."""

    def __init__(self, layout: KVLayout) -> None:
        self.store: Store = create(InMemoryHome(), layout=layout.in_int8(channels(layout)))
        self.store.begin()
        self.log = readable(self.store.log, Rooms(torch.device("cpu")))

    def all(self) -> list[Tensor]:
        """Every key and value as they are read."""
        return read(self.log, 0, self.log.length)

    def rows(self) -> list[Tensor]:
        """The rows as they are stored."""
        return read(self.store.log, 0, self.store.log.length)


def read(log: TokenLog, start: int, stop: int) -> list[Tensor]:
    """Keys and values of tokens, layer by layer."""
    found: list[Tensor] = []
    for layer, (heads, dim) in enumerate(log.layout.layers):
        pair = [torch.empty(heads, stop - start, dim, dtype=log.layout.dtype) for _ in "kv"]
        log.read(layer, start, stop, *pair)
        found += pair
    return found


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def layout(request: pytest.FixtureRequest) -> KVLayout:
    """Two unequal layers."""
    return KVLayout(((2, 8), (1, 16)), request.param)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few tokens, so that a handful makes many."""
    monkeypatch.setattr(int8_log, "STEP_ELEMENTS", 48)


def test_a_token_takes_half_the_bytes() -> None:
    """Of the default model: one byte an element and two for the scale, not two an element."""
    kept = DEFAULT.in_int8(channels(DEFAULT))

    assert kept.bytes_per_token / DEFAULT.bytes_per_token == 66 / 128 <= 0.54
    assert kept.decoded == DEFAULT
    assert (kept.kv_dtype, DEFAULT.kv_dtype) == ("int8", "model")


def test_a_log_that_is_what_the_model_made_is_left_alone() -> None:
    """Without a codec there is nothing between memory and store."""
    store = create(InMemoryHome())

    assert readable(store.log, Rooms(torch.device("cpu"))) is store.log


def test_what_is_read_is_nearly_what_was_appended(layout: KVLayout) -> None:
    """Keys are off by a hundredth of their channel's reach, values of their row's; and they are not exact."""
    agent = Agent(layout)
    keys, values = kv(1, 40, layout)
    agent.log.append(shaped(keys, layout), values)

    for found, wanted in zip(agent.all()[1::2], values, strict=True):
        off = (found.float() - wanted.float()).abs()
        assert 0 < off.max() <= wanted.float().abs().max() * (0.51 / 127 + 2**-8)
    _, factors = torch.frombuffer(bytearray(channels(layout)), dtype=torch.bfloat16).float().chunk(2)
    start = 0
    for found, wanted in zip(agent.all()[::2], shaped(keys, layout), strict=True):
        heads, _, dim = wanted.shape
        factor = factors[start : start + heads * dim].view(heads, 1, dim)
        rounding = 2**-8 * wanted.float().abs() if layout.dtype == torch.bfloat16 else 1e-5
        assert ((found.float() - wanted.float()).abs() <= factor * 4 * (0.51 / 127) + rounding).all()
        start += heads * dim


@pytest.mark.usefixtures("small_steps")
def test_pieces_make_the_same_bytes(layout: KVLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appended token by token, in pieces or at once, and in parts or not: the same rows, so the same numbers."""
    keys, values = kv(1, 23, layout)
    keys = shaped(keys, layout)
    agents = []
    for cuts in ([0, 23], [0, 7, 8, 23], list(range(24))):
        agents.append(Agent(layout))
        for low, high in pairwise(cuts):
            agents[-1].log.append([k[:, low:high] for k in keys], [v[:, low:high] for v in values])
    monkeypatch.setattr(int8_log, "STEP_ELEMENTS", 1 << 19)
    agents.append(Agent(layout))
    agents[-1].log.append(keys, values)

    for agent in agents[1:]:
        assert same(agent.rows(), agents[0].rows())
        assert same(agent.all(), agents[0].all())


@pytest.mark.usefixtures("small_steps")
def test_gathering_and_reading_agree(layout: KVLayout) -> None:
    """Chosen tokens, keys or values alone, and into parts of a larger buffer: what reading them gives."""
    agent = Agent(layout)
    agent.log.append(*kv(1, 30, layout))
    whole = agent.all()
    tokens = [3, 4, 5, 29, 0, 17, 17]
    for layer, (heads, dim) in enumerate(layout.layers):
        index = torch.tensor([tokens, tokens[::-1]][:heads])
        room = torch.full((heads, 12, dim), 7.0, dtype=layout.dtype)
        for part in range(2):
            out: list[Tensor | None] = [None, None]
            out[part] = room[:, 2:9]
            agent.log.gather(layer, index, *out)
            wanted = torch.stack([whole[2 * layer + part][head, index[head]] for head in range(heads)])
            assert same([room[:, 2:9]], [wanted])
            assert (room[:, :2] == 7).all() and (room[:, 9:] == 7).all()


def test_forgotten_tokens_are_zeros(layout: KVLayout) -> None:
    """As in any log, though a key of zero bytes would lie where its channels do."""
    agent = Agent(layout)
    agent.log.append(*kv(1, 20, layout))
    turn = agent.store.commit(new_turn(1, 20))
    agent.store.begin()
    agent.log.append(*kv(2, 5, layout))
    agent.store.commit(new_turn(2, 5))
    before = agent.all()
    agent.store.forget([turn.id])

    assert list(agent.log.dead) == [(0, 20)]
    for found, wanted in zip(agent.all(), before, strict=True):
        assert not found[:, :20].any() and wanted[:, :20].any()
        assert same([found[:, 20:]], [wanted[:, 20:]])


def test_the_open_turn_is_cut_like_any_other(layout: KVLayout) -> None:
    """Truncating and going on; lengths are those of the log below."""
    agent = Agent(layout)
    agent.log.append(*kv(1, 20, layout))
    agent.log.truncate(12)
    agent.log.append(*kv(2, 0, layout))

    assert (agent.log.length, agent.log.committed) == (12, 0)
    other = Agent(layout)
    other.log.append(*[[tensor[:, :12] for tensor in part] for part in kv(1, 20, layout)])
    assert same(agent.all(), other.all())


def test_what_does_not_fit_is_refused(layout: KVLayout) -> None:
    """Shapes and dtypes of the rows are not those of the model: a typed error, and nothing is appended."""
    agent = Agent(layout)
    assert isinstance(agent.log, Int8Log)
    keys, values = kv(1, 4, layout)
    for wrong in ([keys[0]], [k.double() for k in keys], [k[:, :, :-1] for k in keys], agent.rows()):
        with pytest.raises(ShapeError, match="expected"):
            agent.log.append(wrong, values)
    agent.log.append(keys, values)
    with pytest.raises(ShapeError, match="keys_out"):
        agent.log.read(0, 0, 4, torch.empty(2, 4, 10, dtype=torch.int8), None)
    with pytest.raises(ShapeError, match="values_out"):
        agent.log.gather(0, torch.zeros(2, 3, dtype=torch.int64), None, torch.empty(2, 4, 8))
    assert agent.log.length == 4
    with pytest.raises(ShapeError, match="key channels"):
        layout.in_int8(b"too few")
