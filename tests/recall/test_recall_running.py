"""Cells end to end on a tiny model: read, checked, asked, judged, written down, resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agentmem import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.memory.modes import MODES
from benchmarks.recall import again, reading, running
from benchmarks.recall.again import RestartError, ask_in_new_process, check_same
from benchmarks.recall.asking import Spoken, ask, choice_logprob
from benchmarks.recall.cells import Left
from benchmarks.recall.framing import frame_for
from benchmarks.recall.items import Piece, Question
from benchmarks.recall.journal import Journal
from benchmarks.recall.multiday.storylines import FORGET_PREFIX
from benchmarks.recall.plan import Histories, Job, jobs
from benchmarks.recall.running import Asked, Options, Runner
from support.recall_toy import Codes, Quiet, agents, count_tokens, histories, one_slice, runner
from support.tiny_folder import write_chat_model
from support.tiny_language_model import SMALL, language_model, plain_model


def _jobs(*arms: str, **options: Any) -> list[Job]:
    return list(jobs([one_slice(*arms, **options)], histories()))


@pytest.fixture(scope="module")
def folder_model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model that another process can load too."""
    return LanguageModel.load(str(write_chat_model(tmp_path_factory.mktemp("model"))))


def test_a_run_reads_asks_and_judges_every_arm(tmp_path: Path) -> None:
    """Each arm reads the history into a memory of its own, answers every question, and leaves no agent behind."""
    screen = Quiet()

    cells, left = runner(tmp_path, screen).run(_jobs("default", "streaming", "full"))

    assert left == Left()
    assert [cell.status for cell in cells] == ["done"] * 3, [cell.reason for cell in cells]
    assert [cell.key.arm for cell in cells] == ["default", "streaming", "full"]
    for cell in cells:
        assert cell.reading is not None
        assert cell.reading.tokens_read == cell.reading.tokens_held > 380
        assert cell.reading.disk_bytes > 0
        assert [answer.kind for answer in cell.answers] == ["early", "late"]
        assert all(answer.score in {0.0, 1.0} and answer.tokens_reread == 0 for answer in cell.answers)
    seen = [[answer.seen for answer in cell.answers] for cell in cells]
    assert None not in seen[0]
    assert seen[1:] == [[0.0, 0.0], [None, None]]
    assert agents(tmp_path) == []
    assert screen.new == cells


@pytest.mark.parametrize("name", MODES)
def test_every_mode_runs(tmp_path: Path, name: str) -> None:
    """Each reference mode reads the history, hides its evidence and answers; dense ones see all of it."""
    base = SMALL.changed(window_tokens=200, recall_tokens=192, block_tokens=16)
    made = Histories(
        {"codes": Codes}, frame_for(base, count_tokens(language_model())), 0, count_tokens(language_model())
    )
    job = next(jobs([one_slice(name, tokens=700)], made))
    arm = Runner(
        language_model(), Options(tmp_path / "agents", base), Journal(tmp_path / "cells.jsonl"), Quiet()
    )

    (cell,), _ = arm.run([job])

    if name == "full":  # 1,024 positions
        assert cell.status == "does not fit"
    else:
        assert cell.status == "done", cell.reason
        assert cell.reading is not None
        assert cell.reading.tokens_held > base.budget
        assert [answer.tokens_reread for answer in cell.answers] == [0, 0]


def test_full_answers_as_the_stock_model(tmp_path: Path) -> None:
    """Full attention is the same engine while it is dense: its replies are transformers' own, token by token."""
    job = _jobs("full")[0]
    (cell,), _ = runner(tmp_path, Quiet(), keep=True).run([job])
    stock, tokenizer = plain_model(), language_model().tokenizer
    turns = [{"role": piece.role, "content": piece.text} for piece in job.history.pieces]

    for question, answer in zip(job.history.questions, cell.answers, strict=True):
        asked = [*turns, {"role": "user", "content": question.prompt}]
        ids = tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        with torch.no_grad():
            said = stock.generate(ids, max_new_tokens=question.max_new_tokens, do_sample=False)
        stops = language_model().template.stop_ids
        words = [token for token in said[0, ids.shape[1] :].tolist() if token not in stops]
        assert answer.text == tokenizer.decode(words)


def test_a_second_run_finds_everything_finished(tmp_path: Path) -> None:
    """The same jobs are not run again; another option, question or way of asking is another cell."""
    first, _ = runner(tmp_path, Quiet()).run(_jobs("default", "streaming"))
    screen = Quiet()

    again, _ = runner(tmp_path, screen).run(_jobs("default", "streaming"))

    assert again == first
    assert (screen.new, screen.found) == ([], first)
    assert screen.words == []
    other, _ = runner(tmp_path, screen).run(
        [*_jobs("default", questions=1), replace(_jobs("default")[0], rank=True)]
    )
    assert screen.new == other
    assert len({cell.key for cell in (*first, *other)}) == 4


def test_an_interrupted_reading_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between two pieces, the next run reads the rest alone and comes to the same answers."""
    (whole,), _ = runner(tmp_path / "whole", Quiet()).run(_jobs("default"))
    plain, calls = reading._read, 0

    def stops(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise KeyboardInterrupt
        return plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(reading, "_read", stops)
        with pytest.raises(KeyboardInterrupt):
            runner(tmp_path / "cut", Quiet()).run(_jobs("default"))
    (cell,), _ = runner(tmp_path / "cut", Quiet()).run(_jobs("default"))

    assert cell.reading is not None
    assert whole.reading is not None
    assert cell.reading.tokens_held == whole.reading.tokens_held
    assert 0 < cell.reading.tokens_read < whole.reading.tokens_read
    assert [answer.text for answer in cell.answers] == [answer.text for answer in whole.answers]


def test_a_long_piece_is_read_in_parts_and_goes_on_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece longer than a part is observed: parts that are there are not read again."""
    monkeypatch.setattr(reading, "LONG", 64)
    monkeypatch.setattr("agentmem.agent.observing.PART_TOKENS", 64)
    job = _jobs("default")[0]
    text = " ".join(piece.text for piece in job.history.pieces[1:-1])
    pieces = (job.history.pieces[0], Piece(text), job.history.pieces[-1])
    history = replace(job.history, pieces=pieces)

    def stop_late(held: int, _: int) -> None:
        if held > 200:
            raise KeyboardInterrupt

    with AgentMemory.resume("a", model=language_model(), home=tmp_path, config=SMALL) as memory:
        with pytest.raises(KeyboardInterrupt):
            reading.read_history(memory, history, tmp_path, stop_late)
        held = memory.tokens_held
        rest = reading.read_history(memory, history, tmp_path, lambda *_: None)
        again = reading.read_history(memory, history, tmp_path, lambda *_: None)

    assert held > 64
    assert rest.tokens_read == rest.tokens_held - held
    assert (again.tokens_read, again.tokens_held) == (0, rest.tokens_held)


def test_marked_pieces_are_forgotten_before_questions(tmp_path: Path) -> None:
    """What a history marks is dropped for good when all is read, once, and only that."""
    job = _jobs("default")[0]
    pieces = list(job.history.pieces)
    pieces[7] = Piece("My secret is the blue parrot.", source="forget:secret")
    history = replace(job.history, pieces=tuple(pieces))

    with AgentMemory.resume("a", model=language_model(), home=tmp_path, config=SMALL) as memory:
        reading.read_history(memory, history, tmp_path, lambda *_: None)
        again = reading.read_history(memory, history, tmp_path, lambda *_: None)
        turns = memory.history()

    assert [turn.forgotten for turn in turns] == [number == 7 for number in range(len(pieces))]
    assert again.tokens_read == 0
    assert reading.FORGET == FORGET_PREFIX


def test_pieces_of_one_moment_are_read_together(tmp_path: Path) -> None:
    """One turn a session, the marked piece in it apart; cut short, the rest of the sessions is read."""
    job = _jobs("default")[0]
    at = ["2026-01-01T08:00:00+00:00"] * 4 + ["2026-01-02T08:00:00+00:00"] * 3
    pieces = [replace(piece, at=moment) for piece, moment in zip(job.history.pieces, at, strict=False)]
    pieces[5] = replace(pieces[5], source="forget:secret")
    history = replace(job.history, pieces=tuple(pieces))
    seen: list[int] = []

    def stop(held: int, _: int) -> None:
        seen.append(held)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with AgentMemory.resume("a", model=language_model(), home=tmp_path, config=SMALL) as memory:
        with pytest.raises(KeyboardInterrupt):
            reading.read_history(memory, history, tmp_path, stop)
        reading.read_history(memory, history, tmp_path, lambda *_: None)
        again = reading.read_history(memory, history, tmp_path, lambda *_: None)
        turns = memory.history()

    assert [len(turn.messages) for turn in turns] == [4, 1, 0, 1]
    assert [turn.forgotten for turn in turns] == [False, False, True, False]
    assert again.tokens_read == 0


def test_a_failure_is_written_down_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that breaks costs its cell, not the run; what was read is kept for the next try."""

    def breaks(self: Codes, question: Question, output: str) -> float:
        raise RuntimeError("no verdict")

    with monkeypatch.context() as patch:
        patch.setattr(Codes, "judge", breaks)
        (broken, unfit), _ = runner(tmp_path, Quiet()).run([*_jobs("default"), *_jobs("full", tokens=1000)])
    (mended,), _ = runner(tmp_path, Quiet()).run(_jobs("default"))

    assert (broken.status, unfit.status) == ("failed", "does not fit")
    assert broken.reason.startswith("RuntimeError: no verdict (test_recall_running.py:")
    assert mended.status == "done", mended.reason
    assert mended.reading is not None
    assert mended.reading.tokens_read == 0


def test_evidence_in_sight_fails_the_cell(tmp_path: Path) -> None:
    """Without the tail the last drawer stands in the window, and its question is not asked."""
    job = _jobs("default")[0]
    bare = replace(job, history=replace(job.history, pieces=job.history.pieces[1:-1]))
    screen = Quiet()

    (cell,), _ = runner(tmp_path, screen).run([bare])

    assert cell.status == "failed"
    assert "EvidenceError" in cell.reason
    assert not any("asking" in words for words in screen.words)


def test_no_cell_begins_when_time_is_up(tmp_path: Path) -> None:
    """Without time nothing is begun and all is counted as left out, but what is finished is still shown."""
    (first,), _ = runner(tmp_path, Quiet()).run(_jobs("default"))

    cells, left = runner(tmp_path, Quiet(), seconds=0.0).run(_jobs("default", "streaming", "full"))

    assert (cells, left) == ([first], Left(out_of_time=2))


def test_choices_are_ranked_by_the_stock_models_probabilities(tmp_path: Path) -> None:
    """A choice's score is the mean log-probability of its tokens behind the prompt; the memory stays as it was."""
    tokenizer, stock = language_model().tokenizer, plain_model()
    text, prompt = "The amber drawer opens with 1234.", "What opens it?"
    with AgentMemory.resume("a", model=language_model(), home=tmp_path, config=SMALL) as memory:
        memory.append([{"role": "user", "content": text}])
        before = memory.checkpoint()
        found = {choice: choice_logprob(memory, prompt, choice) for choice in ("1234", "the third one")}
        spoken = ask(memory, Question("q", "k", prompt, ("1234",), (), choices=tuple(found)), rank=True)
        assert memory.checkpoint() == before

    asked = [{"role": "user", "content": text}, {"role": "user", "content": prompt}]
    start = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert len(start) + 8 < SMALL.budget, "all attended to"
    for choice, value in found.items():
        ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = stock(torch.tensor([[*start, *ids]])).logits[0, len(start) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).mean()
        assert value == pytest.approx(float(expected), abs=1e-4)
    assert spoken.choices == tuple(found.values())


def test_a_new_process_gives_the_same_answers(
    tmp_path: Path, folder_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both processes are asked, ranking included, and agree; where only the new one is asked, its answers count."""
    made = histories(folder_model)
    job = replace(next(jobs([one_slice("default", questions=1)], made)), restart="compare", rank=True)

    (compared,), _ = runner(tmp_path, Quiet(), folder_model).run([job])

    assert compared.status == "done", compared.reason
    assert all(len(answer.choices) == 4 for answer in compared.answers)

    def in_this_process(home: Path, agent: str, questions: Sequence[Question], **how: Any) -> list[Spoken]:
        with AgentMemory.resume(agent, home=home, create=False) as memory:
            return [replace(ask(memory, one, rank=how["rank"]), text="from there") for one in questions]

    monkeypatch.setattr(running, "ask_in_new_process", in_this_process)
    (alone,), _ = runner(tmp_path, Quiet(), folder_model).run([replace(job, restart="ask")])
    (differing,), _ = runner(tmp_path / "other", Quiet(), folder_model).run([job])

    assert [answer.text for answer in alone.answers] == ["from there"]
    assert [one.choices for one in alone.answers] == [one.choices for one in compared.answers]
    assert differing.status == "failed"
    assert "in a new process" in differing.reason


def test_a_restarted_process_alone_answers_as_one_that_never_stopped(
    tmp_path: Path, folder_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read here, closed, asked in a real new process: its replies and probabilities are those of one process."""
    made = histories(folder_model)
    never = replace(next(jobs([one_slice("default")], made)), rank=True)
    (here,), _ = runner(tmp_path, Quiet(), folder_model).run([never])

    def not_here(*_: Any, **__: Any) -> None:
        raise AssertionError("this process was asked")

    monkeypatch.setattr(running, "ask_all", not_here)
    screen = Quiet()
    (there,), left = runner(tmp_path, screen, folder_model).run([replace(never, restart="ask")])

    assert (there.status, left) == ("done", Left()), there.reason
    assert any("asking in a new process" in words for words in screen.words)
    assert len(there.answers) == len(here.answers) == 2
    for one, other in zip(there.answers, here.answers, strict=True):
        assert (one.text, one.choices, one.score) == (other.text, other.choices, other.score)
        assert one.tokens_generated == other.tokens_generated
        assert one.tokens_reread == 0
    assert there.reading is not None
    assert there.reading.tokens_read == there.reading.tokens_held
    assert agents(tmp_path) == []


def test_processes_that_disagree_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another text, or tokens read again, is an error that names the question; so is a process that fails."""
    with AgentMemory.resume("a", model=language_model(), home=tmp_path, config=SMALL) as memory:
        memory.append([{"role": "user", "content": "Something was said."}])
        spoken = ask(memory, Question("which one", "k", "What?", (), (), max_new_tokens=3), rank=False)

    check_same([spoken], [spoken])
    with pytest.raises(RestartError, match=r"which one: .* in a new process"):
        check_same([spoken], [replace(spoken, text=spoken.text + "!")])
    with pytest.raises(RestartError, match="read 3 tokens again"):
        check_same([spoken], [replace(spoken, tokens_reread=3)])
    monkeypatch.setattr(again.sys, "executable", "false")
    with pytest.raises(RestartError, match="the new process ended with 1"):
        ask_in_new_process(tmp_path, "nobody", [], device="auto", dtype="auto", rank=False)


def test_evidence_is_measured_where_it_is_asked_for(tmp_path: Path) -> None:
    """The measurement gets a closed agent, its questions and where their evidence lies; its figures are kept."""

    class Counting:
        name = "counting"

        def __call__(self, asked: Asked) -> list[Sequence[int]]:
            with AgentMemory.resume(asked.agent, model=asked.model, home=asked.home, create=False) as memory:
                assert memory.config == asked.config
            return [asked.evidence[question.id][0] for question in asked.questions]

    with_it, without = replace(_jobs("default")[0], evidence=True), _jobs("default")[0]
    (measured, plain), _ = runner(tmp_path, Quiet(), measure=Counting()).run([with_it, without])

    assert measured.status == "done", measured.reason
    assert [stop > start for start, stop in measured.extra["counting"]] == [True, True]
    assert set(plain.extra) == {"origin", "version"}
    assert measured.key != plain.key
