"""Gates that are test files: run by themselves, with the long sizes, and counted."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

from faults.results import Found

TESTS = Path(__file__).resolve().parents[1]
LONG = "AGENTMEM_FAULTS"
"""In the environment of a long run: tests that have two sizes take the long one."""


def suite(on: str, *files: str) -> Found:
    """Run test files; each test is a case."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        paths = [str(TESTS / name) for name in files]
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "-p", "no:cacheprovider", *paths],
            env={**environment, LONG: "long"},
            cwd=TESTS.parent,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if not report.exists():
            return Found(0, [done.stdout[-2000:] + done.stderr[-2000:]], on)
        cases = list(ET.parse(report).iter("testcase"))
    failures = [
        f"{case.get('classname')}.{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Found(len(cases) - skipped, failures, on)
