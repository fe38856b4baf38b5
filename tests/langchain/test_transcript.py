"""The transcript of a real memory: what it holds, message by message, kept up to date between calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agentmem import AgentMemory, HistoryChangedError, InMemoryHome
from langchain_agentmem.reconcile import Policies
from langchain_agentmem.transcript import Held, Transcript, plan_on
from support.tiny_language_model import SMALL, language_model
from support.turn_tree import Line, ai, human


def key_of(message: Mapping[str, Any]) -> str:
    """Role and text, as the lines of these tests have it."""
    return f"{message['role']}: {message['content']}"


class Watched(AgentMemory):
    """A memory that notes how many turns were read from it."""

    read: int = 0

    def history(self, **options: Any) -> Any:
        """As it is, counted."""
        turns = super().history(**options)
        self.read += len(turns)
        return turns


@pytest.fixture
def memory() -> Watched:
    """An empty agent on tiny weights."""
    return Watched.resume("ada", model=language_model(), home=InMemoryHome(), config=SMALL)


def listed(line: Line, thread: str | None = "t") -> dict[str, Any]:
    """A line as the chat model hands it to the memory."""
    return {**line.message, "metadata": {"id": line.id, "thread": thread, "origin": "langchain"}}


def say(memory: AgentMemory, *lines: Line, thread: str | None = "t", after: str | None = "head") -> Line:
    """Run a turn made of these lines; returns the stamped answer."""
    reply = memory.generate([listed(line, thread) for line in lines], after=after, max_new_tokens=3)
    return ai(reply.text, reply.state_id)


def test_each_message_becomes_a_record(memory: Watched) -> None:
    """Turns of a list, of plain chat, of appended and observed text: who said it, where it belongs, which state."""
    asked = [human("one?", "h1"), ai("from elsewhere"), human("two?", "h2")]
    answer = say(memory, *asked)
    reply = memory.chat("plain", max_new_tokens=3)
    memory.append([listed(human("three?", "h3"), None)])
    memory.observe("a document")
    states = [turn.state_id for turn in memory.history()]
    first, second, third, fourth = [turn.turn for turn in memory.history()]
    keys = [f"assistant: {text}" for text in (answer.text, reply.text)]

    assert Transcript.of(memory, key_of).held == [
        Held("user: one?", "h1", None, None, "t", first, False, True, "user"),
        Held("assistant: from elsewhere", None, None, None, "t", first, False, True, "assistant"),
        Held("user: two?", "h2", None, None, "t", first, False, True, "user"),
        Held(keys[0], None, states[0], None, "t", first, True, True, "assistant"),
        Held("user: plain", None, None, states[0], None, second, False, False, "user"),
        Held(keys[1], None, states[1], states[0], None, second, True, False, "assistant"),
        Held("user: three?", "h3", states[2], states[1], None, third, False, True, "user"),
        Held("user: a document", None, states[3], states[2], None, fourth, False, False, "user"),
    ]


def test_what_the_adapter_wrote_itself_is_left_out(memory: Watched) -> None:
    """Instructions are no part of a conversation; states and parents are as if they were."""
    made = {"role": "system", "content": "Use tools.", "metadata": {"made": "tools", "digest": "0"}}
    memory.append([made])
    reply = memory.generate([made, listed(human("one?", "h1"))], max_new_tokens=3)
    held = Transcript.of(memory, key_of).held

    assert [one.key for one in held] == ["user: one?", f"assistant: {reply.text}"]
    assert held[0].parent == memory.history()[0].state_id
    assert (held[0].thread, held[0].listed, held[1].state_id) == ("t", True, reply.state_id)


def test_a_forgotten_turn_is_one_record_without_words(memory: Watched) -> None:
    """Its state and its place stay known."""
    memory.observe("some text, so that what follows lies outside the sinks")
    answer = say(memory, human("secret", "h1"))
    memory.forget(match="secret")
    gone = Transcript.of(memory, key_of).held[-1]

    assert (gone.forgotten, gone.key, gone.id, gone.listed, gone.ours) == (True, "", None, False, False)
    assert (gone.state_id, gone.parent) == (answer.state_id, memory.history()[0].state_id)


def test_an_unmoved_head_costs_nothing_and_a_new_turn_two(memory: Watched) -> None:
    """Refreshing reads no turn when the head stands, and only the newest ones when it moved on."""
    for number in range(6):
        say(memory, human(f"q{number}"))
    transcript = Transcript.of(memory, key_of)
    memory.read = 0
    transcript.refresh(memory)
    assert memory.read == 0
    say(memory, human("newest"))
    transcript.refresh(memory)

    assert memory.read == 2
    assert transcript.held == Transcript.of(memory, key_of).held


def test_it_follows_wherever_the_head_goes(memory: Watched) -> None:
    """After several turns, a rewind, a fork, a rewind to nothing: always what reading all gives."""
    transcript = Transcript.of(memory, key_of)
    states = []
    moves = ["say"] * 5 + ["back 1", "say", "back 4", "say", "say", "back 0", "say", "nothing", "say"]
    for number, move in enumerate(moves):
        if move == "say":
            states.append(say(memory, human(f"q{number}")).state_id)
        else:
            memory.rewind(None if move == "nothing" else states[int(move.split()[1])])
        if number % 3 != 1:  # now and then several moves lie between two looks
            transcript.refresh(memory)
            assert transcript.held == Transcript.of(memory, key_of).held


def test_other_branches_are_looked_up(memory: Watched) -> None:
    """A state of another branch gives what that one holds; a forgotten or a foreign one says so."""
    memory.observe("some text, so that what follows lies outside the sinks")
    transcript = Transcript.of(memory, key_of)
    answer = say(memory, human("one?"))
    there = Transcript.of(memory, key_of).held
    assert answer.state_id is not None
    memory.rewind(there[0].state_id)
    gone = say(memory, human("secret"))
    memory.forget(match="secret")
    assert gone.state_id is not None

    assert transcript.lookup(memory, answer.state_id) == there
    assert transcript.lookup(memory, gone.state_id) == "forgotten"
    assert transcript.lookup(memory, "0" * 32) is None


def test_a_plan_goes_on_from_a_real_memory(memory: Watched) -> None:
    """Resent, retried, edited and taken back, a conversation is planned on the memory and carried out by it."""
    transcript = Transcript.of(memory, key_of)

    def send(said: list[Line], kind: str) -> Line:
        chosen = plan_on(transcript, memory, said, thread="t")
        assert chosen.kind == kind
        return say(memory, *[said[place] for place in chosen.new], after=chosen.after)

    one, two = human("one?", "h1"), human("two?", "h2")
    first = send([one], "fresh")
    memory.chat("in between", max_new_tokens=3)
    second = send([one, first, two], "extend")
    send([one, first, two], "regenerate")
    edited = send([one, first, human("two!", "h2")], "fork")
    send([one, first, two, second, human("three?")], "fork")
    send([one, first, human("two!", "h2"), edited, human("three!")], "fork")
    transcript.refresh(memory)

    assert [one.key for one in transcript.held if one.role == "user"] == [
        "user: one?",
        "user: in between",
        "user: two!",
        "user: three!",
    ]


def test_what_was_forgotten_between_two_calls_is_noticed(memory: Watched) -> None:
    """Forgetting moves no head, so a plan that goes back or refuses is made on a fresh reading."""
    memory.observe("some text, so that what follows lies outside the sinks")
    one, two, three = human("one?", "h1"), human("secret", "h2"), human("three?", "h3")
    first = say(memory, one)
    second = say(memory, two)
    third = say(memory, three)
    transcript = Transcript.of(memory, key_of)
    memory.forget(match="secret")
    retried = plan_on(transcript, memory, [one, first, two, second, three], thread="t")

    assert (retried.kind, retried.after, list(retried.new)) == ("regenerate", first.state_id, [4])
    transcript = Transcript.of(memory, key_of)
    memory.forget(match="three")
    short = [one, first, human("four?", "h4")]
    strict = Policies(on_missing="error")
    assert plan_on(transcript, memory, short, thread="t", policies=strict).after == "head"
    with pytest.raises(HistoryChangedError):
        plan_on(transcript, memory, [human("x"), first, third, human("y")], thread="t", policies=strict)
