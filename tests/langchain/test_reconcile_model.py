"""A random caller against a naive oracle: what the memory holds of a thread is always what the caller means.

The caller resends, sends only what is new, retries, edits, goes back in time, trims, summarises, answers through
another model, and does so in two threads of one agent. The oracle is a plain list per thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_agentmem.reconcile import Plan
from support.turn_tree import Line, TurnTree

WORDS = ("ok", "yes", "go on")
"""Few, so that different messages say the same."""


@dataclass(eq=False)
class Entry:
    """One message as the caller and the oracle have it: an object of its own, whatever it says."""

    line: Line
    ours: bool = False
    state: str | None = None
    """The turn it is held in."""
    gone: bool = False


@dataclass
class Talk:
    """One thread: the caller's list, and what is truly said in it."""

    said: list[Entry] = field(default_factory=list)
    true: list[Entry] = field(default_factory=list)

    def anchored(self, said: list[Entry]) -> bool:
        """Whether a list can be known for what it is: it starts with the thread, or holds an answer of ours.

        Without its stamp, an answer is known with the message before it only, or at the head of the list.
        """
        whole = bool(said) and bool(self.true) and said[0] is self.true[0] and said[0].line.id is not None
        before = dict(zip(self.true[1:], self.true, strict=False))
        return whole or any(
            entry.ours
            and not entry.gone
            and (entry.line.state_id is not None or at == 0 or before.get(entry) is said[at - 1])
            for at, entry in enumerate(said)
        )


class World:
    """One agent, its threads, and a caller with one way of sending lists."""

    def __init__(self, *, strings: bool, policy: str) -> None:
        self.tree = TurnTree()
        self.talks = {"a": Talk(), "b": Talk()}
        self.strings = strings
        self.policy = policy
        self.plans: list[Plan] = []
        self._count = 0

    # -- making messages -----------------------------------------------------------------------------

    def human(self, word: str) -> Entry:
        """A new question; without an id its words are its own."""
        self._count += 1
        number = self._count
        return Entry(Line("user", f"{word} {number}") if self.strings else Line("user", word, f"h{number}"))

    def answer(self, word: str) -> str:
        """Words of an answer."""
        self._count += 1
        return f"{word} {self._count}" if self.strings else word

    # -- one call ------------------------------------------------------------------------------------

    def call(self, thread: str, sent: list[Entry], kept: list[Entry], word: str) -> None:
        """Send a list; ``kept`` is what the thread then truly holds, the answer aside."""
        talk = self.talks[thread]
        lines = [entry.line for entry in sent]
        chosen = self.tree.plan(lines, thread=thread, on_missing=self.policy)
        assert list(chosen.new) == sorted(set(chosen.new))
        assert chosen.new[-1] == len(sent) - 1
        assert chosen.remember
        text = self.answer(word)
        stamped = self.tree.follow(chosen, lines, text, thread=thread)
        reply = Entry(Line("assistant", text, None, None if self.strings else stamped.state_id), ours=True)
        for entry in [sent[place] for place in chosen.new]:
            entry.state, entry.gone = stamped.state_id, False
            entry.ours = entry.ours and not self.strings  # read in again, it is known by its stamp alone
        reply.state = stamped.state_id
        talk.said.append(reply)
        talk.true = [*kept, reply]
        self.plans.append(chosen)
        self.check(thread)

    def check(self, thread: str) -> None:
        """The thread's messages on the branch are the oracle's; no message is there twice."""
        assert self.tree.said_in(thread) == [entry.line.key for entry in self.talks[thread].true]
        ids = [one.id for one in self.tree.held if one.id is not None]
        assert len(ids) == len(set(ids))

    # -- what a caller does --------------------------------------------------------------------------

    def resend(self, thread: str, word: str, place: int) -> None:
        """The whole list with a new question."""
        self._send(thread, self.talks[thread].said, word)

    def delta(self, thread: str, word: str, place: int) -> None:
        """The new question alone."""
        talk = self.talks[thread]
        if not self._here(thread):
            return
        asked = self.human(word)
        talk.said.append(asked)
        self.call(thread, [asked], [*talk.true, asked], word)

    def retry(self, thread: str, word: str, place: int) -> None:
        """The list of the last call once more."""
        talk = self.talks[thread]
        if not self._ends_alive(talk) or not talk.anchored(talk.said[:-1]):
            return
        talk.said.pop()
        asked = talk.said[-1]
        single = sum(entry.state == asked.state for entry in talk.true) == 2
        alone = place % 3 == 0 and asked.line.id is not None and single and self._here(thread)
        sent = [asked] if alone else talk.said
        true = talk.true[:-1]
        self.call(thread, list(sent), true if alone else self._kept(talk, talk.said, true), word)

    def edit_question(self, thread: str, word: str, place: int) -> None:
        """The last question, asked in other words."""
        talk = self.talks[thread]
        if not self._ends_alive(talk) or not talk.anchored(talk.said[:-1]) or len(talk.said) < 2:
            return
        asked = self.human(word)
        if not self.strings:
            asked = Entry(Line("user", f"{word}, rather", talk.said[-2].line.id))
        known = talk.anchored(talk.said[:-2])
        if not known and (self.strings or talk.true[0] is not talk.said[-2]):
            return
        talk.said[-2:] = [asked]
        self.call(thread, talk.said[:], self._kept(talk, talk.said, [*talk.true[:-2], asked]), word)

    def travel(self, thread: str, word: str, place: int) -> None:
        """A new question after an earlier answer."""
        talk = self.talks[thread]
        answers = [at for at, entry in enumerate(talk.said) if entry.ours and entry in talk.true]
        if answers:
            at = answers[place % len(answers)]
            true = talk.true.index(talk.said[at])
            del talk.said[at + 1 :]
            talk.true = talk.true[: true + 1]
            self._send(thread, talk.said, word)

    def edit_answer(self, thread: str, word: str, place: int) -> None:
        """An answer in other words, its stamp left on; then a new question."""
        talk = self.talks[thread]
        answers = [at for at, entry in enumerate(talk.said) if entry.ours and entry in talk.true]
        if not answers or not self._here(thread):
            return
        at = answers[place % len(answers)]
        old = talk.said[at]
        newest = not any(entry.gone or entry in talk.true for entry in talk.said[at + 1 :])
        if newest and not talk.anchored(talk.said[:at]):
            return
        edited = Entry(Line("assistant", f"edited {self.answer(word)}", None, old.line.state_id))
        talk.said[at] = edited
        if newest:
            talk.true = [edited if entry is old else entry for entry in talk.true]
        self._send(thread, talk.said, word)

    def elsewhere(self, thread: str, word: str, place: int) -> None:
        """Another model answers a question; then we are asked again."""
        talk = self.talks[thread]
        other = [self.human(word), Entry(Line("assistant", f"foreign {self.answer(word)}"))]
        talk.said += other
        talk.true = [*talk.true, *other]
        self._send(thread, talk.said, word)

    def trim(self, thread: str, word: str, place: int) -> None:
        """The head of the list is cut off."""
        talk = self.talks[thread]
        rest = talk.said[place % (len(talk.said) + 1) :]
        if any(entry.ours and entry in talk.true for entry in rest):
            talk.said = rest
            self._send(thread, talk.said, word)

    def summarise(self, thread: str, word: str, place: int) -> None:
        """The head of the list is replaced by a summary."""
        talk = self.talks[thread]
        rest = talk.said[place % (len(talk.said) + 1) :]
        first = next((entry for entry in rest if entry.line.state_id), None)
        if first is not None and first.gone:
            return  # all before a forgotten answer may belong to its turn, so the summary would not be read
        if any(entry.ours and entry in talk.true for entry in rest[1:]):
            talk.said = [self.human("a summary"), *rest]
            self._send(thread, talk.said, word)

    def observe(self, thread: str, word: str, place: int) -> None:
        """A turn that came in no list."""
        self.tree.turn([Line("user", word)], listed=False, answered=False)

    def append(self, thread: str, word: str, place: int) -> None:
        """A question of the list that is written down without an answer."""
        talk = self.talks[thread]
        if self._here(thread):
            asked = self.human(word)
            asked.state = self.tree.turn([asked.line], thread=thread, answered=False)
            talk.said.append(asked)
            talk.true = [*talk.true, asked]

    def forget(self, thread: str, word: str, place: int) -> None:
        """A turn of ours is forgotten, and stays in the caller's list."""
        talk = self.talks[thread]
        answers = [entry for entry in talk.said if entry.ours and entry in talk.true]
        if self.strings or not answers or not self._here(thread):
            return
        state = answers[place % len(answers)].state
        turn = [entry for entry in talk.true if entry.state == state]
        if state is None or sum(entry.line.state_id is not None for entry in turn) != 1:
            return
        self.tree.forget(state)
        for entry in turn:
            entry.gone = True
        talk.true = [entry for entry in talk.true if not entry.gone]

    # -- inside ----------------------------------------------------------------------------------------

    def _send(self, thread: str, said: list[Entry], word: str) -> None:
        talk = self.talks[thread]
        if said and not talk.anchored(said):
            return
        asked = self.human(word)
        said.append(asked)
        self.call(thread, said[:], self._kept(talk, said, [*talk.true, asked]), word)

    def _kept(self, talk: Talk, said: list[Entry], true: list[Entry]) -> list[Entry]:
        """What the thread holds under the policy: its own past, or the list."""
        return [entry for entry in said if not entry.gone] if self.policy == "rebuild" else true

    def _here(self, thread: str) -> bool:
        """Whether the thread's past is on the current branch."""
        return self.tree.said_in(thread) == [entry.line.key for entry in self.talks[thread].true]

    @staticmethod
    def _ends_alive(talk: Talk) -> bool:
        """Whether the list ends with a question and our answer, both held."""
        return len(talk.said) > 1 and talk.said[-1].ours and talk.said[-2:] == talk.true[-2:]


COMMON = "resend delta retry edit_question travel edit_answer elsewhere trim summarise".split()
RARE = "observe append forget".split()


def steps(threads: str, actions: list[str]) -> st.SearchStrategy[list[tuple[str, str, str, int]]]:
    """Random lists of (action, thread, word, place)."""
    step = st.tuples(
        st.sampled_from(actions), st.sampled_from(threads), st.sampled_from(WORDS), st.integers(0, 20)
    )
    return st.lists(step, min_size=2, max_size=24)


def live(world: World, moves: list[tuple[str, str, str, int]]) -> None:
    """Carry the moves out; each checks itself."""
    for action, thread, word, place in moves:
        move: Callable[[str, str, int], None] = getattr(world, action)
        move(thread, word, place)


@given(steps("ab", [*COMMON, *COMMON, *RARE]), st.sampled_from(["keep", "rebuild"]))
@settings(max_examples=300, deadline=None)
def test_the_memory_holds_what_the_caller_means(moves: list[tuple[str, str, str, int]], policy: str) -> None:
    """With stamps and ids, in two threads, under both policies: the thread on the branch is the oracle's list."""
    live(World(strings=False, policy=policy), moves)


@given(steps("a", [*COMMON, "observe"]), st.sampled_from(["keep", "rebuild"]))
@settings(max_examples=200, deadline=None)
def test_the_same_from_words_alone(moves: list[tuple[str, str, str, int]], policy: str) -> None:
    """Without stamps and ids, where no two messages say the same."""
    live(World(strings=True, policy=policy), moves)
