"""The Python of the README and the documents runs as it stands, on a tiny random model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.source_tree import ROOT
from support.tiny_folder import write_chat_model

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the default model is replaced with."""
    return write_chat_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet_runs(
    code: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each snippet runs by itself in an empty folder, prints something, and leaves an agent behind."""
    from agentmem import AgentMemory
    from langchain_agentmem import close_memories

    monkeypatch.setenv("AGENTMEM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("agentmem.agent.opening.DEFAULT_MODEL", str(model))
    monkeypatch.setattr("langchain_agentmem.chat_models.DEFAULT_MODEL", str(model))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("The bike lock opens with 4071.", encoding="utf-8")

    try:
        exec(compile(code, "snippet", "exec"), {"__name__": "__main__"})
    finally:
        close_memories()

    assert capsys.readouterr().out
    assert [agent.turns for agent in AgentMemory.list()] > [0]


def test_the_readme_has_an_example() -> None:
    """There is a snippet to run, and it is short."""
    first = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)

    assert first is not None
    assert len([row for row in first.group(1).splitlines() if row.strip()]) <= 8
