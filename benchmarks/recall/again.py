"""A process of its own that resumes an agent and asks it questions: what a restarted program would answer.

    python -m benchmarks.recall.again < request.json

Reads one JSON object {home, agent, device, dtype, rank, questions} and writes one JSON line per answer. Knows no task,
no judge and no arm: options and model are what the agent was left with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from agentmem import AgentMemory
from benchmarks.recall.asking import Spoken, ask_all
from benchmarks.recall.items import Question

ROOT = Path(__file__).resolve().parents[2]


class RestartError(Exception):
    """A new process could not answer, or answered otherwise."""


def ask_in_new_process(
    home: Path, agent: str, questions: Sequence[Question], *, device: str, dtype: str, rank: bool
) -> list[Spoken]:
    """Resume a closed agent in a new process and ask there; its weights are loaded anew.

    Raises:
        RestartError: the process failed.
    """
    request = {
        "home": str(home.resolve()),
        "agent": agent,
        "device": device,
        "dtype": dtype,
        "rank": rank,
        "questions": [asdict(question) for question in questions],
    }
    command = [sys.executable, "-m", "benchmarks.recall.again"]
    done = subprocess.run(
        command, input=json.dumps(request), capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise RestartError(f"the new process ended with {done.returncode}: {done.stderr[-800:]}")
    return [_spoken(line) for line in done.stdout.splitlines()]


def check_same(before: Sequence[Spoken], after: Sequence[Spoken]) -> None:
    """Raise RestartError unless both processes said the same, and nothing was read again."""
    for one, other in zip(before, after, strict=True):
        if (one.text, one.choices) != (other.text, other.choices):
            raise RestartError(f"{one.question}: {one.text!r} became {other.text!r} in a new process")
        if other.tokens_reread:
            raise RestartError(f"{one.question}: the new process read {other.tokens_reread} tokens again")


def main() -> int:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    questions = [_question(row) for row in request["questions"]]
    options = {"home": request["home"], "device": request["device"], "dtype": request["dtype"]}
    with AgentMemory.resume(request["agent"], create=False, **options) as memory:
        for spoken in _answers(memory, questions, rank=request["rank"]):
            print(json.dumps(asdict(spoken)), flush=True)
    return 0


def _answers(memory: AgentMemory, questions: Sequence[Question], *, rank: bool) -> Iterator[Spoken]:
    if memory.resumed.tokens_prefilled:
        raise RestartError(f"resuming read {memory.resumed.tokens_prefilled} tokens of the history again")
    return ask_all(memory, questions, rank=rank, tick=lambda: None)


def _question(row: dict[str, object]) -> Question:
    return Question(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})  # type: ignore[arg-type]


def _spoken(line: str) -> Spoken:
    row = json.loads(line)
    row["blocks"] = tuple((start, stop) for start, stop in row["blocks"])
    return Spoken(**{**row, "choices": tuple(row["choices"])})


if __name__ == "__main__":
    sys.exit(main())
