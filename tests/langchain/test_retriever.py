"""The retriever: past messages by the words they share with a question, for the agent that a call names."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests

from agentmem import AgentMemory, AgentNotFoundError, InMemoryHome, InputError
from langchain_agentmem.ranking import bm25
from langchain_agentmem.retrievers import AgentMemoryRetriever
from support.tiny_language_model import SMALL, language_model

SAID = {
    "ada": [
        ("user", "My dog is called Biscuit.", "2026-01-02T10:00:00+00:00"),
        ("assistant", "What a nice name for a dog!", "2026-01-02T10:00:00+00:00"),
        ("user", "I moved to Köln in March.", "2026-02-03T10:00:00+00:00"),
        ("assistant", "Cologne is called Köln by those who live there.", "2026-02-03T10:00:00+00:00"),
        ("system", "The dog speaks.", "2026-02-04T10:00:00+00:00"),
    ],
    "bob": [("user", "My dog is called Rex.", "2026-03-04T10:00:00+00:00")],
}


@cache
def home() -> InMemoryHome:
    """A home with two agents, made once and never changed."""
    return filled(InMemoryHome())


def filled(home: Any) -> Any:
    """The same, in that home."""
    for agent, rows in SAID.items():
        with AgentMemory.resume(agent, model=language_model(), home=home, config=SMALL) as memory:
            for role, text, at in rows:
                memory.append([{"role": role, "content": text}], at=at)
    return home


def texts(documents: Sequence[Any]) -> list[str]:
    """What documents say."""
    return [document.page_content for document in documents]


class TestStandard(RetrieversIntegrationTests):
    """LangChain's own tests of a retriever."""

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return AgentMemoryRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"agent_id": "ada", "home": home()}

    @property
    def retriever_query_example(self) -> str:
        return "What is my dog called?"


def test_a_question_finds_the_answer() -> None:
    """The message that shares the rarest words comes first, with where and when it was said."""
    found = AgentMemoryRetriever(agent_id="ada", home=home()).invoke("What is my dog called?")

    assert texts(found)[0] == "My dog is called Biscuit."
    with AgentMemory.resume("ada", home=home(), read_only=True) as memory:
        turn = memory.history()[0]
    assert found[0].metadata == {
        "turn": turn.turn,
        "state_id": turn.state_id,
        "created_at": turn.created_at,
        "role": "user",
        "source": None,
        "score": found[0].metadata["score"],
    }
    scores = [document.metadata["score"] for document in found]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 0


def test_accents_and_case_do_not_count() -> None:
    """Words are folded as in AgentMemory.search."""
    found = AgentMemoryRetriever(agent_id="ada", home=home()).invoke("KOLN")

    assert texts(found) == [SAID["ada"][2][1], SAID["ada"][3][1]]


def test_roles_choose_whose_words() -> None:
    """Instructions are left out unless asked for; a question without a shared word finds nothing."""
    options = {"agent_id": "ada", "home": home()}

    assert "The dog speaks." not in texts(AgentMemoryRetriever(**options).invoke("Who speaks?"))
    assert texts(AgentMemoryRetriever(**options, roles=("system",)).invoke("dog")) == ["The dog speaks."]
    assert AgentMemoryRetriever(**options).invoke("Zebra?!") == []


def test_forgotten_messages_are_not_found() -> None:
    """What was forgotten is gone from the next search on."""
    home = InMemoryHome()
    with AgentMemory.resume("ada", model=language_model(), home=home, config=SMALL) as memory:
        for text in (
            "The first words fill the sinks of the memory.",
            "My dog is called Biscuit.",
            "My cat is old.",
        ):
            memory.append([{"role": "user", "content": text}])
        retriever = AgentMemoryRetriever(agent_id="ada", home=home)
        assert texts(retriever.invoke("dog")) == ["My dog is called Biscuit."]
        memory.forget(match="Biscuit")

    assert retriever.invoke("dog Biscuit") == []


def test_the_agent_is_chosen_by_the_call() -> None:
    """On every path the config's agent_id comes first, then the constructor's, then the thread; None is refused."""
    plain = AgentMemoryRetriever(home=home(), k=1)
    ada = AgentMemoryRetriever(home=home(), k=1, agent_id="ada")
    bob: Any = {"configurable": {"agent_id": "bob"}}
    thread: Any = {"configurable": {"thread_id": "bob"}}
    rex, biscuit = ["My dog is called Rex."], ["My dog is called Biscuit."]

    assert texts(plain.invoke("dog", bob)) == texts(plain.invoke("dog", thread)) == rex
    assert texts(ada.invoke("dog called", thread)) == biscuit
    assert texts(ada.invoke("dog called", bob)) == rex
    assert [
        texts(found)
        for found in plain.batch(["dog called"] * 2, [bob, {"configurable": {"agent_id": "ada"}}])
    ] == [
        rex,
        biscuit,
    ]
    assert texts(asyncio.run(plain.ainvoke("dog", bob))) == rex
    assert texts(ada.with_config(bob).invoke("dog called")) == rex
    assert texts((RunnableLambda(lambda text: text + " called") | ada).invoke("dog", bob)) == rex
    with pytest.raises(InputError, match="agent_id"):
        plain.invoke("dog")


def test_an_open_memory_is_searched() -> None:
    """A memory that is in use is searched as it is, async too."""
    with AgentMemory.resume("eve", model=language_model(), home=InMemoryHome(), config=SMALL) as memory:
        retriever = AgentMemoryRetriever(memory=memory)
        memory.append([{"role": "user", "content": "My dog is called Biscuit."}])

        assert texts(retriever.invoke("dog")) == texts(asyncio.run(retriever.ainvoke("dog"))) != []


def test_searching_needs_no_model_and_no_lock(tmp_path: Path) -> None:
    """On disk, a search while another holds the agent loads nothing and waits for nobody."""
    filled(tmp_path)
    with AgentMemory.resume("ada", model=language_model(), home=tmp_path, config=SMALL):
        assert texts(AgentMemoryRetriever(agent_id="ada", home=tmp_path, k=1).invoke("Biscuit")) != []


def test_an_unknown_agent_has_said_nothing() -> None:
    """No documents, and no agent is made."""
    assert AgentMemoryRetriever(agent_id="new", home=home()).invoke("dog") == []
    with pytest.raises(AgentNotFoundError):
        home().peek("new")


@pytest.mark.parametrize("k", [0, -1])
def test_a_wrong_k_is_refused(k: int) -> None:
    """When made, and when called."""
    with pytest.raises(ValueError, match="k"):
        AgentMemoryRetriever(agent_id="ada", home=home(), k=k)
    with pytest.raises(InputError, match=f"k={k}"):
        AgentMemoryRetriever(agent_id="ada", home=home()).invoke("dog", k=k)


# -- ranking ---------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from("a b c d e".split()), max_size=8)


@given(st.lists(WORDS, max_size=8), WORDS)
def test_scores_are_bm25(texts: list[list[str]], query: list[str]) -> None:
    """The scores are those of the formula, written out for one text and one word at a time."""

    def idf(word: str) -> float:
        holding = sum(word in text for text in texts)
        return math.log((len(texts) - holding + 0.5) / (holding + 0.5) + 1)

    def score(text: list[str]) -> float:
        mean = sum(len(other) for other in texts) / len(texts)
        total = 0.0
        for word in set(query):
            n = text.count(word)
            if n:
                total += idf(word) * n * 2.2 / (n + 1.2 * (0.25 + 0.75 * len(text) / mean))
        return total

    assert bm25(texts, query) == pytest.approx([score(text) for text in texts])


def test_of_equals_the_newest_comes_first() -> None:
    """Said twice in the same words, the later message is found first."""
    place = InMemoryHome()
    with AgentMemory.resume("eve", model=language_model(), home=place, config=SMALL) as memory:
        for at in ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"):
            memory.append([{"role": "user", "content": "My dog is called Biscuit."}], at=at)

    found = AgentMemoryRetriever(agent_id="eve", home=place).invoke("dog")

    assert [document.metadata["created_at"][:10] for document in found] == ["2026-01-02", "2026-01-01"]
