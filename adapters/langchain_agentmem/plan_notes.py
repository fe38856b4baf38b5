"""What a plan says about a caller's list, in plain words.

Knows numbers only, neither messages nor plans.
"""

from __future__ import annotations


def refusal(missing: int, strange: int) -> str:
    """Why a list is refused: held messages that are not in it, and messages of it that are not held."""
    return (
        f"the list contradicts the memory: {count(missing, 'message')} that {are(missing)} held "
        f"{are(missing)} not in it, and {count(strange, 'message')} of it before the last known answer "
        f"{are(strange)} not held. Send the list unchanged, or use on_missing='keep' (what is held stays) "
        "or 'rebuild' (the memory is made equal to the list)"
    )


def kept(missing: int, strange: int) -> list[str]:
    """What became of those when what is held stays."""
    notes = []
    if missing:
        stay = "they stay" if missing > 1 else "it stays"
        notes.append(
            f"{count(missing, 'message')} that {are(missing)} held {were(missing)} left out of the list; "
            f"{stay} in the memory"
        )
    if strange:
        notes.append(
            f"{count(strange, 'message')} of the list before the last known answer {are(strange)} not held, "
            f"and {were(strange)} not read"
        )
    return notes


def rebuilt(missing: int, strange: int) -> list[str]:
    """What became of those when the memory follows the list."""
    left, new = count(missing, "message"), count(strange, "message")
    return [f"the memory was made equal to the list ({left} left out of it, {new} new to the memory)"]


def left_behind(own: int, others: int) -> list[str]:
    """Of going back: so many messages of this thread, and turns of others, are no longer on the branch."""
    notes = [f"{count(own, 'message')} that {were(own)} held {are(own)} left on the branch before"]
    if others:
        notes.append(f"with {count(others, 'turn')} of other conversations made since")
    return notes


def foreign(number: int) -> str:
    """Answers that this memory did not give."""
    return f"{count(number, 'answer')} from elsewhere {are(number)} read in"


def forgotten(number: int) -> list[str]:
    """Messages that will not be read, since their turns were forgotten."""
    return [f"{count(number, 'message')} of forgotten turns {are(number)} not read again"] if number else []


def count(number: int, what: str) -> str:
    """A number and its noun."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def are(number: int) -> str:
    """The verb to a number."""
    return "is" if number == 1 else "are"


def were(number: int) -> str:
    """The same, in the past."""
    return "was" if number == 1 else "were"
