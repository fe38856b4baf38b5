"""agentmem chat on a real (pseudo-)terminal, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.terminal import Terminal
from support.tiny_folder import write_chat_model

PROMPT = "› "


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder."""
    return write_chat_model(tmp_path_factory.mktemp("model"))


def chat(home: Path, model: Path, *options: str) -> Terminal:
    """The chat with ada, starting."""
    command = [
        sys.executable,
        "-m",
        "agentmem.cli",
        "chat",
        "ada",
        "--home",
        str(home),
        "--model",
        str(model),
    ]
    return Terminal([*command, *options])


def test_a_conversation_goes_on_in_another_process(tmp_path: Path, model: Path) -> None:
    """Talk, leave with Ctrl-D, come back: the second chat starts with what is held and reads nothing again."""
    with chat(tmp_path, model, "--max-tokens", "4") as first:
        first.wait_for("new agent ada")
        first.write("My dog is called Biscuit.\n")
        first.wait_for("0 re-read")
        first.wait_for(PROMPT, after=first.wait_for("4 written"))
        first.write("\x04")
        assert first.end() == 0

    with chat(tmp_path, model, "--max-tokens", "4") as second:
        second.wait_for("resumed ada: 1 turn, ")
        second.wait_for("held, 0 re-read")
        second.wait_for(PROMPT)
        second.write("/history\n")
        second.wait_for("My dog is called Biscuit.")
        second.write("/search biscuit\n")
        second.wait_for("user: My dog is called Biscuit.")
        second.write("/explain\n")
        second.wait_for("nothing was recalled")
        second.write("/fork eve\n")
        second.wait_for("eve now has this past")
        second.write("/forget 1\n")
        second.wait_for("rebuild")
        second.write("/nonsense\n")
        second.wait_for("there is no /nonsense")
        second.write("/help\n")
        second.wait_for("/bye")
        second.write("/bye\n")
        assert second.end() == 0


def test_ctrl_c_takes_the_turn_back(tmp_path: Path, model: Path) -> None:
    """Ctrl-C stops a reply and leaves the state before the turn; at the prompt it only says how to leave."""
    with chat(tmp_path, model, "--max-tokens", "100000") as room:
        room.wait_for(PROMPT)
        room.write("Talk for ever.\n")
        shown = room.wait_for("Talk for ever.\n")
        room.wait_for_more(shown + 20)
        room.interrupt()
        stopped = room.wait_for("this turn was not kept")
        room.wait_for(PROMPT, after=stopped)
        room.interrupt_until("Ctrl-D or /bye leaves", after=stopped)
        room.write("/history\n/bye\n")
        assert room.end() == 0
        assert "Talk for ever." not in room.screen[stopped:]


def test_a_paste_is_one_message(tmp_path: Path, model: Path) -> None:
    """Several lines that arrive at once become one turn, and so do lines that end in a backslash."""
    with chat(tmp_path, model, "--max-tokens", "3") as room:
        room.wait_for(PROMPT)
        room.write("first line\nsecond line\nthird line\n")
        room.wait_for("3 written")
        answered = room.wait_for(PROMPT, after=room.wait_for("written"))
        room.write("fourth \\\n")
        room.wait_for("… ", after=answered)
        room.write("fifth\n")
        answered = room.wait_for("written", after=answered)
        room.wait_for(PROMPT, after=answered)
        room.write("/history\n")
        room.wait_for("first line second line third line", after=answered)
        room.wait_for("fourth fifth", after=answered)
        room.write("/bye\n")
        assert room.end() == 0
