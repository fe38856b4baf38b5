"""The study: read a history once, ask its questions with a witness, judge every way by the same masses.

The history is read by AgentMemory with the given options, so K/V and queries are what they are under its own rule;
the surprise of each token is noted in that same pass. Knows no tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from agentmem import AgentMemory, MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentNotFoundError
from agentmem.memory.placements import POSITION_RULES
from agentmem.store import DiskHome
from benchmarks.block_study import cuts
from benchmarks.block_study.choosing import Blocks, gains
from benchmarks.block_study.figures import Figures, Measured
from benchmarks.block_study.listening import ListeningModel, Surprises
from benchmarks.block_study.watching import Looked, MassWitness
from benchmarks.block_study.ways import (
    LONG_SENTENCES,
    MESSAGES,
    SENTENCES,
    SURPRISE,
    TOKENS,
    Scene,
    grid,
    grid_size,
    is_grid,
    split_over_layers,
    ways,
)
from benchmarks.recall.items import History, Question
from benchmarks.recall.places import EvidenceError, Ranges, check_out_of_sight, find_evidence, token_ids
from benchmarks.recall.reading import read_history

LEAST = 8
"""Tokens of the shortest block cut at sentences or surprises."""
LEAST_LONG = 24
"""The same for sentences joined until their digests are as few as a grid's."""
MOST_SURPRISE = 128
MOST_SENTENCE = 64
AS_CHOSEN = "as the rule chose"
"""The way that stands for what the memory itself had chosen."""

Tick = Callable[[str, int, int], None]
"""Told (what is done, how much, of how much)."""


@dataclass(frozen=True)
class Row:
    """One question, one budget, one way."""

    history: str
    question: str
    kind: str
    budget: int
    way: str
    figures: Figures


@dataclass(frozen=True)
class Studied:
    """One history."""

    history: str
    tokens: int
    """n, evicted when it was asked."""
    blocks: Mapping[str, int]
    """How many blocks each cut made of them."""
    rows: Sequence[Row]
    splits: Mapping[int, Sequence[Sequence[int]]]
    """By budget and question: places by layer of the best split."""


@dataclass(frozen=True)
class Read:
    """A history in a closed agent, and what was noted while it was read."""

    agent: str
    ids: Sequence[int]
    nll: Sequence[float]
    messages: Sequence[int]
    """Where they begin."""
    evidence: Mapping[str, Ranges]


class Study:
    """Histories studied with one model.

    Args:
        model: that reads and asks.
        home: where agents are meanwhile.
        config: the options they are read and asked with.
        budgets: recalled tokens to compare at, multiples of ``config.block_tokens``.
        tick: told of progress.
    """

    def __init__(
        self, model: LanguageModel, home: Path, config: MemoryConfig, budgets: Sequence[int], tick: Tick
    ) -> None:
        self._model = ListeningModel(model)
        self._home = home
        self._config = config
        self._budgets = tuple(budgets)
        self._ways = ways(config.block_tokens)
        self._base = grid(config.block_tokens)
        self._tick = tick

    def of(self, history: History) -> Studied:
        """Read, ask and judge one history; its agent is deleted afterwards.

        Raises:
            EvidenceError: evidence is in plain sight, or too little is evicted for the budgets.
        """
        agent = f"block study {history.id}"
        try:
            read = self._read(agent, history)
            return self._judge(history, read, self._ask(read, history.questions))
        finally:
            self._model.surprises = self._model.witness = None
            with suppress(AgentNotFoundError):
                AgentMemory.delete(agent, home=self._home)

    def _read(self, agent: str, history: History) -> Read:
        heard = self._model.surprises = Surprises()
        with AgentMemory.resume(agent, model=self._model, home=self._home, config=self._config) as memory:
            reading = read_history(
                memory,
                history,
                self._home,
                lambda done, total: self._tick("reading", min(done, total), total),
            )
        self._model.surprises = None
        ids = token_ids(self._home, agent)
        evidence = find_evidence(ids, self._model.tokenizer, history.questions)
        check_out_of_sight(evidence, reading.tokens_held, self._config, dense=False)
        return Read(agent, ids, heard.nll, turn_starts(self._home, agent), evidence)

    def _ask(self, read: Read, questions: Sequence[Question]) -> list[Looked]:
        distance, found = POSITION_RULES[self._config.positions].distance(self._config), []
        with AgentMemory.resume(
            read.agent, model=self._model, home=self._home, config=self._config, create=False
        ) as memory:
            for number, question in enumerate(questions):
                witness = self._model.witness = MassWitness(distance)
                memory.chat(question.prompt, remember=False, max_new_tokens=1)
                looked = witness.looked()
                if looked is None or looked.mass.shape[1] <= max(self._budgets):
                    raise EvidenceError(
                        f"{len(read.ids)} tokens leave no more than {max(self._budgets)} to choose among: ask for more"
                    )
                found.append(looked)
                self._tick("asking", number + 1, len(questions))
        return found

    def _judge(self, history: History, read: Read, looks: Sequence[Looked]) -> Studied:
        device, numbers = self._model.device, range(len(looks))
        cut = {n: self._cut(read, n, device) for n in sorted({look.mass.shape[1] for look in looks})}
        blocks = [cut[look.mass.shape[1]] for look in looks]
        gained = [
            gains(
                blocks[number][self._base].sums(looks[number].mass.to(device)),
                looks[number].layers.to(device),
            )
            for number in numbers
        ]
        rows: list[Row] = []
        splits: dict[int, list[list[int]]] = {budget: [] for budget in self._budgets}
        for number, question in enumerate(history.questions):
            look = looks[number].to(device)
            scene = Scene(look.mass, look.layers, blocks[number], _mean_of_others(gained, number))
            evidence = read.evidence[question.id]
            measured = Measured(look, self._config.sink_tokens, self._model.layout.dtype.itemsize, evidence)
            for budget, way, figures in self._compared(scene, look, measured):
                rows.append(Row(history.id, question.id, question.kind, budget, way, figures))
            for budget, split in splits.items():
                split.append(split_over_layers(scene, blocks[number][self._base], budget).tolist())
            self._tick("judging", number + 1, len(looks))
        counts = {name: len(one.sizes) for name, one in blocks[0].items()}
        return Studied(history.id, looks[0].mass.shape[1], counts, rows, splits)

    def _compared(self, scene: Scene, look: Looked, measured: Measured) -> Iterator[tuple[int, str, Figures]]:
        """(budget, way, figures) of every way, and of the memory's own choice."""
        for budget in self._budgets:
            for way in self._ways:
                yield budget, way.name, measured.figures(way(scene, budget), scene.cuts[way.cut])
        own = int(look.chosen.sum()) // len(look.chosen)
        if own in self._budgets:
            yield own, AS_CHOSEN, measured.figures(look.chosen, scene.cuts[self._base])

    def _cut(self, read: Read, n: int, device: torch.device) -> dict[str, Blocks]:
        """By the name of its cut, a way's blocks of the n evicted tokens."""
        first, size = self._config.sink_tokens, self._config.block_tokens
        texts = self._texts(read.ids[first : first + n])
        starts = {way.cut: cuts.on_grid(n, grid_size(way.cut)) for way in self._ways if is_grid(way.cut)}
        starts[TOKENS] = cuts.on_grid(n, 1)
        starts[MESSAGES] = cuts.at_messages(n, [start - first for start in read.messages], size)
        starts[SENTENCES] = cuts.at_sentences(texts, LEAST, MOST_SENTENCE)
        starts[LONG_SENTENCES] = cuts.at_sentences(texts, LEAST_LONG, MOST_SENTENCE)
        starts[SURPRISE] = cuts.at_surprises(read.nll, first, n, least=LEAST, most=MOST_SURPRISE)
        return {name: Blocks(found, n, device) for name, found in starts.items()}

    def _texts(self, ids: Sequence[int]) -> list[str]:
        """Each token by itself."""
        words = {token: str(self._model.tokenizer.decode([token])) for token in set(ids)}
        return [words[token] for token in ids]


def turn_starts(home: Path, agent: str) -> list[int]:
    """Where an agent's turns begin in the log; here each holds one message, or a part of a long one."""
    store = DiskHome(home).open(agent, read_only=True)
    try:
        return [turn.start for turn in store.turns()]
    finally:
        store.close()


def _mean_of_others(gained: Sequence[Tensor], number: int) -> Tensor | None:
    """The mean over all questions but one; None where none has as many blocks."""
    shape = gained[number].shape
    others = [one for other, one in enumerate(gained) if other != number and one.shape == shape]
    return torch.stack(others).mean(0) if others else None
