"""Objects are complete when constructed: an attribute is born in `__init__`, or declared by the class."""

from __future__ import annotations

import ast

import pytest

from support.source_tree import modules

BIRTH = {"__init__", "__new__", "__post_init__", "model_post_init"}


def late_births(tree: ast.AST, known: dict[str, ast.ClassDef]) -> list[str]:
    """Attributes that a method other than the constructor creates, as "Class.name (line)"."""
    found = []
    for cls in [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
        born = _declared(cls, known)
        for method in cls.body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and method.name not in BIRTH:
                found += [
                    f"{cls.name}.{name} (line {line})" for name, line in _stores(method) if name not in born
                ]
    return found


def _declared(cls: ast.ClassDef, known: dict[str, ast.ClassDef]) -> set[str]:
    names: set[str] = set()
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            names |= _slots(node)
        elif isinstance(node, ast.FunctionDef):
            if node.name in BIRTH:
                names |= {name for name, _ in _stores(node)}
            if any(isinstance(item, ast.Attribute) and item.attr == "setter" for item in node.decorator_list):
                names.add(node.name)
    for base in cls.bases:
        parent = known.get(base.id) if isinstance(base, ast.Name) else None
        if parent is not None and parent is not cls:
            names |= _declared(parent, known)
    return names


def _slots(node: ast.Assign) -> set[str]:
    if not any(isinstance(target, ast.Name) and target.id == "__slots__" for target in node.targets):
        return set()
    return {item.value for item in ast.walk(node.value) if isinstance(item, ast.Constant)}


def _stores(method: ast.AST) -> list[tuple[str, int]]:
    return [
        (node.attr, node.lineno)
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    ]


def _classes() -> dict[str, ast.ClassDef]:
    return {
        node.name: node
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }


def test_attributes_are_born_in_init() -> None:
    """No method of the packages creates an attribute that its constructor does not know."""
    known = _classes()
    late = {module.relative: late_births(module.tree, known) for module in modules()}

    assert {path: names for path, names in late.items() if names} == {}


@pytest.mark.parametrize(
    ("body", "late"),
    [
        ("def __init__(self): self.a = 1\n def f(self): self.a = 2", []),
        ("def f(self): self.a = 2", ["C.a (line 2)"]),
        ("def f(self): self.a, b = 2, 3", ["C.a (line 2)"]),
        ("a: int = 0\n def f(self): self.a = 2", []),
    ],
)
def test_the_check_sees_late_attributes(body: str, late: list[str]) -> None:
    """The rule above tells a late attribute from a declared one."""
    assert late_births(ast.parse(f"class C:\n {body}\n"), {}) == late
