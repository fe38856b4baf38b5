"""Which messages of a caller's list are new: every way LangChain's users send one, and what is made of it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import pytest

from agentmem.errors import HistoryChangedError, InputError
from langchain_agentmem import reconcile
from langchain_agentmem.reconcile import Plan, restart
from support.turn_tree import Line, TurnTree, ai, human, plain

H1, H2, H3 = human("one?", "h1"), human("two?", "h2"), human("three?", "h3")
A1, A2 = ai("One.", "s1"), ai("Two.", "s2")
SUMMARY = human("Here is a summary of the conversation to date: ...", "sum")


def talked(turns: int = 2) -> TurnTree:
    """A memory after that many turns, each the resent list with a new question: H1 A1 H2 A2."""
    tree = TurnTree()
    said: list[Line] = []
    for question, answer in [(H1, "One."), (H2, "Two."), (H3, "Three.")][:turns]:
        said = [*said, question]
        said.append(tree.say(said, answer))
    return tree


def made(tree: TurnTree, said: list[Line], **policies: Any) -> tuple[str, str | None, list[str]]:
    """A plan as (kind, after, texts of the messages to read)."""
    chosen = tree.plan(said, **policies)
    return chosen.kind, chosen.after, [said[place].text for place in chosen.new]


SCENARIOS: dict[str, tuple[list[Line], tuple[str, str | None, list[str]], str]] = {
    "full resend + new turn": ([H1, A1, H2, A2, H3], ("extend", "head", ["three?"]), ""),
    "full resend, strings only": (plain([H1, A1, H2, A2, H3]), ("extend", "head", ["three?"]), ""),
    "delta only": ([human("three?")], ("delta", "head", ["three?"]), ""),
    "delta repeating an old text": ([human("one?")], ("delta", "head", ["one?"]), ""),
    "retry of turn 2, same list": ([H1, A1, H2], ("regenerate", "s1", ["two?"]), "asked before"),
    "edited last human": (
        [H1, A1, human("two!", "h2")],
        ("fork", "s1", ["two!"]),
        "2 messages that were held",
    ),
    "time travel to turn 1": ([H1, A1, H3], ("fork", "s1", ["three?"]), "left on the branch before"),
    "trim_messages dropped the first pair": (
        [H2, A2, H3],
        ("extend", "head", ["three?"]),
        "2 messages that are held were left out of the list; they stay in the memory",
    ),
    "SummarizationMiddleware head": (
        [SUMMARY, A2, H3],
        ("extend", "head", ["three?"]),
        "1 message of the list before the last known answer is not held, and was not read",
    ),
    "summarizer auxiliary call": (
        [human("<role>Context Extraction Assistant", "x")],
        ("delta", "head", ["<role>Context Extraction Assistant"]),
        "",
    ),
    "few-shot auxiliary call": (
        [human("2+2"), ai("4"), human("3+3")],
        ("unrelated", None, ["2+2", "4", "3+3"]),
        "nothing in the list is known here",
    ),
    "assistant text edited (metadata kept)": (
        [H1, A1, H2, ai("Two, I think.", "s2"), H3],
        ("edited", "s1", ["two?", "Two, I think.", "three?"]),
        "was changed in the list",
    ),
    "RemoveMessage of turn 1": ([H2, A2, H3], ("extend", "head", ["three?"]), "they stay in the memory"),
    "two human messages in a row": (
        [H1, A1, H2, A2, human("hm", "h9"), H3],
        ("extend", "head", ["hm", "three?"]),
        "",
    ),
}
"""Name in the research -> (what the caller sends after H1 A1 H2 A2, the plan, what its note says)."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str) -> None:
    """Each of the fourteen ways a list arrives gets its kind, the state to go on from, and what is new."""
    said, wanted, note = SCENARIOS[name]
    chosen = talked().plan(said)

    assert (chosen.kind, chosen.after, [said[place].text for place in chosen.new]) == wanted
    assert note in chosen.note and bool(note) == bool(chosen.note)
    assert chosen.remember == (chosen.kind != "unrelated")


# -- first calls -----------------------------------------------------------------------------------------


def test_a_first_list_is_fresh_or_an_import() -> None:
    """Where nothing is held, questions are fresh, and a list with answers is read in as it stands."""
    assert made(TurnTree(), [H1, H2]) == ("fresh", "head", ["one?", "two?"])
    assert made(TurnTree(), [H1, ai("x"), H2]) == ("import", "head", ["one?", "x", "two?"])
    assert "1 answer from elsewhere is read in" in TurnTree().plan([H1, ai("x"), H2]).note


@pytest.mark.parametrize("said", [[], [H1, A1], [H1, ai("x")]])
def test_nothing_to_answer_is_refused(said: list[Line]) -> None:
    """An empty list, and one that ends with an answer, are input errors."""
    with pytest.raises(InputError, match="to answer"):
        TurnTree().plan(said)


def test_what_was_imported_is_known_afterwards() -> None:
    """A foreign list, resent with our answer and a new question, is extended; retried, it is read in again."""
    tree = TurnTree()
    first = [H1, ai("from elsewhere"), H2]
    answer = tree.say(first, "Two.")

    assert made(tree, [*first, answer, H3]) == ("extend", "head", ["three?"])
    assert made(tree, plain([*first, answer, H3])) == ("extend", "head", ["three?"])
    for again in (first, plain(first)):
        assert made(tree, again) == ("regenerate", None, ["one?", "from elsewhere", "two?"])


# -- the known limits ------------------------------------------------------------------------------------


def test_limit_a_an_auxiliary_call_is_a_delta() -> None:
    """One human message without a past cannot be told from a new turn: such calls go through ephemeral()."""
    assert made(talked(), [human("Summarise this: ...")])[0] == "delta"


@pytest.mark.parametrize(
    "said",
    [[H2, A2, H3], [human("a summary"), H2, A2, H3], [H1, ai("Other.", "s1"), H2, A2, H3], [A2, H3]],
    ids=["trimmed", "summarised", "an earlier answer edited", "all but the answer"],
)
def test_limit_b_what_was_left_out_follows_a_policy(said: list[Line]) -> None:
    """Trim, summary, redaction look alike: keep what is held and say so, become equal to the list, or refuse."""
    tree = talked()
    assert made(tree, said) == ("extend", "head", ["three?"])
    with pytest.raises(HistoryChangedError, match="on_missing='keep'"):
        tree.plan(said, on_missing="error")

    chosen = tree.plan(said, on_missing="rebuild")
    assert "made equal to the list" in chosen.note
    tree.follow(chosen, said, "Three.")
    assert tree.said_in(None) == [*(one.key for one in said), "assistant: Three."]


@pytest.mark.parametrize("on_missing", ["rebuild", "error"])
def test_an_unchanged_list_needs_no_policy(on_missing: str) -> None:
    """Neither rebuild nor error touches a list that equals what is held, retried or edited at its end."""
    tree = talked()
    for said in ([H1, A1, H2, A2, H3], [H1, A1, H2], [H1, A1, human("two!", "h2")], [human("delta")]):
        assert tree.plan(said, on_missing=on_missing) == tree.plan(said)


def test_limit_c_d_instructions_are_not_part_of_a_list() -> None:
    """A changed system prompt or tool list changes no plan; to put it first, the list is read from the start."""
    tree = TurnTree()
    tree.turn([human("from the command line"), ai("yes")], listed=False)
    tree.say([H1], "One.")
    again = [H1, ai("One.", "s2"), H2]
    chosen = restart(tree.held, again, thread=None, lookup=tree.lookup)

    assert (chosen.kind, chosen.after, list(chosen.new)) == ("rebuild", "s1", [0, 1, 2])
    assert restart([], [H1], thread=None, lookup=tree.lookup) == Plan(
        "rebuild", "head", [0], "the whole list is read again"
    )


def test_limit_e_an_answer_edited_without_its_stamp_is_foreign() -> None:
    """The list goes on from the last answer that is known, and the changed one is read as it stands."""
    said = [H1, A1, H2, ai("Two, or so."), H3]

    assert made(talked(), said) == ("fork", "s1", ["two?", "Two, or so.", "three?"])
    assert made(talked(), plain(said)) == ("fork", "s1", ["two?", "Two, or so.", "three?"])


def test_limit_f_a_fallbacks_answer_is_read_in() -> None:
    """Another model's answer after our anchor is among what is new, and the note says so."""
    chosen = talked().plan([H1, A1, H2, A2, H3, ai("from the fallback"), human("four?")])

    assert (chosen.kind, chosen.after, list(chosen.new)) == ("extend", "head", [4, 5, 6])
    assert "1 answer from elsewhere is read in" in chosen.note


def test_limit_g_a_first_turn_is_known_again_by_its_id() -> None:
    """Repeated or edited before its answer came back, it is a retry or a fork if it has an id, else a delta."""
    tree = talked(1)

    assert made(tree, [H1]) == ("regenerate", None, ["one?"])
    assert made(tree, [human("one!", "h1")]) == ("fork", None, ["one!"])
    assert made(tree, [human("one?")]) == ("delta", "head", ["one?"])
    assert made(tree, [human("one!")]) == ("delta", "head", ["one!"])


def test_limit_h_an_earlier_question_edited_before_an_answer_we_know() -> None:
    """The memory keeps the question that was answered, and the note tells both sides."""
    note = talked().plan([human("one!", "h1"), A1, H2, A2, H3]).note

    assert "1 message that is held was left out of the list; it stays in the memory" in note
    assert "1 message of the list before the last known answer is not held, and was not read" in note


# -- turns of several messages ---------------------------------------------------------------------------


def test_inside_a_turn_its_earlier_messages_are_read_again() -> None:
    """States exist where turns end: an edit inside a turn leaves the whole turn, and takes its start along."""
    tree = talked(1)
    said = [H1, A1, H2, ai("from elsewhere"), H3]
    answer = tree.say(said, "Three.")

    edited = [H1, A1, H2, ai("from elsewhere"), human("three!", "h3")]
    assert made(tree, edited) == ("fork", "s1", ["two?", "from elsewhere", "three!"])
    assert made(tree, said) == ("regenerate", "s1", ["two?", "from elsewhere", "three?"])
    assert made(tree, [H1, A1, H2]) == ("fork", "s1", ["two?"])
    wrong = [*said, ai("Thirty.", answer.state_id), human("four?")]
    assert made(tree, wrong) == ("edited", "s1", ["two?", "from elsewhere", "three?", "Thirty.", "four?"])


def test_a_turn_whose_head_changed_is_left_as_a_whole() -> None:
    """A retry whose summary was written anew takes the place of the turn, not of the thread."""
    tree = talked()
    tree.say([SUMMARY, H3], "Three.")
    said = [human("another summary", "sum2"), H3]

    assert made(tree, said) == ("fork", "s2", ["another summary", "three?"])


def test_an_answer_without_a_stamp_bounds_a_changed_turn() -> None:
    """What takes a turn's place begins after the answer before it, known by its words."""
    tree = talked(1)
    tree.say([H1, A1, human("some context"), H3], "Three.")

    said = [H1, ai("One."), human("other context"), H3]
    assert made(tree, said) == ("fork", "s1", ["other context", "three?"])


@pytest.mark.parametrize("policy", ["keep", "rebuild", "error"])
def test_the_newest_messages_alone_say_nothing_of_the_past(policy: str) -> None:
    """A list without answers that does not reach back is no claim about what came before."""
    tree = talked(3)

    assert made(tree, [H3], on_missing=policy) == ("regenerate", "s2", ["three?"])
    assert made(tree, [human("three!", "h3")], on_missing=policy) == ("fork", "s2", ["three!"])
    assert tree.plan([human("four?")], on_missing=policy).note == ""


def test_questions_alone_follow_the_policy() -> None:
    """A list of known questions lacks our answers: they stay, or go, or the list is refused."""
    tree = talked()

    assert made(tree, [H1, H2]) == ("regenerate", "s1", ["two?"])
    assert made(tree, [H1, H2], on_missing="rebuild") == ("fork", None, ["one?", "two?"])
    with pytest.raises(HistoryChangedError, match="1 message that is held"):
        tree.plan([H1, H2], on_missing="error")


def test_messages_that_were_appended_are_not_read_again() -> None:
    """A turn without an answer that the list repeats is held already; what follows it is new."""
    tree = talked(1)
    tree.turn([H2], answered=False)

    assert made(tree, [H1, A1, H2, H3]) == ("extend", "head", ["three?"])
    assert made(tree, [H1, A1, H2]) == ("regenerate", "s1", ["two?"])


def test_questions_without_our_answers_are_not_held_twice() -> None:
    """A graph that keeps questions only gets a branch with its questions only."""
    tree = talked(1)

    assert made(tree, [H1, H2]) == ("fork", None, ["one?", "two?"])


def test_an_answer_without_words_is_never_read_in() -> None:
    """It stands on its own branch, and is left out where it would have to be told to the model."""
    tree = TurnTree()
    empty = tree.say([H1], "")
    assert made(tree, [H1, empty, H2]) == ("extend", "head", ["two?"])

    changed = [human("one!", "h1"), empty, H2]
    tree.say(changed, "Two.", on_missing="rebuild")
    assert tree.said_in(None) == ["user: one!", "user: two?", "assistant: Two."]
    again = [*changed, ai("Two.", "s2"), H3]
    assert made(tree, again, on_missing="rebuild") == ("extend", "head", ["three?"])


# -- several threads, and turns from elsewhere -----------------------------------------------------------


def test_threads_of_one_agent_do_not_disturb_each_other() -> None:
    """Another thread's turns, and turns that came in no list, make no fork and miss in no list."""
    tree = TurnTree()
    first = tree.say([H1], "One.", thread="a")
    tree.say([human("b?", "b1")], "B.", thread="b")
    tree.turn([human("from the command line"), ai("yes")], listed=False)
    tree.turn([human("a document")], listed=False, answered=False)
    for policy in ("keep", "rebuild", "error"):
        chosen = tree.plan([H1, first, H2], thread="a", on_missing=policy)
        assert (chosen.kind, chosen.after, chosen.note) == ("extend", "head", "")
    assert tree.plan([human("x", "x")], thread=None).kind == "fresh"
    assert tree.plan([human("x", "h1")], thread="b").kind == "delta"


def test_a_fork_keeps_what_others_said_before_it() -> None:
    """An edit goes back to right before the thread's own turn; what it leaves of others is told."""
    tree = TurnTree()
    first = tree.say([H1], "One.", thread="a")
    tree.say([human("b?", "b1")], "B.", thread="b")
    tree.say([H1, first, H2], "Two.", thread="a")
    tree.say([human("b?", "b1"), ai("B.", "s2"), human("c?", "b2")], "C.", thread="b")
    chosen = tree.plan([H1, first, human("two!", "h2")], thread="a")

    assert (chosen.kind, chosen.after, list(chosen.new)) == ("fork", "s2", [2])
    assert "2 messages that were held are left on the branch before" in chosen.note
    assert "1 turn of other conversations made since" in chosen.note


def test_the_first_turn_of_a_thread_goes_back_to_before_it_alone() -> None:
    """An edit of a thread's first question leaves what other threads said before."""
    tree = TurnTree()
    tree.say([human("b?", "b1")], "B.", thread="b")
    tree.say([H1], "One.", thread="a")

    assert tree.plan([human("one!", "h1")], thread="a").after == "s1"
    assert tree.plan([H1, ai("Won.", "s2"), H2], thread="a").after == "s1"


def test_a_list_handed_from_one_thread_to_another_is_known() -> None:
    """Stamped answers are held whoever asked; they are not read in again, nor do the others' turns miss."""
    tree = talked()
    handed = tree.plan([H1, A1, H2, A2, H3], thread="b")
    assert (handed.kind, handed.after, list(handed.new), handed.note) == ("extend", "head", [4], "")
    third = tree.follow(handed, [H1, A1, H2, A2, H3], "Three.", thread="b")
    said = [H1, A1, H2, A2, H3, third, human("four?")]
    for policy in ("keep", "rebuild", "error"):
        chosen = tree.plan(said, thread="b", on_missing=policy)
        assert (chosen.kind, chosen.after, list(chosen.new), chosen.note) == ("extend", "head", [6], "")


def test_a_state_of_another_branch_is_gone_back_to() -> None:
    """A list from before a fork goes on from its own state."""
    tree = talked()
    tree.say([H1, A1, human("two!", "h2")], "Not two.")
    chosen = tree.plan([H1, A1, H2, A2, H3])

    assert (chosen.kind, chosen.after, list(chosen.new)) == ("fork", "s2", [4])
    assert chosen.note == "it goes on from a state of another branch"
    assert made(tree, [H2, A2, H3], on_missing="rebuild") == ("fork", None, ["two?", "Two.", "three?"])


def test_another_agents_stamps_are_ignored() -> None:
    """They are no states of this memory: the list is foreign, and known by words where it can be."""
    tree = TurnTree()
    said = [H1, ai("One.", "elsewhere"), H2]
    answer = tree.say(said, "Two.")

    assert made(TurnTree(), said) == ("import", "head", ["one?", "One.", "two?"])
    assert made(tree, [*said, answer, H3]) == ("extend", "head", ["three?"])
    assert made(tree, [*said, ai("Two.", "elsewhere2"), H3]) == ("extend", "head", ["three?"])


# -- unrelated lists -------------------------------------------------------------------------------------


def test_an_unrelated_list_follows_its_policy() -> None:
    """It is answered without the memory, or read in after what is held."""
    said = [human("2+2"), ai("4"), human("3+3")]
    alone = talked().plan(said)
    read = talked().plan(said, on_unrelated="import")

    assert (alone.kind, alone.remember, list(alone.new)) == ("unrelated", False, [0, 1, 2])
    assert (read.kind, read.remember, read.after, list(read.new)) == ("unrelated", True, "head", [0, 1, 2])


def test_a_known_question_makes_a_list_related() -> None:
    """Where answers come back changed beyond recognition, the ids of questions still tell."""
    said = [H1, ai("ONE"), H2, ai("TWO"), H3]

    assert made(talked(), said) == ("fork", "s1", ["two?", "TWO", "three?"])
    assert made(talked(), said, on_missing="rebuild") == (
        "fork",
        None,
        ["one?", "ONE", "two?", "TWO", "three?"],
    )


# -- what was forgotten ----------------------------------------------------------------------------------


def test_a_forgotten_turn_is_an_anchor_without_words() -> None:
    """The list still shows it; it is not read again, and the turn goes on at the head."""
    tree = talked()
    tree.forget("s2")
    chosen = tree.plan([H1, A1, H2, A2, H3])

    assert (chosen.kind, chosen.after, list(chosen.new)) == ("extend", "head", [4])
    assert chosen.note == "2 messages of forgotten turns are not read again"


@pytest.mark.parametrize("policy", ["keep", "rebuild", "error"])
def test_a_turn_forgotten_in_between_misses_nowhere(policy: str) -> None:
    """No policy reads it in again, or calls the list changed, whether it is still listed or not."""
    tree = talked(3)
    tree.forget("s2")
    for said in ([H1, A1, H2, A2, H3, ai("Three.", "s3")], [H1, A1, H3, ai("Three.", "s3")]):
        assert made(tree, [*said, human("four?")], on_missing=policy) == ("extend", "head", ["four?"])


def test_going_back_passes_over_forgotten_states() -> None:
    """A state that was forgotten cannot be returned to; the newest one before it can."""
    tree = talked(3)
    tree.forget("s2")
    said = [H1, A1, H2, A2, H3]

    assert made(tree, said) == ("regenerate", "s1", ["three?"])
    assert made(tree, [*said[:4], human("three!", "h3")]) == ("fork", "s1", ["three!"])
    tree.forget("s1")
    assert made(tree, [*said[:4], human("three!", "h3")]) == ("fork", None, ["three!"])


def test_all_that_was_said_may_be_forgotten() -> None:
    """A thread of which nothing is left goes on at the head, with what is new only."""
    tree = talked(1)
    tree.forget("s1")
    assert made(tree, [H1, A1, H2]) == ("extend", "head", ["two?"])


def test_a_state_forgotten_on_another_branch() -> None:
    """Its words are left out, and the list goes on from the newest state before it."""
    tree = talked()
    tree.say([H1, A1, human("two!", "h2")], "Not two.")
    tree.forget("s2")

    assert made(tree, [H1, A1, H2, A2, H3]) == ("fork", "s1", ["three?"])
    other = TurnTree()
    other.say([H1], "One.")
    other.say([human("one!", "h1")], "Not one.")
    other.forget("s1")
    assert made(other, [human("one, I said", "h9"), A1, H3]) == ("extend", "head", ["three?"])


# -- retries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strings", [False, True])
def test_a_retry_stores_nothing_twice(strings: bool) -> None:
    """However often a list is sent, the branch holds each of its messages once."""
    tree = talked()
    said = [H1, A1, H2, A2, H3]
    for attempt in range(3):
        tree.say(plain(said) if strings else said, f"Three, attempt {attempt}.")
        assert tree.said_in(None)[:-1] == [one.key for one in said]


def test_a_delta_with_an_id_is_retried_in_place() -> None:
    """The newest message alone, sent twice, is one turn."""
    tree = talked()
    tree.say([H3], "Three.")

    assert made(tree, [H3]) == ("regenerate", "s2", ["three?"])


def test_tool_results_extend() -> None:
    """Results after our call, sent with the list or alone, are new; sent again they are a retry."""
    tree = TurnTree()
    call = tree.say([H1], "<call>")
    results = [Line("tool", "42", "t1"), Line("tool", "43", "t2")]

    assert made(tree, [H1, call, *results]) == ("extend", "head", ["42", "43"])
    assert made(tree, results) == ("delta", "head", ["42", "43"])
    tree.say([H1, call, *results], "It is 42.")
    assert made(tree, [H1, call, *results]) == ("regenerate", "s1", ["42", "43"])
    assert made(tree, results) == ("regenerate", "s1", ["42", "43"])


def test_the_newest_of_equal_answers_is_the_anchor() -> None:
    """Without stamps, an answer said twice with the same question stands for the newest, unless the list begins so."""
    tree = TurnTree()
    for text in ("ok", "what", "ok"):
        tree.say([human(text)], text.upper())
    trimmed = [human("ok"), ai("OK"), human("next")]

    assert made(tree, trimmed) == ("extend", "head", ["next"])
    short = TurnTree()
    short.say([human("ok")], "OK")
    assert made(short, [*trimmed[:2], *trimmed]) == ("extend", "head", ["ok", "OK", "next"])


# -- costs and floors ------------------------------------------------------------------------------------


class Counted(str):
    """A key that counts how often it is compared or hashed."""

    __slots__ = ()
    uses = 0

    def __eq__(self, other: object) -> bool:
        Counted.uses += 1
        return str.__eq__(self, str(other))

    def __hash__(self) -> int:
        Counted.uses += 1
        return str.__hash__(self)


@pytest.mark.parametrize(
    "shape",
    [
        lambda said: said,
        lambda said: said[400:],
        lambda said: [human("a summary"), *said[400:]],
        lambda said: said[:-1][:600],
        lambda said: plain(said)[200:],
    ],
    ids=["resent", "trimmed", "summarised", "time travel", "strings"],
)
def test_the_work_grows_with_the_list_alone(shape: Callable[[list[Line]], list[Line]]) -> None:
    """A list of a thousand messages is planned with a few uses of each key, whatever happened to it."""
    tree = TurnTree()
    said: list[Line] = []
    for number in range(500):
        said.append(human(f"q{number % 7}", f"h{number}"))
        state = tree.turn([said[-1], ai(f"a{number % 5}")])
        said.append(ai(f"a{number % 5}", state))
    sent = [*shape(said), human("and now?", "new")]
    uses = []
    for _ in range(2):
        sent_keyed = [_KeyedLine(one.role, one.text, one.id, one.state_id) for one in sent]
        Counted.uses = 0
        tree.plan(sent_keyed)
        uses.append(Counted.uses)

    assert uses[0] == uses[1]
    assert uses[0] <= 12 * len(said)


class _KeyedLine(Line):
    """A line whose key counts."""

    @property
    def key(self) -> str:
        """Role and text, counted."""
        return Counted(f"{self.role}: {self.text}")


def test_the_planner_needs_neither_langchain_nor_torch() -> None:
    """It is pure: imported alone, it brings in no model library."""
    names = [
        node.module for node in ast.walk(ast.parse(_source(reconcile))) if isinstance(node, ast.ImportFrom)
    ]

    assert not [
        name for name in names if name and name.split(".")[0] in {"langchain_core", "torch", "transformers"}
    ]


def _source(module: Any) -> str:
    from pathlib import Path

    return Path(module.__file__).read_text(encoding="utf-8")
