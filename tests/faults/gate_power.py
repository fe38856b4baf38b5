"""Gate 4: the power fails. Whatever of the unsynced changes arrived, what was acknowledged is there, whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faults import children, shim
from faults.agent_operations import agent_operations
from faults.crash_states import CrashState, crash_states
from faults.faulted import HomeOf, Prepared, prepare, thinned
from faults.mending_operations import encrypted_migrations, mendings
from faults.op_log import Op, Tree, laid_down, recorded
from faults.operations import PLAIN, disk_home, encrypted_home, interrupted, migrations, snapshot
from faults.results import Found
from faults.sessions import oracle, run
from faults.trees import scratch


@dataclass(frozen=True)
class Story:
    """What was done to a disk; ``see`` tells what is there, ``allows(i, found)`` whether it may be after mark i."""

    name: str
    before: Tree
    ops: Sequence[Op]
    see: Callable[[Path], Any]
    allows: Callable[[int, Any], bool]

    def states(self, tries: int, seed: int) -> list[Case]:
        """Every crash state, with the story it belongs to."""
        return [(self, state) for state in crash_states(self.before, self.ops, tries=tries, seed=seed)]


Case = tuple[Story, CrashState]


def power_loss(*, tries: int, nested: int, limit: int, agent_limit: int, seed: int, jobs: int) -> Found:
    """A whole session, then each operation by itself, then (``nested`` times) a second failure in the recovery.

    At most ``limit`` disks of agents without a model and ``agent_limit`` with one, evenly spread; ``tries`` random
    choices at each moment.
    """
    with scratch() as folder:
        stories = [_session(folder / "session"), _session(folder / "encrypted", encrypted_home)]
        for number, operation in enumerate((*PLAIN, *interrupted(), *migrations())):
            stories.append(_story(prepare(operation, folder / str(number))))
        stories += map(_story, (*mendings(folder / "mendings"), *encrypted_migrations(folder / "migrations")))
        cases = thinned([case for story in stories for case in story.states(tries, seed)], limit, seed)
        told = [_story(prepared) for prepared in agent_operations(folder / "agents")]
        cases += thinned([case for story in told for case in story.states(tries, seed)], agent_limit, seed)
        return _cut_off(cases, len(stories) + len(told), nested=nested, seed=seed, jobs=jobs)


def _cut_off(cases: Sequence[Case], stories: int, *, nested: int, seed: int, jobs: int) -> Found:
    failures = children.spread(cases, lambda case: judged(*case), jobs)
    again = random.Random(seed).sample(cases, min(nested, len(cases)))
    twice = children.spread(again, lambda case: _judged_twice(*case, tries=0, seed=seed), jobs)
    counts = [int(text) for text in twice if text.isdigit()]
    failures += [text for text in twice if not text.isdigit()]
    on = f"{len(cases):,} disks after {stories} stories; {sum(counts)} more after a crash in the recovery"
    return Found(len(cases) + sum(counts), failures, on)


def judged(story: Story, state: CrashState) -> list[str]:
    """What is wrong with a disk after a crash, in words."""
    with scratch() as folder:
        _lay_down(state, folder)
        try:
            found = story.see(folder)
        except Exception as error:  # noqa: BLE001 - whatever opening it raises is a failure
            return [f"{story.name}, {state.how}: {type(error).__name__}: {error}"]
    if not story.allows(state.acknowledged, found):
        return [f"{story.name}, {state.how}: not what was acknowledged ({state.acknowledged})"]
    return []


def _judged_twice(story: Story, state: CrashState, *, tries: int, seed: int) -> list[str]:
    """The power fails again while the disk is opened; says how many disks that made, and what is wrong."""
    with scratch() as folder:
        _lay_down(state, folder)

        def body() -> None:
            story.see(folder)

        before, ops, outcome = recorded(folder, body)
        if outcome.ended != "done":
            return [f"{story.name}, {state.how}: {outcome.text}"]
    inner = Story(
        f"{story.name}, {state.how}, then opened",
        before,
        ops,
        story.see,
        lambda _, found: story.allows(state.acknowledged, found),
    )
    found = inner.states(tries, seed)
    return [str(len(found)), *(text for case in found for text in judged(*case))]


def _lay_down(state: CrashState, folder: Path) -> None:
    """Shared memory files are written through maps, which are not recorded: they come back as noise."""
    noise = random.Random(state.how)
    laid_down(_without_maps(state.tree), folder)
    for wal in folder.rglob("agent.db-wal"):
        if noise.random() < 0.3:
            wal.with_name("agent.db-shm").write_bytes(noise.randbytes(32768))


def _without_maps(tree: Tree) -> Tree:
    folders = {
        inode: {name: child for name, child in entries.items() if not name.endswith("-shm")}
        for inode, entries in tree.folders.items()
    }
    return replace(tree, folders=folders)


def _session(folder: Path, home_of: HomeOf = disk_home) -> Story:
    folder.mkdir()
    home = home_of(folder)  # here, so that its key is this process's
    before, ops, outcome = recorded(folder, lambda: run(home, shim.mark))
    assert outcome.ended == "done", outcome
    wanted = oracle()
    return Story(
        f"session {folder.name}",
        before,
        ops,
        lambda folder: snapshot(home_of(folder)),
        lambda mark, found: found in wanted[mark : mark + 2],
    )


def _story(prepared: Prepared) -> Story:
    """One operation: before its mark the old state or the new, after it what it acknowledged."""

    def body() -> None:
        prepared.act(prepared.folder)
        shim.mark(1)

    before, ops, outcome = recorded(prepared.folder, body)
    assert outcome.ended == "done", outcome
    return Story(
        prepared.name,
        before,
        ops,
        prepared.see,
        lambda mark, found: prepared.acknowledges(found) if mark else prepared.allows(found),
    )
