"""What callers really send, through the chat model: which messages become memory, and which are known already."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from agentmem import AgentMemory, HistoryChangedError
from langchain_agentmem import ChatInfLLM
from support.langchain_agents import chat_model, held, said
from support.tiny_language_model import language_model


class Caller:
    """Keeps a list of messages as an application does, and sends all of it each time."""

    def __init__(self, llm: ChatInfLLM, *, ids: bool = True) -> None:
        self.llm = llm
        self.messages: list[BaseMessage] = []
        self._ids = ids

    def say(self, text: str) -> AIMessage:
        """Add a message, send the list, add the answer."""
        self.messages.append(HumanMessage(text, id=f"id of {text}" if self._ids else None))
        answer = self.llm.invoke(self.messages)
        self.messages.append(answer)
        return answer


@pytest.fixture
def caller() -> Caller:
    """Two turns in."""
    caller = Caller(chat_model(agent_id="ada"))
    caller.say("First.")
    caller.say("Second.")
    return caller


def plan_of(answer: AIMessage) -> str:
    """What was made of the list."""
    return str(answer.response_metadata["agentmem"]["plan"])


def note_of(answer: AIMessage) -> str:
    """What the caller should know about it."""
    return str(answer.response_metadata["agentmem"]["note"])


def read_in(answer: AIMessage) -> int:
    """Tokens that the turn read."""
    assert answer.usage_metadata is not None
    return answer.usage_metadata["input_token_details"]["cache_creation"]


def test_full_resend_and_a_new_turn(caller: Caller) -> None:
    """Only the new message is read, however long the list."""
    alone = chat_model(caller.llm.home, agent_id="bob").invoke("Third.")

    answer = caller.say("Third.")

    assert plan_of(answer) == "extend"
    assert note_of(answer) == ""
    assert said(caller.llm, "ada") == ["First.", "Second.", "Third."]
    assert read_in(answer) <= read_in(alone) + 8  # what closes the turn before


def test_full_resend_as_plain_strings(caller: Caller) -> None:
    """Without our metadata an answer is known by its text."""
    bare = [type(message)(message.content) for message in caller.messages]

    answer = caller.llm.invoke([*bare, HumanMessage("Third.")])

    assert plan_of(answer) == "extend"
    assert said(caller.llm, "ada") == ["First.", "Second.", "Third."]


def test_delta_only(caller: Caller) -> None:
    """A caller may send nothing but what is new."""
    answer = caller.llm.invoke([HumanMessage("Third.")])

    assert plan_of(answer) == "delta"
    assert said(caller.llm, "ada") == ["First.", "Second.", "Third."]


def test_delta_that_repeats_an_old_text(caller: Caller) -> None:
    """Saying the same again is a new turn."""
    answer = caller.llm.invoke([HumanMessage("First.")])

    assert plan_of(answer) == "delta"
    assert said(caller.llm, "ada") == ["First.", "Second.", "First."]


def test_retry_of_the_same_list(caller: Caller) -> None:
    """The turn is made again and held once, with the same answer."""
    answer = caller.llm.invoke(caller.messages[:3])

    assert plan_of(answer) == "regenerate"
    assert said(caller.llm, "ada") == ["First.", "Second."]
    assert answer.text == caller.messages[3].text
    again = caller.say("Third.")
    assert plan_of(again) == "extend"
    assert said(caller.llm, "ada") == ["First.", "Second.", "Third."]


def test_retry_of_a_first_turn_is_known_by_its_id() -> None:
    """A list without any answer is recognised by the message's id."""
    llm = chat_model(agent_id="ada")
    message = HumanMessage("First.", id="m1")

    first, again = llm.invoke([message]), llm.invoke([message])

    assert plan_of(again) == "regenerate"
    assert first.text == again.text
    assert said(llm, "ada") == ["First."]


def test_the_last_message_edited(caller: Caller) -> None:
    """The conversation goes on from the state before it; the old branch stays reachable."""
    old = caller.messages[3].response_metadata["agentmem"]["state_id"]
    edited = [*caller.messages[:2], HumanMessage("Second, edited.", id="id of Second.")]

    answer = caller.llm.invoke(edited)

    assert plan_of(answer) == "fork"
    assert said(caller.llm, "ada") == ["First.", "Second, edited."]
    with AgentMemory.resume("ada", home=caller.llm.home, model=caller.llm.model) as memory:
        assert memory.history(at=old)[-1].messages[0]["content"] == "Second."


def test_time_travel(caller: Caller) -> None:
    """A shorter list and a new message: go on from there."""
    answer = caller.llm.invoke([*caller.messages[:2], HumanMessage("Another second.")])

    assert plan_of(answer) == "fork"
    assert said(caller.llm, "ada") == ["First.", "Another second."]


def test_back_and_forth_between_branches(caller: Caller) -> None:
    """A list of the old branch goes on there, with nothing of the other in between."""
    caller.llm.invoke([*caller.messages[:2], HumanMessage("Another second.")])

    answer = caller.say("Third.")

    assert plan_of(answer) == "fork"
    assert said(caller.llm, "ada") == ["First.", "Second.", "Third."]
    assert read_in(answer) < 40


def test_trimmed(caller: Caller) -> None:
    """What was trimmed stays in the memory, and the answer's note says so."""
    caller.messages = caller.messages[2:]

    answer = caller.say("Third.")

    assert plan_of(answer) == "extend"
    assert "2" in note_of(answer)
    assert said(caller.llm, "ada") == ["First.", "Second.", "Third."]


def test_summarised(caller: Caller) -> None:
    """A summary in place of the head is not read in: the memory has the original."""
    caller.messages = [HumanMessage("Here is a summary: much was said."), *caller.messages[2:]]

    answer = caller.say("Third.")

    assert plan_of(answer) == "extend"
    assert note_of(answer)
    assert said(caller.llm, "ada") == ["First.", "Second.", "Third."]


def test_few_shot_side_call(caller: Caller) -> None:
    """A list with answers that are none of ours stands for itself."""
    before = held(caller.llm, "ada")
    shots = [HumanMessage("2+2"), AIMessage("4"), HumanMessage("3+3")]

    answer = caller.llm.invoke(shots)

    assert plan_of(answer) == "unrelated"
    assert answer.response_metadata["agentmem"]["state_id"] is None
    assert held(caller.llm, "ada") == before


def test_an_unrelated_list_can_be_read_in(caller: Caller) -> None:
    """on_unrelated="import" makes it part of the memory."""
    llm = chat_model(caller.llm.home, agent_id="ada", on_unrelated="import")

    llm.invoke([HumanMessage("2+2"), AIMessage("4"), HumanMessage("3+3")])

    assert said(llm, "ada") == ["First.", "Second.", "2+2", "3+3"]
    assert ("assistant", "4") in held(llm, "ada")


def test_an_answer_edited(caller: Caller) -> None:
    """An edited answer of ours is read in as it now stands, from the state before its turn."""
    edited = caller.messages[3].model_copy(update={"content": "Edited."})

    answer = caller.llm.invoke([*caller.messages[:3], edited, HumanMessage("Third.")])

    assert plan_of(answer) == "edited"
    rows = held(caller.llm, "ada")
    assert [row for row in rows if row[0] == "user"] == [
        ("user", "First."),
        ("user", "Second."),
        ("user", "Third."),
    ]
    assert ("assistant", "Edited.") in rows
    assert (
        rows.count(("assistant", caller.messages[3].text)) == 0
        or caller.messages[1].text == caller.messages[3].text
    )


def test_a_turn_removed(caller: Caller) -> None:
    """A removed turn stays in the memory by default, and the note says so."""
    caller.messages = caller.messages[2:]

    assert note_of(caller.say("Third."))


def test_two_messages_in_a_row(caller: Caller) -> None:
    """Both are read, both are held."""
    caller.messages.append(HumanMessage("Wait."))

    answer = caller.say("Third.")

    assert plan_of(answer) == "extend"
    assert said(caller.llm, "ada") == ["First.", "Second.", "Wait.", "Third."]


def test_a_foreign_conversation_is_imported() -> None:
    """An empty memory takes over what another model said."""
    llm = chat_model(agent_id="ada")

    answer = llm.invoke([HumanMessage("Hi"), AIMessage("Hello, I am another."), HumanMessage("Who?")])

    assert plan_of(answer) == "import"
    assert held(llm, "ada")[:3] == [("user", "Hi"), ("assistant", "Hello, I am another."), ("user", "Who?")]


def test_an_answer_of_a_fallback_is_read_in(caller: Caller) -> None:
    """What another model answered in between becomes part of the past."""
    caller.messages += [HumanMessage("Third."), AIMessage("From a fallback.")]

    answer = caller.say("Fourth.")

    assert plan_of(answer) == "extend"
    assert ("assistant", "From a fallback.") in held(caller.llm, "ada")
    assert said(caller.llm, "ada") == ["First.", "Second.", "Third.", "Fourth."]


# -- policies ---------------------------------------------------------------------------------------------


def test_on_missing_rebuild_makes_the_memory_equal_the_list(caller: Caller) -> None:
    """What was removed from the list is not attended to any more."""
    llm = chat_model(caller.llm.home, agent_id="ada", on_missing="rebuild")

    answer = llm.invoke([*caller.messages[2:], HumanMessage("Third.")])

    assert said(llm, "ada") == ["Second.", "Third."]
    assert "elsewhere" not in note_of(answer)


def test_on_missing_error_refuses_and_stores_nothing(caller: Caller) -> None:
    """The strict policy raises, and the memory is as it was."""
    llm = chat_model(caller.llm.home, agent_id="ada", on_missing="error")
    before = held(llm, "ada")

    with pytest.raises(HistoryChangedError):
        llm.invoke([*caller.messages[2:], HumanMessage("Third.")])

    assert held(llm, "ada") == before


def systems(llm: ChatInfLLM) -> list[str]:
    """The system prompts on the branch."""
    return [text for role, text in all_rows(llm) if role == "system"]


def all_rows(llm: ChatInfLLM) -> list[tuple[str, str]]:
    """Everything held, instructions included."""
    with AgentMemory.resume("ada", home=llm.home, model=language_model()) as memory:
        return [(m["role"], m["content"]) for turn in memory.history() for m in turn.messages]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("append", ["Be kind.", "Be brief."]),
        ("ignore", ["Be kind."]),
        ("rebuild", ["Be brief."]),
    ],
)
def test_a_changed_system_prompt(policy: Any, expected: list[str]) -> None:
    """The same prompt is read once; another one follows the policy, and the user's words are held once."""
    llm = chat_model(agent_id="ada", system_change=policy)
    first = [SystemMessage("Be kind."), HumanMessage("First.")]
    messages = [*first, llm.invoke(first)]
    messages += [HumanMessage("Second.")]
    messages += [llm.invoke(messages)]
    assert systems(llm) == ["Be kind."]

    llm.invoke([SystemMessage("Be brief."), *messages[1:], HumanMessage("Third.")])

    assert systems(llm) == expected
    assert said(llm, "ada") == ["First.", "Second.", "Third."]


def test_a_system_prompt_given_at_resume_is_in_force() -> None:
    """The prompt an agent was opened with is not read again when the list brings it too."""
    llm = chat_model(agent_id="ada")
    with AgentMemory.resume(
        "ada", home=llm.home, model=llm.model, config=llm.memory_config, system="Be kind."
    ):
        pass

    llm.invoke([SystemMessage("Be kind."), HumanMessage("First.")])

    assert systems(llm) == ["Be kind."]


def test_a_system_prompt_of_a_list_is_in_force_for_resume() -> None:
    """The other way round: resume(system=...) with the prompt a list brought appends nothing."""
    llm = chat_model(agent_id="ada")
    llm.invoke([SystemMessage("Be kind."), HumanMessage("First.")])

    with AgentMemory.resume("ada", home=llm.home, model=llm.model, system="Be kind.") as memory:
        assert memory.resumed.tokens_prefilled == 0


def test_threads_of_one_agent() -> None:
    """Two conversations of one agent feed one memory, and neither is taken for an edit of the other."""
    llm = chat_model(agent_id="ada")
    lists: dict[str, list[BaseMessage]] = {"t1": [], "t2": []}
    plans = []
    for thread, text in [("t1", "One."), ("t2", "Two."), ("t1", "Three."), ("t2", "Four.")]:
        lists[thread].append(HumanMessage(text))
        answer = llm.invoke(lists[thread], {"configurable": {"thread_id": thread}})
        lists[thread].append(answer)
        plans.append(plan_of(answer))

    assert plans[2:] == ["extend", "extend"]
    assert said(llm, "ada") == ["One.", "Two.", "Three.", "Four."]


def test_what_was_observed_in_between_stays(caller: Caller) -> None:
    """A document read into the agent between two calls is no reason to go back."""
    with AgentMemory.resume("ada", home=caller.llm.home, model=caller.llm.model) as memory:
        memory.observe("The bike lock opens with 4071.", source="notes.txt")

    answer = caller.say("Third.")

    assert plan_of(answer) == "extend"
    assert "The bike lock opens with 4071." in said(caller.llm, "ada")


def test_a_forgotten_turn_is_not_read_in_again(caller: Caller) -> None:
    """The caller's list still holds what was forgotten; the memory does not take it back."""
    llm = chat_model(caller.llm.home, agent_id="ada")
    caller.say("The code is 4071.")
    with AgentMemory.resume("ada", home=llm.home, model=llm.model) as memory:
        assert memory.forget(match="4071").tokens > 0

    caller.say("Next.")

    assert not any("4071" in text for _, text in held(llm, "ada"))
    assert said(llm, "ada")[-1] == "Next."


def test_a_state_id_can_be_given(caller: Caller) -> None:
    """state_id= goes on from that state, with exactly the messages given."""
    state = caller.messages[1].response_metadata["agentmem"]["state_id"]

    caller.llm.invoke("Elsewhere.", state_id=state)

    assert said(caller.llm, "ada") == ["First.", "Elsewhere."]
