"""Several processes that serve one agent at the same time: they queue, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from agentmem import AgentMemory
from support.source_tree import ROOT
from support.tiny_folder import write_chat_model

NAMES = ("ann", "ben", "cleo")
COUNT = 6


def test_processes_take_turns_on_a_new_agent(tmp_path: Path) -> None:
    """Each makes or opens the agent, whoever is first; every turn is held, in its speaker's order."""
    model = write_chat_model(tmp_path / "model")
    paths = [ROOT, ROOT / "adapters", ROOT / "kernels", ROOT / "tests"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-W", "ignore", "-m", "support.crowd", str(tmp_path / "home"), str(model)]
    crowd = [
        subprocess.Popen([*command, name, str(COUNT)], env=environment, stderr=subprocess.PIPE, text=True)
        for name in NAMES
    ]
    ends = [(process.communicate(timeout=240)[1], process.returncode) for process in crowd]

    assert [code for _, code in ends] == [0, 0, 0], ends
    with AgentMemory.resume("ada", home=tmp_path / "home", read_only=True) as memory:
        said = [turn.messages[0]["content"] for turn in memory.history()]
    assert len(said) == len(NAMES) * COUNT
    for name in NAMES:
        assert [text for text in said if text.startswith(name)] == [f"{name} says {n}." for n in range(COUNT)]
