"""A caller's long list: what LangGraph's resending of it costs, and how long the planner looks at it.

The list of the first is made by a real graph, turn by turn; that of the second is made up, since only its
length matters. Knows nothing of what is promised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from agentmem import AgentMemory, LanguageModel
from benchmarks.history import sentences
from benchmarks.plan import Samples
from langchain_agentmem import ChatInfLLM
from langchain_agentmem.conversation import Said, read_conversation
from langchain_agentmem.held import Held
from langchain_agentmem.reconcile import plan

THREAD = "resent"


class Resending:
    """A LangGraph thread that has grown to so many messages, on a memory that holds them."""

    def __init__(
        self, model: LanguageModel, home: Path, *, messages: int, reply: int, samples: Samples
    ) -> None:
        self._model = model
        self._home = home
        self._length = messages
        self._samples = samples
        self._notes = sentences(seed=11)
        self._graph = _graph(ChatInfLLM(model=model, home=home, max_tokens=reply))
        self._config: Any = {"configurable": {"thread_id": THREAD}}

    def grow(self) -> None:
        """Talk until the list has its length."""
        while len(self.listed()) < self._length:
            self._say(next(self._notes))

    def listed(self) -> list[AnyMessage]:
        """The thread's messages, as the checkpointer has them."""
        return list(self._graph.get_state(self._config).values.get("messages", []))

    def turn(self) -> None:
        """One message more, and what was read for it; the list is two messages longer then."""
        text = next(self._notes)
        alone, held = self._read_alone(text)
        self._say(text)
        after = self.listed()
        answer = after[-1]
        assert isinstance(answer, AIMessage)
        assert answer.usage_metadata is not None
        details = answer.usage_metadata["input_token_details"]
        receipt = answer.response_metadata["agentmem"]["receipt"]
        self._add("resend_tokens_read", details["cache_creation"])
        self._add("resend_message_tokens", alone)
        self._add("resend_tokens_reread", receipt["tokens_reread"])
        self._add("resend_history_tokens_read", details["cache_creation"] - alone)
        self._add("resend_tokens_held", details["cache_read"])
        self._add("resend_stateless_tokens", self._stateless(after[:-1]))
        self._add("resend_first_token_ms", 1000 * receipt["seconds_to_first"])
        if held != details["cache_read"]:
            self._samples.failed.append(
                f"{self._model.name}: {held} tokens were held, the turn says {details}"
            )

    def _say(self, text: str) -> None:
        self._graph.invoke({"messages": [HumanMessage(text)]}, self._config)

    def _read_alone(self, text: str) -> tuple[int, int]:
        """(tokens that AgentMemory reads when it is given the new message and nothing else, tokens held)."""
        with AgentMemory.resume(THREAD, model=self._model, home=self._home, wait=10) as memory:
            new = [{"role": "user", "content": text}]
            usage = memory.generate(new, remember=False, max_new_tokens=1).usage
        return usage.input_tokens, usage.cached_tokens

    def _stateless(self, messages: Sequence[BaseMessage]) -> int:
        """Tokens of the whole list in the model's template: what a model without a memory reads."""
        rows = [
            {"role": "user" if isinstance(one, HumanMessage) else "assistant", "content": one.text}
            for one in messages
        ]
        text = self._model.tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)
        return len(self._model.tokenizer.encode(str(text), add_special_tokens=False))

    def _add(self, metric: str, value: float) -> None:
        self._samples.add(self._model.name, self._length, metric, value)


class Planning:
    """A list of so many messages that a memory holds, all but the last."""

    def __init__(self, name: str, *, messages: int, samples: Samples) -> None:
        self._name = name
        self._length = messages
        self._samples = samples
        self._list = made_up(messages)
        self._held = as_held(read_conversation(self._list, thread=THREAD).said[:-1])

    def round(self) -> None:
        """Read the list, and plan it."""
        seconds, read = clocked(lambda: read_conversation(self._list, thread=THREAD))
        self._samples.add(self._name, self._length, "planner_list_ms", 1000 * seconds)
        seconds, found = clocked(lambda: plan(self._held, read.said, thread=THREAD, lookup=lambda _: None))
        self._samples.add(self._name, self._length, "planner_plan_ms", 1000 * seconds)
        if found.kind != "extend" or list(found.new) != [self._length]:
            self._samples.failed.append(f"the plan of {self._length} messages and a new one is {found}")


def made_up(messages: int) -> list[BaseMessage]:
    """An even number of messages that were said and answered, and a new one."""
    notes = sentences(seed=13)
    listed: list[BaseMessage] = []
    for number in range(0, messages, 2):
        ours = {"agentmem": {"state_id": f"{number + 2:064x}"}}
        listed.append(HumanMessage(next(notes), id=f"human-{number}"))
        listed.append(AIMessage(next(notes), id=f"ai-{number}", response_metadata=ours))
    return [*listed, HumanMessage(next(notes), id="new")]


def as_held(said: Sequence[Said]) -> list[Held]:
    """The records of a memory that holds these messages, two to a turn."""
    return [
        Held(
            key=one.key,
            id=one.id,
            state_id=one.state_id,
            parent=said[2 * (place // 2) - 1].state_id if place > 1 else None,
            thread=THREAD,
            turn=place // 2 + 1,
            ours=one.state_id is not None,
            listed=True,
            role=str(one.message["role"]),
        )
        for place, one in enumerate(said)
    ]


def clocked(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result) of a call."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def _graph(llm: ChatInfLLM) -> Any:
    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [llm.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    return graph.compile(checkpointer=InMemorySaver())
