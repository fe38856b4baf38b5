"""Finding the anchor: the newest message of a caller's list that the memory knows.

Up to the anchor a list is taken as held, whatever was trimmed or summarised before it; what follows is looked at.
State ids decide first, then message ids, then words. Pure; decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_agentmem.held import Held, Lookup, Said
from langchain_agentmem.thread_path import ThreadPath


@dataclass(frozen=True)
class Anchor:
    """``said[:at]`` stands for ``path.messages[:cut]``; a turn ends there on the path."""

    path: ThreadPath
    at: int
    cut: int


class Search:
    """A walk through a list, newest message first."""

    def __init__(
        self,
        said: Sequence[Said],
        path: ThreadPath,
        *,
        thread: str | None,
        lookup: Lookup,
        stamps: frozenset[str],
    ) -> None:
        self.edited = False
        """An answer whose state is known says something else now. Known after :meth:`run`."""
        self._said = said
        self._path = path
        self._thread = thread
        self._lookup = lookup
        self._stamps = stamps
        self._shared = path.shared(said)
        self._branches: dict[str, Sequence[Held] | str | None] = {}

    def run(self) -> Anchor | None:
        """The anchor; None when nothing in the list is known."""
        for at in range(len(self._said) - 1, -1, -1):
            one = self._said[at]
            if one.message["role"] == "assistant":
                found = self._answer(at, one)
            else:
                place = None if one.id is None else self._path.place_of_id(one.id)
                found = None if place is None else self._turn_start(at, place)
            if found is not None:
                return found
        return None

    def was_forgotten(self, state_id: str) -> bool:
        """Whether this is a state that was forgotten, on this branch or on another one."""
        if self._path.place_of_state(state_id) is not None:
            return False
        return self._path.forgotten_at(state_id) is not None or self._elsewhere(state_id) == "forgotten"

    def _answer(self, at: int, one: Said) -> Anchor | None:
        state = one.state_id
        if state is None:
            return self._by_words(at)
        cut = self._path.forgotten_at(state)
        if cut is not None:
            return Anchor(self._path, at + 1, cut)
        place = self._path.place_of_state(state)
        if place is not None:
            if self._path.messages[place].key == one.key:
                return Anchor(self._path, at + 1, place + 1)
            self.edited = True
            return self._turn_start(at, place)
        branch = self._elsewhere(state)
        if branch == "forgotten":
            return None
        if branch is None or isinstance(branch, str):
            return self._by_words(at)
        other = ThreadPath(branch, self._thread, self._stamps, end=state)
        place = other.place_of_state(state)
        if place is not None and other.messages[place].key == one.key:
            return Anchor(other, at + 1, place + 1)
        self.edited = True
        return None

    def _elsewhere(self, state_id: str) -> Sequence[Held] | str | None:
        if state_id not in self._branches:
            self._branches[state_id] = self._lookup(state_id)
        return self._branches[state_id]

    def _by_words(self, at: int) -> Anchor | None:
        """An answer known by its words, unless an equal one earlier in the list is that message."""
        place = self._path.place_of_answer(self._said, at)
        if place is None or (place != at and place < self._shared):
            return None
        return Anchor(self._path, at + 1, place + 1)

    def _turn_start(self, at: int, place: int) -> Anchor:
        """Before the turn of a known message: states exist only where turns end.

        The turn's earlier messages are those right before it in the list. If they changed, everything since
        the message known before them takes their place.
        """
        first = self._path.start_of(place)
        begin = at
        while place > first and begin > 0 and self._said[begin - 1].key == self._path.messages[place - 1].key:
            place, begin = place - 1, begin - 1
        if place > first:
            while begin > 0 and not self._known_before(begin - 1, first):
                begin -= 1
        return Anchor(self._path, begin, first)

    def _known_before(self, at: int, index: int) -> bool:
        one = self._said[at]
        by_state = None if one.state_id is None else self._path.place_of_state(one.state_id)
        by_id = None if one.id is None else self._path.place_of_id(one.id)
        by_words = self._path.place_of_answer(self._said, at) if one.message["role"] == "assistant" else None
        return any(place is not None and place < index for place in (by_state, by_id, by_words))
