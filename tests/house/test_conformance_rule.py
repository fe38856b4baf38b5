"""The rule that `make conformance` ends with: how many items must pass, and which may be left out."""

from __future__ import annotations

import importlib.util
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from support.source_tree import ROOT


@pytest.fixture(scope="module")
def rule() -> ModuleType:
    """The suite's conftest, as a module."""
    spec = importlib.util.spec_from_file_location("rule", ROOT / "tests" / "conformance" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _outcome(rule: ModuleType, **changed: list[str]) -> dict[str, list[str]]:
    """The best outcome there can be, changed."""
    best = {
        "passed": [f"test_{number}" for number in range(rule.FEWEST)],
        "skipped": sorted(rule.SKIPPED),
        "xfailed": [*rule.XFAILED] * 2,
    }
    return {outcome: [] for outcome in rule.OUTCOMES} | best | changed


def _config(*arguments: str, keyword: str = "") -> Any:
    options = SimpleNamespace(keyword=keyword, markexpr="", collectonly=False)
    return SimpleNamespace(option=options, args=list(arguments))


def test_all_that_can_pass_must_pass(rule: ModuleType) -> None:
    """50 items of which 42 pass are enough, and not one fewer; an item that vanished is noticed."""
    whole = _outcome(rule)
    passed = whole["passed"]

    assert rule._faults(whole, _config("tests/conformance")) == []
    assert rule._faults(_outcome(rule, passed=passed[1:], failed=passed[:1]), _config("tests/conformance"))
    assert rule._faults(_outcome(rule, passed=passed[1:]), _config("tests/conformance"))
    assert sum(map(len, whole.values())) == rule.ITEMS == 50


@pytest.mark.parametrize("outcome", ["skipped", "xfailed"])
def test_only_named_items_may_be_left_out(rule: ModuleType, outcome: str) -> None:
    """A skip or an expected failure of any other item is a fault, however many pass."""
    changed = {outcome: [*_outcome(rule)[outcome], "test_invoke because"]}

    faults = rule._faults(_outcome(rule, **changed), _config("tests/conformance"))

    assert f"test_invoke because was {outcome}" in faults


def test_parts_and_missing_models_are_not_judged(rule: ModuleType) -> None:
    """A run of a part is no verdict, nor is one without the models: its skips are failures in CI."""
    nothing = _outcome(rule, passed=[], skipped=["test_invoke smollm2-135m is not in the cache: ..."])

    assert rule._faults(_outcome(rule, passed=[]), _config("tests/conformance", keyword="invoke")) == []
    assert rule._faults(_outcome(rule, passed=[]), _config("tests/conformance/x.py::T::test_invoke")) == []
    assert rule._faults(nothing, _config("tests/conformance")) == []
