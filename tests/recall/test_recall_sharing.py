"""Several processes, one journal: every cell is run once, nothing is lost, nobody waits, whoever dies lets go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from benchmarks.recall.__main__ import ELSEWHERE, INTERRUPTED, main
from benchmarks.recall.cells import Cell, Left, digest
from benchmarks.recall.claims import Claims
from benchmarks.recall.journal import Journal
from benchmarks.recall.plan import jobs
from support.recall_crowd import KEY, crowd_cell
from support.recall_toy import Quiet, histories, one_slice, runner
from support.source_tree import ROOT
from support.tiny_folder import write_chat_model

OPTIONS = {
    "sink_tokens": 8,
    "window_tokens": 64,
    "recall_tokens": 64,
    "block_tokens": 16,
    "chunk_tokens": 128,
}
CODES = {0, 3, ELSEWHERE}
"""Exit codes of a run without failures; a random model misses targets."""
MANY = 100
"""Histories enough to be interrupted."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder."""
    return str(write_chat_model(tmp_path_factory.mktemp("model")))


def _python(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    paths = [ROOT, ROOT / "adapters", ROOT / "kernels", ROOT / "tests"]
    place = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *arguments], env=place, text=True, **options)


def _command(model: str, home: Path, limit: int, *more: str) -> list[str]:
    asked = ["passkey", "--model", model, "--home", str(home), "--config", json.dumps(OPTIONS)]
    return [*asked, "--lengths", "1K", "--limit", str(limit), "--selector", "default,exact", *more]


def _wait(until: Callable[[], bool], seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def _lines(home: Path) -> list[Cell]:
    path = home / "cells.jsonl"
    return [Cell.from_json(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_processes_add_to_one_journal(tmp_path: Path) -> None:
    """Four writers at once, lines of many pages: each line is whole and each cell is there."""
    path, names = tmp_path / "c.jsonl", ("a", "b", "c", "d")

    writers = [_python("-m", "support.recall_crowd", "add", str(path), name, "40") for name in names]

    assert [writer.wait(120) for writer in writers] == [0] * 4
    found = sorted(Journal(path), key=lambda cell: (cell.key.history, cell.key.tokens))
    assert found == [crowd_cell(name, number) for name in names for number in range(40)]


def test_a_line_cut_by_a_crash_harms_no_other_writer(tmp_path: Path) -> None:
    """Opening cuts nothing; the next writer does, and who had the file open reads on behind it."""
    path = tmp_path / "c.jsonl"
    journal = Journal(path)
    journal.add(crowd_cell("a", 0))
    reader = Journal(path)
    with path.open("a") as file:
        file.write(crowd_cell("b", 0).to_json()[:-5])
    cut = path.read_bytes()

    other = Journal(path)
    assert path.read_bytes() == cut
    other.add(crowd_cell("c", 0))
    journal.add(crowd_cell("a", 1))
    reader.refresh()

    whole = [crowd_cell("a", 0), crowd_cell("c", 0), crowd_cell("a", 1)]
    assert list(reader) == list(Journal(path)) == whole


def test_a_line_that_does_not_fit_the_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short write is undone and said."""
    journal = Journal(tmp_path / "c.jsonl")
    journal.add(crowd_cell("a", 0))
    before, write = journal.path.read_bytes(), os.write

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, line: write(file, line[:100]))
        with pytest.raises(OSError, match=r"only 100 of \d+ bytes could be written"):
            journal.add(crowd_cell("a", 1))

    assert journal.path.read_bytes() == before
    assert list(journal) == [crowd_cell("a", 0)]


def test_a_dead_process_claims_nothing(tmp_path: Path) -> None:
    """While it lives the claim is refused, at once; killed, it lets go."""
    holder = _python("-m", "support.recall_crowd", "hold", str(tmp_path), stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with Claims(tmp_path).claim(KEY) as refused, Claims(tmp_path).claim(replace(KEY, arm="full")) as other:
        assert (refused, other) == (False, True)

    holder.kill()
    holder.communicate()

    with Claims(tmp_path).claim(KEY) as ours:
        assert ours


def test_cells_in_other_hands_are_passed_over(tmp_path: Path) -> None:
    """The run does the others, waits for nobody, and says what it left; later it finds or runs it."""
    todo = list(jobs([one_slice("default", "streaming")], histories()))
    screen = Quiet()
    first = runner(tmp_path, screen)
    held = first.key(todo[0])

    with Claims(tmp_path / "claims").claim(held) as ours:
        assert ours
        cells, left = first.run(todo)

    assert ([cell.key.arm for cell in cells], left) == (["streaming"], Left(elsewhere=1))
    assert screen.others == [held]
    assert runner(tmp_path, Quiet()).run(todo)[1] == Left()


def test_what_another_process_did_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    """With the claim in hand the journal is read again: finished there, or failed there just now, is not run."""
    todo = list(jobs([one_slice("default", "streaming")], histories()))
    screen = Quiet()
    late = runner(tmp_path, screen)
    keys = [late.key(job) for job in todo]
    theirs = [Cell(keys[0], "does not fit", "there"), Cell(keys[1], "failed", "there")]
    other = Journal(tmp_path / "cells.jsonl")
    for cell in theirs:
        other.add(cell)

    assert late.run(todo) == (theirs, Left())

    assert (screen.new, screen.found) == ([], theirs)
    assert screen.words == []


def test_two_commands_share_a_suite(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second one joins the first in its work; every cell is run by exactly one, and a third finds them all."""
    asked = _command(model, tmp_path, 16)
    other = _python("-m", "benchmarks.recall", *asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    _wait(lambda: len(_lines(tmp_path)) >= 1)

    code = main(asked)

    said = [capsys.readouterr().out, other.communicate(timeout=240)[0]]
    assert {code, other.returncode} <= CODES, said
    lines = _lines(tmp_path)
    assert [cell.status for cell in lines] == ["done"] * 32
    assert len({cell.key for cell in lines}) == 32
    ran = [sum(" right; read " in line for line in words.splitlines()) for words in said]
    assert sum(ran) == 32
    assert min(ran) > 0
    assert main(asked) in CODES - {ELSEWHERE}
    assert _lines(tmp_path) == lines


def test_a_cell_that_runs_elsewhere_is_in_the_exit_code(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing failed and nothing was missed, but not everything is there."""
    asked = _command(model, tmp_path, 1)
    assert main([*asked, "--minutes", "0"]) == 0
    main(asked)
    exact = _lines(tmp_path)[1]
    (tmp_path / "cells.jsonl").unlink()

    with Claims(tmp_path / "claims").claim(exact.key):
        assert main(asked) == ELSEWHERE

    assert "exact: running elsewhere" in capsys.readouterr().out
    assert (tmp_path / "claims" / f"{digest(asdict(exact.key))}.lock").exists()


def test_workers_share_a_suite(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command starts them, shows each cell as it is finished, and then the results, from another folder too."""
    monkeypatch.chdir(tmp_path)

    code = main(_command(model, Path("home"), 4, "--workers", "2", "--json", "r.json"))

    out = capsys.readouterr().out
    assert code in CODES - {ELSEWHERE}
    record = json.loads(Path("r.json").read_text())
    assert [cell["status"] for cell in record["cells"]] == ["done"] * 8
    assert (record["facts"]["workers"], record["left_out"]) == ("2", 0)
    assert len({cell.key for cell in _lines(tmp_path / "home")}) == len(_lines(tmp_path / "home")) == 8
    assert out.count(" right; read ") == 8


def test_a_worker_that_dies_is_said(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells are not finished, its last words are shown, and the exit code is that of a failure."""
    monkeypatch.setattr("benchmarks.recall.workers.sys.executable", "/bin/false")

    assert main(_command(model, tmp_path, 1, "--workers", "2")) == 1

    said = capsys.readouterr()
    assert "a worker ended with 1" in said.err
    assert "not finished: 2 cells" in said.out


def test_an_interrupt_stops_the_workers(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends only when its workers have; finished cells stay, and no claim is held."""

    def interrupt() -> None:
        _wait(lambda: len(_lines(tmp_path)) >= 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()

    assert main(_command(model, tmp_path, MANY, "--workers", "2")) == INTERRUPTED

    assert "interrupted" in capsys.readouterr().err
    done = _lines(tmp_path)
    assert {cell.status for cell in done} == {"done"}
    assert len(done) < 2 * MANY
    for path in (tmp_path / "claims").iterdir():
        with FileLock(path).acquire(blocking=False):
            pass


def test_a_worker_ends_with_its_parent(model: str, tmp_path: Path) -> None:
    """When the pipe from the process that started it is closed, by its death too, a worker interrupts itself."""
    worker = _python(
        "-m", "benchmarks.recall", *_command(model, tmp_path, MANY, "--worker"), stdin=subprocess.PIPE
    )
    _wait(lambda: len(_lines(tmp_path)) >= 1)

    assert worker.stdin is not None
    worker.stdin.close()

    assert worker.wait(60) == INTERRUPTED
    assert len(_lines(tmp_path)) < 2 * MANY
