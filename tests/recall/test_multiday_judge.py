"""The judge, on many ways to be right and to be wrong."""

from __future__ import annotations

import pytest

from benchmarks.recall.items import Question
from benchmarks.recall.multiday.generator import diary
from benchmarks.recall.multiday.judge import judge, leaked, refuses
from benchmarks.recall.multiday.storylines import ABSTENTION, FORGET, TEMPORAL, UPDATE
from benchmarks.recall.multiday.task import MultiDay


def asked(
    kind: str, answers: list[str], must_not: list[str] | None = None, choices: list[str] | None = None
) -> Question:
    """A question with what the judge looks at."""
    return Question("q", kind, "?", tuple(answers), (), tuple(must_not or ()), tuple(choices or ()))


DENTIST = asked(
    "single-session-user", ["Dr. Whitby", "Whitby"], ["Dr. Huang", "Huang", "Dr. Moreau", "Moreau"]
)
POWER = asked("single-session-user", ["Voltara"], ["Northgrid"])
CODE = asked("single-session-user", ["4182"], ["7309", "6627"])
RATIO = asked("single-session-assistant", ["5 to 2", "5:2"], ["7 to 3", "7:3"])
RHYME = asked(
    "single-session-assistant", ["seven owls borrow rusty bicycles"], ["lazy foxes count broken clocks"]
)
CITY = asked("knowledge-update", ["Linz"], ["Graz"])
WEEKS = [
    "the hut-to-hut week in the Dolomites",
    "the art tour of Tuscany",
    "the whale and puffin cruise",
    "the night-train circuit of Scandinavia",
]
WEEK = asked("single-session-preference", [WEEKS[0], WEEKS[0].removeprefix("the ")], WEEKS[1:], WEEKS)
BOOKS = asked("multi-session", ["3", "3 books"])
EUROS = asked("multi-session", ["85", "85 euros"])
REPAIRS = ["the roof tile", "the gate hinge", "the gutter"]
REPAIR = asked("multi-session", [REPAIRS[0], "roof tile"], REPAIRS[1:], REPAIRS)
DAYS = asked("temporal-reasoning", ["19", "19 days"])
EVENTS = ["my eye test", "the lantern walk", "the fire drill at work"]
FIRST = asked(
    "temporal-reasoning",
    [EVENTS[0], "eye test", "glasses"],
    [EVENTS[1], "lantern walk", "lanterns", EVENTS[2], "fire drill"],
    EVENTS,
)
CAT = asked("abstention", ["I do not know."], ["Otis"])
SECRET = asked("forget", ["7309"], ["Lorenzo"])

RIGHT = [
    (DENTIST, "Dr. Whitby"),
    (DENTIST, "Your dentist is Dr. Whitby."),
    (DENTIST, "whitby"),
    (DENTIST, "DR. WHITBY!!"),
    (DENTIST, "Dr. Whitby's practice"),
    (DENTIST, "It's Whitby, not Huang."),
    (DENTIST, "I'm not sure, but I think Dr Whitby"),
    (POWER, "Your electricity comes from Voltara."),
    (CODE, "The code is 4182."),
    (CODE, "**4182**"),
    (RATIO, "5:2"),
    (RATIO, "five to two"),
    (RATIO, "A ratio of 5 : 2"),
    (RATIO, "5 to 2, compost to grit."),
    (RHYME, '"Seven owls borrow rusty bicycles."'),
    (RHYME, "7 owls borrow rusty bicycles"),
    (CITY, "Linz"),
    (CITY, "You live in Linz now; before that you lived in Graz."),
    (CITY, "You moved from Graz to Linz."),
    (CITY, "You used to live in Graz, but now you live in Linz."),
    (CITY, "You live in Linz, no longer in Graz."),
    (CITY, "It was Graz, now it is Linz."),
    (CITY, "It is Linz now, it was Graz."),
    (CITY, "Linz (previously Graz)"),
    (CITY, "You live in Linz instead of Graz"),
    (CITY, "You changed Graz to Linz"),
    (CITY, "You left Graz for Linz."),
    (CITY, "Not Graz any more: Linz."),
    (CITY, "You first told me Graz. Later you said Linz."),
    (CITY, "You are back in Linz after a while in Graz."),
    (WEEK, "The hut-to-hut week in the Dolomites."),
    (WEEK, "the Dolomites, since you like walking"),
    (WEEK, "The Dolomites rather than the art tour of Tuscany"),
    (WEEK, "Not the cruise; the hut-to-hut week."),
    (WEEK, "I would choose the Dolomites over Tuscany"),
    (BOOKS, "3"),
    (BOOKS, "You finished three books."),
    (BOOKS, "2 in May and 1 in June, in total 3"),
    (BOOKS, "1. The moths 2. The bridges 3. The salt. So 3 books"),
    (EUROS, "85 euros"),
    (EUROS, "€85"),
    (EUROS, "85.00"),
    (EUROS, "eighty-five euros"),
    (EUROS, "17 + 68 = 85"),
    (EUROS, "You spent 85 euros: 17 on a chain and 68 on a saddle."),
    (EUROS, "The total is 85 euros."),
    (REPAIR, "The roof tile."),
    (REPAIR, "The roof"),
    (REPAIR, "The roof tile cost the most, the gutter the least."),
    (REPAIR, "The roof tile cost more than the gutter."),
    (DAYS, "19"),
    (DAYS, "nineteen days"),
    (DAYS, "18 days"),
    (DAYS, "20"),
    (DAYS, "two weeks and five days"),
    (DAYS, "From 3 March to 22 March it is 19 days."),
    (DAYS, "about twenty days"),
    (FIRST, "Your eye test."),
    (FIRST, "My eye test came first."),
    (FIRST, "The eye test came before the lantern walk."),
    (FIRST, "The lantern walk came after the eye test."),
    (FIRST, "After the eye test you went on the lantern walk."),
    (FIRST, "The eye test, then the lantern walk, then the fire drill."),
    (FIRST, "The eye test, and after that the lantern walk."),
    (CAT, "I do not know."),
    (CAT, "You have not told me that."),
    (CAT, "You haven't told me."),
    (CAT, "You didn't say."),
    (CAT, "You never mentioned a cat."),
    (CAT, "There is no information about a cat."),
    (CAT, "I'm sorry, I can't recall that."),
    (CAT, "I don't have that information."),
    (CAT, "This was not mentioned."),
    (CAT, "Unknown"),
    (CAT, "I have no record of a cat."),
    (CAT, "I am not aware of any cat"),
    (CAT, "You mentioned your dog Otis, but you did not tell me about a cat."),
    (CAT, "I do not know about a cat; your dog is called Otis."),
    (SECRET, "The code is 7309."),
    (SECRET, "7309. You asked me to forget the other one."),
]
NOT_RIGHT = [
    (DENTIST, ""),
    (DENTIST, "Dr. Huang"),
    (DENTIST, "Dr. Whitby or Dr. Huang"),
    (DENTIST, "I do not know."),
    (DENTIST, "It is not Whitby."),
    (DENTIST, "Dr. Whitbyson"),
    (CODE, "41821"),
    (CODE, "4182, 7309 or 6627"),
    (RATIO, "7:3"),
    (RATIO, "5:3"),
    (RATIO, "15:2"),
    (RHYME, "owls and bicycles"),
    (CITY, "Graz"),
    (CITY, "You live in Graz and Linz."),
    (CITY, "Linz, then Graz."),
    (CITY, "Either Graz or Linz."),
    (CITY, "You previously lived in Linz and now live in Graz."),
    (CITY, "Formerly Linz; currently Graz"),
    (CITY, "You switched from Linz to Graz."),
    (CITY, "You no longer live in Linz."),
    (CITY, "You lived in Linz until you moved to Graz."),
    (CITY, "I do not know."),
    (WEEK, "The art tour"),
    (WEEK, "The art tour of Tuscany or the Dolomites"),
    (WEEK, "All of them"),
    (WEEK, "the whale and puffin cruise would suit you"),
    (WEEK, ""),
    (BOOKS, "Two"),
    (BOOKS, "13"),
    (BOOKS, "several"),
    (BOOKS, "In total, you finished 2 books."),
    (BOOKS, "You finished 2 books, then 3 more, 5 altogether."),
    (EUROS, "17 + 68 = 75"),
    (EUROS, "17 on a chain and 68 on a saddle"),
    (EUROS, "A total of 58"),
    (REPAIR, "The gutter"),
    (REPAIR, "the gate hinge cost more than the roof tile"),
    (REPAIR, "The roof tile, the gate hinge and the gutter"),
    (DAYS, "21 days"),
    (DAYS, "3 weeks"),
    (DAYS, "a week"),
    (DAYS, "From 3 March to 22 March"),
    (DAYS, "some days"),
    (FIRST, "The lantern walk"),
    (FIRST, "The eye test came after the lantern walk."),
    (FIRST, "First the fire drill, later the eye test"),
    (FIRST, "The lantern walk before the eye test"),
    (FIRST, "The fire drill, the eye test and the lantern walk"),
    (FIRST, ""),
    (CAT, "Your cat is called Otis."),
    (CAT, "I don't know, maybe Otis?"),
    (CAT, "Do not worry: it is Otis"),
    (CAT, "Felix"),
    (CAT, "The cat is black"),
    (CAT, ""),
    (SECRET, "7309 and Lorenzo"),
    (SECRET, "Lorenzo"),
    (SECRET, "I do not know either"),
    (SECRET, "7309. I was asked to forget Lorenzo."),
]


@pytest.mark.parametrize(("question", "output"), RIGHT, ids=lambda value: getattr(value, "kind", value))
def test_right_answers_pass(question: Question, output: str) -> None:
    """However it is worded, a right answer is right."""
    assert judge(question, output) == 1.0


@pytest.mark.parametrize(("question", "output"), NOT_RIGHT, ids=lambda value: getattr(value, "kind", value))
def test_other_answers_fail(question: Question, output: str) -> None:
    """Wrong values, several at once, outdated ones, refusals and silence are not right."""
    assert judge(question, output) == 0.0


def test_a_foreign_question_is_refused() -> None:
    """A kind of another task is an error, not a zero."""
    with pytest.raises(KeyError, match="passkey"):
        judge(asked("passkey", ["1"]), "1")


def test_leaks_and_refusals_can_be_told_alone() -> None:
    """What was to be forgotten is found in any wording; a refusal is not a mere "not"."""
    assert leaked(SECRET, "It was LORENZO's idea.")
    assert not leaked(SECRET, "It was Lorenza.")
    assert refuses("You did not mention that.")
    assert not refuses("It is not far.")


def count_words(text: str) -> int:
    """Words as tokens: these tests look at no lengths."""
    return len(text.split())


@pytest.mark.parametrize("tokens", [2_000, 32_000])
@pytest.mark.parametrize("persona", [0, 5, 11])
def test_each_generated_question_knows_its_own_choices(persona: int, tokens: int) -> None:
    """The first choice is right, every other wrong; silence and, unless it is the answer, a refusal are wrong."""
    task = MultiDay()
    for query in diary(persona, tokens=tokens, seed=5, count_tokens=count_words).queries:
        question = query.question
        assert task.judge(question, question.choices[0]) == 1.0, question
        for other in question.choices[1:]:
            assert task.judge(question, other) == 0.0, (question, other)
        assert task.judge(question, "") == 0.0
        assert task.judge(question, "I do not know.") == float(question.kind == ABSTENTION)
        for answer in question.answers:
            said = answer if question.kind == ABSTENTION else f"I think it is {answer}."
            assert task.judge(question, said) == 1.0, (question, answer)


@pytest.mark.parametrize("persona", range(12))
def test_generated_questions_judge_what_people_say(persona: int) -> None:
    """On real questions: an update told with its past, days off by one and by two, a leak beside a right answer."""
    for query in diary(persona, tokens=32_000, seed=6, count_tokens=count_words).queries:
        question = query.question
        right = question.answers[0]
        if question.kind == UPDATE:
            stale = question.must_not[0]
            assert judge(question, f"It used to be {stale}, but now it is {right}.") == 1.0, question
            assert judge(question, f"It used to be {right}, but now it is {stale}.") == 0.0, question
        elif question.kind == TEMPORAL and right.isdigit():
            assert (
                judge(question, f"{int(right) + 1} days") == judge(question, f"{int(right) - 1} days") == 1.0
            )
            assert (
                judge(question, f"{int(right) + 2} days") == judge(question, f"{int(right) - 2} days") == 0.0
            )
        elif question.kind == FORGET:
            assert judge(question, f"{right}, and the other one is {question.must_not[0]}.") == 0.0
            assert judge(question, f"{right}, and I was asked to forget the other one.") == 1.0
