"""What importing the adapter loads, and what happens where an optional dependency is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import langchain_agentmem
from support.source_tree import ROOT

PUBLIC = [
    "AgentMemoryCallback",
    "AgentMemoryMiddleware",
    "AgentMemoryRetriever",
    "AgentMemorySaver",
    "AsyncAgentMemoryCallback",
    "AsyncAgentMemorySaver",
    "ChatInfLLM",
    "close_memories",
    "memory_tools",
]
CORE = [
    name
    for name in PUBLIC
    if name not in {"AgentMemoryMiddleware", "AgentMemorySaver", "AsyncAgentMemorySaver"}
]
"""What needs nothing beyond the plain installation."""
OPTIONAL = ("langchain", "langgraph", "llguidance")

LOADED = """
import json, sys
{code}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
WITHOUT = """
import sys, warnings

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import langchain_agentmem
{code}
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), str(ROOT / "adapters"), str(ROOT / "kernels")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def _loaded(code: str) -> set[str]:
    result = _run(LOADED.format(code=code))
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout))


def test_the_public_names() -> None:
    """These names are the adapter's; each can be loaded, and there are no others."""
    assert langchain_agentmem.__all__ == PUBLIC
    assert all(getattr(langchain_agentmem, name) is not None for name in PUBLIC)
    with pytest.raises(AttributeError, match="no_such_name"):
        langchain_agentmem.no_such_name  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Neither torch nor transformers nor anything of LangChain is loaded before it is needed."""
    heavy = {"torch", "transformers", "langchain_core", "pydantic", *OPTIONAL}

    assert _loaded("import langchain_agentmem") & heavy == set()


def test_the_chat_model_loads_no_optional_dependency() -> None:
    """ChatInfLLM, callbacks, tools and retriever stand on langchain-core alone."""
    names = ", ".join(CORE)

    assert _loaded(f"from langchain_agentmem import {names}") & set(OPTIONAL) == set()


def test_the_core_works_without_the_extras() -> None:
    """Where langchain, langgraph and llguidance cannot be imported, everything else can."""
    code = f"from langchain_agentmem import {', '.join(CORE)}\nprint(ChatInfLLM(model='x').model)"
    result = _run(WITHOUT.format(missing=OPTIONAL, code=code))

    assert result.returncode == 0, result.stderr
    assert result.stdout == "x\n"


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [
        ("AgentMemoryMiddleware", ("langchain",), "agentmem-kv[langchain]"),
        ("AgentMemoryMiddleware", ("langgraph",), "agentmem-kv[langchain]"),
        ("AgentMemorySaver", ("langgraph",), "agentmem-kv[checkpoint]"),
        ("AsyncAgentMemorySaver", ("langgraph",), "agentmem-kv[checkpoint]"),
    ],
)
def test_a_missing_extra_is_named(name: str, missing: tuple[str, ...], extra: str) -> None:
    """Asking for a part whose dependency is missing says what to install."""
    code = f"try:\n    langchain_agentmem.{name}\nexcept ImportError as error:\n    print(type(error).__name__, error)"
    result = _run(WITHOUT.format(missing=missing, code=code))

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("MissingExtraError") and f"pip install '{extra}'" in result.stdout
