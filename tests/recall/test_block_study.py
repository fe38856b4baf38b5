"""The study of real agents on a tiny model: against other measurements of the same, and from the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from agentmem import AgentMemory
from benchmarks.block_study.__main__ import main
from benchmarks.block_study.listening import ListeningModel, Surprises
from benchmarks.block_study.report import Findings
from benchmarks.block_study.study import AS_CHOSEN, Studied, Study, turn_starts
from benchmarks.block_study.ways import MESSAGES, grid, ways
from benchmarks.recall.evidence import EvidenceMeasure
from benchmarks.recall.items import History
from benchmarks.recall.places import EvidenceError, find_evidence, token_ids
from benchmarks.recall.reading import read_history
from benchmarks.recall.running import Asked
from support.recall_toy import histories
from support.tiny_folder import write_chat_model
from support.tiny_language_model import SMALL, language_model, plain_model

BUDGETS = (32, 16)
CONFIG = SMALL.changed(chunk_tokens=96)
"""A question is one chunk."""


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Studied:
    """Two questions of one toy history."""
    home = tmp_path_factory.mktemp("study")
    found = Study(language_model(), home, CONFIG, BUDGETS, lambda *_: None).of(_history())
    assert not AgentMemory.list(home)
    return found


def _history() -> History:
    return histories().of("codes", 400, 1)[0]


def test_coverage_is_what_the_evidence_measure_says(studied: Studied, tmp_path: Path) -> None:
    """The memory's own choice, and the best blocks of its size, question by question."""
    model, history = language_model(), _history()
    with AgentMemory.resume("ada", model=model, home=tmp_path, config=CONFIG) as memory:
        read_history(memory, history, tmp_path, lambda *_: None)
    places = find_evidence(token_ids(tmp_path, "ada"), model.tokenizer, history.questions)
    asked = Asked(tmp_path, "ada", model, CONFIG, history.questions, places)
    wanted = {row["question"]: row["rules"] for row in EvidenceMeasure()(asked)["questions"]}
    found = {(row.question, row.way, row.budget): row.figures.coverage for row in studied.rows}

    assert len(wanted) == len(history.questions) == 4
    for question, rules in wanted.items():
        for way, rule in ((AS_CHOSEN, "chosen"), (grid(8), "exact")):
            assert found[question, way, 32] == pytest.approx(rules[rule]["heads"]["coverage"], abs=2e-5)


def test_every_way_is_there_for_every_question(studied: Studied) -> None:
    """Both budgets, each a part of all mass, more budget covering more; the memory's choice at its own budget."""
    rows = {(row.question, row.budget, row.way): row.figures for row in studied.rows}
    names = [way.name for way in ways(8)]

    assert len(rows) == len(studied.rows) == 4 * (2 * len(names) + 1)
    assert all(0 < figures.coverage < 1 and figures.evidence is not None for figures in rows.values())
    for question, _, name in {key for key in rows if key[2] in names}:
        assert rows[question, 32, name].coverage > rows[question, 16, name].coverage
    assert {sum(split) for split in studied.splits[32]} == {2 * 4}
    assert studied.blocks["single tokens"] == studied.tokens == 8 * studied.blocks["grid 8"]


def test_messages_are_the_stores_turns(tmp_path: Path) -> None:
    """Each appended message is a block of its own, or several when it is long."""
    with AgentMemory.resume("ada", model=language_model(), home=tmp_path, config=CONFIG) as memory:
        lengths = [
            memory.append([{"role": "user", "content": "word " * n}]).tokens_prefilled for n in (1, 3, 2)
        ]

    assert turn_starts(tmp_path, "ada") == [0, lengths[0], lengths[0] + lengths[1]]


def test_findings_are_means_over_questions(studied: Studied) -> None:
    """Coverage, the paired difference to the reference, and the mean best split."""
    findings = Findings([studied], ways(8), grid(8))
    here, there = (
        [row.figures.coverage for row in studied.rows if (row.budget, row.way) == (16, name)]
        for name in (MESSAGES, grid(8))
    )

    assert findings.budgets == [32, 16]
    assert findings.coverage(16, MESSAGES).value == pytest.approx(sum(here) / 4)
    assert findings.more(16, MESSAGES).value == pytest.approx((sum(here) - sum(there)) / 4)
    assert findings.more(16, grid(8)).value == 0
    assert sum(findings.split(16)) == pytest.approx(2 * 2)
    assert findings.block_tokens(grid(8)) == 8


def test_a_history_too_short_is_refused(tmp_path: Path) -> None:
    """More budget than there are evicted tokens is an error; no agent is left behind."""
    study = Study(language_model(), tmp_path, CONFIG, (800, 400), lambda *_: None)

    with pytest.raises(EvidenceError, match="no more than 800 to choose among: ask for more"):
        study.of(_history())
    assert not AgentMemory.list(tmp_path)


@pytest.mark.parametrize("chunk", [7, 64])
def test_surprise_is_the_stock_models(tmp_path: Path, chunk: int) -> None:
    """Where all is attended to: each token's negative log-likelihood over chunks and turns, but the first's."""
    listening = ListeningModel(language_model())
    heard = listening.surprises = Surprises()
    config = SMALL.changed(chunk_tokens=chunk, dense_tokens=900)
    with AgentMemory.resume("ada", model=listening, home=tmp_path, config=config) as memory:
        for text in ("The amber drawer opens with 5.", "Birch, and cedar.", "Nothing else."):
            memory.append([{"role": "user", "content": text}])
    ids = token_ids(tmp_path, "ada")
    with torch.inference_mode():
        logits = plain_model()(input_ids=torch.tensor([ids])).logits[0].float()
    wanted = -logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids)[1:, None])[:, 0]

    assert len(heard.nll) == len(ids) and math.isnan(heard.nll[0])
    assert torch.allclose(torch.tensor(heard.nll[1:]), wanted, atol=1e-4)


def test_listening_changes_nothing(tmp_path: Path) -> None:
    """The same replies with and without."""
    model = language_model()
    listening = ListeningModel(model)
    listening.surprises = Surprises()
    said = []
    for name, one in (("ada", model), ("bob", listening)):
        with AgentMemory.resume(name, model=one, home=tmp_path, config=SMALL) as memory:
            for number in range(6):
                memory.append(
                    [{"role": "user", "content": f"The {number}th drawer opens with {number * 7}."}]
                )
            said.append(memory.chat("Which?", max_new_tokens=6).text)

    assert said[0] == said[1]


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both tables, the JSON with every question's row, and the picture; what there is not is refused."""
    folder = write_chat_model(tmp_path / "model")
    options = {
        "sink_tokens": 8,
        "window_tokens": 64,
        "recall_tokens": 64,
        "block_tokens": 16,
        "chunk_tokens": 128,
    }
    command = [
        "--model",
        str(folder),
        "--config",
        json.dumps(options),
        "--task",
        "multiday",
        "--length",
        "4K",
    ]
    files = ["--json", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.png")]
    code = main([*command, "--questions", "2", *files])
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "s.json").read_text())

    assert code == 0
    assert "evicted tokens, chosen by their true masses; 2 questions" in printed
    assert "grid 16, one set for all layers" in printed and AS_CHOSEN in printed
    assert len(record["rows"]) == 2 * (2 * len(ways(16)) + 1)
    assert record["summary"][0]["coverage"]["n"] == 2
    assert (tmp_path / "s.png").stat().st_size > 1000
    assert main([*command, "--config", '{"recall_tokens": 16}']) == 2
    assert "has no half of whole blocks" in capsys.readouterr().err
    assert main(["--model", str(folder), "--config", json.dumps(options), "--length", "1K"]) == 2
    assert "ask for a longer history" in capsys.readouterr().err
