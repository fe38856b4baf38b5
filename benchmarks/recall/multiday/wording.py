"""How texts are compared: lower case, plain letters, numbers as digits, words apart by one blank.

Knows nothing of questions or histories.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
SPOKEN = {word: value for value, word in enumerate(UNITS)} | {
    word: 10 * value for value, word in enumerate(TENS, start=2)
}
"""Number word -> value."""

_TOKEN = re.compile(r"[a-z0-9']+")
_GROUPS = re.compile(r"(?<=\d)[,\u2009 ](?=\d{3}\b)")
_RATIO = re.compile(r"(?<=\d)\s*:\s*(?=\d)")


def normalised(text: str) -> str:
    """`text` for comparison: "Dr. Whitby's twenty-one books: 5:2" -> "dr whitby 21 books 5 to 2"."""
    plain = unicodedata.normalize("NFKD", text.replace("’", "'"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).lower()
    plain = _RATIO.sub(" to ", _GROUPS.sub("", plain))
    words = (word.removesuffix("'s").strip("'") for word in _TOKEN.findall(plain))
    return " ".join(_numbers_as_digits([word for word in words if word]))


def _numbers_as_digits(words: list[str]) -> Iterable[str]:
    """The words with spelled-out numbers below a million as digits: ["one", "hundred", "and", "two"] -> "102"."""
    at = 0
    while at < len(words):
        value, used = _spoken_number(words, at)
        if used:
            yield str(value)
        else:
            yield words[at]
        at += used or 1


def _spoken_number(words: list[str], at: int) -> tuple[int, int]:
    """The value of the number spelled out from `at` on, and how many words it takes; (0, 0): none is there."""
    value, used = _below_thousand(words, at)
    if used and words[at + used : at + used + 1] == ["thousand"]:
        more, taken = _below_thousand(words, at + used + 1)
        return 1_000 * value + more, used + 1 + taken
    return value, used


def _below_thousand(words: list[str], at: int) -> tuple[int, int]:
    """As `_spoken_number`, up to "nine hundred and ninety-nine"."""
    value, used = _below_hundred(words, at)
    if not used or words[at + used : at + used + 1] != ["hundred"]:
        return value, used
    joint = int(words[at + used + 1 : at + used + 2] == ["and"])
    more, taken = _below_hundred(words, at + used + 1 + joint)
    return 100 * value + more, used + 1 + (taken + joint if taken else 0)


def _below_hundred(words: list[str], at: int) -> tuple[int, int]:
    if at >= len(words) or words[at] not in SPOKEN:
        return 0, 0
    value = SPOKEN[words[at]]
    if value >= 20 and at + 1 < len(words) and 0 < SPOKEN.get(words[at + 1], 0) < 10:
        return value + SPOKEN[words[at + 1]], 2
    return value, 1


def contains(text: str, phrase: str) -> bool:
    """Whether `phrase` occurs in `text` as whole words, both as `normalised` makes them."""
    wanted = normalised(phrase)
    return bool(wanted) and f" {wanted} " in f" {normalised(text)} "


def mentions(text: str, phrases: Iterable[str]) -> bool:
    """Whether any of `phrases` occurs in `text`."""
    plain = f" {normalised(text)} "
    return any(f" {normalised(phrase)} " in plain for phrase in phrases)
