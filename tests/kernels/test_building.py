"""How the compiled kernels come to be: whole or not at all, by this user alone, and torch's operations where they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentmem_kernels import on_cpu
from agentmem_kernels.on_cpu import building

pytestmark = pytest.mark.skipif(
    on_cpu.hindrance() is not None, reason=f"no kernels in C: {on_cpu.hindrance()}"
)
RUN = (
    "import torch\nfrom agentmem_kernels import BackendError, attend, on_cpu\n"
    "q = torch.ones(1, 1, 1, 8).bfloat16()\n"
    "print(on_cpu.hindrance())\nprint(attend(q, q, q, scaling=1.0).flatten().tolist())\n"
    "try:\n    attend(q, q, q, scaling=1.0, backend='native')\nexcept BackendError as error:\n    print(error)\n"
)


def _alone(folder: Path, **variables: str) -> list[str]:
    """What a fresh process with a cache of its own says: the hindrance, a result, and an error if there is one."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder)} | variables
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _kept(folder: Path) -> list[Path]:
    return sorted((folder / "agentmem-kernels").iterdir())


def test_it_is_compiled_once_and_kept(tmp_path: Path) -> None:
    """A second process takes what the first one made; nothing else is left, and nobody else may read or write it."""
    assert _alone(tmp_path) == ["None", str([1.0] * 8)]
    (made,) = _kept(tmp_path)
    before = made.stat()
    assert _alone(tmp_path)[0] == "None"
    assert _kept(tmp_path) == [made] and made.stat().st_ino == before.st_ino
    assert before.st_mode & 0o777 == 0o700 and made.parent.stat().st_mode & 0o777 == 0o700


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    """Cut off by a full disk or a power cut: found by loading it."""
    _alone(tmp_path)
    (made,) = _kept(tmp_path)
    whole = made.read_bytes()
    made.write_bytes(whole[: len(whole) // 2][:100])
    assert _alone(tmp_path)[0] == "None"
    assert _kept(tmp_path)[0].stat().st_size == len(whole)


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("a-compiler-that-is-not-there", "there is no C compiler; install gcc or clang"),
        ("false", "failed (nothing); set CC to another compiler"),
    ],
)
def test_without_a_compiler_torch_computes(tmp_path: Path, compiler: str, said: str) -> None:
    """Nothing falls back when it was asked for by name; nothing half made is left."""
    hindrance, result, error = _alone(tmp_path, CC=compiler)
    assert said in hindrance and result == str([1.0] * 8)
    assert error == f"backend='native' cannot run: {hindrance}, or use backend='auto'"
    folder = tmp_path / "agentmem-kernels"
    assert not folder.exists() or not _kept(tmp_path)


def test_what_others_may_write_is_not_loaded(tmp_path: Path) -> None:
    """A folder or a file that is open to others, or a link."""
    _alone(tmp_path)
    (made,) = _kept(tmp_path)
    made.chmod(0o722)
    assert "others than you own it or may write it" in _alone(tmp_path)[0]
    made.chmod(0o700)
    made.parent.chmod(0o777)
    assert "others than you own it or may write it" in _alone(tmp_path)[0]
    made.parent.chmod(0o700)
    elsewhere = tmp_path / "elsewhere.so"
    made.rename(elsewhere)
    made.symlink_to(elsewhere)
    assert "is a link" in _alone(tmp_path)[0]


def test_where_nothing_can_be_kept_torch_computes(tmp_path: Path) -> None:
    """The cache is a file: the hindrance says so, and what to set."""
    blocked = tmp_path / "cache"
    blocked.write_text("")
    hindrance, result, _ = _alone(blocked)
    assert "cannot be kept" in hindrance and "set XDG_CACHE_HOME" in hindrance and result == str([1.0] * 8)


def test_each_source_is_part_of_the_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another text, flag or compiler is another file, so an old one is never taken for a new one."""
    compiler = building._compiler()
    before = building._fingerprint(compiler)
    assert building._fingerprint([*compiler, "-O1"]) != before
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, "-g"))
    assert building._fingerprint(compiler) != before
    monkeypatch.undo()
    for name in (*building.SOURCES, *building.HEADERS):
        (tmp_path / name).write_text((building._HERE / name).read_text() + "/* */")
    monkeypatch.setattr(building, "_HERE", tmp_path)
    assert building._fingerprint(compiler) != before
