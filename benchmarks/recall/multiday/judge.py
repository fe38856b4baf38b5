"""Whether an answer is right, by rule: aliases, number words, clauses, a tolerance for days, refusals.

No model judges. The rules lean towards what LongMemEval's prompts ask of a judge: the answer must be given
and hold; an outdated value may be mentioned as long as it is not given as the present one; a distance in
days may be off by one; an abstention says that the matter is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from benchmarks.recall.items import Question
from benchmarks.recall.multiday.clauses import Clause, clauses
from benchmarks.recall.multiday.storylines import (
    ABSTENTION,
    ASSISTANT,
    FORGET,
    MULTI,
    PREFERENCE,
    TEMPORAL,
    UPDATE,
    USER,
)
from benchmarks.recall.multiday.wording import contains, mentions, normalised

RIGHT, WRONG = 0, 1
"""Numbers of the two candidates where there are only two: what should be said, what should not."""
DAYS_OFF = 1
_COMMON = set(
    "about and art evening first for from late night over that the three two week weekly weekend which with".split()
)
"""Words that alone do not name an option."""

_REFUSALS = re.compile(
    r"\b(?:(?:do|did|does|have|has|had|was|were|is|are|am|could|can|would|will) not|\w+n't|cannot|never"
    r"|unable to|not able to|failed to)\b(?: \w+){0,3}? "
    r"(?:know|told|tell|said|say|mention\w*|specif\w+|provid\w+|shar\w+|stat\w+|have|find|found|recall|remember"
    r"|determin\w+|answer|discuss\w*|indicat\w+|given?|contain|include|aware|sure|certain|clear|come up)\b"
    r"|\b(?:no|any) (?:information|mention|record|memory|idea|knowledge|details?|data|note)\b"
    r"|\b(?:not|never) (?:been )?(?:mentioned|told|specified|provided|stated|given|known|said|discussed|available"
    r"|sure|certain|recorded)\b"
    r"|\bunknown\b|\bno such\b|\bnothing (?:about|on|in)\b|\bnot enough\b|\binsufficient\b"
    r"|\bi only (?:know|have|remember)\b|\b(?:information|answer) is missing\b"
)
_ATTRIBUTED = re.compile(r"\b(?:mentioned|told|said|talked|spoke|only|know that|wrote|your|did)\b")
_LESS = re.compile(
    r"\b(?:least|less|fewer|cheap\w*|only|second|later|afterwards?|next|follow\w*|last|too|worse|unsuitable|while)\b"
)
_TOTAL = re.compile(
    r"\b(?:total\w*|altogether|in all|overall|sum|adds up|add up|comes? to|makes?|equals?|brings?|answer)\b"
    r"(?: [a-z']+){0,6}? (\d+)\b"
)
_SPAN = re.compile(r"\b(\d+|a|an)( and a half)? (days?|weeks?|fortnights?)\b(?:(?: and)? (\d+|a) days?\b)?")


def judge(question: Question, output: str) -> float:
    """1.0 when `output` answers `question` rightly, else 0.0.

    Raises:
        KeyError: a question of another task.
    """
    return float(_RULES[question.kind](question, output))


def leaked(question: Question, output: str) -> bool:
    """Whether `output` gives away what was to be forgotten, or what belongs to something never told."""
    return mentions(output, question.must_not)


def refuses(output: str) -> bool:
    """Whether `output` says that the matter is not known."""
    return bool(_REFUSALS.search(normalised(output)))


def _states(question: Question, output: str) -> bool:
    """The value is given, and no other one with it."""
    held = {one for clause in clauses(output, (question.answers, question.must_not)) for one in clause.held}
    return held == {RIGHT}


def _states_current(question: Question, output: str) -> bool:
    """The last clause about the present gives the value and not the outdated one."""
    found = [c for c in clauses(output, (question.answers, question.must_not)) if c.found]
    present = [clause for clause in found if not clause.past]
    if any(RIGHT in clause.held and not _was(clause) for clause in present):
        present = [clause for clause in present if not (_was(clause) and WRONG in clause.found)]
    return bool(present) and set(present[-1].held) == {RIGHT}


def _was(clause: Clause) -> bool:
    return any(word in {"was", "were"} for word in clause.words)


def _picks(question: Question, output: str) -> bool:
    """Of the options named, the right one remains when those set aside are left out."""
    return _picked(output, _option_names(question)) == {RIGHT}


def _picks_first(question: Question, output: str) -> bool:
    """As `_picks`; "A after B" and "before A, B" name B."""
    names = [[*question.answers], *([name] for name in question.must_not)]
    text = re.sub(
        r"\b(?:after|later than) (?:that|this|which|it)\b|\b(?:afterwards|(?:and )?then)\b",
        ", later ",
        output,
        flags=re.IGNORECASE,
    )
    turned = re.search(r"\b(after|later than|following)\b", text, re.IGNORECASE)
    if turned:
        behind = [one for c in clauses(text[turned.end() :], names) for one in c.held]
        ahead = [one for c in clauses(text[: turned.start()], names) for one in c.held]
        return behind[:1] == [RIGHT] and (bool(ahead) or len(behind) > 1)
    text = re.sub(
        r"\b(?:before|earlier than|followed by|prior to|ahead of)\b",
        " rather than ",
        text,
        flags=re.IGNORECASE,
    )
    return _picked(text, names) == {RIGHT}


def _picked(output: str, names: Sequence[Sequence[str]]) -> set[int]:
    found = [clause for clause in clauses(output, names) if clause.found]
    kept = [clause for clause in found if not _LESS.search(clause.text)] or found
    return {one for clause in kept for one in clause.held}


def _option_names(question: Question) -> list[list[str]]:
    """Names of each option, the right one first: as given, and whatever words only that option has."""
    named = [[*question.answers], *([name] for name in question.must_not)]
    for option in question.choices:
        own = next(
            names
            for names in named
            if any(contains(name, option) or contains(option, name) for name in names)
        )
        others = " ".join(normalised(choice) for choice in question.choices if choice != option).split()
        words = normalised(option).split()
        own += [word for word in words if len(word) > 2 and word not in others and word not in _COMMON]
    return named


def _counts(question: Question, output: str) -> bool:
    """The number is given as the total, or as the first or last number where no total is named."""
    wanted = int(question.answers[0])
    plain = normalised(re.sub(r"(\d)[.,]00\b", r"\1", output).replace("=", " equals "))
    totals = _TOTAL.findall(plain)
    if totals:
        return int(totals[-1]) == wanted
    numbers = [int(word) for word in plain.split() if word.isdigit()]
    return bool(numbers) and wanted in {numbers[0], numbers[-1]}


def _days(question: Question, output: str) -> bool:
    """The distance in days or weeks, off by one at most; the last one named counts."""
    plain = normalised(output)
    spans = [_span(match) for match in _SPAN.finditer(plain)]
    numbers = spans or [int(word) for word in plain.split() if word.isdigit()]
    return bool(numbers) and abs(numbers[-1] - int(question.answers[0])) <= DAYS_OFF


def _span(match: re.Match[str]) -> int:
    count, half, unit, more = match.groups()
    size = 1 if unit.startswith("day") else 7 if unit.startswith("week") else 14
    days = (1 if count in {"a", "an"} else int(count)) * size + (size // 2 if half else 0)
    return days + (0 if more is None else 1 if more == "a" else int(more))


def _number_or_pick(
    number: Callable[[Question, str], bool], pick: Callable[[Question, str], bool]
) -> Callable[[Question, str], bool]:
    """The rule for a kind whose questions ask either for a number or for one of some options."""
    return lambda question, output: (number if question.answers[0].isdigit() else pick)(question, output)


def _abstains(question: Question, output: str) -> bool:
    """It refuses, and gives the look-alike's value at most as what it is."""
    if not refuses(output):
        return False
    found = [clause for clause in clauses(output, ((), question.must_not)) if clause.found]
    return all(_ATTRIBUTED.search(clause.text) or WRONG not in clause.held for clause in found)


def _keeps_and_forgets(question: Question, output: str) -> bool:
    """The kept value is given, the forgotten one nowhere."""
    return not leaked(question, output) and _states(question, output)


_RULES: Mapping[str, Callable[[Question, str], bool]] = {
    USER: _states,
    ASSISTANT: _states,
    PREFERENCE: _picks,
    MULTI: _number_or_pick(_counts, _picks),
    TEMPORAL: _number_or_pick(_days, _picks_first),
    UPDATE: _states_current,
    ABSTENTION: _abstains,
    FORGET: _keeps_and_forgets,
}
