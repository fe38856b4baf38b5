"""What blocks should be: ways of cutting and sharing them, judged by the attention that tokens truly get.

    python -m benchmarks.block_study                                     one history of 8,000 tokens, ten questions
    python -m benchmarks.block_study --length 32K --histories 4 --device cuda
    python -m benchmarks.block_study --task multiday --length 10K --json study.json --plot study.png

Each history is read once by AgentMemory under its default rule, which also says how surprising each token was; each
question is asked and forgotten, and its softmax mass over every evicted token is taken down. All ways then choose from
these masses, at the recall budget and at half of it: an upper bound of what any rule with such blocks can do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agentmem import MemoryConfig
from agentmem.engine.catalog import DEFAULT_MODEL
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentMemError, ConfigError
from benchmarks.block_study.report import Findings, as_json, check_plots, draw, show
from benchmarks.block_study.study import Studied, Study, Tick
from benchmarks.block_study.ways import grid, ways
from benchmarks.recall.framing import frame_for
from benchmarks.recall.items import History
from benchmarks.recall.places import EvidenceError
from benchmarks.recall.plan import Histories, Slice, jobs
from benchmarks.recall.tasks import TASKS
from benchmarks.run_facts import run_facts, warn_if_busy

WIDTH = 160
"""Columns of the tables where there is no terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Study what the command line asks for; 2 when it asks for what there is not."""
    asked = _parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    try:
        if asked.plot is not None:
            check_plots()
        config = MemoryConfig(**json.loads(asked.config))
        budgets = _budgets(config)
        model = LanguageModel.load(asked.model, device=asked.device, dtype=asked.dtype)
        model.check(config)
        facts = {
            **run_facts(),
            "model": model.name,
            "device": str(model.device),
            "task": asked.task,
            "length": asked.length,
            "seed": asked.seed,
            "config": config.model_dump(),
        }
        warn_if_busy(console, facts)
        studied = _studied(asked, console, model, config, budgets)
    except (AgentMemError, EvidenceError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    findings = Findings(studied, ways(config.block_tokens), grid(config.block_tokens))
    show(console, findings)
    console.print(f"  {model.name} on {model.device}, {asked.task}, seed {asked.seed}", highlight=False)
    if asked.json is not None:
        asked.json.write_text(as_json(findings, facts), encoding="utf-8")
    if asked.plot is not None:
        draw(findings, asked.plot)
    return 0


def _budgets(config: MemoryConfig) -> tuple[int, int]:
    """All of the recall budget, and half of it, in whole blocks."""
    half = config.recall_blocks // 2 * config.block_tokens
    if not half:
        raise ConfigError(f"recall_tokens={config.recall_tokens} has no half of whole blocks to compare at")
    return config.recall_tokens, half


def _studied(
    asked: argparse.Namespace,
    console: Console,
    model: LanguageModel,
    config: MemoryConfig,
    budgets: Sequence[int],
) -> list[Studied]:
    histories = _histories(asked, model, config)
    with (
        tempfile.TemporaryDirectory(dir=asked.folder, prefix="agentmem-blocks-") as home,
        _bars(console) as bars,
    ):
        found = []
        for number, history in enumerate(histories):
            tick = bars(f"history {number + 1} of {len(histories)}: ")
            found.append(Study(model, Path(home), config, budgets, tick).of(history))
    return found


def _histories(asked: argparse.Namespace, model: LanguageModel, config: MemoryConfig) -> list[History]:
    """The histories in their frame, each with at most so many questions."""

    def count_tokens(text: str) -> int:
        return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    source = Histories(
        {asked.task: TASKS[asked.task]}, frame_for(config, count_tokens), asked.seed, count_tokens
    )
    one = Slice(asked.task, (asked.length,), asked.histories, ("default",), questions=asked.questions)
    return [job.history for job in jobs([one], source)]


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[str], Tick]]:
    """One bar for what is being done; without a terminal, nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("starting", total=None)

        def for_history(words: str) -> Tick:
            return lambda what, done, total: progress.update(
                bar, description=words + what, completed=done, total=total
            )

        yield for_history


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.block_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", default="many_needles", choices=sorted(TASKS), metavar="TASK",
                        help="a recall task, such as many_needles (default) or multiday")  # fmt: skip
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"a model's name (default: {DEFAULT_MODEL})")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument(
        "--length", type=_number, default=8_000, help="tokens of history, such as 32K (default: 8K)"
    )
    parser.add_argument("--histories", type=_number, default=1)
    parser.add_argument("--questions", type=_number, default=10, help="of each history (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the histories (default: 0)")
    parser.add_argument("--config", default="{}", help="MemoryConfig options, as JSON")
    parser.add_argument("--folder", type=Path, help="where agents are meanwhile (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write everything to this file too")
    parser.add_argument("--plot", type=Path, help="draw coverage by way into this file")
    return parser


def _number(text: str) -> int:
    """A positive number; K stands for 1,000."""
    plain = text.strip().upper()
    try:
        number = 1_000 * int(plain[:-1]) if plain.endswith("K") else int(plain)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number such as 8000 or 8K")
    return number


if __name__ == "__main__":
    sys.exit(main())
