"""The same turn three ways: by AgentMemory.generate, by ChatInfLLM.invoke and by ChatInfLLM.stream.

Three forks of one agent take the same turns in step, so that their histories, prompts and greedy replies are
the same; that they are is checked. Knows nothing of what is promised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from agentmem import AgentMemory, LanguageModel
from agentmem.agent.streams import ReplyStream
from benchmarks.history import sentences, text_of
from benchmarks.plan import Samples
from langchain_agentmem import ChatInfLLM, close_memories, running
from langchain_agentmem.reply_parser import ReplyParser
from langchain_agentmem.results import Answer
from langchain_agentmem.transcript import Transcript

SIDES = ("generate", "invoke", "stream")
PARTS: Mapping[str, Sequence[tuple[Any, str]]] = {
    "memory_ms": [(AgentMemory, "generate_stream"), (ReplyStream, "__next__")],
    "list_ms": [(running, "read_conversation"), (running, "recognised")],
    "plan_ms": [(Transcript, "of"), (running, "plan_on"), (running, "answered_state")],
    "park_ms": [(AgentMemory, "park"), (AgentMemory, "unpark")],
    "parse_ms": [(ReplyParser, "push"), (ReplyParser, "finish")],
    "message_ms": [(Answer, "chunk"), (Answer, "last_chunk"), (Answer, "message")],
}
"""What is done in a turn, and the functions that do it; none of them runs inside another."""


class SameTurns:
    """The three sides of one model, built on a history of so many tokens.

    Args:
        model: the model.
        home: where the agents are kept meanwhile.
        history: tokens held before the first turn.
        reply: tokens of a reply at most.
        samples: where the figures go.
    """

    def __init__(
        self, model: LanguageModel, home: Path, *, history: int, reply: int, samples: Samples
    ) -> None:
        self._model = model
        self._home = home
        self._history = history
        self._reply = reply
        self._samples = samples
        self._notes = sentences(seed=7)
        self._lists: dict[str, list[BaseMessage]] = {side: [] for side in SIDES}
        """What a caller who sends everything each time has so far."""

    @contextmanager
    def built(self) -> Iterator[AgentMemory]:
        """Read the history and fork it; the reference stays open as long as the block runs."""
        with AgentMemory.resume("history", model=self._model, home=self._home) as memory:
            memory.observe(text_of(self._model.tokenizer, self._history, seed=20))
            for side in SIDES:
                memory.fork(side).close()
        with AgentMemory.resume("generate", model=self._model, home=self._home) as reference:
            yield reference
        close_memories()

    def round(self, reference: AgentMemory, number: int) -> None:
        """One turn on each side, in an order that goes round; the figures of one round belong together."""
        text = f"{next(self._notes)} What does this remind you of? Tell me all of it."
        order = [SIDES[(number + place) % len(SIDES)] for place in range(len(SIDES))]
        answers = {side: self._turn(reference, side, text) for side in order}
        if len(set(answers.values())) > 1:
            self._samples.failed.append(
                f"{self._model.name}: round {number}: the three sides answered {answers}"
            )

    def profiled(self) -> None:
        """One more invoke, with the time that each part of it takes."""
        with timed(PARTS) as seconds:
            started = time.perf_counter()
            self._invoke(f"{next(self._notes)} And this?")
            wall = time.perf_counter() - started
        seconds["rest_ms"] = wall - sum(seconds.values())  # LangChain's own work, above all
        for metric, value in seconds.items():
            self._add(f"adapter_{metric}", 1000 * value)

    # -- one turn ---------------------------------------------------------------------------------

    def _turn(self, reference: AgentMemory, side: str, text: str) -> str:
        started = time.perf_counter()
        if side == "generate":
            reply = reference.generate(
                [{"role": "user", "content": text}], max_new_tokens=self._reply, min_new_tokens=1
            )
            seconds, answer = time.perf_counter() - started, reply.text
            self._add("reply_tokens", reply.usage.output_tokens)
        else:
            message = self._invoke(text) if side == "invoke" else self._stream(text)
            seconds, answer = time.perf_counter() - started, message.text
        self._add(f"turn_{side}_ms", 1000 * seconds)
        return answer

    def _invoke(self, text: str) -> AIMessage:
        said = self._lists["invoke"]
        said.append(HumanMessage(text))
        said.append(self._llm("invoke").invoke(said))
        return said[-1]  # type: ignore[return-value]  # just appended

    def _stream(self, text: str) -> AIMessage:
        said = self._lists["stream"]
        said.append(HumanMessage(text))
        first, *others = self._llm("stream").stream(said)
        said.append(first.__add__(others))
        return said[-1]  # type: ignore[return-value]  # just appended

    def _llm(self, side: str) -> ChatInfLLM:
        """A chat model of its own for each call, as programs make them: it costs nothing."""
        return ChatInfLLM(model=self._model, home=self._home, agent_id=side, max_tokens=self._reply)

    def _add(self, metric: str, value: float) -> None:
        self._samples.add(self._model.name, self._history, metric, value)


@contextmanager
def timed(parts: Mapping[str, Sequence[tuple[Any, str]]]) -> Iterator[dict[str, float]]:
    """Adds up the seconds spent in some functions while the block runs, by part; they are put back after it."""
    spent = dict.fromkeys(parts, 0.0)
    plain = [(owner, name, getattr(owner, name)) for places in parts.values() for owner, name in places]
    for part, places in parts.items():
        for owner, name in places:
            setattr(owner, name, _counting(getattr(owner, name), part, spent))
    try:
        yield spent
    finally:
        for owner, name, function in plain:
            setattr(owner, name, function)


def _counting(function: Callable[..., Any], part: str, spent: dict[str, float]) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[part] += time.perf_counter() - started

    return counted
