"""Fact 6, as far as it can be shown without a clock: nothing that decoding needs grows with the history."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest
import torch
from torch import Tensor

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.memory import working_memory
from agentmem.memory.selectors import make_selector
from support.templates import tokenizer_for
from support.tiny_language_model import SMALL, plain_model


def tensor_bytes() -> int:
    """Bytes of all tensors that Python can reach, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if not issubclass(type(thing), Tensor):  # isinstance would ask odd objects for their class
            continue
        if thing.layout == torch.strided:  # packed weights of other tests' models have no storage to ask for
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_buffers_do_not_grow_with_the_history(tmp_path: Path) -> None:
    """After the first turns no tensor is added: fifty turns later the same bytes are held."""
    model = LanguageModel.wrap(plain_model(), tokenizer_for("chatml"))
    memory = AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL)
    held = {}
    for turn in range(51):
        memory.chat("My dog is called Biscuit.", max_new_tokens=4)
        if turn in {10, 30, 50}:
            held[turn] = tensor_bytes()

    assert memory.tokens_held > 800
    assert held[50] == held[30] == held[10]
    assert len(model._workspaces) == 1


def test_python_keeps_less_than_a_turn_of_tokens(tmp_path: Path) -> None:
    """What Python allocates for a turn and keeps is index records: a fraction of the turn's K/V, tiny as they are."""
    model = LanguageModel.wrap(plain_model(), tokenizer_for("chatml"))
    memory = AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL)
    tracemalloc.start()
    try:
        for turn in range(24):
            memory.chat("My dog is called Biscuit.", max_new_tokens=4)
            if turn == 11:  # by now the interpreter's own free lists are full
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
        gc.collect()
        kept = (tracemalloc.get_traced_memory()[0] - before) / 12
    finally:
        tracemalloc.stop()

    assert kept < memory._store.log.layout.bytes_per_token * 22 / 2, "a turn's K/V stay in memory"


def test_each_decoded_token_attends_to_the_same_number_of_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the past is, a step's keys are the budget, the turn's own and less than blocks with one digest."""
    sizes: list[int] = []
    attend = working_memory.attend

    def measured(q: Tensor, keys: Tensor, values: Tensor, **options: object) -> Tensor:
        if q.shape[2] == 1:
            sizes.append(keys.shape[2])
        return attend(q, keys, values, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(working_memory, "attend", measured)
    model = LanguageModel.wrap(plain_model(), tokenizer_for("chatml"))
    memory = AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL)
    longest = []
    for _ in range(36):
        sizes.clear()
        memory.chat("My dog is called Biscuit.", max_new_tokens=20)
        longest.append(max(sizes))

    digested = SMALL.block_tokens * make_selector(SMALL.selector).digest_span
    bound = SMALL.budget + digested - 1 + SMALL.chunk_tokens + SMALL.reselect_every
    assert max(longest) <= bound
    assert max(longest[20:]) <= max(longest[4:20]), "each half sees every place of the grid"


def test_reading_far_more_than_the_trained_length_uses_one_workspace(tmp_path: Path) -> None:
    """A prompt of five times the trained length is read in one chat, in the buffers of a short one."""
    model = LanguageModel.wrap(plain_model(trained=256), tokenizer_for("chatml"))
    memory = AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL)
    memory.chat("Hello", max_new_tokens=2)
    (workspace,) = model._workspaces
    before = [buffer.keys_rot.data_ptr() for buffer in workspace.layers]

    reply = memory.chat("The quick brown fox jumps over the lazy dog. " * 80, max_new_tokens=12)

    assert reply.receipt.tokens_prefilled > 5 * 256
    assert reply.receipt.tokens_generated == 12
    assert model._workspaces == [workspace]
    assert [buffer.keys_rot.data_ptr() for buffer in workspace.layers] == before
    assert torch.isfinite(workspace.layers[0].keys_rot[:, : workspace.layers[0].used]).all()
