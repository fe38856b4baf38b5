"""The repository as text: its files, its modules parsed, its import graph. Imports nothing it reads."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"agentmem": ROOT, "langchain_agentmem": ROOT / "adapters", "agentmem_kernels": ROOT / "kernels"}
"""Import name -> the folder it is imported from."""


@dataclass(frozen=True)
class Module:
    """One Python file of a package: its dotted name, its place and its syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def relative(self) -> str:
        """The path below the repository's root, with slashes."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def is_package(self) -> bool:
        """Whether this is a package's ``__init__.py``."""
        return self.path.name == "__init__.py"

    @property
    def summary(self) -> str:
        """The first sentence of the docstring, without its full stop; "" when there is none."""
        text = (ast.get_docstring(self.tree) or "").split("\n\n")[0].replace("\n", " ")
        return text.split(". ")[0].rstrip(".")


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the three packages, sorted by path."""
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted((folder / package).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path, parse(path)))
    return tuple(found)


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def scripts(folder: str) -> tuple[Path, ...]:
    """The Python files of a folder outside the packages, sorted."""
    return tuple(sorted((ROOT / folder).rglob("*.py")))


@cache
def tracked() -> tuple[Path, ...]:
    """Files git knows or would add; from an unpacked archive, every file that is not a cache."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode == 0:
        paths = [ROOT / row for row in listing.stdout.split("\0") if row]
    else:
        hidden = (".venv", "__pycache__", ".git")
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith(hidden) for part in path.parts)]
    return tuple(sorted(path for path in paths if path.is_file()))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports(module: Module) -> set[str]:
    """Names of the packages' modules this one imports anywhere: at the top, in functions, for types."""
    known = {other.name for other in modules()}
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found |= {name for name in ([whole] if whole in known else [base]) if name in known}
    return found - {module.name}


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + int(module.is_package)]
    return ".".join([*parts, *([node.module] if node.module else [])])
