"""The README: its tree is the repository's, its commands exist."""

from __future__ import annotations

import re

from support.readme_tree import current_tree, readme_tree
from support.source_tree import ROOT, tracked


def test_tree_lists_every_file() -> None:
    """The tree names each file of the packages, examples and benchmarks, and nothing else."""
    assert current_tree() == readme_tree(), "make tree writes it anew"


def test_first_commands_are_demo_and_test() -> None:
    """The first two commands a reader meets are make demo and make test, and the Makefile has both."""
    commands = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)

    assert commands[:2] == ["demo", "test"]
    assert set(commands) <= set(targets)


def test_links_inside_the_repository_lead_somewhere() -> None:
    """Each relative link of a Markdown file points at a file that exists."""
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in tracked()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]

    assert broken == []
