"""AgentMemoryMiddleware: whose memory it is, whose calls are remembered, what the graph's state says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from langchain.agents.middleware import AgentMiddleware, ModelRetryMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from agentmem import InputError
from langchain_agentmem import AgentMemoryMiddleware
from support.graphs import config, human, mark, plain_agent, shown, talk
from support.langchain_agents import chat_model, held

DOG, CAT = "My dog is called Biscuit.", "I have a cat, too."


@dataclass
class Visitor:
    """Who talks to the agent: the run's context."""

    name: str


class ToolFirst(AgentMiddleware):
    """Makes a model that babbles call a tool when asked something, and answer when it has the result."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        asked = request.messages[-1].type == "human"
        return handler(request.override(tool_choice="any" if asked else "none"))


class Elsewhere(AgentMiddleware):
    """Sends the calls that are named by number to another model."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.model = GenericFakeChatModel(messages=iter(AIMessage("a foreign answer") for _ in range(9)))
        self.numbers, self.calls = numbers, 0

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        self.calls += 1
        return handler(request.override(model=self.model) if self.calls in self.numbers else request)


class FailsAfterwards(AgentMiddleware):
    """Loses the first answer on its way back, as a broken connection would."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        self.calls += 1
        response = handler(request)
        if self.calls == 1:
            raise ConnectionError("lost")
        return response


def test_every_checkpoint_says_where_the_memory_stood() -> None:
    """The state's key equals the stamp of the newest answer at each checkpoint; input and output lack it."""
    agent = plain_agent(chat_model(), middleware=[AgentMemoryMiddleware("ada")])
    result = agent.invoke(human(DOG), config())
    talk(agent, CAT)
    history = list(agent.get_state_history(config()))

    assert set(result) == {"messages"}
    assert "agentmem_state_id" not in agent.get_input_jsonschema()["properties"]
    assert history[0].values["agentmem_state_id"]
    for snapshot in history:
        stamps = [mark(m)["state_id"] for m in snapshot.values["messages"] if isinstance(m, AIMessage)]
        assert snapshot.values.get("agentmem_state_id") == (stamps[-1] if stamps else None)


def test_the_agent_is_the_middlewares_unless_the_call_names_one() -> None:
    """A name, a function of the request, the config's agent before both, and the thread without any."""
    llm = chat_model()
    by_context = AgentMemoryMiddleware(lambda request: request.runtime.context.name)
    plain_agent(llm, middleware=[AgentMemoryMiddleware("ada")]).invoke(human("1"), config())
    plain_agent(llm, middleware=[by_context], context_schema=Visitor).invoke(
        human("2"), config(), context=Visitor("bob")
    )
    plain_agent(llm, middleware=[AgentMemoryMiddleware("ada")]).invoke(human("3"), config(agent_id="eve"))
    plain_agent(llm, middleware=[AgentMemoryMiddleware()]).invoke(human("4"), config("thread"))

    assert [held(llm, name)[0] for name in ("ada", "bob", "eve", "thread")] == [
        ("user", number) for number in "1234"
    ]
    assert all(len(held(llm, name)) == 2 for name in ("ada", "bob", "eve", "thread"))


def test_no_agent_at_all_is_refused() -> None:
    """With a middleware whose purpose is a memory, a call for nobody's memory is an error, not a loss."""
    llm = chat_model()
    agent = plain_agent(llm, middleware=[AgentMemoryMiddleware()], checkpointer=None)
    nameless = plain_agent(llm, middleware=[AgentMemoryMiddleware(lambda _: "")])

    with pytest.raises(InputError, match="no agent is named"):
        agent.invoke(human(DOG))
    with pytest.raises(InputError, match="no name"):
        nameless.invoke(human(DOG), config())
    for wrong in ({"agent_id": " "}, {"memory": "off"}):
        with pytest.raises(InputError):
            AgentMemoryMiddleware(**wrong)


def test_only_the_agents_own_calls_are_remembered() -> None:
    """A tool that asks the same model leaves no trace; the call, its result and the answer are held in order."""
    llm = chat_model(memory="off", max_tokens=200)

    @tool
    def look_up(name: Literal["Ann", "Bob"]) -> str:
        """Look a name up."""
        return "side: " + llm.invoke("Say something about names.", max_tokens=4).content

    agent = plain_agent(llm, tools=[look_up], middleware=[ToolFirst(), AgentMemoryMiddleware()])
    result = agent.invoke(human(DOG), config())
    kinds = [message.type for message in result["messages"]]
    texts = [text for _, text in held(llm, "t")]

    assert kinds == ["human", "ai", "tool", "ai"]
    assert result["messages"][1].tool_calls[0]["name"] == "look_up"
    assert [mark(m)["plan"] for m in result["messages"] if isinstance(m, AIMessage)] == ["fresh", "extend"]
    assert [role for role, _ in held(llm, "t")] == ["user", "assistant", "tool", "assistant"]
    assert any(text.startswith("side: ") for text in texts)
    assert not any("about names" in text for text in texts)


class Mood(BaseModel):
    """How the user feels."""

    mood: Literal["calm", "merry"]


def test_a_structured_answer_is_part_of_the_thread() -> None:
    """With response_format the answer is an object; the thread goes on from it and nothing is read twice."""
    llm = chat_model(max_tokens=200)
    agent = plain_agent(llm, response_format=ToolStrategy(Mood), middleware=[AgentMemoryMiddleware()])
    first = agent.invoke(human(DOG), config())
    second = agent.invoke(human(CAT), config())

    assert isinstance(first["structured_response"], Mood)
    assert isinstance(second["structured_response"], Mood)
    answers = [message for message in second["messages"] if isinstance(message, AIMessage)]
    assert [mark(answer)["plan"] for answer in answers] == ["fresh", "extend"]
    assert [role for role, _ in held(llm, "t")] == ["user", "assistant", "tool", "user", "assistant"]
    assert [text for role, text in held(llm, "t") if role == "user"] == [DOG, CAT]


def test_a_run_that_waits_for_approval_goes_on() -> None:
    """Interrupted before its tools: the state says where the memory stands, and the run goes on from there."""
    llm = chat_model(max_tokens=200)

    @tool
    def look_up(name: Literal["Ann", "Bob"]) -> str:
        """Look a name up."""
        return "found"

    agent = plain_agent(
        llm, tools=[look_up], middleware=[ToolFirst(), AgentMemoryMiddleware()], interrupt_before=["tools"]
    )
    agent.invoke(human(DOG), config())
    waiting = agent.get_state(config()).values
    result = agent.invoke(None, config())

    assert waiting["agentmem_state_id"] == mark(waiting["messages"][-1])["state_id"]
    assert mark(result["messages"][-1])["parent"] == waiting["agentmem_state_id"]
    assert isinstance(result["messages"][-2], ToolMessage)
    assert [role for role, _ in held(llm, "t")] == ["user", "assistant", "tool", "assistant"]


def test_a_repeated_call_is_stored_once() -> None:
    """A retry with the same list replaces the answer that was lost, and asks the question once."""
    llm = chat_model()
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0, retry_on=(ConnectionError,))
    lost = FailsAfterwards()
    agent = plain_agent(llm, middleware=[retry, lost, AgentMemoryMiddleware()])
    result = agent.invoke(human(DOG), config())

    assert lost.calls == 2
    assert mark(result["messages"][-1])["plan"] == "regenerate"
    assert held(llm, "t") == shown(result["messages"])


def test_another_model_is_called_unchanged() -> None:
    """A model without a memory gets no options of ours, one warning is given, and its answer is read in later."""
    llm = chat_model()
    agent = plain_agent(llm, middleware=[Elsewhere(2, 4), AgentMemoryMiddleware()])
    talk(agent, "one")
    with pytest.warns(UserWarning, match="GenericFakeChatModel is no ChatInfLLM"):
        talk(agent, "two")
    answers = talk(agent, "three", "four", "five")
    thread = agent.get_state(config()).values["messages"]

    assert answers[1].content == "a foreign answer"
    assert held(llm, "t") == shown(thread)
    assert [text for _, text in shown(thread)].count("a foreign answer") == 2


def test_reading_leaves_the_memory_as_it_is() -> None:
    """memory="read", of the middleware or of the model: answers know the memory, and nothing is added."""
    llm = chat_model()
    talk(plain_agent(llm, middleware=[AgentMemoryMiddleware("ada")]), DOG)
    before = held(llm, "ada")
    reading = [
        (llm, AgentMemoryMiddleware("ada", memory="read")),
        (llm.model_copy(update={"memory": "read"}), AgentMemoryMiddleware("ada")),
    ]
    for model, middleware in reading:
        answer = talk(plain_agent(model, middleware=[middleware]), CAT, thread="other")[0]
        assert answer.usage_metadata["input_token_details"]["cache_read"] > 0

    assert held(llm, "ada") == before


async def test_the_async_twin_does_the_same() -> None:
    """ainvoke passes agent and state as invoke does."""
    llm = chat_model()
    agent = plain_agent(llm, middleware=[AgentMemoryMiddleware("ada")])
    for text in (DOG, CAT):
        result = await agent.ainvoke(human(text), config())
    state = await agent.aget_state(config())

    assert state.values["agentmem_state_id"] == mark(result["messages"][-1])["state_id"]
    assert held(llm, "ada") == shown(result["messages"])
