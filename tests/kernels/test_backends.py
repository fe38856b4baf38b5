"""Who runs a kernel: what is asked for by name runs or fails, "auto" falls back, and says so nowhere twice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from agentmem_kernels import BackendError, accelerated, backends, block_masses

PLAIN = torch.zeros(2, 3, 8)
BLOCKS = torch.zeros(2, 4, 1, 8)


def _alone(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run in a fresh process without the interpreter."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | variables
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_auto_on_the_cpu_is_torch() -> None:
    """Also where the interpreter would run."""
    assert not accelerated(PLAIN)
    assert not accelerated(PLAIN, "torch")


def test_an_unknown_backend_is_refused() -> None:
    """With the names there are."""
    with pytest.raises(BackendError, match="'numpy' is unknown; use auto, torch, native or triton"):
        block_masses(PLAIN, BLOCKS, backend="numpy")


def test_triton_for_the_cpu_is_an_error_with_a_remedy() -> None:
    """Compiled kernels do not run on a CPU, and nothing falls back silently."""
    code = (
        "import torch\nfrom agentmem_kernels import BackendError, block_masses\n"
        "try:\n    block_masses(torch.zeros(2, 3, 8), torch.zeros(2, 4, 1, 8), backend='triton')\n"
        "except BackendError as error:\n    print(error)\n"
    )
    done = _alone(code)

    assert done.returncode == 0, done.stderr
    assert "backend='triton' cannot run: " in done.stdout and "use backend='auto'" in done.stdout


def test_the_variable_says_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """AGENTMEM_KERNELS=triton makes every call explicit; a wrong name is refused by the first kernel."""
    code = (
        "import torch\nfrom agentmem_kernels import BackendError, accelerated\n"
        "try:\n    print(accelerated(torch.zeros(1)))\nexcept BackendError as error:\n    print(error)\n"
    )
    assert "backend='triton' cannot run" in _alone(code, AGENTMEM_KERNELS="triton").stdout

    monkeypatch.setattr(backends, "_AUTO", "torch")
    assert not accelerated(PLAIN)
    monkeypatch.setattr(backends, "_AUTO", "cuda")
    with pytest.raises(BackendError, match="'cuda' is unknown"):
        accelerated(PLAIN)


def test_what_triton_cannot_build_goes_to_torch_for_good(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On "auto" one refusal is enough; asked for by name it is an error each time."""
    from triton.runtime.errors import OutOfResources

    tried: list[str] = []

    def too_large() -> str:
        tried.append("triton")
        raise OutOfResources(2, 1, "shared memory")

    monkeypatch.setattr(backends, "_refused", set())
    monkeypatch.setattr(backends, "_AUTO", "auto")
    monkeypatch.setattr(backends, "accelerated", lambda _, backend="auto": backend != "torch")

    def run(backend: backends.Backend) -> str:
        return backends.first_that_runs(
            "large", torch.zeros(1, device=device), backend, too_large, lambda: "torch"
        )

    assert [run("auto"), run("auto"), run("torch")] == ["torch"] * 3
    assert tried == ["triton"]
    with pytest.raises(BackendError, match="cannot build large here"):
        run("triton")


def test_a_fault_of_our_own_is_not_hidden(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what Triton cannot build falls back; any other error is raised."""

    def broken() -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(backends, "accelerated", lambda *_: True)
    with pytest.raises(ZeroDivisionError):
        backends.first_that_runs("broken", torch.zeros(1), "auto", broken, lambda: "torch")
