"""Where the words of the branch an agent stands on came from: read once, then only what was added since.

A filter asks for it in every turn. Knows the rows of turns; not what is filtered.
"""

from __future__ import annotations

from agentmem.store.base import Origin
from agentmem.store.branch import Branch
from agentmem.store.turn_rows import TurnRows


class BranchOrigins:
    """What was read of one branch. A branch that changes is another object; one that grows is the same."""

    def __init__(self, rows: TurnRows) -> None:
        self._rows = rows
        self._branch = Branch()
        self._turns = 0
        self._origins: list[Origin] = []

    def of(self, branch: Branch) -> list[Origin]:
        """The origins of a branch's living turns, oldest first. Raises DamagedError."""
        if branch is not self._branch:
            self._branch, self._turns, self._origins = branch, 0, []
        self._origins += self._rows.origins(branch, self._turns)
        self._turns = len(branch)
        return list(self._origins)
