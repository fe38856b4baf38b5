"""The verbs on real agents: a tiny random model, the files a user would have."""

from __future__ import annotations

import json
import os
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
def home(tmp_path: Path) -> Path:
    """A home without agents."""
    return tmp_path / "home"


@pytest.fixture
def ada(model: Path, home: Path) -> Path:
    """A home where ada was told one thing and asked another."""
    told(home, "run", "ada", "My dog is called Biscuit.", "--model", str(model), "--max-tokens", "6")
    told(home, "run", "ada", "And who are you?", "--at", "2026-03-01", "--max-tokens", "6")
    return home


def run(home: Path, *arguments: str, typed: str | None = None) -> Result:
    """Run a verb."""
    return CliRunner().invoke(app, [*arguments, "--home", str(home)], input=typed)


def told(home: Path, *arguments: str, typed: str | None = None) -> Any:
    """What a verb that must succeed says with --json."""
    result = run(home, *arguments, "--json", typed=typed)
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def test_run_prints_the_reply_and_its_receipt(ada: Path) -> None:
    """The reply is all of stdout; what it cost is one line on stderr."""
    result = run(ada, "run", "ada", "Again?", "--max-tokens", "3")

    assert result.exit_code == 0
    assert result.stdout.endswith("\n")
    assert "0 re-read" in result.stderr
    assert "3 written" in result.stderr


def test_run_reads_a_question_from_stdin(ada: Path) -> None:
    """A dash stands for stdin."""
    reply = told(ada, "run", "ada", "-", "--max-tokens", "3", typed="What is\nmy dog called?\n")

    assert reply["usage"]["output_tokens"] == 3
    assert told(ada, "history", "ada")[-1]["messages"][0]["content"] == "What is\nmy dog called?"


def test_forgetful_leaves_the_memory_alone(ada: Path) -> None:
    """--forgetful answers, and the turn is gone."""
    before = told(ada, "history", "ada")

    assert told(ada, "run", "ada", "Just once", "--forgetful", "--max-tokens", "3")["state_id"] is None
    assert told(ada, "history", "ada") == before


def test_list_shows_every_agent(ada: Path) -> None:
    """One row per agent with turns, tokens, bytes and last use."""
    (row,) = told(ada, "list")
    table = run(ada, "list").stdout

    assert (row["agent_id"], row["turns"]) == ("ada", 2)
    assert row["tokens"] > 0
    assert row["bytes"] > 0
    assert "ada" in table
    assert "2026-03-01" in table


def test_an_empty_home_says_what_to_do(home: Path) -> None:
    """Without agents, list names the command that makes one, and an empty JSON list."""
    assert "agentmem chat NAME" in run(home, "list").stdout
    assert told(home, "list") == []


def test_show_names_model_and_state(ada: Path) -> None:
    """show tells the model, the current state and the settings."""
    shown = told(ada, "show", "ada")

    assert shown["state_id"] == told(ada, "history", "ada")[-1]["state_id"]
    assert shown["config"]["window_tokens"] == 1024
    assert shown["state_id"] in run(ada, "show", "ada").stdout
    assert shown["state_id"][:12] in run(ada, "history", "ada").stdout


def test_history_and_search_need_no_model(ada: Path, model: Path) -> None:
    """What was said can be looked at even when the model is gone."""
    hidden = model.rename(model.with_name("hidden"))
    try:
        turns = told(ada, "history", "ada")
        hits = told(ada, "search", "ada", "biscuit dog")
        listed = run(ada, "history", "ada").stdout
    finally:
        hidden.rename(model)

    assert [turn["messages"][0]["content"] for turn in turns] == [
        "My dog is called Biscuit.",
        "And who are you?",
    ]
    assert [hit["text"] for hit in hits] == ["My dog is called Biscuit."]
    assert "Biscuit" in listed


def test_explain_is_honest_about_a_short_memory(ada: Path) -> None:
    """With everything inside the window nothing was recalled, and explain says so."""
    assert told(ada, "explain", "ada")["blocks"] == []
    assert "Nothing was recalled" in run(ada, "explain", "ada").stdout


def test_observe_reads_a_file_once(ada: Path, tmp_path: Path) -> None:
    """A file is read under its name; repeating it reads nothing more."""
    notes = tmp_path / "notes.txt"
    notes.write_text("The bike lock opens with 4071.\n" * 8, encoding="utf-8")

    first = told(ada, "observe", "ada", str(notes), "--at", "2026-03-02T10:00")
    again = told(ada, "observe", "ada", str(notes))
    last = told(ada, "history", "ada")[-1]

    assert first["tokens_prefilled"] > 0
    assert again["tokens_prefilled"] == 0
    assert again["tokens_held"] == first["tokens_held"]
    assert last["source"] == "notes.txt"
    assert last["created_at"].startswith("2026-03-02T10:00")


def test_observe_refuses_what_is_no_text(ada: Path, tmp_path: Path) -> None:
    """A missing file or one that is not UTF-8 is refused, and nothing changes."""
    before = told(ada, "history", "ada")
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\xff\xfe")

    for path in (picture, tmp_path / "missing.txt"):
        result = run(ada, "observe", "ada", str(path))
        assert result.exit_code == 1
        assert path.name in result.stderr
    assert told(ada, "history", "ada") == before


def test_a_fork_goes_its_own_way(ada: Path) -> None:
    """A fork has the past; what it is told later stays its own."""
    told(ada, "fork", "ada", "ada-2")
    told(ada, "run", "ada-2", "Only you know this.", "--max-tokens", "3")

    assert len(told(ada, "history", "ada-2")) == 3
    assert len(told(ada, "history", "ada")) == 2
    assert run(ada, "fork", "ada", "ada-2").exit_code == 1


def test_rewind_takes_a_state_from_history(ada: Path) -> None:
    """rewind goes back to a state, and forward again, since later turns stay reachable."""
    first, second = (turn["state_id"] for turn in told(ada, "history", "ada"))

    back = told(ada, "rewind", "ada", first[:12])
    assert (back["state_id"], back["before"]) == (first, second)
    assert len(told(ada, "history", "ada")) == 1
    told(ada, "rewind", "ada", second)
    assert len(told(ada, "history", "ada")) == 2
    assert run(ada, "rewind", "ada", "no-such-state").exit_code == 1


def test_forget_says_what_it_would_do_first(model: Path, home: Path) -> None:
    """--dry-run counts and keeps; without it the text is gone from history and search."""
    told(home, "run", "bo", "Hello there. " * 20, "--model", str(model), "--max-tokens", "6")
    told(home, "run", "bo", "My secret is Zanzibar.", "--max-tokens", "6")

    planned = told(home, "forget", "bo", "--match", "zanzibar", "--dry-run")
    assert told(home, "search", "bo", "zanzibar")
    done = told(home, "forget", "bo", "--match", "zanzibar")

    assert (planned["turns"], planned["dry_run"]) == (done["turns"], True)
    assert told(home, "search", "bo", "zanzibar") == []


def test_forgetting_a_first_turn_is_refused(ada: Path) -> None:
    """A turn among the first tokens needs a rebuild: an error in one line, and nothing changes."""
    result = run(ada, "forget", "ada", "--turn", "1")

    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "rebuild" in result.stderr


def test_verify_finds_a_flipped_byte(ada: Path) -> None:
    """A sound agent passes; a flipped byte in a segment is found, with exit code 3."""
    assert told(ada, "verify", "ada")["ok"]
    (segment,) = ada.rglob("*.safetensors")
    size = segment.stat().st_size
    with segment.open("r+b") as file:
        header = int.from_bytes(file.read(8), "little") + 8
        file.seek(header)
        byte = file.read(1)
        file.seek(header)
        file.write(bytes([byte[0] ^ 0xFF]))
    assert segment.stat().st_size == size

    result = run(ada, "verify", "ada", "--json")

    assert result.exit_code == 3
    assert json.loads(result.stdout)["report"]["findings"]


def test_a_busy_agent_is_four(ada: Path, model: Path) -> None:
    """While another writer holds the agent, a verb that writes ends with 4."""
    from agentmem import AgentMemory

    with AgentMemory.resume("ada", home=ada):
        result = run(ada, "run", "ada", "hello", "--max-tokens", "2")

    assert result.exit_code == 4
    assert "ada" in result.stderr


def test_another_model_is_refused(ada: Path, tmp_path: Path) -> None:
    """Opening with other weights fails in one line that names what differs."""
    other = write_chat_model(tmp_path / "other", seed=1)

    result = run(ada, "run", "ada", "hello", "--model", str(other))

    assert result.exit_code == 1
    assert "ada" in result.stderr
    assert result.stderr.count("\n") == 1


def test_export_and_restore(ada: Path, tmp_path: Path) -> None:
    """An exported agent comes back under a new name with the same turns."""
    archive = tmp_path / "ada.agentmem"

    told(ada, "export", "ada", str(archive))
    told(ada, "restore", str(archive), "--as", "eve")

    texts = [
        [turn["messages"][0]["content"] for turn in told(ada, "history", name)] for name in ("ada", "eve")
    ]
    assert texts[0] == texts[1]


def test_rm_asks_first(ada: Path) -> None:
    """Without a terminal to ask on, rm needs --yes; then the agent is gone."""
    assert run(ada, "rm", "ada").exit_code == 2
    assert told(ada, "rm", "ada", "--yes") == {"deleted": ["ada"]}
    assert told(ada, "list") == []
    assert run(ada, "rm", "ada", "--yes").exit_code == 1


@pytest.mark.parametrize("verb", ["show", "history", "explain", "verify"])
def test_an_unknown_agent_is_one(home: Path, verb: str) -> None:
    """Looking at an agent that is not there is an error, and makes none."""
    result = run(home, verb, "nobody")

    assert result.exit_code == 1
    assert "nobody" in result.stderr
    assert told(home, "list") == []


def test_chat_on_a_pipe_answers_each_line(model: Path, home: Path) -> None:
    """With --json, chat answers every line of stdin with a line of JSON: a bot in a pipe."""
    result = run(
        home, "chat", "cy", "--model", str(model), "--max-tokens", "3", "--json", typed="One.\n\nTwo.\n"
    )
    replies = [json.loads(row) for row in result.stdout.splitlines()]

    assert [reply["usage"]["output_tokens"] for reply in replies] == [3, 3]
    assert len(told(home, "history", "cy")) == 2


def test_home_can_come_from_the_environment(ada: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AGENTMEM_HOME says where agents live when --home does not."""
    monkeypatch.setitem(os.environ, "AGENTMEM_HOME", str(ada))

    result = CliRunner().invoke(app, ["list", "--json"])

    assert [row["agent_id"] for row in json.loads(result.stdout)] == ["ada"]


def test_what_is_kept_and_what_is_dropped(model: Path, home: Path) -> None:
    """A first turn goes with --mode rebuild; expired turns go unless pinned; the audit says what went, and why."""
    for text, *options in (
        ["Zanzibar."],
        ["Old.", "--expires", "2020-01-01"],
        ["Older.", "--expires", "2020-01-01"],
    ):
        told(home, "run", "bo", text, "--model", str(model), "--max-tokens", "3", *options)
    told(home, "pin", "bo", "3")
    planned = told(home, "retain", "bo", "--dry-run")
    assert (planned["expired"], planned["needs_rebuild"]) == ([], [2])
    gone = told(home, "forget", "bo", "--match", "zanzibar", "--mode", "rebuild")
    assert (gone["turns"], gone["mode"], len(gone["states"])) == ([1], "rebuild", 2)
    assert told(home, "retain", "bo", "--mode", "rebuild")["expired"] == [2]
    told(home, "pin", "bo", "3", "--off")
    assert told(home, "retain", "bo", "--max-tokens", "0", "--mode", "rebuild")["tokens_left"] == 0
    assert [(row["what"], row["why"], row["turns"]) for row in told(home, "audit", "bo")] == [
        ("rebuild", "match", [1]),
        ("retention", "expired", [2]),
        ("retention", "expired", [3]),
    ]
    assert told(home, "history", "bo") == []
    assert "retention" in run(home, "audit", "bo").stdout
    assert run(home, "retain", "bo").exit_code == run(home, "forget", "bo", "--everything").exit_code == 0


def test_an_unknown_agent_is_told_without_python(home: Path) -> None:
    """A verb for an agent there is none of says how to see which there are."""
    for verb in (["history"], ["fork", "eve"], ["forget", "--turn", "1"], ["verify"]):
        result = run(home, verb[0], "nobody", *verb[1:])
        assert result.exit_code == 1
        assert "agentmem list" in result.stderr
        assert "create=True" not in result.stderr


def test_another_model_is_told_by_name(ada: Path, model: Path, tmp_path: Path) -> None:
    """The refusal begins with the name of the model that is needed."""
    other = write_chat_model(tmp_path / "other", seed=1)

    result = run(ada, "run", "ada", "Hi", "--model", str(other))

    assert result.exit_code == 1
    assert f"agent 'ada' was made with the model {str(model)!r}" in result.stderr


def test_nothing_to_show_is_said_in_words(ada: Path) -> None:
    """A search without hits, an audit without rows and a history without turns are no empty tables."""
    assert run(ada, "search", "ada", "zebra").stdout == "No turn holds these words.\n"
    assert run(ada, "audit", "ada").stdout == "Nothing was dropped from ada.\n"
    told(ada, "forget", "ada", "--everything", "--mode", "rebuild")
    assert run(ada, "search", "ada", "biscuit").stdout == "No turn holds these words.\n"


def test_the_history_shows_sources_and_pins(ada: Path, tmp_path: Path) -> None:
    """The name that quarantine takes stands before the text; so do a pin and a quarantine."""
    notes = tmp_path / "notes.txt"
    notes.write_bytes(b"\xef\xbb\xbfThe fence is green.")  # as some editors write it, with a byte order mark
    told(ada, "observe", "ada", str(notes))
    told(ada, "pin", "ada", "3")
    told(ada, "quarantine", "ada", "notes.txt")

    shown = " ".join(run(ada, "history", "ada").stdout.split())

    assert "notes.txt" in shown
    assert "pinned" in shown
    assert "quarantine" in shown
    assert told(ada, "history", "ada")[-1]["messages"][0]["content"] == "The fence is green."


def test_rewind_takes_what_names_one_state(ada: Path) -> None:
    """The beginning of an id, or "start"; nothing typed is a mistake, and no turn is lost by it."""
    first, second = (turn["state_id"] for turn in told(ada, "history", "ada"))

    assert run(ada, "rewind", "ada", "").exit_code == 1
    assert told(ada, "rewind", "ada", first[:12])["state_id"] == first
    assert run(ada, "rewind", "ada", "").exit_code == 1
    assert told(ada, "rewind", "ada", "start") == {
        "agent": "ada",
        "state_id": None,
        "before": first,
        "tokens_held": 0,
    }
    assert run(ada, "history", "ada").stdout == "ada holds no turns.\n"
    assert told(ada, "rewind", "ada", second)["state_id"] == second
