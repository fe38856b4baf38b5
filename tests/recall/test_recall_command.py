"""The command line: what it is asked for, what it refuses, what it prints, that it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.recall.__main__ import main
from support.tiny_folder import write_chat_model

OPTIONS = {
    "sink_tokens": 8,
    "window_tokens": 64,
    "recall_tokens": 64,
    "block_tokens": 16,
    "chunk_tokens": 128,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder."""
    return str(write_chat_model(tmp_path_factory.mktemp("model")))


def _command(model: str, folder: Path, *more: str) -> list[str]:
    return [
        "passkey",
        "--model",
        model,
        "--home",
        str(folder),
        "--config",
        json.dumps(OPTIONS),
        "--limit",
        "1",
        *more,
    ]


def test_a_suite_runs_and_goes_on(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first command measures, the second finds it measured; files hold what was printed."""
    files = ("--json", str(tmp_path / "r.json"), "--plot", str(tmp_path / "plots"))
    asked = _command(
        model, tmp_path, "--lengths", "1K,9K", "--selector", "default,full", "--evidence", *files
    )

    code = main(asked)
    first = capsys.readouterr().out
    assert main(asked) == code
    second = capsys.readouterr().out

    assert code == (3 if "FAIL" in first else 0)
    assert "does not fit" in first
    assert "passkey 1,000" in first
    assert "attention to evicted tokens" in first
    assert "0 of 1 right" in first
    assert "0 of 1 right" not in second
    record = json.loads((tmp_path / "r.json").read_text())
    assert [one["status"] for one in record["cells"]] == ["done", "done", "done", "does not fit"]
    assert record["facts"]["budget"] == 136
    assert (tmp_path / "plots" / "passkey.png").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--selector", "nothing"), "selector='nothing' is unknown; use one of"),
        (("--budget", "70"), "leaves -2 for recall"),
        (("--config", '{"windows": 3}'), "windows: unknown option"),
        (("--config", "{"), "error: "),
        (("--lengths", "30", "--selector", "default"), "ask for a longer history"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_runs(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
) -> None:
    """An unknown selector or option, or a length too short, ends with one line and exit code 2."""
    assert main(_command(model, tmp_path, *more)) == 2

    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_suites_and_lengths_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A suite that is not there is named beside those that are; so is a length that is no number."""
    assert main(["nothing"]) == 2
    assert "no suite or task 'nothing'; suites: headline" in capsys.readouterr().err
    assert main([]) == 2
    assert main(["--list"]) == 0
    assert "tasks: " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["passkey", "--lengths", "4K,x"])
    assert "'x' is not a positive number such as 8000 or 8K" in capsys.readouterr().err
