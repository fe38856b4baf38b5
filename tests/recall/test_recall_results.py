"""From cells to scores, verdicts, tables and pictures, judged on cells whose numbers are known."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.recall.cells import Answer, Cell, CellKey, Left, Reading, Status
from benchmarks.recall.headline import Verdict, exit_code, verdicts
from benchmarks.recall.plots import draw
from benchmarks.recall.results import Results, Where, ranked, seen
from benchmarks.recall.tables import show, show_left, write_json

TRAINED = 32_768


def cell(
    arm: str,
    scores: Sequence[float],
    task: str = "many_needles",
    tokens: int = 16_000,
    history: int = 0,
    kind: str = "k",
    **other: Any,
) -> Cell:
    """A cell with these scores."""
    answers = tuple(
        Answer(f"q{n}", kind, "text", score, 1.0, 0.5, 20, 3, 0, 0.2, 0.5, (-1.0, -1.0 - score))
        for n, score in enumerate(scores)
    )
    key = CellKey(task, tokens, f"{task}-{tokens}-{history}", arm, "d")
    return Cell(key, "done", "", Reading(tokens, tokens, 10.0, 1 << 20), answers, **other)


def lacking(arm: str, status: Status, reason: str) -> Cell:
    """A cell without answers."""
    return Cell(CellKey("many_needles", 16_000, "h", arm, "d"), status, reason)


def covered(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """What the evidence measurement leaves behind: coverage by rule, question by question."""
    rows = [
        {"question": f"q{n}", "chosen": 4, "rules": {rule: _figures(values[rule][n]) for rule in values}}
        for n in range(len(values["chosen"]))
    ]
    heads = [
        {
            "layer": layer,
            "head": head,
            "rules": {rule: {"coverage": sum(values[rule]) / 9} for rule in values},
        }
        for layer in range(3)
        for head in range(2)
    ]
    return {"evidence": {"questions": rows, "heads": heads, "layers": []}}


def _figures(coverage: float) -> dict[str, dict[str, float]]:
    ranks = dict.fromkeys(("recall@5", "recall@10", "recall", "ndcg", "mrr"), 0.25)
    return {"heads": {"coverage": coverage, "any": 0.75, "all": 0.5}, "layers": ranks, "union": ranks}


def fourfold(cells: Sequence[Cell]) -> list[Cell]:
    """The same cells on each of four histories."""
    return [
        replace(one, key=replace(one.key, history=f"{one.key.history}-{copy}"))
        for one in cells
        for copy in range(4)
    ]


def met(cells: Sequence[Cell], words: str) -> bool | None:
    """The verdict on the one target whose words these are."""
    (found,) = [one.met for one in verdicts(Results(cells), TRAINED) if words in one.what]
    return found


def test_scores_are_paired_by_history_and_question() -> None:
    """Only what both arms answered is compared; kinds and pictures of an answer can be picked."""
    first = [
        cell("default", [1, 1, 0]),
        cell("default", [1], history=1),
        cell("default", [0, 1], kind="other", history=2),
    ]
    second = [cell("full", [0, 1]), cell("full", [0, 0], kind="other", history=2)]
    results, where = Results([*first, *second]), Where("many_needles", 16_000)

    ours, theirs = results.scores(where, "default"), results.scores(where, "full")

    assert (ours.interval.value, ours.interval.n) == (pytest.approx(4 / 6), 6)
    both = ours.minus(theirs)
    assert (both.difference.n, both.won, both.lost) == (4, 2, 0)
    assert both.difference.value == 0.5
    assert results.kinds(where) == ["k", "other"]
    assert results.scores(where, "default", kind="other").values == [0, 1]
    assert results.scores(where, "full", ranked).values == [0, 1, 0, 0]
    assert results.scores(where, "full", seen).values == [0.5] * 4
    assert results.arms == ["default", "full"]


@pytest.mark.parametrize(
    ("ours", "full", "infllm", "against_full", "against_infllm"),
    [
        ([1] * 9 + [0], [1] * 10, [1] * 6 + [0] * 4, True, True),
        ([1] * 8 + [0] * 2, [1] * 10, [1] * 6 + [0] * 4, False, False),
        ([0] * 10, [0] * 10, [0] * 10, None, None),
    ],
)
def test_many_needles_are_judged_against_full_and_infllm(
    ours: list[int],
    full: list[int],
    infllm: list[int],
    against_full: bool | None,
    against_infllm: bool | None,
) -> None:
    """0.9 of full attention and 1.5 of InfLLM are the limits; where nobody is right, nothing is judged."""
    few = [cell("default", ours), cell("full", full), cell("infllm", infllm)]
    cells = fourfold(few)

    assert met(few, "0.9 x full") is met(few, "1.5 x infllm") is None  # one history is a first look
    assert met(cells, "0.9 x full") is against_full
    assert met(cells, "1.5 x infllm") is against_infllm


@pytest.mark.parametrize(("lost", "verdict"), [(0, True), (1, True), (8, False)])
def test_passkey_may_lose_five_points_at_most(lost: int, verdict: bool) -> None:
    """The lower bound of the paired difference counts, not the difference."""
    histories = range(100)
    cells = [cell("full", [1], "passkey", 32_000, h) for h in histories]
    cells += [cell("default", [int(h >= lost)], "passkey", 32_000, h) for h in histories]

    assert met(cells, "passkey at 32K") is verdict


@pytest.mark.parametrize(("right_beyond", "verdict"), [(30, True), (20, False)])
def test_beyond_the_trained_window(right_beyond: int, verdict: bool) -> None:
    """The longest length inside is compared with the longest outside; a million-token log is not part of it."""

    def passkeys(tokens: int, right: int) -> list[Cell]:
        return [cell("default", [int(h < right)], "passkey", tokens, h) for h in range(30)]

    cells = [*passkeys(8_000, 3), *passkeys(30_000, 30), *passkeys(64_000, right_beyond)]
    cells += [cell("default", [0], "passkey", 1_024_000)]

    assert met(cells, "passkey beyond") is verdict


@pytest.mark.parametrize(("window", "verdict"), [([1] * 12, False), ([1] * 4 + [0] * 8, True)])
def test_multiday_fails_when_a_window_clearly_beats_the_default(window: list[int], verdict: bool) -> None:
    """Kind by kind; a difference whose interval touches zero does not count."""
    cells = []
    for kind in ("user", "update"):
        ours = [1] * 3 + [0] * 9 if kind == "update" else [1] * 12
        for history, (arm, scores) in enumerate([("default", ours), ("window", window)]):
            del history
            cells.append(cell(arm, scores, "multiday", 8_000, history=len(kind), kind=kind))

    assert met(cells, "multiday at 8,000") is verdict
    assert (
        met([cell(arm, [0] * 9, "multiday", 8_000) for arm in ("default", "window")], "multiday at") is None
    )


def test_every_key_of_a_million_tokens_must_be_found() -> None:
    """Five of five, and nothing less."""
    assert met([cell("default", [1] * 5, "five_keys", 1_024_000)], "1,000K") is True
    assert met([cell("default", [1, 1, 1, 1, 0], "five_keys", 1_024_000)], "1,000K") is False


@pytest.mark.parametrize(
    ("chosen", "of_exact", "over"), [(0.98, True, True), (0.9, False, True), (0.5, False, False)]
)
def test_coverage_is_judged_against_the_best_choice_and_infllm(
    chosen: float, of_exact: bool, over: bool
) -> None:
    """95 % of what as many blocks could cover, and clearly above InfLLM's."""
    ours = [chosen + 0.001 * n for n in range(20)]
    extra = covered({"chosen": ours, "exact": [1.0] * 20, "random": [0.1] * 20})
    theirs = covered(
        {"chosen": [0.6 + 0.002 * n for n in range(20)], "exact": [1.0] * 20, "random": [0.1] * 20}
    )
    few = [cell("default", [1] * 20, extra=extra), cell("infllm", [1] * 20, extra=theirs)]
    cells = fourfold(few)

    assert met(few, "0.95 x the best choice") is met(few, "clearly above infllm") is None
    assert verdicts(Results(few), TRAINED)[0].found.endswith("1 of 4 histories")
    assert met(cells, "0.95 x the best choice") is of_exact
    assert met(cells, "clearly above infllm") is over


def test_coverage_is_judged_at_each_length_too() -> None:
    """One line for a target: all together, and the worst task and length by name; both must be met."""

    def at(tokens: int, ours: float, theirs: float) -> list[Cell]:
        drawn = {"exact": [0.8] * 20, "random": [0.1] * 20}
        first = covered({"chosen": [ours + 0.0001 * n for n in range(20)], **drawn})
        second = covered({"chosen": [theirs] * 20, **drawn})
        return fourfold(
            [
                cell("default", [1] * 20, tokens=tokens, extra=first),
                cell("infllm", [1] * 20, tokens=tokens, extra=second),
            ]
        )

    good, bad = at(4_000, 0.79, 0.5), at(32_000, 0.74, 0.75)

    assert met(good, "0.95 x the best choice") is True
    assert met([*good, *bad], "0.95 x the best choice") is False
    assert met([*good, *bad], "clearly above infllm") is False
    best, over = verdicts(Results([*good, *bad]), TRAINED)[:2]
    assert best.found.startswith("+0.6 [")
    assert "n=160; worst of 2: many_needles 32,000 -1.9 [" in best.found
    assert "worst of 2: many_needles 32,000 -0.9 [" in over.found
    assert "worst" not in verdicts(Results(good), TRAINED)[0].found


def test_without_numbers_nothing_is_judged() -> None:
    """No cell, no verdict; the exit code knows misses from failures."""
    empty = Results([])

    assert {one.met for one in verdicts(empty, TRAINED)} == {None}
    assert exit_code(empty, verdicts(empty, TRAINED)) == 0
    assert exit_code(empty, [Verdict("a", "b", True), Verdict("a", "b", False)]) == 3
    assert exit_code(Results([lacking("default", "failed", "why")]), [Verdict("a", "b", False)]) == 1


def test_tables_hold_the_figures() -> None:
    """Accuracy with its interval, kinds, differences, costs, coverage, verdicts and failures are all printed."""
    extra = covered({"chosen": [0.5, 0.7], "exact": [0.6, 0.8], "random": [0.1, 0.1]})
    cells = [
        cell("default", [1, 1], extra=extra),
        cell("streaming", [0, 0]),
        cell("streaming", [1], kind="late", history=1),
        lacking("full", "does not fit", "too long"),
        lacking("exact", "failed", "broke [here]"),
    ]
    out = io.StringIO()

    console = Console(file=out, width=200)
    show(console, Results(cells), [Verdict("a target", "found", True)])
    show_left(console, Left(out_of_time=3, elsewhere=2))

    text = out.getvalue()
    for words in (
        "100 [34, 100]", "does not fit", "+100.0 [+100.0, +100.0]", "1,600", "60 [50, 70]", "-6.5 [-7.0, -6.0]",
        "any, a head", "75", "late", "PASS  a target: found", "failed: many_needles 16,000 exact: broke [here]",
        "time was up: 3 cells", "running elsewhere: 2 cells",
    ):  # fmt: skip
        assert words in text, words


def test_everything_is_written_as_json(tmp_path: Path) -> None:
    """Scores by arm and kind, verdicts and whole cells, readable by anything."""
    results = Results([cell("default", [1, 0]), cell("full", [1, 1])])

    write_json(tmp_path / "r.json", results, [Verdict("a", "b", None)], {"seed": 0}, 2)

    record = json.loads((tmp_path / "r.json").read_text())
    picked = [one for one in record["scores"] if one["metric"] == "score" and one["kind"] is None]
    assert [(one["arm"], one["value"], one["n"]) for one in picked] == [("default", 0.5, 2), ("full", 1.0, 2)]
    assert record["verdicts"] == [{"what": "a", "found": "b", "met": None}]
    assert [len(one["answers"]) for one in record["cells"]] == [2, 2]
    assert (record["left_out"], record["facts"]) == (2, {"seed": 0})


def test_pictures_are_drawn(tmp_path: Path) -> None:
    """One picture for each task: lines over lengths, a grid where kinds are depths; and coverage layer by layer."""
    lines = [cell(arm, [1, 0], tokens=tokens) for arm in ("default", "full") for tokens in (4_000, 8_000)]
    grid = [
        cell("default", [n % 2], "needle_grid", tokens, n, f"depth {50 * n:03d}%")
        for tokens in (4_000, 8_000)
        for n in range(3)
    ]

    extra = covered({"chosen": [0.5], "exact": [0.6], "random": [0.1]})
    layers = [cell("default", [1], "passkey", extra=extra)]

    drawn = draw(Results([*lines, *grid, *layers, lacking("exact", "failed", "")]), tmp_path / "new")

    names = ["many_needles.png", "needle_grid.png", "passkey.png", "passkey-coverage.png"]
    assert [path.name for path in drawn] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
