"""Sizes: a module holds one idea, a function one step. Exceptions are listed, each with its reason."""

from __future__ import annotations

from support.source_tree import functions, modules

MODULE_LINES = 400
FUNCTION_LINES = 60

ALLOWED_MODULES = {
    "agentmem/agent/memory.py": "the public face: one short method for each verb, each with its full docstring",
}
"""Path -> why this file may be longer."""
ALLOWED_FUNCTIONS: dict[str, str] = {}
"""Path:name -> why this function may be longer."""


def test_modules_are_short() -> None:
    """No module is longer than the budget, and no exception is listed without need."""
    lengths = {module.relative: len(module.path.read_text().splitlines()) for module in modules()}
    long = {path for path, lines in lengths.items() if lines > MODULE_LINES}

    assert long == set(ALLOWED_MODULES)


def test_functions_are_short() -> None:
    """No function is longer than the budget, docstring included, and no exception is needless."""
    lengths = {
        f"{module.relative}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module in modules()
        for node in functions(module.tree)
    }
    long = {name for name, lines in lengths.items() if lines > FUNCTION_LINES}

    assert long == set(ALLOWED_FUNCTIONS)
