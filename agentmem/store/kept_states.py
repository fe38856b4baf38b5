"""The states of selection rules in memory: the oracle of :mod:`agentmem.store.rule_states`. Knows tensors only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from agentmem.memory.source import RuleState
from agentmem.store.base import Turn
from agentmem.store.kept_agent import KeptAgent, KeptTurn


class PathRuleStates:
    """The states along the path a store stands on; see :class:`agentmem.memory.source.RuleStates`."""

    def __init__(self, path: Callable[[], Sequence[KeptTurn]]) -> None:
        self._path = path
        self.kept: RuleState | None = None
        """What the open turn shall be committed with."""

    def last(self, kind: str) -> RuleState | None:
        """What the newest committed turn left, if it is of that kind."""
        path = self._path()
        state = path[-1].state if path else None
        return state if state is not None and state.kind == kind else None

    def closed(self, kind: str) -> Sequence[tuple[int, Tensor]]:
        """(first block, closed) of every committed turn that has them."""
        states = [kept.state for kept in self._path() if kept.state is not None]
        return [(state.first, state.closed) for state in states if state.kind == kind and len(state.closed)]

    def keep(self, state: RuleState) -> None:
        """What the open turn shall be committed with."""
        self.kept = state


def wipe_states(agent: KeptAgent, gone: Turn) -> None:
    """A forgotten turn had numbers in the states of later turns too: set them to zero."""
    for kept in agent.kept.values():
        state = kept.state
        if state is not None and any(other.turn.id == gone.id for other in agent.path(kept.turn.id)):
            running = state.running.clone()
            running[:, max(0, gone.start - state.start) : max(0, gone.stop - state.start)] = 0
            kept.state = replace(state, running=running)
