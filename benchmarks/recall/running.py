"""Runs cells: read a history with one arm, check that its evidence is out of sight, ask, judge, write down.

A cell that fails is written down with its reason, and the next one is tried. Any number of processes may run the same
jobs on one journal: each cell is run by the one that claims it. Knows no statistics and no tables.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from agentmem import AgentMemory, MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentNotFoundError
from benchmarks.recall.again import ask_in_new_process, check_same
from benchmarks.recall.arms import Arm, DoesNotFitError, is_dense, make_arm
from benchmarks.recall.asking import Spoken, ask_all
from benchmarks.recall.cells import Answer, Cell, CellKey, Left, Reading, digest
from benchmarks.recall.claims import Claims
from benchmarks.recall.items import Question
from benchmarks.recall.journal import Journal
from benchmarks.recall.origin import Origin, Version
from benchmarks.recall.places import EvidenceError, Ranges, check_out_of_sight, find_evidence, token_ids
from benchmarks.recall.plan import Job
from benchmarks.recall.reading import read_history


class Screen(Protocol):
    """Where a run says what it is doing."""

    def say(self, words: str) -> None:
        """What is being done now."""
        ...

    def part(self, done: int, total: int) -> None:
        """How much of it is done."""
        ...

    def cell(self, cell: Cell, *, new: bool) -> None:
        """A cell is finished, or was found finished."""
        ...

    def elsewhere(self, key: CellKey) -> None:
        """Another process is running a cell."""
        ...


@dataclass(frozen=True)
class Asked:
    """A history that was read and may be asked about: all that a further measurement needs. The agent is closed."""

    home: Path
    agent: str
    model: LanguageModel
    config: MemoryConfig
    questions: Sequence[Question]
    evidence: Mapping[str, Ranges]


class Measure(Protocol):
    """The further measurement that ``Job.evidence`` asks for, such as which blocks were chosen."""

    @property
    def name(self) -> str:
        """The key of its figures in ``Cell.extra``."""
        ...

    def __call__(self, asked: Asked) -> Any:
        """Its figures, as plain JSON."""
        ...


@dataclass(frozen=True)
class Options:
    """What all cells of a run share."""

    home: Path
    base: MemoryConfig
    device: str = "auto"
    dtype: str = "auto"
    keep: bool = False
    """Keep the agents, each as large as its history, when their cells are done."""
    seconds: float | None = None
    """Begin no cell after so many seconds."""


class Runner:
    """Runs jobs on one model, journal in hand; claims on cells lie beside the journal."""

    def __init__(
        self,
        model: LanguageModel,
        options: Options,
        journal: Journal,
        screen: Screen,
        measure: Measure | None = None,
    ) -> None:
        self._model = model
        self._options = options
        self._journal = journal
        self._screen = screen
        self._measure = measure
        self._claims = Claims(journal.path.parent / "claims")
        self._origin = Origin.of(model, options.base)

    def run(self, jobs: Iterable[Job]) -> tuple[list[Cell], Left]:
        """Every job's cell that is done, in order, found or run; and what was left undone. Waits for nobody."""
        limit = self._options.seconds
        deadline = math.inf if limit is None else time.monotonic() + limit
        keyed = {self.key(job): job for job in jobs}
        late, elsewhere = self._pass(keyed, deadline)
        later, elsewhere = self._pass({key: keyed[key] for key in elsewhere}, deadline)
        self._journal.refresh()
        late = [key for key in (*late, *later) if not self._found(key)]
        elsewhere = [key for key in elsewhere if not self._found(key)]
        for key in elsewhere:
            self._screen.elsewhere(key)
        cells = [cell for key in keyed if (cell := self._journal.settled(key)) is not None]
        return cells, Left(out_of_time=len(late), elsewhere=len(elsewhere))

    def _pass(self, keyed: Mapping[CellKey, Job], deadline: float) -> tuple[list[CellKey], list[CellKey]]:
        """Run each cell that is nobody's; what was left since time was up, and what other processes run."""
        late, elsewhere = [], []
        for key, job in keyed.items():
            if self._found(key):
                continue
            if time.monotonic() >= deadline:
                late.append(key)
            elif not self._claimed(job, key):
                elsewhere.append(key)
        return late, elsewhere

    def _found(self, key: CellKey) -> bool:
        """Whether nothing is left to do for a cell; the screen is told."""
        cell = self._journal.settled(key)
        if cell is not None:
            self._screen.cell(cell, new=False)
        return cell is not None

    def _claimed(self, job: Job, key: CellKey) -> bool:
        """Run a cell unless another process is running it, or has since this one last looked."""
        with self._claims.claim(key) as ours:
            if not ours:
                return False
            self._journal.refresh()
            if not self._found(key):
                self._screen.cell(self._run(job, key), new=True)
            return True

    def key(self, job: Job) -> CellKey:
        """What names a job's cell: another model, option, history or way of asking is another cell."""
        name = digest(
            dict(self._model.fingerprint),
            self._options_of(job),
            asdict(job.history),
            [job.restart, job.rank, job.evidence],
        )
        return CellKey(job.task.name, job.history.tokens, job.history.id, job.arm, name)

    def _options_of(self, job: Job) -> dict[str, Any] | None:
        """What the arm's name stands for; None when it does not fit the model."""
        try:
            return self._arm(job).config.model_dump()
        except DoesNotFitError:
            return None

    def _version(self, job: Job) -> Version:
        return Version(
            text=digest([asdict(piece) for piece in job.history.pieces])[:8],
            arm=None if is_dense(job.arm) else digest(self._options_of(job))[:8],
        )

    def _arm(self, job: Job) -> Arm:
        """The job's arm. A dense one is measured to the history, whose length the model's own template tells."""
        tokens = job.history.tokens
        if is_dense(job.arm):
            messages = [{"role": piece.role, "content": piece.text} for piece in job.history.pieces]
            tokens = len(self._model.template.delta(None, messages, tools=None, reply=False).ids)
        return make_arm(job.arm, self._options.base, tokens, self._model)

    def _run(self, job: Job, key: CellKey) -> Cell:
        """The job's cell, on disk. A failure is a cell too."""
        try:
            cell = self._measured(job, key, self._arm(job))
        except DoesNotFitError as error:
            cell = Cell(key, "does not fit", str(error))
        except Exception as error:  # noqa: BLE001  # written down, shown, and the exit code says so
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            cell = Cell(key, "failed", f"{type(error).__name__}: {error} ({where})")
        notes = {**self._origin.note(), **self._version(job).note()}
        cell = replace(cell, extra={**notes, **cell.extra})
        self._journal.add(cell)
        if cell.status == "done" and not self._options.keep:
            with suppress(AgentNotFoundError):
                AgentMemory.delete(agent_name(key), home=self._options.home)
        return cell

    def _measured(self, job: Job, key: CellKey, arm: Arm) -> Cell:
        agent, questions = agent_name(key), job.history.questions
        with self._resumed(agent, arm.config) as memory:
            self._say(key, "reading")
            reading = read_history(memory, job.history, self._options.home, self._screen.part)
            evidence = self._check(agent, arm, questions, reading)
            spoken = [] if job.restart == "ask" else self._ask(memory, job, key)
        if job.restart != "never":
            self._say(key, "asking in a new process")
            again = ask_in_new_process(
                self._options.home,
                agent,
                questions,
                device=self._options.device,
                dtype=self._options.dtype,
                rank=job.rank,
            )
            if spoken:
                check_same(spoken, again)
            spoken = again
        _check_dense(arm, reading, spoken)
        asked = Asked(self._options.home, agent, self._model, arm.config, questions, evidence)
        extra = self._extra(asked, key) if job.evidence else {}
        answers = tuple(_judged(job, *pair, evidence, arm) for pair in zip(questions, spoken, strict=True))
        return Cell(key, "done", reading=reading, answers=answers, extra=extra)

    def _resumed(self, agent: str, config: MemoryConfig) -> AgentMemory:
        return AgentMemory.resume(agent, model=self._model, home=self._options.home, config=config)

    def _check(
        self, agent: str, arm: Arm, questions: Sequence[Question], reading: Reading
    ) -> Mapping[str, Ranges]:
        """Where the evidence lies; raises EvidenceError unless all of it is out of sight."""
        ids = token_ids(self._options.home, agent)
        evidence = find_evidence(ids, self._model.tokenizer, questions)
        check_out_of_sight(evidence, reading.tokens_held, arm.config, dense=arm.dense)
        return evidence

    def _ask(self, memory: AgentMemory, job: Job, key: CellKey) -> list[Spoken]:
        self._say(key, "asking")
        total, done = len(job.history.questions), iter(range(1, len(job.history.questions) + 1))
        return list(
            ask_all(
                memory,
                job.history.questions,
                rank=job.rank,
                tick=lambda: self._screen.part(next(done), total),
            )
        )

    def _extra(self, asked: Asked, key: CellKey) -> dict[str, Any]:
        assert self._measure is not None, "a job wants evidence, and nothing measures it"
        self._say(key, self._measure.name)
        return {self._measure.name: self._measure(asked)}

    def _say(self, key: CellKey, words: str) -> None:
        self._screen.say(f"{key.task} {key.tokens:,} {key.arm}: {words}")


def agent_name(key: CellKey) -> str:
    """The agent that a cell's history is read into."""
    return f"recall {key.task} {key.tokens} {key.history} {key.arm} {key.digest}"


def _judged(job: Job, question: Question, spoken: Spoken, evidence: Mapping[str, Ranges], arm: Arm) -> Answer:
    return Answer(
        question=question.id,
        kind=question.kind,
        text=spoken.text,
        score=float(job.task.judge(question, spoken.text)),
        seconds=spoken.seconds,
        seconds_to_first=spoken.seconds_to_first,
        tokens_read=spoken.tokens_read,
        tokens_generated=spoken.tokens_generated,
        tokens_reread=spoken.tokens_reread,
        recalled_mass=spoken.recalled_mass,
        seen=None if arm.dense else _seen(evidence[question.id], spoken.blocks),
        choices=spoken.choices,
    )


def _seen(evidence: Ranges, blocks: Sequence[tuple[int, int]]) -> float | None:
    """Part of the evidence that some block touches."""
    if not evidence:
        return None
    touched = [any(low < stop and start < high for low, high in blocks) for start, stop in evidence]
    return sum(touched) / len(touched)


def _check_dense(arm: Arm, reading: Reading, spoken: Sequence[Spoken]) -> None:
    """Raise EvidenceError when an answer of full attention left full attention."""
    longest = max((one.tokens_read + one.tokens_generated for one in spoken), default=0)
    if arm.dense and reading.tokens_held + longest > arm.config.dense_limit:
        raise EvidenceError(
            f"{reading.tokens_held} tokens and an answer of {longest} exceed the {arm.config.dense_limit} "
            "that full attention was set up for"
        )
