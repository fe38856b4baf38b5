"""Gate 5: a real file system of 4 MB that is full. Refused with a typed error, and goes on once there is room."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from agentmem.agent import AgentMemory
from agentmem.errors import DamagedError, StoreError
from faults import children
from faults.agent_life import AT, home_of, opened, verbs
from faults.results import Found
from faults.trees import scratch
from support.stores import contents

MEGABYTES = 4


def missing() -> str | None:
    """Why there can be no small file system here; None when there can."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "mounting needs root"
    with scratch() as folder, suppress(OSError, subprocess.CalledProcessError), _mounted(folder):
        return None
    return "mounting is not allowed here"


def disk_full(*, rounds: int, seed: int) -> Found:
    """Fill it up, again and again: an agent's life is refused in the middle, at any verb."""
    why = missing()
    if why is not None:
        return Found(0, [], "", skipped=why)
    failures: list[str] = []
    refusals = 0
    for number in range(rounds):
        with scratch() as folder, _mounted(folder):
            outcome = children.tried(lambda: _filled_and_freed(folder, seed + number))  # noqa: B023
            if outcome.ended == "done":
                refusals += int(outcome.text)
            else:
                failures.append(f"life {number}: {outcome.ended} {outcome.text}")
    on = f"refusals in {rounds} lives on a tmpfs of {MEGABYTES} MB, filled to the last page and freed"
    return Found(refusals, failures, on)


def _filled_and_freed(folder: Path, seed: int) -> str:
    """Live with hardly any room; when a verb is refused, look, make room, and go on. Says how often it was."""
    refused = 0
    home = folder / "home"
    opened(home).close()
    life = verbs(seed, 12)
    memory = opened(home)
    for number, verb in enumerate(life):
        if number >= 3:
            _fill(folder, leave=4096 * (number % 5))
        try:
            verb.act(memory)
        except StoreError:
            refused += 1
            memory = _freed(folder, home, memory)
            verb.act(memory)
        _free(folder)
    memory.close()
    _check_whole(home)
    return str(refused)


def _freed(folder: Path, home: Path, memory: AgentMemory) -> AgentMemory:
    """Refused: what was acknowledged is there while the disk is full, and after; the next opening goes on."""
    memory.close()
    with AgentMemory.resume("ada", home=home_of(home), read_only=True) as reader:
        full = [(turn.state_id, turn.forgotten) for turn in reader.history()]
        read = _read_all(reader)  # forgotten tokens, too: holes, for which there is no room
    try:
        with opened(home) as writer:
            assert _read_all(writer) == read
    except DamagedError:
        raise
    except StoreError:  # may be refused as long as the disk is full
        pass
    _free(folder)
    memory = opened(home)
    assert _read_all(memory) == read
    assert [(turn.state_id, turn.forgotten) for turn in memory.history()][: len(full)] == full
    assert memory.verify(deep=True).ok
    return memory


def _read_all(memory: AgentMemory) -> str:
    """Read, check and hash all keys and values, in order and picked one by one. Raises DamagedError."""
    log = memory._store.log
    found = hashlib.sha256(b"".join(one.numpy().tobytes() for one in contents(log)))
    for layer, (heads, dim) in enumerate(log.layout.layers):
        out = torch.empty(heads, log.length, dim, dtype=log.layout.dtype)
        log.gather(layer, torch.arange(log.length).expand(heads, -1).flip(1).contiguous(), out, None)
        found.update(out.numpy().tobytes())
    return found.hexdigest()


def _check_whole(home: Path) -> None:
    with opened(home) as memory:
        memory.chat("One more.", at=AT, max_new_tokens=2)
        report = memory.verify(deep=True)
    assert report.ok, report.findings


def _fill(folder: Path, leave: int) -> None:
    """Take all the room there is but ``leave`` bytes."""
    with suppress(OSError), (folder / "ballast").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    if leave:
        path = folder / "ballast"
        os.truncate(path, max(0, path.stat().st_size - leave))


def _free(folder: Path) -> None:
    (folder / "ballast").unlink(missing_ok=True)


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=0700", "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)
