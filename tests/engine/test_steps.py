"""Steps of several agents as one pass: nobody's bits, errors or endings reach another; alone nothing changes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agentmem import AgentMemory, MemoryConfig
from agentmem.engine import packed
from agentmem.engine.model import LanguageModel
from agentmem.engine.packed import pack_linears
from agentmem.engine.steps import Steps
from agentmem.errors import ConfigError, DamagedError, ModelError
from agentmem.store import DiskHome, InMemoryHome, MemoryKey
from agentmem.store.base import Home
from support.oracle import DenseOracle
from support.passes import passes
from support.session_agent import SessionAgent
from support.templates import tokenizer_for
from support.tiny_language_model import SMALL, plain_model
from support.tiny_models import prompt

can_pack = pytest.mark.skipif(not packed._usable(), reason="this CPU or torch has no packed bfloat16 kernels")
FORK = multiprocessing.get_context("fork")
AGENTS = 4
CONFIGS = (
    SMALL,
    SMALL.model_copy(update={"recall_tokens": 16, "chunk_tokens": 32}),
    SMALL.model_copy(update={"selector": "infllm", "reselect_every": 3}),
    SMALL.model_copy(update={"positions": "infllm"}),
)


@pytest.fixture(scope="module")
def exact() -> LanguageModel:
    """A model whose rows are alike: its steps share passes without being asked to."""
    model = plain_model(dtype="bfloat16")
    pack_linears(model)
    return LanguageModel.wrap(model, tokenizer_for("chatml"))


@pytest.fixture
def loose() -> LanguageModel:
    """A model in fp32, whose rows are not alike, told to share passes all the same."""
    model = LanguageModel.wrap(plain_model(), tokenizer_for("chatml"))
    model.batch_steps("always")
    return model


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make each call in a thread of its own; what it returned or raised."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BaseException as error:  # noqa: BLE001 also an interrupt
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


def lives(model: LanguageModel, folder: Path | None = None) -> list[Callable[[], Tensor]]:
    """Agents of different options, lengths and (given a folder) stores: what each is asked, twice."""

    def home_of(number: int) -> Home:
        if folder is None or number == 0:
            return InMemoryHome()
        key = MemoryKey.generate() if number == 1 else None
        return DiskHome(folder / uuid.uuid4().hex, segment_tokens=64, digest_blocks=4, key=key)

    def life(number: int) -> Tensor:
        agent = SessionAgent(model, home_of(number), CONFIGS[number])
        ids = prompt(70 + 31 * number, seed=number)[0].tolist()
        first = agent.turn(ids, steps=range(5, 17 + number))
        return torch.cat([first, agent.reopened().turn(ids[:9], steps=range(20, 26))])

    return [lambda number=number: life(number) for number in range(AGENTS)]  # type: ignore[misc]


@can_pack
def test_agents_at_once_have_the_bits_they_have_alone(exact: LanguageModel, tmp_path: Path) -> None:
    """Different options, selectors, positions, lengths and stores in one pass, over two turns; and passes were shared."""
    alone = [life() for life in lives(exact, tmp_path)]
    with passes(exact, hold_until=AGENTS - 1) as sizes:
        together = at_once(*lives(exact, tmp_path))

    assert max(sizes) >= AGENTS - 1
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_rows_that_are_not_alike_stay_apart_unless_asked(loose: LanguageModel) -> None:
    """In fp32 by default each pass has one row; when told to share, replies equal those alone within rounding."""
    loose.batch_steps("exact")
    with passes(loose) as sizes:
        alone = at_once(*lives(loose))
    assert set(sizes) == {1}

    loose.batch_steps("always")
    with passes(loose, hold_until=AGENTS - 1) as sizes:
        together = at_once(*lives(loose))
    assert max(sizes) >= AGENTS - 1
    assert all(float((a - b).abs().max()) <= 1e-4 for a, b in zip(alone, together, strict=True))


@can_pack
def test_never_is_never(exact: LanguageModel) -> None:
    """And a rule that does not exist is refused."""
    exact.batch_steps("never")
    try:
        with passes(exact) as sizes:
            at_once(*lives(exact))
        assert set(sizes) == {1}
    finally:
        exact.batch_steps("exact")
    with pytest.raises(ConfigError, match="sometimes"):
        exact.batch_steps("sometimes")  # type: ignore[arg-type]


@can_pack
def test_a_model_that_turns_out_otherwise_is_left_apart() -> None:
    """Layers that say they are alike are not believed: a model whose output depends on the number of rows is found out."""
    model = plain_model(dtype="bfloat16", seed=3)
    pack_linears(model)
    norm = model.model.norm
    norm.register_forward_hook(lambda _module, _args, out: out if out.shape[0] == 1 else out * 1.01)
    found = LanguageModel.wrap(model, tokenizer_for("chatml"))
    with passes(found, hold_until=AGENTS - 1):
        together = at_once(*lives(found))
    assert found._steps._likeness.most == 1
    found.batch_steps("never")
    alone = [life() for life in lives(found)]

    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


class _Faulty(DenseOracle):
    """Dense attention that fails in the second layer of its third token."""

    def attend(self, layer: int, q_raw: Tensor, k_raw: Tensor, v: Tensor, **how: Any) -> Tensor:
        if layer == 1 and self.keys_raw[0] is not None and self.keys_raw[0].shape[-2] == 3:
            raise DamagedError(
                "ada", file="kv/000000.safetensors", where="tokens 0..32", detail="a flipped bit"
            )
        return super().attend(layer, q_raw, k_raw, v, **how)


def walk(steps: Steps, context: DenseOracle, tokens: Sequence[int]) -> Tensor:
    """Steps one after the other; their logits (n, V)."""
    return torch.stack([steps.step(context, token, context) for token in tokens])


def test_what_one_row_raises_is_its_own(loose: LanguageModel) -> None:
    """It gets its error, as it was raised; the others go on, and have what they have alone."""
    binding = loose.binding
    tokens = [[5 + number, 6, 7, 8, 9] for number in range(3)]
    alone = [
        binding.forward(torch.tensor([ids]), DenseOracle(binding.layers), logits_to_keep=5)[0]
        for ids in tokens
    ]
    contexts = [_Faulty(binding.layers), DenseOracle(binding.layers), DenseOracle(binding.layers)]
    steps = loose._steps
    with passes(loose, hold_until=2) as sizes:
        got = at_once(
            *(lambda c=c, ids=ids: walk(steps, c, ids) for c, ids in zip(contexts, tokens, strict=True))
        )

    assert max(sizes) >= 2
    assert isinstance(got[0], DamagedError)
    assert all(float((a - b).abs().max()) <= 1e-4 for a, b in zip(alone[1:], got[1:], strict=True))


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_pass_that_fails_as_a_whole_fails_for_all_of_it(loose: LanguageModel, error: BaseException) -> None:
    """Whoever ran it gets the error itself, the others the same or, for an interrupt, a typed one; then it goes on."""
    binding, steps = loose.binding, loose._steps
    contexts = [DenseOracle(binding.layers) for _ in range(3)]

    def fail(_module: object, _args: object, keywords: dict[str, Any]) -> None:
        if keywords["input_ids"].shape[0] > 1:
            raise error

    with passes(loose, hold_until=2):
        hook = loose.binding.model.register_forward_pre_hook(fail, with_kwargs=True)
        got = at_once(*(lambda c=c: walk(steps, c, [5]) for c in contexts))
        hook.remove()

    failed = [one for one in got if isinstance(one, BaseException)]
    assert len(failed) == 2
    assert error in failed
    assert all(
        one is error or isinstance(one, type(error) if isinstance(error, Exception) else ModelError)
        for one in failed
    )
    assert walk(steps, DenseOracle(binding.layers), [5, 6]).shape[0] == 2


def test_one_that_is_interrupted_while_it_waits_leaves_the_others_alone(loose: LanguageModel) -> None:
    """It is taken out of the queue, and what waited behind it goes on."""
    binding, steps = loose.binding, loose._steps
    meeting = steps._here()
    wait, inside = meeting.changed.wait, threading.local()

    def interrupted(timeout: float | None = None) -> bool:
        if getattr(inside, "doomed", False):
            inside.doomed = False
            raise KeyboardInterrupt
        return wait(timeout)

    def doomed() -> Tensor:
        inside.doomed = True
        return walk(steps, DenseOracle(binding.layers), [5])

    meeting.changed.wait = interrupted  # type: ignore[method-assign]
    try:
        with passes(loose, hold_until=1) as sizes:
            first = threading.Thread(target=walk, args=(steps, DenseOracle(binding.layers), [5]))
            first.start()
            while not sizes:
                time.sleep(0.001)
            got = at_once(doomed, lambda: walk(steps, DenseOracle(binding.layers), [5]))
            first.join(20)
    finally:
        meeting.changed.wait = wait  # type: ignore[method-assign]

    assert isinstance(got[0], KeyboardInterrupt)
    assert isinstance(got[1], Tensor)
    assert not meeting.waiting
    assert not first.is_alive()


@can_pack
def test_a_closed_stream_and_a_failing_processor_do_not_touch_the_others(exact: LanguageModel) -> None:
    """Two agents talk on as if alone; of the two that end early nothing is kept."""

    def fail(input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] % 5 == 4:
            raise ValueError("not this one")
        return scores

    def open_one(number: int) -> AgentMemory:
        memory = AgentMemory.resume(f"agent {number}", model=exact, home=InMemoryHome(), config=SMALL)
        memory.observe(f"I am number {number}. " * (9 + 4 * number), at="2026-01-02T03:04:05+00:00")
        return memory

    def chat(memory: AgentMemory) -> tuple[int, ...]:
        asked = "Say something long."
        return memory.chat(asked, max_new_tokens=24, at="2026-01-02T03:04:05+00:00").token_ids

    def close_early(memory: AgentMemory) -> None:
        with memory.stream("And you?", max_new_tokens=24) as stream:
            next(stream)

    alone = [chat(open_one(number)) for number in (2, 3)]
    crew = [open_one(number) for number in range(AGENTS)]
    before = [memory.checkpoint() for memory in crew]
    question = [{"role": "user", "content": "And you?"}]
    with passes(exact, hold_until=2) as sizes:
        got = at_once(
            lambda: close_early(crew[0]),
            lambda: crew[1].generate(question, logits_processor=[fail], max_new_tokens=24),
            lambda: chat(crew[2]),
            lambda: chat(crew[3]),
        )

    assert max(sizes) >= 2
    assert isinstance(got[1], ValueError)
    assert got[2:] == alone
    assert [memory.checkpoint() for memory in crew[:2]] == before[:2]
    assert all(memory.checkpoint() != state for memory, state in zip(crew[2:], before[2:], strict=True))
    meeting = exact._steps._here()
    assert not meeting.served and not meeting.late


def test_a_forked_child_does_not_wait_for_its_parents_threads(loose: LanguageModel) -> None:
    """A pass that runs in the parent at that moment is not the child's."""
    meeting, steps = loose._steps._here(), loose._steps
    meeting.running = True
    try:

        def child() -> None:
            threading.Timer(30, lambda: os._exit(9)).start()
            walk(steps, DenseOracle(loose.binding.layers), [5])
            os._exit(0)

        process = FORK.Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode == 0
    finally:
        meeting.running = False


def test_alone_nobody_is_waited_for(loose: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one agent no thread ever sleeps, however often it steps."""
    meeting = loose._steps._here()
    monkeypatch.setattr(meeting.changed, "wait", lambda _timeout=None: pytest.fail("it waited"))
    agent = SessionAgent(loose, InMemoryHome(), MemoryConfig(**SMALL.model_dump()))
    with passes(loose) as sizes:
        agent.turn([5, 6, 7], steps=range(5, 15))

    assert sizes == [1] * 10


def test_streams_that_one_thread_reads_in_turns_wait_for_each_other_once(
    loose: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is waited for in vain once, and no more; when they are read at once they share passes again."""
    steps, meeting = loose._steps, loose._steps._here()
    contexts = [DenseOracle(loose.binding.layers) for _ in range(2)]
    for _ in range(2):
        for context in contexts:
            walk(steps, context, [5])
    assert meeting.late == set(contexts)

    with monkeypatch.context() as patched:
        patched.setattr(meeting.changed, "wait", lambda _timeout=None: pytest.fail("it waited"))
        for _ in range(3):
            for context in contexts:
                walk(steps, context, [5])

    with passes(loose, hold_until=1):
        at_once(*(lambda c=c: walk(steps, c, [5, 6, 7]) for c in contexts))
    assert meeting.late != set(contexts)
    for context in contexts:
        steps.leave(context)
    assert not meeting.late
