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
    "atrack",
    "close_memories",
    "memory_tools",
    "track",
]
EXTRAS = {
    "AgentMemoryMiddleware": "langchain",
    "AgentMemorySaver": "checkpoint",
    "AsyncAgentMemorySaver": "checkpoint",
}
"""What needs more than the plain installation, and the extra that brings it."""
CORE = [name for name in PUBLIC if name not in EXTRAS]
OPTIONAL = ("langchain", "langgraph", "llguidance")
WITHOUT_THEM = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def _printed(code: str) -> dict[str, str]:
    """What a fresh process prints as JSON."""
    paths = [str(ROOT), str(ROOT / "adapters"), str(ROOT / "kernels")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


def test_the_public_names() -> None:
    """These names are the adapter's; each can be loaded, and there are no others."""
    assert langchain_agentmem.__all__ == PUBLIC
    assert all(getattr(langchain_agentmem, name) is not None for name in PUBLIC)
    with pytest.raises(AttributeError, match="no_such_name"):
        langchain_agentmem.no_such_name  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Neither torch nor transformers nor anything of LangChain is loaded before it is needed."""
    loaded = _printed("import json, sys, langchain_agentmem; print(json.dumps(dict.fromkeys(sys.modules)))")

    assert "langchain_agentmem" in loaded
    assert {name.partition(".")[0] for name in loaded}.isdisjoint(
        {"torch", "transformers", "langchain_core", "pydantic", *OPTIONAL}
    )


def test_what_works_without_the_extras() -> None:
    """Where langchain, langgraph and llguidance are missing, the rest loads, and asking for more names the extra."""
    code = f"""{WITHOUT_THEM}
import json, langchain_agentmem
from langchain_agentmem import {", ".join(CORE)}
told = {{"model": ChatInfLLM(model="x").model}}
for name in {EXTRAS}:
    try:
        getattr(langchain_agentmem, name)
    except ImportError as error:
        told[name] = f"{{type(error).__name__}}: {{error}}"
print(json.dumps(told))
"""
    told = _printed(code)

    assert told.pop("model") == "x"
    assert set(told) == set(EXTRAS)
    for name, extra in EXTRAS.items():
        assert told[name].startswith("MissingExtraError: ")
        assert f"pip install 'agentmem-kv[{extra}]'" in told[name]
