"""Memory tools: what a model finds, keeps and forgets by them, and that the agent is never its own choice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from agentmem import AgentMemory, AgentNotFoundError, InMemoryHome
from langchain_agentmem.conversation import Said
from langchain_agentmem.tool_style import told, tool_style
from langchain_agentmem.tools import NOTE, Forget, Remember, SearchMemory, memory_tools
from support.scripted import Scripted
from support.tiny_language_model import SMALL, language_model

FACTS = (
    "The first words fill the sinks of the memory.",
    "My dog is called Biscuit.",
    "My cat is called Tom.",
)


def filled_home() -> InMemoryHome:
    """A home where ada was told three things, one in each turn."""
    home = InMemoryHome()
    with AgentMemory.resume("ada", model=language_model(), home=home, config=SMALL) as memory:
        for day, text in enumerate(FACTS, 1):
            memory.append([{"role": "user", "content": text}], at=f"2026-01-0{day}T10:00:00+00:00")
    return home


def tools_of(
    agent_id: str | None = "ada", home: InMemoryHome | None = None, **options: Any
) -> dict[str, BaseTool]:
    """The tools by their names."""
    place = filled_home() if home is None else home
    made = memory_tools(agent_id, home=place, model=language_model(), config=SMALL, **options)
    return {tool.name: tool for tool in made}


def texts(home: InMemoryHome, agent_id: str = "ada") -> list[str]:
    """Everything that the agent holds."""
    with AgentMemory.resume(agent_id, home=home, read_only=True) as memory:
        return [message["content"] for turn in memory.history() for message in turn.messages]


class Case:
    """What LangChain's own tests need to know of a tool: here, one on an agent that holds something."""

    made: type[BaseTool]
    arguments: tuple[tuple[str, Any], ...]

    @property
    def tool_constructor(self) -> type[BaseTool]:
        return self.made

    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"agent_id": "ada", "home": filled_home(), "model": language_model(), "memory_config": SMALL}

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return dict(self.arguments)


class SearchCase(Case):
    """search_memory."""

    made = SearchMemory
    arguments = (("query", "What is my dog called?"), ("limit", 2))


class RememberCase(Case):
    """remember."""

    made = Remember
    arguments = (("text", "The user has a dog."),)


class ForgetCase(Case):
    """forget."""

    made = Forget
    arguments = (("match", "Biscuit"),)


class TestSearchUnit(SearchCase, ToolsUnitTests):
    """LangChain's unit tests."""


class TestSearchIntegration(SearchCase, ToolsIntegrationTests):
    """LangChain's integration tests."""


class TestRememberUnit(RememberCase, ToolsUnitTests):
    """LangChain's unit tests."""


class TestRememberIntegration(RememberCase, ToolsIntegrationTests):
    """LangChain's integration tests."""


class TestForgetUnit(ForgetCase, ToolsUnitTests):
    """LangChain's unit tests."""


class TestForgetIntegration(ForgetCase, ToolsIntegrationTests):
    """LangChain's integration tests."""


# -- searching -------------------------------------------------------------------------------------


def test_search_tells_turn_and_date() -> None:
    """A result is a line: turn, date, who said it, what; a question is answered by words it shares."""
    found = tools_of()["search_memory"].invoke({"query": "What is my dog called?", "limit": 2})

    assert found == (
        "turn 2, 2026-01-02, user: My dog is called Biscuit.\nturn 3, 2026-01-03, user: My cat is called Tom."
    )


def test_search_that_finds_nothing_says_so() -> None:
    """No shared word, an empty agent and an agent that does not exist yet are answers, not errors."""
    home = filled_home()

    assert "zebra" in tools_of(home=home)["search_memory"].invoke({"query": "zebra"})
    assert "empty" in tools_of("new", home=home)["search_memory"].invoke({"query": "dog"})
    with pytest.raises(AgentNotFoundError):
        home.peek("new")


def test_long_messages_are_cut_and_stay_in_one_line() -> None:
    """A result is short enough for a prompt, however long the message was."""
    home = filled_home()
    with AgentMemory.resume("ada", model=language_model(), home=home) as memory:
        memory.append([{"role": "user", "content": "zebra\n\n" + "word " * 200}])

    found = tools_of(home=home)["search_memory"].invoke({"query": "zebra"})

    assert found.startswith("turn 4, ") and found.endswith("…")
    assert len(found) < 350 and "\n" not in found


# -- remembering -----------------------------------------------------------------------------------


def test_what_is_remembered_is_found_again() -> None:
    """A note is a turn of its own, marked as a note, there for the next search."""
    home = filled_home()
    tools = tools_of(home=home)

    assert tools["remember"].invoke({"text": " The user likes tea. "}) == "Remembered (turn 4)."

    assert texts(home)[-1] == NOTE + "The user likes tea."
    assert "turn 4" in tools["search_memory"].invoke({"query": "tea"})


def test_the_same_note_is_kept_once() -> None:
    """A tool that is run twice for one call, as LangGraph may, leaves one note."""
    home = filled_home()
    remember = tools_of(home=home)["remember"]

    remember.invoke({"text": "The user likes tea."})
    assert remember.invoke({"text": "The user likes tea."}) == "This is remembered already (turn 4)."

    assert len(texts(home)) == 4


def test_a_new_agent_can_remember() -> None:
    """The first note makes the agent."""
    home = InMemoryHome()

    tools_of("new", home=home)["remember"].invoke({"text": "The user likes tea."})

    assert texts(home, "new") == [NOTE + "The user likes tea."]


TEMPLATES = "chatml qwen2.5 llama3.1 mistral-v3 granite harmony glm4 gemma2 phi3 r1 none-pieces".split()


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_note_fits_between_a_call_and_its_result(template: str) -> None:
    """In the middle of an agent's loop the note is written, and the call's result and an answer behind it."""
    model = language_model(template=template)
    call = '<tool_call>\n{"name": "remember", "arguments": {"text": "Tea."}}\n</tool_call>'
    result = {"role": "tool", "content": "Done so.", "name": "remember", "tool_call_id": "call00001"}
    with AgentMemory.resume("ada", model=model, home=InMemoryHome(), config=SMALL) as memory:
        asked = {"role": "user", "content": "Remember that I like tea."}
        memory.generate([asked], logits_processor=[Scripted(memory.tokenizer, call)])

        memory_tools(memory=memory)[1].invoke({"text": "The user likes tea."})
        memory.generate([told(Said(result, "key", None, None), tool_style(model))], max_new_tokens=2)

        text = memory.tokenizer.decode(memory._store.token_ids(0, memory.tokens_held))
        assert text.index("</tool_call>") < text.index("The user likes tea.") < text.index("Done so.")
        assert len(memory.history()) == 3


# -- forgetting ------------------------------------------------------------------------------------


def test_forgetting_shows_first() -> None:
    """Without confirm nothing is forgotten, and the turns are shown; with it they are gone."""
    home = filled_home()
    forget = tools_of(home=home)["forget"]

    shown = forget.invoke({"match": "biscuit"})
    assert "confirm=true" in shown and "turn 2, 2026-01-02, user: My dog is called Biscuit." in shown
    assert texts(home) == list(FACTS)

    assert forget.invoke({"match": "biscuit", "confirm": True}) == "Forgotten for good: turn 2."
    assert texts(home) == [FACTS[0], FACTS[2]]
    assert "no turn holds 'biscuit'" in forget.invoke({"match": "biscuit"})


def test_a_turn_is_forgotten_by_number() -> None:
    """By number one turn is forgotten; again, it says that it is gone."""
    home = filled_home()
    forget = tools_of(home=home)["forget"]

    assert forget.invoke({"turn": 3, "confirm": True}) == "Forgotten for good: turn 3."
    assert forget.invoke({"turn": 3}) == "Turn 3 is forgotten already."
    assert texts(home) == list(FACTS[:2])


def test_the_turn_that_asks_stays() -> None:
    """The turn under way holds the text as well; it is not cut out from under its own call, and is named."""
    home = filled_home()
    with AgentMemory.resume("ada", model=language_model(), home=home) as memory:
        call = '<tool_call>\n{"name": "forget", "arguments": {"match": "Biscuit"}}\n</tool_call>'
        memory.generate(
            [{"role": "user", "content": "Forget Biscuit!"}],
            logits_processor=[Scripted(memory.tokenizer, call)],
        )

    said = tools_of(home=home)["forget"].invoke({"match": "Biscuit", "confirm": True})

    assert said.startswith("Forgotten for good: turn 2.\nTurn 4, in which this is asked")
    assert "Forget Biscuit!" in texts(home) and FACTS[1] not in texts(home)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("forget", {"turn": 99}, "99"),
        ("forget", {"turn": 1}, "rebuild"),
        ("forget", {"turn": 1, "confirm": True}, "rebuild"),
        ("forget", {}, "match"),
        ("forget", {"match": " "}, "match"),
        ("forget", {"match": "dog", "turn": 2}, "one of the two"),
        ("search_memory", {"query": "?!"}, "word"),
        ("remember", {"text": "  "}, "empty"),
    ],
)
def test_errors_reach_the_model_as_tool_errors(tool: str, arguments: dict[str, Any], words: str) -> None:
    """What cannot be done comes back as a message with status "error" that says what to do; nothing has changed."""
    home = filled_home()
    made = tools_of(home=home)[tool]

    message = made.invoke({"name": tool, "args": arguments, "id": "1", "type": "tool_call"})

    assert isinstance(message, ToolMessage) and message.status == "error"
    assert words in message.content
    assert texts(home) == list(FACTS)
    made.handle_tool_error = False
    with pytest.raises(ToolException, match=words):
        made.invoke(arguments)


def test_a_busy_agent_is_a_tool_error() -> None:
    """When another holds the agent, the tool says so instead of hanging."""
    home = filled_home()
    with AgentMemory.resume("ada", model=language_model(), home=home):
        answer = tools_of(home=home, wait=0.0)["remember"].invoke({"text": "Tea."})

    assert "another writer" in answer


# -- whose memory ----------------------------------------------------------------------------------


def test_the_model_never_sees_the_agent() -> None:
    """The schemas that a model is given name neither agent, home nor config."""
    schemas = {
        name: convert_to_openai_tool(tool)["function"]["parameters"] for name, tool in tools_of().items()
    }

    assert {name: sorted(schema["properties"]) for name, schema in schemas.items()} == {
        "search_memory": ["limit", "query"],
        "remember": ["text"],
        "forget": ["confirm", "match", "turn"],
    }


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_agent_is_chosen_by_the_call(asynchronous: bool) -> None:
    """The config's agent_id comes first, then the constructor's, then the thread; none is a tool error."""
    home = InMemoryHome()

    def remember(agent: str | None, text: str, **configurable: str) -> str:
        tool = tools_of(agent, home=home)["remember"]
        config: Any = {"configurable": configurable}
        if asynchronous:
            return str(asyncio.run(tool.ainvoke({"text": text}, config)))
        return str(tool.invoke({"text": text}, config))

    remember(None, "To bob.", agent_id="bob", thread_id="t")
    remember("ada", "To eve.", agent_id="eve")
    remember("ada", "To ada.", thread_id="t")
    remember(None, "To t.", thread_id="t")
    assert "configurable" in remember(None, "To nobody.")

    names = ("bob", "eve", "ada", "t")
    assert {name: texts(home, name) for name in names} == {name: [f"{NOTE}To {name}."] for name in names}


@pytest.fixture
def memory() -> Iterator[AgentMemory]:
    """An open memory."""
    with AgentMemory.resume("ada", model=language_model(), home=filled_home(), config=SMALL) as memory:
        yield memory


def test_an_open_memory_serves_the_tools(memory: AgentMemory) -> None:
    """Tools of an open memory use it, whatever the config says."""
    search, remember, forget = memory_tools(memory=memory)

    assert remember.invoke({"text": "Tea."}, {"configurable": {"agent_id": "bob"}}) == "Remembered (turn 4)."
    assert "Tea." in search.invoke({"query": "tea"})
    assert forget.invoke({"turn": 4, "confirm": True}) == "Forgotten for good: turn 4."
    assert len(memory.history()) == 4


class Calling(GenericFakeChatModel):
    """Another model, which takes tools and says things in turn."""

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_agent_of_another_model_uses_them(asynchronous: bool) -> None:
    """In LangChain's agent each user's calls reach that user's memory, and errors come back as results."""
    home = InMemoryHome()
    calls: list[ToolCall] = [
        {"name": "remember", "args": {"text": "The user likes tea."}, "id": "1", "type": "tool_call"},
        {"name": "search_memory", "args": {"query": "tea"}, "id": "2", "type": "tool_call"},
        {"name": "forget", "args": {"turn": 9}, "id": "3", "type": "tool_call"},
    ]
    answers = [AIMessage("", tool_calls=[call]) for call in calls]
    for user in ("ada", "bob"):
        graph = create_agent(
            Calling(messages=iter([*answers, AIMessage("Done.")])), list(tools_of(None, home).values())
        )
        config: Any = {"configurable": {"agent_id": user, "thread_id": "1"}}
        given: Any = {"messages": "Remember that I like tea."}
        done = asyncio.run(graph.ainvoke(given, config)) if asynchronous else graph.invoke(given, config)

        results = [message for message in done["messages"] if isinstance(message, ToolMessage)]
        assert [result.status for result in results] == ["success", "success", "error"]
        assert "The user likes tea." in results[1].text
        assert texts(home, user) == [NOTE + "The user likes tea."]
