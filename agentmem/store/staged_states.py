"""The states of selection rules while a repair computes some of them anew. Knows no tables of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from agentmem.memory.source import RuleState
from agentmem.store.branch import Branch
from agentmem.store.rule_states import RuleStateRows


class StagedRuleStates:
    """The states along a branch while some of them are computed anew; see :class:`RuleStates`. Stores nothing.

    Args:
        rows: those in the index.
        branch: whose.
        made: new ones by turn, which count before those.
    """

    def __init__(self, rows: RuleStateRows, branch: Branch, made: Mapping[int, RuleState]) -> None:
        self._rows = rows
        self._branch = branch
        self._made = made
        self.kept: RuleState | None = None
        """What was kept last."""

    def last(self, kind: str) -> RuleState | None:
        """What the branch's newest turn left, if it is of that kind."""
        newest = self._branch.last
        return None if newest is None else self._of(newest, kind)

    def closed(self, kind: str) -> Sequence[tuple[int, Tensor]]:
        """(first block, closed) of every turn of the branch that has them."""
        found = (self._of(turn_id, kind) for turn_id in self._branch.ids)
        return [(state.first, state.closed) for state in found if state is not None and len(state.closed)]

    def keep(self, state: RuleState) -> None:
        """What the turn that is computed anew is committed with."""
        self.kept = state

    def _of(self, turn_id: int, kind: str) -> RuleState | None:
        state = self._made.get(turn_id) or self._rows.get(turn_id, kind)
        return state if state is not None and state.kind == kind else None
