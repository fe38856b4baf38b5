"""The LangChain examples on a tiny random model: turns are processes of their own, as they are for users."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentmem import AgentMemory
from langchain_agentmem import close_memories
from support.source_tree import ROOT
from support.tiny_folder import write_chat_model

sys.path.insert(0, str(ROOT / "examples"))

import langchain_agent
import langchain_chain
import langchain_script
import langchain_two_users

SCRIPTS = [langchain_chain, langchain_agent, langchain_two_users]
RESTARTED = [langchain_chain, langchain_agent]


def _name(script: object) -> str:
    return script.__name__ if isinstance(script, ModuleType) else ""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder."""
    return str(write_chat_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(autouse=True)
def users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a user's own agents would be: no example may touch it."""
    home = tmp_path / "users-own"
    monkeypatch.setenv("AGENTMEM_HOME", str(home))
    yield home
    close_memories()
    assert not home.exists()


def shown(
    script: ModuleType, model: str, home: Path, capsys: pytest.CaptureFixture[str], code: int = 0
) -> dict[str, Any]:
    """What a script prints with --json."""
    assert script.main(["--json", "--model", model, "--home", str(home)]) == code
    return dict(json.loads(capsys.readouterr().out))


def said(agent: str, home: Path) -> list[str]:
    """What users said to an agent."""
    with AgentMemory.resume(agent, home=home, read_only=True) as memory:
        messages = [message for turn in memory.history() for message in turn.messages]
    return [message["content"] for message in messages if message["role"] == "user"]


def test_the_chain_goes_on_in_a_second_process(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second process holds all of the first one's tokens and reads only its own: not even the system prompt."""
    found = shown(langchain_chain, model, tmp_path / "home", capsys)

    first, second = found["turns"]
    assert first["tokens_held"] == 0
    assert second["tokens_held"] > first["tokens_read"] > second["tokens_read"]
    assert found["resumed"] and found["passed"]
    assert said("ada", tmp_path / "home") == [langchain_chain.TOLD, langchain_chain.ASKED]


def test_the_agent_is_restarted_between_turns(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn uses a tool, is sent a longer list than the one before, and reads less than it holds."""
    monkeypatch.setattr(langchain_agent, "TURNS", langchain_agent.TURNS[:2])  # a process is slow to start

    found = shown(langchain_agent, model, tmp_path / "home", capsys)

    first, second = found["turns"]
    assert first["calls"] and second["calls"]
    assert (first["messages"], first["tokens_held"]) == (1, 0)
    assert second["messages"] > 3
    assert second["tokens_held"] > second["tokens_read"] > 0
    assert found["passed"]
    people = [text for text in said("kitchen", tmp_path / "home") if "tool_response" not in text]
    assert people == list(
        langchain_agent.TURNS
    )  # the answers that were asked for again are on no branch of it


def test_two_users_share_a_bot_and_no_memory(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each memory holds what its own user said, and nothing of the other's."""
    found = shown(langchain_two_users, model, tmp_path / "home", capsys)

    for user, fact in langchain_two_users.FACTS.items():
        assert said(user, tmp_path / "home") == [fact, langchain_two_users.QUESTION]
        assert len(found["users"][user]["answers"]) == 2
    assert set(found["arrived"]) == {"a", "b"}
    assert found["passed"]


def test_mixed_up_memories_are_exit_code_1(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If one memory held the other's fact, the example would say so and fail."""
    facts = list(langchain_two_users.FACTS.values())
    monkeypatch.setattr(langchain_two_users, "remembered", lambda *_: facts)

    assert langchain_two_users.main(["--model", model, "--home", str(tmp_path / "home")]) == 1
    assert "mixed up" in capsys.readouterr().out


@pytest.mark.parametrize("script", RESTARTED, ids=_name)
def test_a_lost_memory_is_exit_code_1(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the later processes held nothing, the examples would print it and fail."""
    turn = {"said": "?", "answer": "!", "calls": [{"tool": {}}], "messages": 1, "list": ["milk", "eggs"]}

    def forgetful(*arguments: object) -> dict[str, Any]:
        return {**turn, "tokens_held": 0, "tokens_read": 9}

    monkeypatch.setattr(langchain_script, "in_a_new_process", forgetful)

    assert script.main(["--home", str(tmp_path / "home")]) == 1
    assert "0 tokens held" in capsys.readouterr().out


def test_a_default_model_that_does_not_answer_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default model has to name the dog; a model that was asked for by name has not."""
    turns = iter([(0, 30), (60, 12)] * 2)

    def silent(*arguments: object) -> dict[str, Any]:
        held, read = next(turns)
        return {"said": "?", "answer": "I do not know.", "tokens_held": held, "tokens_read": read}

    monkeypatch.setattr(langchain_script, "in_a_new_process", silent)

    assert langchain_chain.main(["--home", str(tmp_path / "home")]) == 1
    assert langchain_chain.main(["--home", str(tmp_path / "home"), "--model", "weak"]) == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_help_and_wrong_options(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """--help shows what the example is about and its options; unknown options are exit code 2."""
    with pytest.raises(SystemExit) as helped:
        script.main(["--help"])
    assert helped.value.code == 0
    printed = capsys.readouterr().out
    assert str(script.__doc__).splitlines()[0] in printed
    assert all(option in printed for option in ("--json", "--model", "--home"))

    with pytest.raises(SystemExit) as refused:
        script.main(["--nonsense"])
    assert refused.value.code == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_a_missing_model_is_one_line(script: ModuleType, tmp_path: Path) -> None:
    """An error of agentmem ends a turn with its message, and exit code 1."""
    missing = ["--model", str(tmp_path / "nowhere"), "--home", str(tmp_path / "home")]
    child = ["--child", "Hello."] if script in RESTARTED else []

    with pytest.raises(SystemExit, match=r"error: .*nowhere"):
        script.main([*missing, *child])


def test_a_failed_process_ends_the_example(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What the process of a turn says reaches the terminal, and its exit code is the example's."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; print('error: out of luck', file=sys.stderr); sys.exit(3)", encoding="utf-8"
    )

    with pytest.raises(SystemExit) as ended:
        langchain_script.in_a_new_process(
            str(script), "Hello.", argparse.Namespace(model=None), str(tmp_path)
        )

    assert ended.value.code == 3
    assert "error: out of luck" in capfd.readouterr().err


def test_without_a_home_a_temporary_one_is_used(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is left behind; the fixture sees to it that the user's own folder is not touched."""
    assert langchain_two_users.main(["--model", model]) == 0

    assert "Neither memory holds the other's facts." in capsys.readouterr().out
