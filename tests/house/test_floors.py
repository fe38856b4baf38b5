"""Who may import whom: the floors of the design, and no cycles even for lazy or type-only imports."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter

import pytest
from importlinter.cli import lint_imports

from support.source_tree import ROOT, Module, imports, modules


def test_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """Every import-linter contract of pyproject.toml is kept."""
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)

    assert code == 0, capsys.readouterr().out


def test_no_import_cycles() -> None:
    """No module reaches itself by imports, wherever in the file they stand."""
    graph = {module.name: imports(module) for module in modules()}

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(error.args[1]))


def test_a_lazy_import_counts() -> None:
    """The graph sees an import inside a function and one kept for type checkers only."""
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from agentmem.config import MemoryConfig\n"
        "def f():\n    from agentmem import errors\n"
    )
    module = Module("agentmem.sample", ROOT / "agentmem" / "sample.py", ast.parse(source))

    assert imports(module) == {"agentmem.config", "agentmem.errors"}


def test_source_roots_stay_namespace_folders() -> None:
    """adapters/ and kernels/ hold no __init__.py: it would shadow Hugging Face's `kernels`."""
    for folder in ("adapters", "kernels"):
        assert not (ROOT / folder / "__init__.py").exists()
