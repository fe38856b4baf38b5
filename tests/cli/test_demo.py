"""agentmem demo as a user runs it: every day a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.tiny_folder import write_chat_model


def test_demo_runs_to_its_end(tmp_path: Path) -> None:
    """It shows each command, ends with what was recalled from beyond the window, and leaves nothing behind."""
    model = write_chat_model(tmp_path / "model")
    command = [sys.executable, "-m", "agentmem.cli", "demo", "--model", str(model)]

    scratch = tmp_path / "scratch"
    scratch.mkdir()

    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "TMPDIR": str(scratch)}
    )

    assert done.returncode == 0, done.stderr
    assert [row.split()[2] for row in done.stdout.splitlines() if row.startswith("$ agentmem ")] == [
        "run",
        "observe",
        "run",
        "explain",
    ]
    assert done.stdout.count("0 re-read") + done.stderr.count("0 re-read") == 2
    assert "of the attention went to recalled text" in done.stdout
    assert list(scratch.iterdir()) == []
