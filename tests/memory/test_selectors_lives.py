"""Every registered rule in real turns: resumed as uninterrupted, cut into chunks, truncated; what it is asked with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.memory.buffers import Workspace, WorkspaceSize
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import SELECTORS, BlockView, TwoStage, make_selector
from agentmem.memory.source import KVLayout
from agentmem.memory.working_memory import WorkingMemory
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.in_memory_log import InMemoryTokenLog
from agentmem.store.volatile_digests import VolatileDigestLog
from support.session_agent import SessionAgent, same_bits
from support.tiny_language_model import language_model
from support.tiny_models import prompt

CONFIG = MemoryConfig(
    sink_tokens=5,
    window_tokens=10,
    recall_tokens=16,
    block_tokens=4,
    chunk_tokens=24,
    reselect_every=4,
    dense_tokens=16,
)
IDS: list[int] = prompt(160, seed=5)[0].tolist()
TURNS = [(IDS[:90], IDS[90:92]), (IDS[92:104], IDS[104:111])]
DIGEST_ROWS_IN_A_FILE = 3
"""So that a cut between files goes through a block's rows."""


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Two layers, random weights."""
    return language_model()


def play(agent: SessionAgent, *, resumed: bool) -> tuple[list[Tensor], SessionAgent]:
    """Two turns; the logits of all, and the agent as it is then."""
    logits = []
    for read, steps in TURNS:
        logits.append(agent.turn(read, steps))
        agent = agent.reopened() if resumed else agent
    return logits, agent


@pytest.mark.parametrize("name", SELECTORS)
def test_a_resumed_agent_chooses_as_one_that_never_stopped(
    name: str, model: LanguageModel, tmp_path: Path
) -> None:
    """Logits and K/V bit for bit, through closed files that cut a block's rows; the same digests."""
    config = CONFIG.changed(selector=name)
    home = DiskHome(tmp_path, digest_blocks=DIGEST_ROWS_IN_A_FILE)
    one, never = play(SessionAgent(model, home, config, "never"), resumed=False)
    two, often = play(SessionAgent(model, home, config, "often"), resumed=True)

    assert same_bits(one, two) and same_bits(never.kv(), often.kv())
    rows, span = make_selector(name).digest_rows, make_selector(name).digest_span
    assert often.store.digests.count % rows == 0 and often.store.digests.count >= 20 // span * rows
    for layer in range(2):
        found = [torch.cat(list(a.store.digests.parts(layer)), dim=1) for a in (never, often)]
        assert torch.equal(*found)


@pytest.mark.parametrize("name", SELECTORS)
def test_chunk_size_moves_no_block(name: str, model: LanguageModel) -> None:
    """What a block's digest is made of does not depend on it: as many, and layer 0's the same."""
    found = []
    for chunk in (24, 7):
        agent = SessionAgent(model, InMemoryHome(), CONFIG.changed(selector=name, chunk_tokens=chunk))
        agent.turn(IDS[:100])
        found.append(agent.store)

    first, second = (torch.cat(list(store.digests.parts(0)), dim=1) for store in found)
    assert [100, 100] == [store.log.length for store in found]
    torch.testing.assert_close(first, second[:, : first.shape[1]], rtol=1e-4, atol=1e-4)
    rows, span = make_selector(name).digest_rows, make_selector(name).digest_span
    assert 18 // span * rows <= first.shape[1] <= second.shape[1]


def test_rules_are_another_memory(model: LanguageModel) -> None:
    """What attention sees differs from rule to rule, where a turn asks them something different."""
    logits: dict[str, list[str]] = {}
    for name in SELECTORS:
        agent = SessionAgent(model, InMemoryHome(), CONFIG.changed(selector=name))
        found = torch.cat(play(agent, resumed=False)[0])
        logits.setdefault(str(found.tolist()), []).append(name)

    alike = [names for names in logits.values() if len(names) > 1]
    assert alike == [
        ["two-stage-query-64", "two-stage-query-512"],
    ], "a chunk has 24 tokens"


def test_another_rule_for_one_turn_makes_its_own_digests(model: LanguageModel, tmp_path: Path) -> None:
    """A turn with another kind of digest that is dropped leaves the next one as if it had not been."""
    home = DiskHome(tmp_path, digest_blocks=DIGEST_ROWS_IN_A_FILE)
    logits = []
    for visits in ((), ("min-max", "sub-means-4", "exact")):
        agent = SessionAgent(model, home, CONFIG, f"agent-{len(visits)}")
        agent.turn(IDS[:100])
        for name in visits:
            agent.store.begin()
            config = CONFIG.changed(selector=name)
            with model.turn(agent.store.log, agent.store.digests, config) as session:
                session.read(IDS[100:120])
            agent.store.abort()
        logits.append(agent.turn(IDS[100:120], IDS[120:130]))

    assert same_bits([logits[0]], [logits[1]])


class Listening(TwoStage):
    """The two-stage rule, noting the queries it is asked with."""

    def __init__(self, *, query_rows: int = 16, keeps_question: bool = False) -> None:
        super().__init__(query_rows=query_rows, keeps_question=keeps_question)
        self.heard: list[Tensor] = []

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """Note, then choose."""
        self.heard.append(queries.clone())
        return super().choose(queries, blocks, num_chosen)


class Forward:
    """One layer without rotation behind 40 tokens, which forwards T random tokens and returns their queries."""

    def __init__(self, selector: Listening) -> None:
        config = CONFIG.changed(dense_tokens=0)
        log = InMemoryTokenLog(LAYOUT)
        log.begin()
        size = WorkspaceSize.of(config, selector)
        workspace = Workspace(SPECS, size, torch.float32, torch.device("cpu"))
        self._generator = torch.Generator().manual_seed(0)
        self._memory = WorkingMemory(SPECS, log, VolatileDigestLog(LAYOUT), config, selector, workspace)
        for _ in range(2):
            self(20, False)
        selector.heard.clear()

    def __call__(self, tokens: int, decoding: bool) -> Tensor:
        """A chunk, or a step."""
        self._memory.begin(tokens, decoding=decoding)
        q = torch.randn(1, 4, tokens, 8, generator=self._generator)
        k, v = (torch.randn(1, 2, tokens, 8, generator=self._generator) for _ in range(2))
        self._memory.attend(0, q, k, v, scaling=SCALING, softcap=None, sinks=None)
        self._memory.end()
        return q[0]


SPECS = (LayerSpec(0, 4, 2, 8, None, None),)
LAYOUT = KVLayout(((2, 8),), torch.float32)
SCALING = 0.5


@pytest.mark.parametrize("rows", [1, 5, 16, 64])
def test_a_rule_hears_as_many_rows_as_it_wants(rows: int) -> None:
    """A chunk's queries in equal runs, each its mean, times the scaling; fewer when the chunk is short."""
    selector = Listening(query_rows=rows)
    queries = Forward(selector)(20, False)

    run = -(-20 // rows)
    wanted = torch.stack([part.mean(1) for part in queries.split(run, dim=1)], dim=1) * SCALING
    torch.testing.assert_close(wanted.reshape(2, -1, 8), selector.heard[0])
    assert wanted.shape[1] <= rows


@pytest.mark.parametrize("keeps", [False, True])
def test_the_question_votes_on_while_decoding(keeps: bool) -> None:
    """For a rule that keeps it, the newest 16 rows of what was read come first; then the newest tokens'."""
    selector = Listening(keeps_question=keeps)
    forward = Forward(selector)
    question = [forward(16, False), forward(3, False)]
    steps = [forward(1, True) for _ in range(5)]
    newest = torch.cat([*question[1:], *steps], dim=1)  # three of the read, five steps

    assert len(selector.heard) == 3, "one per chunk, one after four steps"
    heard = selector.heard[-1].view(4, -1, 8)
    wanted = newest
    if keeps:
        wanted = torch.cat([torch.cat(question, dim=1)[:, -16:], newest], dim=1)
    torch.testing.assert_close(wanted * SCALING, heard)


@pytest.mark.parametrize("name", ["two-stage", "min-max", "sub-means-4"])
def test_truncating_drops_whole_blocks_of_rows(name: str, model: LanguageModel) -> None:
    """What is left are the rows of whole blocks before the cut, and the next chunk goes on from there."""
    rows = make_selector(name).digest_rows
    agent = SessionAgent(model, InMemoryHome(), CONFIG.changed(selector=name))
    agent.store.begin()
    with model.turn(agent.store.log, agent.store.digests, agent.config) as session:
        session.read(IDS[:100])
        before = torch.cat(list(agent.store.digests.parts(0)), dim=1)
        session.memory.truncate(50)
        assert agent.store.digests.count == (50 - CONFIG.sink_tokens) // CONFIG.block_tokens * rows
        session.read(IDS[50:100])
        after = torch.cat(list(agent.store.digests.parts(0)), dim=1)
    torch.testing.assert_close(before, after[:, : before.shape[1]])
