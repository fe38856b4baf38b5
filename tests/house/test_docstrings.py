"""Words: every test says what it holds to be true, every module what it is."""

from __future__ import annotations

import ast

from support.source_tree import ROOT, functions, modules, parse, scripts


def test_every_test_states_its_behaviour() -> None:
    """Each test function has a docstring."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in scripts("tests")
        for node in functions(parse(path))
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]

    assert silent == []


def test_every_module_says_what_it_is() -> None:
    """Each module, example and benchmark opens with a docstring that reads as a sentence."""
    paths = [module.path for module in modules()] + [*scripts("examples"), *scripts("benchmarks")]
    silent = [
        str(path.relative_to(ROOT))
        for path in paths
        if len((ast.get_docstring(parse(path)) or "").split()) < 3
    ]

    assert silent == []


def test_test_files_have_distinct_names() -> None:
    """No two test files share a name, so that a failure names one file."""
    names = [path.name for path in scripts("tests") if path.name.startswith("test_")]

    assert sorted({name for name in names if names.count(name) > 1}) == []
