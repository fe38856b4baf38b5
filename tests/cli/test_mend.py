"""repair and reencode on real agents: a tiny random model, the files a user would have."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agentmem.cli.app import app
from support.tiny_folder import write_chat_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder."""
    return write_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def ada(model: Path, tmp_path: Path) -> Path:
    """A home where ada was told one thing."""
    home = tmp_path / "home"
    told(home, "run", "ada", "My dog is called Biscuit.", "--model", str(model), "--max-tokens", "6")
    return home


def run(home: Path, *arguments: str) -> Result:
    """Run a verb."""
    return CliRunner().invoke(app, [*arguments, "--home", str(home)])


def told(home: Path, *arguments: str) -> Any:
    """What a verb that must succeed says with --json."""
    result = run(home, *arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def harm(home: Path) -> None:
    """Cut the only segment."""
    (segment,) = home.glob("agents/*/kv/*")
    os.truncate(segment, 5000)


def test_repair_brings_the_bits_back(ada: Path) -> None:
    """Said first, then done; afterwards verify is content and nothing is left to do."""
    harm(ada)
    assert run(ada, "verify", "ada").exit_code == 3
    planned = told(ada, "repair", "ada", "--dry-run")
    assert planned["report"]["dry_run"] and run(ada, "verify", "ada").exit_code == 3
    done = told(ada, "repair", "ada")
    assert {row["outcome"] for row in done["report"]["ranges"]} == {"exact"}
    assert run(ada, "verify", "ada").exit_code == 0
    assert "nothing is damaged" in run(ada, "repair", "ada").stdout


def test_what_is_only_set_aside_is_three(ada: Path) -> None:
    """The agent can be used, and the exit code says that something is left; a repair ends it."""
    harm(ada)
    result = run(ada, "repair", "ada", "--set-aside")
    assert result.exit_code == 3
    assert "set aside" in result.stdout
    assert run(ada, "run", "ada", "Well?", "--max-tokens", "3").exit_code == 0
    assert run(ada, "repair", "ada").exit_code == 0
    assert run(ada, "verify", "ada").exit_code == 0


def test_a_damaged_index_is_built_anew(ada: Path) -> None:
    """It cannot be opened; repair salvages it first, says what is lost, and the agent goes on."""
    (index,) = ada.glob("agents/*/agent.db")
    with sqlite3.connect(index) as db:
        db.execute("UPDATE tallies SET n = n + 1 WHERE name = 'turns'")
    db.close()
    assert run(ada, "run", "ada", "Well?", "--max-tokens", "3").exit_code == 3
    planned = run(ada, "repair", "ada", "--dry-run", "--json")
    assert json.loads(planned.stdout)["salvage"]["dry_run"]
    assert told(ada, "repair", "ada")["salvage"]["wordless"] == []
    assert run(ada, "verify", "ada").exit_code == 0
    with sqlite3.connect(index) as db:
        db.execute("UPDATE turns SET messages = '[]' WHERE id = 1")
    db.close()
    result = run(ada, "repair", "ada")
    assert result.exit_code == 3
    assert "turn 1: its words are lost" in result.stdout
    assert run(ada, "run", "ada", "Well?", "--max-tokens", "3").exit_code == 0


def test_reencode_moves_to_another_model(ada: Path, model: Path, tmp_path: Path) -> None:
    """As a new agent, then in place; the old model is not needed for it."""
    other = write_chat_model(tmp_path / "other", "qwen2.5", seed=5)
    old = shutil.copytree(model, tmp_path / "old")
    told(ada, "run", "bob", "My cat is called Tom.", "--model", str(old), "--max-tokens", "3")
    shutil.rmtree(old)
    new = told(ada, "reencode", "ada", "--model", str(other), "--as", "eve")
    assert (new["agent"], new["turns"]) == ("eve", 1)
    assert told(ada, "history", "eve")[0]["messages"] == told(ada, "history", "ada")[0]["messages"]
    assert run(ada, "reencode", "bob", "--model", str(other)).exit_code == 0
    assert told(ada, "run", "bob", "Well?", "--max-tokens", "3")["usage"]["output_tokens"] == 3
    assert {row["agent_id"] for row in told(ada, "list")} == {"ada", "bob", "eve"}
    assert run(ada, "reencode", "ada", "--model", str(other), "--as", "eve").exit_code == 1
