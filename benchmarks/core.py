"""The project's own figures: speed, resume, checkpoint, disk and memory at growing histories, beside full attention.

    python -m benchmarks.core            both built-in models at 2,000, 8,000 and 32,000 tokens
    python -m benchmarks.core --quick    small sizes, to see that everything works

Exits with 0 when everything was measured, 1 when a measurement failed. Whether a promise was kept is printed,
and does not change the exit code.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agentmem.engine.model import LanguageModel
from benchmarks.ours import OurSide
from benchmarks.peer import PeerSide
from benchmarks.plan import QUESTION, Plan, Samples
from benchmarks.report import append_csv, show, write_json
from benchmarks.run_facts import run_facts, warn_if_busy

RESULTS = Path(__file__).with_name("results.csv")
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
LENGTHS = (2_000, 8_000, 32_000)


def main() -> int:
    """Run the plan that the command line asks for; returns the exit code."""
    asked = _arguments()
    plan = _plan(asked)
    samples = Samples()
    facts = run_facts()
    console = Console()
    warn_if_busy(console, facts)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("starting", total=len(plan.models) * _steps(plan))
        for name in plan.models:
            run = ModelRun(name, plan, samples, lambda words: progress.update(task, description=words))
            run.all(asked.folder, lambda: progress.advance(task))
    show(console, plan, samples, facts)
    if asked.json is not None:
        write_json(asked.json, plan, samples, facts)
    if not asked.quick:
        append_csv(RESULTS, plan, samples, facts)
    return 1 if samples.failed else 0


class ModelRun:
    """All measurements of one model; a step that fails is noted, and the next one is tried."""

    def __init__(self, name: str, plan: Plan, samples: Samples, tell: Callable[[str], None]) -> None:
        self._name = name
        self._plan = plan
        self._samples = samples
        self._say = tell

    def all(self, folder: Path | None, advance: Callable[[], None]) -> None:
        """Build, run the rounds, probe memory. ``folder``: where the agents are kept meanwhile."""
        with tempfile.TemporaryDirectory(dir=folder, prefix="agentmem-bench-") as home:
            with self._step("reading the history"):
                self._tell("loading")
                ours = OurSide(LanguageModel.load(self._name), Path(home), self._plan, self._samples)
                ours.warm_up()
                ours.build(self._tell)
                advance()
                peer = self._peer(ours)
                advance()
                self._rounds(ours, peer, advance)
                del peer
            for length in self._plan.lengths:
                with self._step(f"memory at {length}"):
                    self._tell(f"{length:,}: memory")
                    self._probe_memory(home, length)
                advance()
        LanguageModel.unload()

    def _peer(self, ours: OurSide) -> PeerSide | None:
        if not self._plan.peer:
            return None
        peer = None
        with self._step("the peer"):
            self._tell("full attention reads")
            question = ours.model.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
            stop_ids = ours.model.template.stop_ids
            peer = PeerSide(self._name, ours.ids, question, stop_ids, self._plan, self._samples)
            peer.build()
        return peer

    def _rounds(self, ours: OurSide, peer: PeerSide | None, advance: Callable[[], None]) -> None:
        for number in range(self._plan.repeats):
            for length in self._plan.lengths:
                with self._step(f"round {number} at {length}"):
                    ours.round(length, number, self._tell)
                    if peer is not None and length in peer.lengths:
                        self._tell(f"{length:,}: full attention")
                        peer.round(length)
                advance()

    def _probe_memory(self, home: str, length: int) -> None:
        arguments = [self._name, home, f"at-{length}", str(self._plan.reply), str(self._plan.ingest)]
        command = [sys.executable, "-m", "benchmarks.memory_probe", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the memory probe ended with {done.returncode}: {done.stderr[-500:]}")
        risen = json.loads(done.stdout.splitlines()[-1])
        if risen["turn"] is None:
            self._samples.skip("peak memory: this system does not say how much memory is anonymous")
        self._samples.add(self._name, length, "turn_peak_mib", risen["turn"])
        self._samples.add(self._name, length, "ingest_peak_mib", risen["ingest"])

    def _tell(self, words: str) -> None:
        self._say(f"{self._name}: {words}")

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # noted, and the exit code says so
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            self._samples.failed.append(f"{self._name}: {what}: {type(error).__name__}: {error} ({where})")


def _steps(plan: Plan) -> int:
    return 2 + plan.repeats * len(plan.lengths) + len(plan.lengths)


def _plan(asked: argparse.Namespace) -> Plan:
    quick = asked.quick
    lengths = asked.lengths or ((400, 2_400) if quick else LENGTHS)
    return Plan(
        models=asked.model or (MODELS[:1] if quick else MODELS),
        lengths=sorted(lengths),
        repeats=asked.repeats or (1 if quick else 3),
        reply=16 if quick else 129,
        ingest=256 if quick else 1_024,
        resumes=3 if quick else 5,
        peer=not asked.no_peer,
        peer_reply=17,
        peer_ingest=256 if quick else 512,
        peer_read=400 if quick else 2_000,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.core", description="Measure agentmem beside transformers' full attention."
    )
    parser.add_argument(
        "--model", action="append", help="a model's name; may be repeated (default: both built-ins)"
    )
    parser.add_argument(
        "--lengths", type=_length, nargs="+", help="tokens of history (default: 2000 8000 32000)"
    )
    parser.add_argument("--repeats", type=_length, help="rounds over all lengths (default: 3)")
    parser.add_argument("--json", type=Path, help="write everything to this file too")
    parser.add_argument("--folder", type=Path, help="where agents are kept meanwhile (default: the system's)")
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is added to results.csv")
    parser.add_argument("--no-peer", action="store_true", help="leave out full attention")
    return parser.parse_args()


def _length(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


if __name__ == "__main__":
    sys.exit(main())
