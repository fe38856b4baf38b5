"""Write diaries as LongMemEval records, read one, or count what was generated.

    python -m benchmarks.recall.multiday --days 20 --persona 3 --seed 1 --out file.json
    python -m benchmarks.recall.multiday --days 20 --persona 3 --seed 1 --read
    python -m benchmarks.recall.multiday --days 80 --model smollm2-135m

Without `--persona` it is all twelve. Statistics are printed in any case; without `--model` a token is
reckoned as three quarters of a word.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.recall.multiday.cast import parts_of
from benchmarks.recall.multiday.diary import Diary
from benchmarks.recall.multiday.generator import TOKENS_A_DAY, diary
from benchmarks.recall.multiday.longmemeval import records
from benchmarks.recall.multiday.personas import PERSONAS
from benchmarks.recall.multiday.summary import summary

DAYS = (5, 20, 80, 320)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recall.multiday", description="Diaries of twelve people and what is asked."
    )
    parser.add_argument("--days", type=int, default=20, help=f"length of a diary; {DAYS} are the usual ones")
    parser.add_argument("--persona", type=int, choices=range(len(PERSONAS)), help="one person; default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", help="count tokens as this model does")
    parser.add_argument("--out", type=Path, help="write LongMemEval records to this JSON file")
    parser.add_argument("--read", action="store_true", help="print the diaries to read them")
    asked = parser.parse_args(arguments)
    count_tokens = words_as_tokens if asked.model is None else tokens_of(asked.model)
    tokens = asked.days * TOKENS_A_DAY
    people = range(len(PERSONAS)) if asked.persona is None else [asked.persona]
    diaries = [
        diary(person, tokens=tokens, seed=asked.seed, count_tokens=count_tokens, part=part)
        for part in range(parts_of(tokens))
        for person in people
    ]
    if asked.read:
        for one in diaries:
            print(in_full(one))
    if asked.out is not None:
        found = [record for one in diaries for record in records(one)]
        asked.out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(f"{len(found)} records written to {asked.out}")
    print("\n".join(summary(diaries, count_tokens)))


def words_as_tokens(text: str) -> int:
    """Four tokens for three words, as English texts have them."""
    return -(-len(text.split()) * 4 // 3)


def tokens_of(model: str) -> Callable[[str], int]:
    """A counter of a model's own tokens."""
    from agentmem import LanguageModel  # noqa: PLC0415  torch is loaded by those who count with a model

    tokenizer = LanguageModel.load(model).tokenizer
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def in_full(one: Diary) -> str:
    """A diary to be read by people: sessions, then questions; what answers one is marked with a star."""
    lines = [f"=== {one.id}: {one.persona}, {one.days} days ==="]
    for session in one.sessions:
        lines.append("")
        for message in session.messages:
            name = one.persona if message.role == "user" else "Assistant"
            lines.append(f"{'* ' if message.answers else '  '}{name}: {message.text}")
    lines.append("")
    for query in one.queries:
        question = query.question
        lines += [f"? [{question.kind}] {question.prompt}", f"  -> {' | '.join(question.answers)}"]
        lines += [f"     from: {snippet}" for snippet in question.evidence]
        lines += [f"     not: {' | '.join(question.must_not)}"] if question.must_not else []
    return "\n".join(lines)


if __name__ == "__main__":
    main()
