"""What is new in a list that is sent again: against conversations whose true course is known."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentmem import HistoryTurn
from langchain_agentmem.conversation import Said, key_of
from langchain_agentmem.known_messages import KnownMessages


def said(role: str, text: str, message_id: str | None = None) -> Said:
    """One message."""
    row = {"role": role, "content": text, "metadata": {"id": message_id}}
    return Said(row, key_of(row), message_id, None)


def turns(new: list[list[Said]]) -> list[HistoryTurn]:
    """What a memory holds after these were appended, one turn each."""
    return [
        HistoryTurn(
            n,
            f"state{n}",
            "append",
            "2026-01-01T00:00:00+00:00",
            [one.message for one in rows],
            1,
            None,
            False,
        )
        for n, rows in enumerate(new)
        if rows
    ]


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["hi", "yes", "and?"]), st.integers(0, 6)), max_size=14
)


@given(STEPS, st.booleans(), st.booleans())
def test_each_message_is_new_once(steps: list[tuple[int, str, int]], with_ids: bool, anew: bool) -> None:
    """Three conversations that share words, cut at the front at will, also known from the history alone."""
    known = KnownMessages()
    held: list[list[Said]] = []
    conversations: list[list[Said]] = [[], [], []]

    for number, (which, text, cut) in enumerate(steps):
        conversation = conversations[which]
        question = said("user", text, f"h{number}" if with_ids else None)
        answer = said("assistant", f"answer {number}", f"a{number}" if with_ids else None)
        listed = [*conversation[min(cut, max(len(conversation) - 2, 0)) :], question]
        if anew:
            known = KnownMessages()
            known.hold(turns(held), key_of)

        new = known.news([said("system", "Be brief."), *listed], [answer])

        expected = [question, answer] if number else [said("system", "Be brief."), question, answer]
        assert [one.message["content"] for one in new] == [one.message["content"] for one in expected]
        held.append(new)
        conversation += [question, answer]


def test_sent_again_after_it_was_held_nothing_is_new() -> None:
    """The same list with the same answer, by id or by text, adds nothing."""
    for message_id in ("1", None):
        known = KnownMessages()
        opening = [said("user", "a", message_id), said("assistant", "A")]
        known.news([*opening, said("user", "b", message_id and "2")], [said("assistant", "B")])

        assert known.news([*opening, said("user", "b", message_id and "2")], [said("assistant", "B")]) == []


def test_a_state_id_names_the_answer() -> None:
    """An answer out of the memory is known by its state, whatever its text became."""
    known = KnownMessages()
    known.hold(turns([[said("user", "a"), said("assistant", "A")]]), key_of)
    ours: Any = Said({"role": "assistant", "content": "other form"}, "other", None, "state0")

    new = known.news([said("user", "a"), ours, said("user", "b")], [said("assistant", "B")])

    assert [one.message["content"] for one in new] == ["b", "B"]


def test_the_same_answer_to_two_questions_is_two_answers() -> None:
    """Without ids, an answer is known by the question it follows as well."""
    known = KnownMessages()
    yes = said("assistant", "Yes.")
    for question in ("a", "b"):
        known.news([said("user", question)], [yes])

    for question in ("a", "b"):
        new = known.news([said("user", question), yes, said("user", "ok")], [said("assistant", "Good.")])

        assert [one.message["content"] for one in new] == ["ok", "Good."]
