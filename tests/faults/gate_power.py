"""Gate 4: the power fails. Whatever of the unsynced changes arrived, what was acknowledged is there, whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from faults import children, shim
from faults.crash_states import CrashState, crash_states
from faults.faulted import HomeOf, Prepared, prepare, thinned
from faults.op_log import Op, Tree, laid_down, recorded
from faults.operations import PLAIN, Snapshot, disk_home, encrypted_home, interrupted, migrations, snapshot
from faults.results import Found
from faults.sessions import oracle, run
from faults.trees import scratch


@dataclass(frozen=True)
class Story:
    """What was done to a disk, and what must be there after each mark: index i, or i + 1 in the making."""

    name: str
    before: Tree
    ops: Sequence[Op]
    wanted: Sequence[Snapshot]
    home_of: HomeOf = disk_home

    def states(self, tries: int, seed: int) -> list[tuple[Story, CrashState]]:
        """Every crash state, with the story it belongs to."""
        return [(self, state) for state in crash_states(self.before, self.ops, tries=tries, seed=seed)]


def power_loss(*, tries: int, nested: int, limit: int, seed: int, jobs: int) -> Found:
    """A whole session, then each operation by itself, then (``nested`` times) a second failure in the recovery.

    At most ``limit`` disks, evenly spread; ``tries`` random choices at each moment.
    """
    with scratch() as folder:
        stories = [_session(folder / "session"), _session(folder / "encrypted", encrypted_home)]
        for number, operation in enumerate((*PLAIN, *interrupted(), *migrations())):
            stories.append(_story(prepare(operation, folder / str(number))))
    cases = thinned([case for story in stories for case in story.states(tries, seed)], limit, seed)
    failures = children.spread(cases, lambda case: judged(*case), jobs)
    again = random.Random(seed).sample(cases, min(nested, len(cases)))
    twice = children.spread(again, lambda case: _judged_twice(*case, tries=0, seed=seed), jobs)
    counts = [int(text) for text in twice if text.isdigit()]
    failures += [text for text in twice if not text.isdigit()]
    on = f"{len(cases)} disks after {len(stories)} stories; {sum(counts)} more after a crash in the recovery"
    return Found(len(cases) + sum(counts), failures, on)


def judged(story: Story, state: CrashState) -> list[str]:
    """What is wrong with a disk after a crash, in words."""
    with scratch() as folder:
        _lay_down(state, folder)
        try:
            found = snapshot(story.home_of(folder))
        except Exception as error:  # noqa: BLE001 - whatever opening it raises is a failure
            return [f"{story.name}, {state.how}: {type(error).__name__}: {error}"]
    if found not in story.wanted[state.acknowledged : state.acknowledged + 2]:
        return [f"{story.name}, {state.how}: not what was acknowledged ({state.acknowledged})"]
    return []


def _judged_twice(story: Story, state: CrashState, *, tries: int, seed: int) -> list[str]:
    """The power fails again while the disk is opened; says how many disks that made, and what is wrong."""
    with scratch() as folder:
        _lay_down(state, folder)

        def body() -> None:
            snapshot(story.home_of(folder))

        before, ops, outcome = recorded(folder, body)
        if outcome.ended != "done":
            return [f"{story.name}, {state.how}: {outcome.text}"]
    wanted = story.wanted[state.acknowledged : state.acknowledged + 2]
    inner = Story(f"{story.name}, {state.how}, then opened", before, ops, wanted, story.home_of)
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
    return Story(f"session {folder.name}", before, ops, oracle(), home_of)


def _story(prepared: Prepared) -> Story:
    """One operation: before its mark the old state or the new, after it the new one."""

    def body() -> None:
        prepared.act(prepared.folder)
        shim.mark(1)

    before, ops, outcome = recorded(prepared.folder, body)
    assert outcome.ended == "done", outcome
    return Story(prepared.name, before, ops, [prepared.before, prepared.after])
