"""Builds llama-cpp-python for this machine, in an environment of its own inside the cache.

    python -m benchmarks.speed.llama_build

Compiled from source for this processor, as a user who wants speed would have it. Measures nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv

from agentmem.engine.cache import default_cache
from benchmarks.speed.sides import built_python


def main() -> int:
    """Build; returns pip's exit code."""
    python = built_python(default_cache())
    if not python.exists():
        venv.create(python.parent.parent, with_pip=True)
    cores = str(os.cpu_count() or 1)
    environment = {**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON", "CMAKE_BUILD_PARALLEL_LEVEL": cores}
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--no-binary",
        "llama-cpp-python",
        "llama-cpp-python",
        "numpy",
    ]
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode == 0:
        print(f"built; python -m benchmarks.speed --peer llamacpp finds it ({python})")
    else:
        print("pip could not build llama-cpp-python: see above. It needs a C++ compiler.", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
