"""Reports of finished cells: what is read, what is refused to be mixed, and the compact copy that prints the same."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recall.cells import Answer, Cell, CellKey, Reading
from benchmarks.recall.compact import from_line, to_line
from benchmarks.recall.evidence import RULES
from benchmarks.recall.evidence_ranks import CUTOFFS
from benchmarks.recall.held import FIGURES
from benchmarks.recall.journal import Journal
from benchmarks.recall.report import main
from benchmarks.recall.results import Results, Where, ranked

ORIGIN = {
    "model": "qwen",
    "device": "cuda:0",
    "dtype": "bfloat16",
    "trained_length": 1_000,
    "budget": 2112,
    "options": {},
}
LAYERS, HEADS, QUESTIONS = 24, 2, 25


def evidence(chance: random.Random, names: Sequence[str]) -> dict[str, Any]:
    """As the measurement writes it for a model of the default's size."""

    def figures(*names: str) -> dict[str, float]:
        return {name: round(chance.random(), 5) for name in names}

    ranks = ("part", "any", "all", *(f"recall@{k}" for k in CUTOFFS), "recall", "ndcg", "mrr")
    over = {"heads": ("coverage", "any", "all"), "layers": ranks, "union": ranks}
    return {
        "questions": [
            {"question": name, "kind": "k", "tokens": 40, "blocks": 900, "chosen": 32,
             "rules": {rule: {place: figures(*those) for place, those in over.items()} for rule in RULES}}
            for name in names
        ],
        "heads": [
            {"layer": layer, "head": head, "wanted": figures("mass"),
             "rules": {rule: figures("coverage", "any", "all") for rule in RULES}}
            for layer in range(LAYERS)
            for head in range(HEADS)
        ],
        "layers": [
            {"layer": layer, "rules": {rule: figures(*ranks) for rule in RULES}} for layer in range(LAYERS)
        ],
    }  # fmt: skip


def cell(
    arm: str = "default",
    history: int = 0,
    task: str = "many_needles",
    tokens: int = 16_000,
    origin: dict[str, Any] | None = ORIGIN,
    text: str = "t",
    options: str = "o",
    kinds: Sequence[str] = ("early", "late"),
    right: float = 0.5,
    **other: Any,
) -> Cell:
    """A cell of the real size, its figures drawn by its names."""
    chance = random.Random(f"{arm} {history} {task} {tokens}")
    name = f"{task}-{tokens}-0-{history}"
    answers = tuple(
        Answer(f"{name}-q{n}", kinds[n % len(kinds)], "It is a secret.", float(chance.random() < right),
               chance.random() * 9, chance.random(), 61, 7, 0, chance.random(), chance.choice((0.0, 0.5, 1.0)),
               tuple(-chance.random() for _ in range(4)))
        for n in range(QUESTIONS)
    )  # fmt: skip
    extra = {"version": {"text": text, "arm": None if arm == "full" else options}} | (
        {} if origin is None else {"origin": origin}
    )
    if arm in {"default", "infllm", "other"}:
        extra["evidence"] = evidence(chance, [answer.question for answer in answers])
    elif arm == "full":
        extra["evidence"] = {"questions": [], "heads": [], "layers": []}
    key = CellKey(task, tokens, name, arm, f"{options}{text}")
    reading = Reading(tokens, tokens - 3, chance.random() * 40, 123_456_789, chance.random() * 99)
    return replace(Cell(key, "done", "", reading, answers, extra), **other)


def write(path: Path, *cells: Cell) -> Path:
    """A journal of them."""
    journal = Journal(path)
    for one in cells:
        journal.add(one)
    return path


def lot() -> list[Cell]:
    """Several tasks, lengths and arms, one that does not fit."""
    places = [("many_needles", 16_000), ("many_needles", 32_000), ("multiday", 4_250)]
    cells = [
        cell(arm, history, task, tokens)
        for task, tokens in places
        for history in range(4)
        for arm in ("default", "infllm", "streaming", "full", "other")
    ]
    unfit = replace(
        cell("full", tokens=64_000), status="does not fit", reason="too long", answers=(), reading=None
    )
    return [*cells, unfit]


def test_a_compact_copy_prints_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every table, verdict and exit code, figure by figure, from 2 KB a cell; a copy of the copy is the same file."""
    whole, copy, again = write(tmp_path / "cells.jsonl", *lot()), tmp_path / "c.jsonl", tmp_path / "cc.jsonl"

    code = main([str(tmp_path), "--compact", str(copy)])
    first = capsys.readouterr().out
    assert main([str(copy), "--compact", str(again)]) == code
    second = capsys.readouterr().out

    assert second == first
    for words in ("accuracy, %", "ranked first", "blocks that hold the answer", "accuracy by kind", "McNemar", "cost:",
                  "does not fit", "FAIL  coverage", "trained 1,000 tokens"):  # fmt: skip
        assert words in first, words
    assert copy.read_bytes() == again.read_bytes()
    assert "secret" not in copy.read_text()
    assert max(len(line) for line in copy.read_text().splitlines()) <= 2048
    assert whole.stat().st_size > 10 * copy.stat().st_size


def test_a_compact_cell_keeps_what_it_says() -> None:
    """Scores, ranks, kinds and figures are those of the whole cell; texts and what no table needs are gone."""
    whole = cell(kinds=[f"kind {n}" for n in range(QUESTIONS)])

    small = from_line(to_line(whole))

    assert (small.key, small.status, small.reading) == (whole.key, whole.status, whole.reading)
    for one, other in zip(small.answers, whole.answers, strict=True):
        assert (one.question, one.kind, one.score, one.seen) == (
            other.question,
            other.kind,
            other.score,
            other.seen,
        )
        assert one.place == 1 + sum(value >= other.choices[0] for value in other.choices[1:])
        assert (one.seconds, one.text, one.choices, one.tokens_read) == (
            round(other.seconds, 2),
            "",
            (),
            None,
        )
    ours, theirs, where = Results([small]), Results([whole]), Where("many_needles", 16_000)
    assert ours.scores(where, "default", ranked) == theirs.scores(where, "default", ranked)
    for rule in RULES:
        assert ours.coverage(where, "default", rule) == theirs.coverage(where, "default", rule)
        assert ours.held(where, "default", rule) == theirs.held(where, "default", rule)
        layers = theirs.layers(where, "default", rule)
        assert ours.layers(where, "default", rule) == pytest.approx(layers, abs=0.005)


def test_what_is_held_is_the_mean_over_questions() -> None:
    """Of each figure of the table, over all questions of all cells."""
    cells = [cell(history=n) for n in range(2)]
    rows = [row for one in cells for row in one.extra["evidence"]["questions"]]

    found = Results(cells).held(Where("many_needles", 16_000), "default", "chosen")

    expected = [
        sum(row["rules"]["chosen"][over][figure] for row in rows) / len(rows) for over, figure, _ in FIGURES
    ]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("strange", ["{}", '{"compact": 9}', "[", '{"compact": 1, "key": {}}'])
def test_other_lines_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], strange: str) -> None:
    """By file and line; a last line that is being written is left out."""
    path = write(tmp_path / "cells.jsonl", cell())
    path.write_text(path.read_text() + strange)
    assert main([str(path)]) in {0, 3}

    path.write_text(path.read_text() + "\n")

    assert main([str(path)]) == 2
    assert "cells.jsonl, line 2, is no cell of this version" in capsys.readouterr().err


def test_cells_of_different_settings_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another model, budget, number format, kind of device or option: the report asks which, with the words to say it."""
    others: list[dict[str, Any] | None] = [
        {**ORIGIN, "model": "llama"},
        {**ORIGIN, "budget": 500},
        {**ORIGIN, "dtype": "float32"},
        {**ORIGIN, "device": "cpu"},
        {**ORIGIN, "options": {"window_tokens": 512}},
        None,
    ]
    cells = [cell(), *(cell(history=n, origin=other, options=f"{n}") for n, other in enumerate(others))]
    path = str(write(tmp_path / "c.jsonl", *cells))

    assert main([path]) == 2
    said = capsys.readouterr().err
    assert "--model llama --device cuda --dtype bfloat16 --budget 2112 --config '{}': 1 cells" in said
    assert said.count("1 cells") == 7
    for more in (
        ("--model", "llama"),
        ("--model", "unknown"),
        ("--budget", "500"),
        ("--dtype", "float32"),
        ("--device", "cpu"),
        ("--config", '{"window_tokens": 512}'),
    ):
        assert main([path, *more]) in {0, 3}
        assert "cells 1, " in capsys.readouterr().out
    assert main([path, "--model", "qwen"]) == 2
    assert capsys.readouterr().err.count("1 cells") == 5
    assert main([path, "--model", "nobody"]) == 2
    assert "no cell of that kind; there are:" in capsys.readouterr().err


def test_two_devices_of_a_kind_are_one_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A suite that several GPUs share is one table, from several files; of a cell in both, the later file's counts."""
    there = write(tmp_path / "a.jsonl", cell(right=0.0), cell("full"))
    here = write(tmp_path / "b.jsonl", cell(right=1.0, origin={**ORIGIN, "device": "cuda:1"}))

    main([str(there), str(here), "--json", str(tmp_path / "r.json")])

    assert "100 [87, 100]" in capsys.readouterr().out
    record = json.loads((tmp_path / "r.json").read_text())
    assert len(record["cells"]) == 2
    assert record["facts"]["cells"] == "2"


def test_what_has_changed_since_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells of a history or an arm that now means something else, and failures that were made good, do not count."""
    older = [
        cell(options="old", right=0.0),
        cell(options="old", history=1),
        cell("full", text="old", right=0.0),
    ]
    failed = replace(cell("infllm"), status="failed", reason="broke", answers=(), reading=None)
    failed = replace(failed, key=replace(failed.key, digest="another way of asking"))
    path = str(write(tmp_path / "c.jsonl", *older, failed, cell(), cell("full"), cell("infllm")))

    code = main([path])

    out = capsys.readouterr().out
    assert code in {0, 3}
    assert "tried again: 4 cells" in out
    assert "broke" not in out
    assert "cells 3, " in out


def test_a_failure_is_in_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in the suite's own command."""
    failed = replace(cell("infllm"), status="failed", reason="broke", answers=(), reading=None)

    assert main([str(write(tmp_path / "c.jsonl", cell(), failed))]) == 1
    assert "failed: many_needles 16,000 infllm: broke" in capsys.readouterr().out


def test_another_arm_can_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It takes the default's place in differences and verdicts, by its own name; arms, tasks and lengths can be picked."""
    cells = [
        cell(arm, history, right=right)
        for arm, right in {"default": 0.0, "other": 1.0, "full": 1.0}.items()
        for history in range(4)
    ] + [cell(task="passkey")]
    path = str(write(tmp_path / "c.jsonl", *cells))

    main([path, "--default", "other"])
    judged = capsys.readouterr().out
    main([path, "--arms", "full,default", "--task", "many_needles", "--lengths", "16K"])
    plain = capsys.readouterr().out

    assert "PASS  multi-needle accuracy at 16K >= 0.9 x full: +10.0" in judged
    assert "other minus another arm" in judged
    assert "FAIL  multi-needle accuracy at 16K >= 0.9 x full: -90.0" in plain
    assert "passkey " not in plain.split("not judged")[0]
    assert "default minus another arm" in plain


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--default", "nobody"), "no cell of the arm 'nobody'; there are: default, full"),
        (("--task", "nothing"), "no cell of --task nothing; there are: many_needles"),
        (("--lengths", "4K"), "no cell of --lengths 4000; there are: 16000"),
        (("--arms", "full,x"), "no cell of --arms x; there are: default, full"),
        (("--config", "{"), "error: "),
        (("nowhere",), "there is no nowhere; give the cells.jsonl of a run, or its folder"),
    ],
)
def test_what_there_is_not_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
) -> None:
    """With one line that names what there is, and exit code 2."""
    path = write(tmp_path / "c.jsonl", cell(), cell("full"))

    assert main([str(path), *more]) == 2

    assert words in capsys.readouterr().err


def test_the_trained_length_is_the_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the cells say; as the command says; else the default model's. Pictures are drawn of compact cells too."""
    path = tmp_path / "c.jsonl"
    path.write_text(to_line(cell()) + "\n")
    old = write(tmp_path / "old.jsonl", cell(origin=None))

    for arguments, trained in (([path], "1,000"), ([path, "--trained", "8K"], "8,000"), ([old], "32,768")):
        main([*map(str, arguments), "--plot", str(tmp_path / "plots")])
        assert f"beyond the trained {trained} tokens" in capsys.readouterr().out
    assert sorted(one.name for one in (tmp_path / "plots").iterdir()) == [
        "many_needles-coverage.png",
        "many_needles.png",
    ]
