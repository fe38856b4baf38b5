"""One thread's messages on one branch, in order, and how a caller's message is found among them.

Pure bookkeeping over records. Does not decide what to do with what it finds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from langchain_agentmem.held import Held, Said


class ThreadPath:
    """What a thread holds on a branch: other threads' turns and turns from elsewhere are not on the path.

    Turns that the caller names by their state id are, whoever made them: the caller has their messages.
    Forgotten turns hold nothing, but their states are known.
    """

    def __init__(
        self, held: Sequence[Held], thread: str | None, stamps: Collection[str], end: str = "head"
    ) -> None:
        self.end = end
        """What to go on from when nothing of the branch is left out: "head", or its last state."""
        self.messages: list[Held] = []
        self._held = held
        self._starts: list[int] = []
        self._places: list[int] = []
        self._states: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        self._pairs: dict[tuple[str, str], int] = {}
        self._answers: dict[str, int] = {}
        self._forgotten: dict[str, tuple[str | None, int]] = {}
        named = {one.turn for one in held if one.state_id is not None and one.state_id in stamps}
        for place, one in enumerate(held):
            own = one.listed and one.thread == thread
            if one.forgotten and one.state_id is not None:
                self._forgotten[one.state_id] = (one.parent, len(self.messages))
            elif own or one.turn in named:
                self._add(place, one, own=own)

    def __len__(self) -> int:
        return len(self.messages)

    def start_of(self, index: int) -> int:
        """Where on the path the turn of a message begins."""
        return self._starts[index]

    def place_of_state(self, state_id: str) -> int | None:
        """Where the message is that left this state."""
        return self._states.get(state_id)

    def place_of_id(self, message_id: str) -> int | None:
        """Where this thread's message with that id is."""
        return self._ids.get(message_id)

    def place_of_answer(self, said: Sequence[Said], at: int) -> int | None:
        """Where the answer ``said[at]`` stands, known by its words and by what was said before it: the newest."""
        key = said[at].key
        if at == 0:
            return self._answers.get(key)
        found = self._pairs.get((key, said[at - 1].key))
        first = self._answers.get(key) == 0
        return 0 if found is None and first else found

    def forgotten_at(self, state_id: str) -> int | None:
        """How much of the path comes before a state that was forgotten; None if it was not, or not here."""
        found = self._forgotten.get(state_id)
        return None if found is None else found[1]

    def before(self, index: int) -> str | None:
        """The newest state before a message's turn that can be gone back to; None: before the first turn."""
        state = self.messages[index].parent
        while state is not None and state in self._forgotten:
            state = self._forgotten[state][0]
        return state

    def shared(self, said: Sequence[Said], *, of: int = 0, at: int = 0) -> int:
        """How many messages are the same in ``said[of:]`` and from ``at`` on."""
        count = 0
        for one, held in zip(said[of:], self.messages[at:], strict=False):
            if one.key != held.key:
                break
            count += 1
        return count

    def left_behind(self, index: int) -> tuple[int, int]:
        """What going back to before a message's turn leaves: messages of the path, and turns of others."""
        after = self._held[self._places[index] :]
        own = {one.turn for one in self.messages[index:]}
        others = {one.turn for one in after if not one.forgotten and one.turn not in own}
        return len(self.messages) - index, len(others)

    def _add(self, place: int, one: Held, *, own: bool) -> None:
        index = len(self.messages)
        before = self.messages[-1] if self.messages else None
        same = before is not None and before.turn == one.turn
        self._starts.append(self._starts[-1] if same else index)
        self._places.append(place)
        self.messages.append(one)
        if own and one.id is not None:
            self._ids[one.id] = index
        if one.state_id is None:
            return
        self._states[one.state_id] = index
        if own and one.role == "assistant":
            self._answers[one.key] = index
            if before is not None:
                self._pairs[one.key, before.key] = index
