"""A life of an agent with a tiny model, one verb after another, the same for the same seed.

An uninterrupted twin lives it first and tells, after each verb, what there is: history, K/V bytes, and the
logits of a question that is not remembered. Whoever is killed on the way must match it at every step.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from agentmem.agent import AgentMemory, observing
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentExistsError
from agentmem.store import DiskHome, MemoryKey, Store, Turn
from support.stores import contents
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
PART_TOKENS = 40
SEGMENT_TOKENS = 128
WORDS = "the quick brown fox jumps over a lazy dog and far away Biscuit eats 12 apples in May".split()
QUESTION = [{"role": "user", "content": "What now?"}]


@dataclass(frozen=True)
class Verb:
    """One thing that is done. ``name`` is for people."""

    name: str
    act: Callable[[AgentMemory], Any]


@dataclass(frozen=True)
class Step:
    """What there is after a verb; ``parts``: what there is after each commit within it, in short."""

    verb: Verb
    seen: Any
    parts: Sequence[Any]


def model() -> LanguageModel:
    """The model of all these lives."""
    return language_model()


def home_of(folder: Path, key: MemoryKey | None = None) -> DiskHome:
    """A home with small segments."""
    observing.PART_TOKENS = PART_TOKENS
    return DiskHome(folder, segment_tokens=SEGMENT_TOKENS, digest_blocks=32, key=key)


def opened(folder: Path, name: str = "ada", key: MemoryKey | None = None) -> AgentMemory:
    """The agent, open for writing."""
    return AgentMemory.resume(name, model=model(), home=home_of(folder, key), config=SMALL)


def verbs(seed: int, count: int) -> list[Verb]:
    """A life of so many verbs."""
    chance = random.Random(seed)
    makers = (_chat, _chat, _chat, _observe, _append, _rewind, _after, _forget, _fork, _collect)
    return [_chat(chance), _observe(chance), *(chance.choice(makers)(chance) for _ in range(count - 2))]


def lived(folder: Path, life: Sequence[Verb]) -> list[Step]:
    """Live it without a break; what there is after each verb, from the empty agent on."""
    memory = opened(folder)
    steps = [Step(Verb("nothing", lambda _: None), look(memory, folder), [])]
    for verb in life:
        with _parts(memory) as parts:
            verb.act(memory)
        steps.append(Step(verb, look(memory, folder), parts))
    memory.close()
    return steps


def look(memory: AgentMemory, folder: Path) -> Any:
    """Everything that can be seen: history, K/V bytes, the logits behind a question, and who else is there."""
    history = [(turn.state_id, turn.messages, turn.forgotten) for turn in memory.history()]
    return (short_of(memory._store), history, logits_of(memory), _fork_seen(folder))


def short_of(store: Store) -> Any:
    """The state's name, how many tokens there are, and a hash over their K/V."""
    digest = hashlib.sha256(b"".join(one.numpy().tobytes() for one in contents(store.log)))
    return (None if store.head is None else store.head.state_id, store.log.committed, digest.hexdigest())


def logits_of(memory: AgentMemory) -> str:
    """A hash over the logits of an answer that is not remembered."""
    found = hashlib.sha256()

    def listen(_: Tensor, scores: Tensor) -> Tensor:
        found.update(scores.numpy().tobytes())
        return scores

    memory.generate(QUESTION, remember=False, at=AT, max_new_tokens=1, logits_processor=[listen])
    return found.hexdigest()


def _fork_seen(folder: Path) -> Any:
    home = home_of(folder)
    if not home.exists("bob"):
        return None
    store = home.open("bob")
    report = store.verify(deep=True)
    assert report.ok, f"the fork does not verify: {report.findings}"
    seen = [(turn.state_id, turn.forgotten) for turn in store.turns()], store.log.committed
    store.close()
    return seen


@contextmanager
def _parts(memory: AgentMemory) -> Iterator[list[Any]]:
    """What there is after each commit in the block."""
    store: Any = memory._store
    real, found = store.commit, []

    def commit(turn: Any) -> Any:
        committed = real(turn)
        found.append(short_of(memory._store))
        return committed

    store.commit = commit
    try:
        yield found
    finally:
        del store.commit


# -- verbs ---------------------------------------------------------------------------------------------


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(words))


def _chat(chance: random.Random) -> Verb:
    said, seed = _text(chance, chance.randint(3, 25)), chance.randint(0, 99)
    return Verb("chat", lambda memory: memory.chat(said, at=AT, max_new_tokens=4, temperature=0.8, seed=seed))


def _observe(chance: random.Random) -> Verb:
    text = _text(chance, chance.randint(20, 90))
    source = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Verb("observe", lambda memory: memory.observe(text, source=source, at=AT))


def _append(chance: random.Random) -> Verb:
    message = {"role": "user", "content": _text(chance, 6), "metadata": {"n": chance.random()}}
    return Verb("append", lambda memory: memory.append([message], at=AT))


def _living(memory: AgentMemory) -> list[Turn]:
    return [turn for turn in memory._store.turns() if not turn.forgotten]


def _rewind(chance: random.Random) -> Verb:
    back = chance.randint(1, 3)

    def act(memory: AgentMemory) -> None:
        turns = _living(memory)
        if len(turns) > back:
            memory.rewind(turns[-1 - back].state_id)

    return Verb("rewind", act)


def _after(chance: random.Random) -> Verb:
    message, place = [{"role": "user", "content": _text(chance, 8)}], chance.random()

    def act(memory: AgentMemory) -> None:
        turns = _living(memory)
        after = turns[int(place * len(turns))].state_id if turns else None
        memory.generate(message, at=AT, max_new_tokens=3, after=after)

    return Verb("turn elsewhere", act)


def _forget(chance: random.Random) -> Verb:
    place = chance.random()

    def act(memory: AgentMemory) -> None:
        turns = [turn for turn in _living(memory) if turn.start >= SMALL.sink_tokens]
        if len(turns) > 2:
            memory.forget(turn=turns[int(place * len(turns))].id)

    return Verb("forget", act)


def _fork(chance: random.Random) -> Verb:
    def act(memory: AgentMemory) -> None:
        try:
            memory.fork("bob").close()
        except AgentExistsError:
            AgentMemory.delete("bob", home=memory._home)

    return Verb("fork or delete", act)


def _collect(chance: random.Random) -> Verb:
    return Verb("collect", lambda memory: memory._store.collect())
