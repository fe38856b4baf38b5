"""The tree of the README, made from the files' own first sentences.

python tests/support/readme_tree.py            print it
python tests/support/readme_tree.py --write    put it into README.md, between its two marks
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
FOLDERS = ("agentmem", "adapters/langchain_agentmem", "kernels/agentmem_kernels", "examples", "benchmarks")
BEGIN, END = "<!-- tree -->\n", "<!-- /tree -->"
WIDTH = 30
"""Where the words start."""
LONGEST = 125
"""Longest line."""


def readme_tree() -> str:
    """A fenced block: every Python file of the packages, examples and benchmarks, one line each."""
    rows = [row for folder in FOLDERS for row in _folder(ROOT / folder, folder + "/", 0)]
    rows += [_row("tests/", "the same folders again, and house/ for the rules of the repository")]
    rows += [_row(f"docs/{path.name}", _title(path)) for path in sorted((ROOT / "docs").glob("*.md"))]
    return "```text\n" + "\n".join(rows) + "\n```\n"


def current_tree() -> str:
    """What stands between the marks of README.md."""
    return README.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


def _folder(folder: Path, shown: str, depth: int) -> Iterator[str]:
    """A folder's own line (its ``__init__``), its files, then its folders."""
    if not any(folder.rglob("*.py")):
        return
    package = folder / "__init__.py"
    yield _row("  " * depth + shown, _summary(package) if package.exists() else "")
    for path in sorted(folder.glob("*.py")):
        if path != package:
            yield _row("  " * (depth + 1) + path.name, _summary(path))
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from _folder(below, below.name + "/", depth + 1)


def _summary(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def _title(path: Path) -> str:
    """A document's heading."""
    return path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def _row(name: str, words: str) -> str:
    """One line; too many words are cut after the last clause that fits."""
    room = LONGEST - WIDTH - 1
    if len(words) > room:
        cuts = [mark.start() for mark in re.finditer(r"[,:;] ", words) if mark.start() <= room]
        words = words[: cuts[-1]] if cuts else words[: words.rindex(" ", 0, room - 1)] + " …"
    return f"{name:<{WIDTH}} {words}".rstrip()


def write() -> None:
    """Put the tree between the marks of README.md."""
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    README.write_text(before + BEGIN + readme_tree() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
    else:
        sys.stdout.write(readme_tree())
