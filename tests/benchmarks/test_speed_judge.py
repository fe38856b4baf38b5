"""``benchmarks.speed``: what is planned, kept and integrated, and how promises are judged from cells alone."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentmem.engine.cache import ModelCache
from benchmarks.speed import sides
from benchmarks.speed.cells import CellKey, Cells, View
from benchmarks.speed.command_line import parse
from benchmarks.speed.integral import seconds_to_read
from benchmarks.speed.judge import Judge, Verdict
from benchmarks.speed.plan import LLAMA, TRANSFORMERS, Sizes, Step, ours, steps
from benchmarks.speed.report import append_csv, line_of, rows_of, spread
from benchmarks.speed.rpc import Figures, Worker, WorkerError
from benchmarks.speed.running import Rounds

OURS = ours("bf16")
SIZES = Sizes()
K = 1_024
INFO = {
    "attention_weight_bytes": 100,
    "mlp_bytes": 200,
    "vocabulary_bytes": 100,
    "attention_weights": 50,
    "mlp_weights": 100,
    "vocabulary_weights": 50,
    "query_dims": 8,
    "budget": 2_112,
}


def _key(step: Step, run: int) -> CellKey:
    return CellKey("s", "m", step.side, step.what, step.length, run)


def _view(cells: Mapping[tuple[str, str, int, int], Figures], runs: int = 1) -> View:
    kept = Cells()
    for (side, what, length, run), figures in cells.items():
        kept.add(CellKey("s", "m", side, what, length, run), figures)
    return View(kept, "s", "m", runs)


def _verdicts(view: View) -> dict[str, Verdict]:
    return {one.what: one for one in Judge(view, OURS, SIZES, INFO).verdicts()}


def test_integration_is_exact_for_linear_costs() -> None:
    """Full attention's seconds per token grow linearly, so three chunks say what a whole context takes."""
    points = [(n + 256.0, 0.001 + 0.0001 * (n + 256)) for n in (0, 4_096, 16_384)]

    found = seconds_to_read(points, 16_000)
    exact = 0.001 * 16_000 + 0.0001 * 16_000**2 / 2
    assert found == pytest.approx(exact, rel=1e-3)


def test_nothing_is_extrapolated() -> None:
    """Beyond the deepest chunk, and without chunks, there is no answer."""
    assert seconds_to_read([(256, 1.0), (4_352, 1.0)], 8_192) is None
    assert seconds_to_read([], 1) is None
    assert seconds_to_read([(8_192.0, 2.0)], 8_192) == 8_192 * 2


def test_ratios_are_taken_within_rounds() -> None:
    """A slow round slows both sides and changes no ratio; the verdict is the rounds' median."""
    cells: dict[tuple[str, str, int, int], Figures] = {}
    for run, mood in enumerate((1.0, 0.1, 5.0)):
        cells[OURS, "decode", 4 * K, run] = {"tokens_per_s": 21 * mood}
        cells[TRANSFORMERS, "decode", 4 * K, run] = {"tokens_per_s": 10 * mood}
    found = _verdicts(_view(cells, runs=3))["decoding at 4,096 / transformers"]

    assert found.values == pytest.approx((2.1, 2.1, 2.1))
    assert found.met is True
    assert line_of(found).startswith("PASS  decoding at 4,096 / transformers: 2.10 (2.10 to 2.10)")


def test_each_promise_is_judged_by_its_own_cells() -> None:
    """Cells that just keep every promise pass all of them, and there is one for each line that must be shown."""
    found = _verdicts(_view(_everything()))

    assert {what: one.value for what, one in found.items() if not one.met} == {}
    for words in (
        "reading 2,048 tokens / transformers",
        "reading 16,384 tokens / transformers",
        "reading 32,768 tokens / transformers",
        "reading 16,384 tokens / llama.cpp",
        "reading at 131,072 / at 8,192",
        "decoding at 32,768 / transformers",
        "decoding at 16,384 / llama.cpp",
        "decoding at 32,768 / llama.cpp",
        "decoding at 131,072 / at 4,096",
        "decoding at 1,048,576 / at 4,096",
        "four agents decoding at once / one",
        "anonymous memory above the weights at 1,048,576, MiB",
        "resume alone at 65,536, cold page cache, ms",
    ):
        assert words in found


@pytest.mark.parametrize(
    ("cell", "changed", "broken"),
    [
        ((OURS, "whole", 2 * K), {"seconds": 2.1, "tokens": 2_048}, "reading 2,048 tokens / transformers"),
        ((OURS, "decode", 1_024 * K), {"tokens_per_s": 83.0}, "decoding at 1,048,576 / at 4,096"),
        ((OURS, "decode", 128 * K), {"tokens_per_s": 94.0}, "decoding at 131,072 / at 4,096"),
        ((LLAMA, "decode", 32 * K), {"tokens_per_s": 51.0}, "decoding at 32,768 / llama.cpp"),
        (
            (OURS, "memory", 1_024 * K),
            {"ingest_mib": 290.0},
            "anonymous memory above the weights at 1,048,576, MiB",
        ),
        (
            (OURS, "agents", 4 * K),
            {"one_tokens_per_s": 10.0, "four_tokens_per_s": 19.0},
            "four agents decoding",
        ),
    ],
)
def test_a_broken_promise_fails(cell: tuple[str, str, int], changed: Figures, broken: str) -> None:
    """One figure beyond its limit fails exactly the promise it belongs to."""
    cells = _everything()
    cells[*cell, 0] = changed
    failed = [what for what, one in _verdicts(_view(cells)).items() if one.met is False]

    assert len(failed) == 1
    assert failed[0].startswith(broken)


def test_what_was_not_measured_is_not_judged() -> None:
    """Without cells there is neither PASS nor FAIL."""
    found = _verdicts(_view({}))

    assert found
    assert {one.met for one in found.values()} == {None}


def test_the_floor_is_held_against_the_weights_as_stored() -> None:
    """Half the machine's bytes/s spent on weights is a share of one half."""
    floors = {"bytes_per_second": 8_000.0, "int8_bytes_per_second": 1_000.0, "flops_per_second": 1e6}
    view = _view({(OURS, "floors", 4 * K, 0): floors, (OURS, "decode", 4 * K, 0): {"tokens_per_s": 10.0}})

    assert _verdicts(view)[
        "decoding at 4,096: share of the bandwidth floor of the weights as stored"
    ].value == pytest.approx(10 * 400 / 8_000)


def test_sides_stand_together_in_a_round() -> None:
    """What is compared is measured one after the other; a first look leaves the million out."""
    first = steps(["bf16"], ["transformers", "llamacpp"], SIZES, long=False, wanted=lambda _w, _n: True)
    at = [index for index, step in enumerate(first) if (step.what, step.length) == ("decode", 16 * K)]

    assert [first[index].side for index in at] == [OURS, TRANSFORMERS, LLAMA]
    assert at == list(range(at[0], at[0] + 3))
    assert len({(step.side, step.what, step.length) for step in first}) == len(first)
    assert max(step.length for step in first) == 128 * K
    long = steps(["bf16", "int8"], ["transformers"], SIZES, long=True, wanted=lambda _w, _n: True)
    assert {step.what for step in long if step.length == 1_024 * K} == {"chunk", "decode", "resume", "memory"}
    assert {step.side for step in long} == {OURS, ours("int8"), TRANSFORMERS}


def test_lengths_and_kinds_can_be_left_out() -> None:
    """Chunks below the longest length stay, since integrals are made of them."""
    asked = parse(["--lengths", "16K", "--peer", "llamacpp"])
    kept = {
        (step.what, step.length)
        for step in steps(["bf16"], asked.peers, SIZES, long=False, wanted=asked.wanted)
    }

    assert {length for what, length in kept if what == "decode"} == {16 * K}
    assert ("chunk", 0) in kept
    assert ("chunk", 16 * K) in kept
    assert ("chunk", 32 * K) not in kept
    only = parse(["--only", "resume"])
    assert only.wanted("resume", 5)
    assert not only.wanted("decode", 5)


class _Scripted:
    """Measures by counting; fails for one kind of cell."""

    def __init__(self, broken: str = "") -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.prepared: list[tuple[str, list[int]]] = []
        self._broken = broken

    def prepare(self, side: str, lengths: Any) -> None:
        self.prepared.append((side, list(lengths)))

    def measure(self, side: str, what: str, length: int, arguments: dict[str, int]) -> Figures:
        self.asked.append((side, what, length))
        if what == self._broken:
            raise WorkerError("it broke")
        return {"n": float(len(self.asked))}


STEPS = [Step(OURS, "decode", 4), Step(TRANSFORMERS, "decode", 4), Step(OURS, "memory", 4, once=True)]


def test_finished_cells_stay_finished(tmp_path: Path) -> None:
    """A second run measures nothing again, also after a crash that cut the last line short."""
    path = tmp_path / "cells.jsonl"
    first = _Scripted()
    Rounds(STEPS, 2, Cells(path), _key).run(first)
    with path.open("a") as file:
        file.write('{"key": {"se')
    second = _Scripted()
    Rounds(STEPS, 3, Cells(path), _key).run(second)

    assert first.asked == [(s.side, s.what, s.length) for s in (*STEPS, *STEPS[:2])]
    assert first.prepared == [(OURS, [4])]
    assert second.asked == [(s.side, s.what, s.length) for s in STEPS[:2]]
    assert len(path.read_text().splitlines()) == 7
    assert len(list(Cells(path))) == 7


def test_a_cell_that_fails_is_noted_and_tried_again() -> None:
    """The others are measured, the reason is kept, and the next run asks for that cell alone."""
    cells, broken = Cells(), _Scripted("memory")
    outcome = Rounds(STEPS, 1, cells, _key).run(broken)
    again = _Scripted()
    Rounds(STEPS, 1, cells, _key).run(again)

    assert len(outcome.failed) == 1
    assert "it broke" in outcome.failed[0]
    assert again.asked == [(OURS, "memory", 4)]


def test_no_cell_begins_after_the_deadline() -> None:
    """What is left is counted."""
    side = _Scripted()
    outcome = Rounds(STEPS, 2, Cells(), _key, deadline=0.0).run(side)

    assert side.asked == []
    assert outcome.late == 5


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    """A file of other lines is named with the line, and left as it is."""
    path = tmp_path / "cells.jsonl"
    path.write_text('{"other": 1}\n')

    with pytest.raises(ValueError, match="line 1, is no cell"):
        Cells(path)
    assert path.read_text() == '{"other": 1}\n'


def test_results_join_older_rows(tmp_path: Path) -> None:
    """The header grows once; older rows keep their columns, and new ones say whose they are and how they spread."""
    path = tmp_path / "results.csv"
    path.write_text("date,cpu,model,length,metric,value\r\n2026-01-01,old,m,8,turn_ms,5\r\n")
    view = _view(
        {(OURS, "decode", 4, run): {"tokens_per_s": 10.0 + run, "step_ms": 9.0} for run in range(3)}, runs=3
    )
    for _ in range(2):
        append_csv(path, {"date": "2026-01-02", "cpu": "a, b"}, view, "0.3")

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["value"] == "5"
    assert rows[0]["side"] is None
    assert len(rows) == 5
    assert [rows[1][name] for name in ("cpu", "metric", "value", "low", "high", "rounds", "side", "llama_cpp")] == [
        "a, b", "speed_decode_tokens_per_s", "11", "10", "12", "3", OURS, "0.3"
    ]  # fmt: skip
    foreign = tmp_path / "other.csv"
    foreign.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="other columns"):
        append_csv(foreign, {"date": "d"}, view, "")


def test_figures_are_shown_with_their_spread() -> None:
    """One round shows one number, several show the median and the range, none a dash."""
    assert spread([2.5]) == "2.50"
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00 to 3.00)"
    assert spread([]) == "-"
    rows = list(rows_of(_view({(OURS, "chunk", 8, 0): {"seconds": 2.0, "tokens": 512}})))
    assert [(row.metric, row.values) for row in rows] == [("tokens_per_s", (256.0,))]


def test_llama_cpp_that_is_missing_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for without being there, it says how to build it; a model without a GGUF says what to give."""
    monkeypatch.setattr(sides, "default_cache", lambda: ModelCache(tmp_path))
    monkeypatch.setattr(sides, "find_spec", lambda _name: None)

    with pytest.raises(WorkerError, match="llama_build"):
        sides.llama_python(None)
    assert sides.llama_python(Path("given")) == Path("given")
    with pytest.raises(WorkerError, match="agentmem models pull qwen"):
        sides.gguf_of("qwen2.5-coder-0.5b")
    with pytest.raises(WorkerError, match="--gguf"):
        sides.gguf_of(str(tmp_path))


def test_a_worker_answers_and_its_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers come back though the worker prints; an error is one call's; a crash tells what was said last."""
    (tmp_path / "odd_worker.py").write_text(
        "import os, sys\n"
        "from benchmarks.speed.rpc import serve\n"
        "def double(n):\n    print('noise')\n    return 2 * n\n"
        "def die():\n    sys.stderr.write('last words'); sys.stderr.flush(); os._exit(3)\n"
        "serve({'double': double, 'die': die})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker(sys.executable, "odd_worker")
    try:
        assert worker.call("double", n=4) == 8
        with pytest.raises(WorkerError, match="TypeError"):
            worker.call("double", m=4)
        assert worker.call("double", n=5) == 10
        with pytest.raises(WorkerError, match=r"ended with 3(.|\n)*last words"):
            worker.call("die")
    finally:
        worker.close()


def _everything() -> dict[tuple[str, str, int, int], Figures]:
    """Cells of a run in which every promise is just kept."""
    cells: dict[tuple[str, str, int, int], Figures] = {}
    for n in (0, 1, 2, 4, 8, 16, 32, 64, 128):
        cells[OURS, "chunk", n * K, 0] = {"seconds": 1.0, "tokens": 512}
    for n in (0, 2, 4, 8, 16, 32):
        cells[TRANSFORMERS, "chunk", n * K, 0] = {"seconds": 1.0 + n / 5, "tokens": 512}
        cells[LLAMA, "chunk", n * K, 0] = {"seconds": 3.1, "tokens": 512}
    for n in (4, 16, 32, 128, 1_024):
        speed = 100.0 if n <= 32 else 96.0 if n == 128 else 86.0
        cells[OURS, "decode", n * K, 0] = {"tokens_per_s": speed}
    for n, speed in ((4, 49.0), (16, 20.0), (32, 16.0)):
        cells[TRANSFORMERS, "decode", n * K, 0] = {"tokens_per_s": speed}
        cells[LLAMA, "decode", n * K, 0] = {"tokens_per_s": 49.0}
    for n in (4, 64, 1_024):
        cells[OURS, "resume", n * K, 0] = {
            f"{cold}{name}_ms": value
            for cold in ("", "cold_")
            for name, value in (("resume", 29.0), ("first", 60.0))
        }
    cells[LLAMA, "state", 16 * K, 0] = {"load_ms": 610.0, "cold_load_ms": 700.0, "save_ms": 1.0, "bytes": 1.0}
    cells[OURS, "whole", 2 * K, 0] = cells[TRANSFORMERS, "whole", 2 * K, 0] = {
        "seconds": 2.0,
        "tokens": 2_048,
    }
    floors = {"bytes_per_second": 400 * 100 / 0.51, "int8_bytes_per_second": 1.0, "flops_per_second": 1e5}
    cells[OURS, "floors", 4 * K, 0] = cells[OURS, "floors", 8 * K, 0] = floors
    cells[OURS, "turn", 16 * K, 0] = {
        "turn_ms": 100.0, "checkpoint_ms": 2.9, "written_bytes": 104.0, "device_bytes": 120.0, "kv_bytes": 100.0
    }  # fmt: skip
    cells[OURS, "agents", 4 * K, 0] = {"one_tokens_per_s": 10.0, "four_tokens_per_s": 20.5}
    cells[OURS, "memory", 1_024 * K, 0] = {"turn_mib": 200.0, "ingest_mib": 280.0}
    return cells
