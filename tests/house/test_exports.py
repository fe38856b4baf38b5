"""The public names: what a package exports is listed, sorted, importable, and nothing else is public."""

from __future__ import annotations

import importlib
import types

import pytest

from support.source_tree import PACKAGES, ROOT


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_all_lists_every_public_name(package: str) -> None:
    """`__all__` is sorted, each of its names exists, and every public name that is no module is in it."""
    module = importlib.import_module(package)
    exported = list(getattr(module, "__all__", []))
    public = {
        name
        for name in {*dir(module), *vars(module)}
        if not name.startswith("_") and not isinstance(getattr(module, name), types.ModuleType)
    }

    assert exported == sorted(exported)
    assert set(exported) - {"__version__"} == public - {"annotations"}
    assert all(hasattr(module, name) for name in exported)


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_are_typed(package: str) -> None:
    """Each package ships the marker that lets a user's type checker read it."""
    assert (PACKAGES[package] / package / "py.typed").is_file()
    assert (ROOT / "LICENSE").is_file()


def test_the_typed_example_uses_the_whole_api() -> None:
    """tests/typing/api.py, which mypy checks as user code, calls every public method of AgentMemory."""
    from agentmem import AgentMemory

    code = (ROOT / "tests" / "typing" / "api.py").read_text(encoding="utf-8")
    public = {name for name in vars(AgentMemory) if not name.startswith("_")}
    unused = {name for name in public if f".{name}" not in code}

    assert unused <= {"tokenizer", "config", "tokens_held", "aobserve", "generate_stream"}
