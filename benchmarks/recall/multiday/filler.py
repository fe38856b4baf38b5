"""What is talked about round the tellings: threads about neutral matters, each filled anew.

Knows nothing of questions: that no thread touches what is asked is checked on the texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from benchmarks.recall.multiday.personas import Persona
from benchmarks.recall.multiday.texts import Block, Catalogue, Scene

TURNS_OF_TALK = ("Something else.", "Another matter.", "One more thing.", "A different question.", "", "", "")
"""How a user goes over to a new matter within a session; "" without a word."""


class Threads:
    """Threads in shuffled order, none twice until all were there, none filled twice alike while it can vary."""

    def __init__(self, rng: Random, person: Persona, texts: Catalogue) -> None:
        self._rng = rng
        self._person = person
        self._blocks = list(texts.threads.values())
        self._deck: list[Block] = []
        self._used: set[tuple[str, str, str]] = set()

    def next_thread(self) -> Iterator[Scene]:
        """The exchanges of one thread, in order, its slots filled."""
        if not self._deck:
            self._deck = self._rng.sample(self._blocks, len(self._blocks))
        block = self._deck.pop()
        one, two = self._filling(block)
        for scene in block.scenes["tell"]:
            yield Scene(
                self._person.fill(scene.user, one=one, two=two),
                self._person.fill(scene.reply, one=one, two=two),
            )

    def _filling(self, block: Block) -> tuple[str, str]:
        """Values for the slots that this thread has not had yet, or any where it had all."""
        pairs = [(one, two) for one in block.parts("one") for two in block.parts("two")]
        fresh = [pair for pair in pairs if (block.name, *pair) not in self._used]
        one, two = self._rng.choice(fresh or pairs)
        self._used.add((block.name, one, two))
        return one, two
