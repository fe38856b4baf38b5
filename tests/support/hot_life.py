"""One agent's life of every verb that changes what lies where, as steps; and a look at its blocks on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.errors import InputError
from agentmem.memory.int8_log import readable
from agentmem.memory.residency import CacheUse
from agentmem.memory.rooms import Rooms
from agentmem.memory.slab import KEYS, VALUES, Share
from support.session_agent import log_tensors
from support.templates import tokenizer_for
from support.tiny_language_model import plain_model

AT = "2026-01-02T03:04:05+00:00"
STORY = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. "


def model_with(budget: int | None, *, dtype: str = "float32", device: str = "cpu") -> LanguageModel:
    """The tiny model, not shared with other tests, with so many bytes for blocks on its device."""
    weights = plain_model(dtype=dtype).to(device)  # type: ignore[arg-type]  # transformers' decorator hides self
    model = LanguageModel.wrap(weights, tokenizer_for("chatml"), name="tiny-llama")
    model.device_cache.set_budget(budget)
    return model


class HotLife:
    """Plays the steps on one memory; ``told`` is what each of them showed to its user, ``uses`` its cache's part."""

    def __init__(self, memory: AgentMemory) -> None:
        self.memory = memory
        self.told: list[Any] = []
        self.uses: list[CacheUse | None] = []
        self._states: list[str | None] = []

    def step(self, name: str) -> None:
        """One step; what it told is noted, with a hash of all keys and values afterwards."""
        self.told.append(
            (name, STEPS[name](self), *(_digest(tensor) for tensor in log_tensors(self.memory._store)))
        )

    def say(self, text: str, **options: Any) -> Any:
        """A chat; its ids, the logits behind each, and the blocks that fed it."""
        logits = hashlib.sha256()

        def listen(_: Tensor, scores: Tensor) -> Tensor:
            logits.update(scores.float().cpu().numpy().tobytes())
            return scores

        given: dict[str, Any] = {"max_new_tokens": 6, "logits_processor": [listen], "at": AT, **options}
        reply = self.memory.generate([{"role": "user", "content": text}], **given)
        self.uses.append(reply.receipt.device_cache)
        self._states.append(reply.state_id)
        blocks = [(block.start, block.stop, block.share) for block in reply.receipt.blocks]
        return list(reply.token_ids), logits.hexdigest(), blocks, reply.state_id

    def read(self, source: str) -> Any:
        """A text that leaves the window."""
        text = (STORY if source != "shout" else STORY.upper()) * 3
        return self.memory.observe(text, source=source, at=AT).tokens_held

    def go_back(self) -> Any:
        """To the state before the last but one reply."""
        self.memory.rewind(self._states[-2])
        return self.memory.tokens_held

    def on_from(self) -> Any:
        """Another answer after an earlier reply, as a user who edits a message asks for."""
        return self.say("And what else?", after=self._states[-2])

    def dropped(self) -> Any:
        """A turn that reads more than a window, is begun, and is not remembered; then one that is closed."""
        told = self.say(STORY * 2, remember=False)
        with self.memory.stream(STORY.lower() * 2, max_new_tokens=10, at=AT) as pieces:
            next(iter(pieces), None)
        return told

    def fork(self) -> Any:
        """A twin says something else; this one goes on."""
        with self.memory.fork(f"twin of {len(self.told)}") as twin:
            return list(twin.chat("I am another one.", max_new_tokens=6, at=AT).token_ids)

    def refused(self) -> Any:
        """A call that fails halfway."""

        def fail(_: Tensor, scores: Tensor) -> Tensor:
            raise InputError("no")

        try:
            self.say(STORY.title() * 2, logits_processor=[fail])
        except InputError as error:
            return str(error)
        return None

    def wait(self) -> Any:
        """Park, and go on."""
        self.memory.park()
        return self.memory.unpark()

    def hold_back(self) -> Any:
        """Quarantine, a turn, release, a turn with a filter."""
        self.memory.quarantine("story")
        told = [self.say("Which animals?")]
        self.memory.release("story")
        return [*told, self.say("Which animals now?", recall_from={"source": ["shout"]})]


STEPS: Mapping[str, Callable[[HotLife], Any]] = {
    "hello": lambda life: life.say("Hello there! My dog is called Biscuit."),
    "story": lambda life: life.read("story"),
    "question": lambda life: life.say("What is my dog called?", temperature=0.9, seed=7),
    "shout": lambda life: life.read("shout"),
    "answer": lambda life: life.say("How far is it?", stop=("e",)),
    "again": lambda life: life.say("Please say it again."),
    "go back": HotLife.go_back,
    "on from": HotLife.on_from,
    "dropped": HotLife.dropped,
    "refused": HotLife.refused,
    "fork": HotLife.fork,
    "wait": HotLife.wait,
    "hold back": HotLife.hold_back,
    "forget": lambda life: life.memory.forget(turn=life.memory.history()[2].turn).tokens,
    "rebuild": lambda life: life.memory.forget(source="shout", mode="rebuild").tokens,
    "expire": lambda life: life.memory.apply_retention(max_tokens=200).tokens,
    "repair": lambda life: life.memory.repair().ok,
}
WHOLE = (
    "hello, story, question, shout, answer, again, on from, dropped, again, go back, question, refused, again, fork, "
    "again, wait, answer, hold back, again, forget, again, repair, again, rebuild, again, story, question, expire, again"
).split(", ")


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.float().numpy().tobytes()).hexdigest()[:16]


def share_of(memory: AgentMemory) -> Share | None:
    """A memory's share of its model's slab."""
    return memory._hot._share


def held_and_wrong(memory: AgentMemory) -> tuple[int, list[tuple[int, int, int, int]]]:
    """How many blocks a turn that is begun now finds on the device, and those that are not what its log holds there."""
    store, config = memory._store, memory.config
    share = memory._hot.begun(memory.language_model.device_cache, store, config)
    slab = None if share is None else share.slab
    if share is None or slab is None:
        return 0, []
    log, held, wrong = readable(store.log, Rooms(torch.device("cpu"))), 0, []
    for layer, residency in slab.resident.items():
        heads, dim = log.layout.layers[layer]
        whole = [torch.empty(heads, log.length, dim, dtype=log.layout.dtype) for _ in (KEYS, VALUES)]
        log.read(layer, 0, log.length, *whole)
        blocks, slots = residency._held
        for unit, slot in zip(blocks.tolist(), slots.tolist(), strict=True):
            block, head, part = unit & (1 << 28) - 1, unit >> 28 & 255, unit >> 36 & 1
            if unit >> 37 == share._number:
                start = config.sink_tokens + block * config.block_tokens
                true = whole[part][head, start : start + config.block_tokens]
                held += 1
                if not torch.equal(true, slab.places[layer][slot].cpu()):
                    wrong.append((layer, part, head, block))
    return held, wrong
