"""What a rebuild does to the tree of turns: which go, which are read again, in what order, and behind which.

Pure bookkeeping over records of turns; knows no tables, tensors or files. Shared by both stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agentmem.store.base import Turn


@dataclass(frozen=True)
class RebuildPlan:
    """``gone``: turns that leave the tree. ``todo``: turns to be read again, parents first, the head's branch last."""

    gone: Sequence[int]
    todo: Sequence[int]
    parents: Mapping[int, int | None]
    """The turn that each of ``todo`` comes after in the rebuilt tree; None: it is the first."""
    head: int | None
    """The head of the rebuilt tree."""


def plan_rebuild(turns: Iterable[Turn], gone: Iterable[int], head: int | None) -> RebuildPlan:
    """Without ``gone``, nor any turn that was forgotten before."""
    tree = {turn.id: turn for turn in turns}
    out = {*gone, *(turn.id for turn in tree.values() if turn.forgotten)}
    children: dict[int | None, list[int]] = {}
    affected: set[int] = set()
    for number in sorted(tree):  # a child's number is always the higher one
        parent = tree[number].parent
        children.setdefault(parent, []).append(number)
        if number in out or parent in affected:
            affected.add(number)

    def living(number: int | None) -> int | None:
        while number is not None and number in out:
            number = tree[number].parent
        return number

    on_branch = set()
    at = head
    while at is not None:
        on_branch.add(at)
        at = tree[at].parent
    todo, waiting = [], sorted(children.get(None, []), key=lambda n: n in on_branch, reverse=True)
    while waiting:  # depth first, so that what is stood on seldom changes; the head's branch at the end
        number = waiting.pop()
        if number in affected and number not in out:
            todo.append(number)
        waiting += sorted(children.get(number, []), key=lambda n: n in on_branch, reverse=True)
    parents = {number: living(tree[number].parent) for number in todo}
    return RebuildPlan(sorted(out), todo, parents, living(head))
