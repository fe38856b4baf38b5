"""What no file may hold: ways to run stored bytes as code, and traces of one machine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.source_tree import ROOT, modules, parse, scripts, tracked

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {("torch", "load"), ("yaml", "load"), ("os", "system"), ("torch", "save")}
HOSTS = {
    "arxiv.org",
    "example.com",
    "example.org",
    "github.com",
    "huggingface.co",
    "json.schemastore.org",
    "keepachangelog.com",
    "semver.org",
    "www.apache.org",
}
"""Hosts a document may point at; package indexes and machines of ours are not among them."""
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".csv", ".cfg", ".yml", ".yaml", ".sh", ""}


def violations(tree: ast.AST) -> list[str]:
    """Imports and calls through which bytes could become code, as "what (line)"."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [f"import {a.name}" for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(f"from {node.module}")
        elif isinstance(node, ast.Call):
            name = node.func
            if isinstance(name, ast.Name) and name.id in CALLS:
                found.append(f"{name.id} (line {node.lineno})")
            elif isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name):
                pair = (name.value.id, name.attr)
                found += [f"{'.'.join(pair)} (line {node.lineno})"] if pair in METHODS else []
            found += [
                f"{key.arg}=True (line {node.lineno})"
                for key in node.keywords
                if key.arg in {"shell", "trust_remote_code", "allow_pickle"}
                and isinstance(key.value, ast.Constant)
                and key.value.value is True
            ]
    return found


def test_no_bytes_become_code() -> None:
    """No package, example or benchmark unpickles, evaluates, or opens a shell."""
    paths = [module.path for module in modules()] + [*scripts("examples"), *scripts("benchmarks")]
    found = {path.relative_to(ROOT).as_posix(): violations(parse(path)) for path in paths}

    assert {path: rows for path, rows in found.items() if rows} == {}


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from marshal import loads", "eval('1')", "torch.load(f)", "run('x', shell=True)"],
)
def test_the_check_sees_each_way(line: str) -> None:
    """The rule above catches every way it names, and lets model.eval() be."""
    assert violations(ast.parse(line))
    assert violations(ast.parse("model.eval()")) == []


def _texts() -> list[Path]:
    return [path for path in tracked() if path.suffix in TEXT and path.stat().st_size < 2_000_000]


def test_no_machine_paths() -> None:
    """No tracked file names a folder of the machine it was written on."""
    folders = ["work", "tmp", "root", "home/[a-z]", "Users/[a-z]"]
    pattern = re.compile(r"(?<![\w.*}~)-])/(?:" + "|".join(folders) + r")(?:/|\b)")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in _texts()
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]

    assert found == []


def test_links_point_at_public_places() -> None:
    """Every address in a tracked file belongs to a listed public host, or to this machine."""
    pattern = re.compile(r"\bhttps?://([\w.-]+)")
    found = {
        f"{path.relative_to(ROOT)}: {host}"
        for path in _texts()
        for host in pattern.findall(path.read_text(errors="replace"))
        if host not in HOSTS | {"localhost", "127.0.0.1"}
    }

    assert found == set()
