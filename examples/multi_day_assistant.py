"""Six days, six processes: an assistant that answers on the last from what it heard on the first.

    python examples/multi_day_assistant.py [--json] [--model NAME] [--home FOLDER] [--keep] [--days 1-6]

Each day is a new operating system process, so nothing survives a night but what is on disk. On the last day ten
facts of the first two days are asked for, none of which is in the window any more. The same questions then go
to the same transcript in full attention (stock transformers, everything read again) and with the window alone.

The first half of this file is all there is to using agentmem. What is said stands in multi_day_story.py, the
measuring in multi_day_measure.py, the printing in multi_day_print.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multi_day_measure import check, check_out_of_sight, find_facts, full_attention, window_only
from multi_day_print import Page
from multi_day_story import DAYS, FACTS, SYSTEM, Day, Fact, Say

from agentmem import AgentMemError, AgentMemory, DownloadError, Reply
from agentmem.engine.catalog import DEFAULT_MODEL, FALLBACK_MODEL
from agentmem.engine.models import pull
from agentmem.engine.rich_progress import RichProgress

AGENT = "ada"
REPLY_TOKENS = 40
"""Longest reply in ordinary talk."""
ANSWER_TOKENS = 24
"""Longest answer to a question of the last day."""


# -- using agentmem -----------------------------------------------------------------------------------


def live(memory: AgentMemory, day: Day, page: Page) -> None:
    """One day: talk, and read what the user hands over. Every turn is on disk when its reply is complete."""
    for event in day.events:
        if isinstance(event, Say):
            page.user(event.text)
            for piece in memory.stream(event.text, at=day.date, max_new_tokens=REPLY_TOKENS):
                page.piece(piece)
            page.end()
        else:
            with page.bar(f"reading {event.path.name}") as progress:
                text = event.path.read_text(encoding="utf-8")
                receipt = memory.observe(text, source=event.path.name, at=day.date, on_progress=progress)
            page.read(event.path.name, receipt)


def ask(memory: AgentMemory, fact: Fact, day: Day) -> Reply:
    """Ask for one fact. Nothing of it is remembered, so no answer can help a later one."""
    return memory.chat(fact.question, at=day.date, remember=False, max_new_tokens=ANSWER_TOKENS)


def spend(number: int, home: Path, model: str, page: Page) -> dict[str, Any]:
    """Everything one process does: open the memory, live the day, ask on the last one, close."""
    day = DAYS[number - 1]
    with AgentMemory.resume(AGENT, model=model, home=home, system=SYSTEM) as memory:
        page.day(number, day.date, memory.resumed)
        live(memory, day, page)
        if number < len(DAYS):
            return {"tokens_held": memory.tokens_held}
        return examine(memory, day, home, page)


# -- the last day, and the comparison -----------------------------------------------------------------


def examine(memory: AgentMemory, day: Day, home: Path, page: Page) -> dict[str, Any]:
    """Check that no fact is in sinks or window, ask for all of them, and return what came of it."""
    resumed = memory.resumed
    check(resumed.tokens_prefilled == 0, f"resuming forwarded {resumed.tokens_prefilled} tokens, not 0")
    places = find_facts(home, AGENT, FACTS, memory.tokenizer)
    held = check_out_of_sight(home, AGENT, places, memory.config, memory.tokenizer)
    page.out_of_sight(places, held, memory.config)
    answers = []
    for place in places:
        reply = ask(memory, place.fact, day)
        check(
            reply.receipt.tokens_reread == 0, f"{reply.receipt.tokens_reread} tokens were read again, not 0"
        )
        answers.append(place.answer(reply))
        page.answer(answers[-1])
    check(memory.tokens_held == held, "asking with remember=False has changed the memory")
    return {"tokens_held": held, "resume_seconds": resumed.seconds, "answers": answers}


def compare(home: Path, model: str, page: Page) -> dict[str, Any]:
    """The same questions, asked of the window alone and of the same tokens in full attention."""
    page.heading("The same transcript without recall, then in full attention")
    with page.bar("window only") as progress:
        window = window_only(home, AGENT, model, FACTS, ANSWER_TOKENS, progress)
    with page.bar("reading everything again in full attention") as progress:
        full, seconds = full_attention(home, AGENT, model, FACTS, ANSWER_TOKENS, progress)
    return {"window_only": window, "full_attention": full, "reprefill_seconds": seconds}


def verdict(last: dict[str, Any], arms: dict[str, Any]) -> dict[str, Any]:
    """Count what was recalled; ``passed`` is what this example must show."""
    recalled = {
        "agentmem": sum(answer["recalled"] for answer in last["answers"]),
        "full_attention": sum(answer["recalled"] for answer in arms["full_attention"]),
        "window_only": sum(answer["recalled"] for answer in arms["window_only"]),
    }
    enough = recalled["agentmem"] >= 0.8 * recalled["full_attention"]
    more = recalled["agentmem"] >= recalled["window_only"] + 3
    return {"facts": len(FACTS), "recalled": recalled, "passed": enough and more}


# -- the script ---------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The script. 0: everything held and was shown; 1: it was not; 2: the options cannot be used."""
    options = _options().parse_args(arguments)
    try:
        return _child(options) if options.child else _run(options)
    except AgentMemError as error:
        raise SystemExit(f"error: {error}") from None


def _run(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    page = Page(to_stderr=options.json)
    model = _bring(options.model, page)
    with _home(options, page) as home:
        results = {day: _spawn(str(day), home, model, page) for day in options.days}
        if len(DAYS) not in results:
            return 0
        last, arms = results[len(DAYS)], _spawn("compare", home, model, page)
    shown = {"model": model, **last, **arms, **verdict(last, arms), "seconds": time.perf_counter() - started}
    page.table(shown, enforced=model == DEFAULT_MODEL)
    if options.json:
        print(json.dumps(shown, indent=2))
    return 0 if shown["passed"] or model != DEFAULT_MODEL else 1


def _spawn(task: str, home: Path, model: str, page: Page) -> dict[str, Any]:
    """Run one task of this script in a new process, and return what it found out."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--child", task, "--out", str(out)]
        command += ["--home", str(home), "--model", model]
        done = subprocess.run(command, check=False, stdout=page.stream)
        if done.returncode:
            raise SystemExit(done.returncode)
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return result


def _child(options: argparse.Namespace) -> int:
    page = Page()
    if options.child == "compare":
        result = compare(options.home, options.model, page)
    else:
        result = spend(int(options.child), options.home, options.model, page)
    options.out.write_text(json.dumps(result), encoding="utf-8")
    return 0


def _bring(wanted: str | None, page: Page) -> str:
    """The model's name, its files fetched. Without a source for the default, the small one, and said so."""
    model = wanted or DEFAULT_MODEL
    try:
        pull(model, progress=RichProgress())
    except DownloadError as error:
        if wanted is not None:
            raise
        page.note(f"{error} Going on with {FALLBACK_MODEL}, which is too weak to judge recall by.")
        model = FALLBACK_MODEL
        pull(model, progress=RichProgress())
    return model


@contextmanager
def _home(options: argparse.Namespace, page: Page) -> Iterator[Path]:
    """Where the agent lives: the folder given, else a temporary one, removed at the end."""
    if options.home is not None:
        yield options.home
    elif options.keep:
        home = Path(tempfile.mkdtemp(prefix="agentmem-demo-"))
        page.note(f"kept in {home}: go on with --home {home}")
        yield home
    else:
        with tempfile.TemporaryDirectory(prefix="agentmem-demo-") as folder:
            yield Path(folder)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", action="store_true", help="print all figures as JSON; the rest goes to stderr"
    )
    parser.add_argument("--model", help="a built-in name, a Hugging Face id, a folder or a GGUF file")
    parser.add_argument("--home", type=Path, help="where the agent is kept; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    parser.add_argument(
        "--days",
        type=_days,
        default=_days(f"1-{len(DAYS)}"),
        help="which days to live, such as 3 or 4-6, in a --home that has the earlier ones; default: all",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser


def _days(text: str) -> range:
    first, _, last = text.partition("-")
    days = range(int(first), int(last or first) + 1)
    if not days or days[0] < 1 or days[-1] > len(DAYS):
        raise argparse.ArgumentTypeError(f"{text!r}: give days from 1 to {len(DAYS)}")
    return days


if __name__ == "__main__":
    sys.exit(main())
