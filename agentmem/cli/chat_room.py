"""The terminal chat: streams replies, knows the slash commands, shows a dim receipt after each reply.

Knows the public API of one open memory; which verb opened it and with what options is not its business.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import agentmem
from agentmem.agent.receipts import Reply
from agentmem.cli.shown import console, count, date, harmless, line, took
from agentmem.cli.typed import read_message
from agentmem.errors import AgentMemError

HELP = """\
/explain         what fed the last reply: recalled text, its turn, date and share of attention
/history [N]     the last turns, with their numbers
/search WORDS    turns that hold all of these words
/forget TURN     drop a turn for good
/fork NEW        a second agent with the same past
/bye             leave (also Ctrl-D)
Ctrl-C stops a reply and takes the turn back. A line that ends in \\ goes on. A paste is one message."""


class ChatRoom:
    """A conversation between a person at a terminal and one memory.

    ``options`` are passed to every reply: max_new_tokens, temperature and so on.
    """

    def __init__(self, memory: agentmem.AgentMemory, options: Mapping[str, Any]) -> None:
        self.memory = memory
        self.options = dict(options)
        self.out = console()
        self.commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/explain": self._explain,
            "/history": self._history,
            "/search": self._search,
            "/forget": self._forget,
            "/fork": self._fork,
        }

    def talk(self) -> None:
        """Until /bye, Ctrl-D or the end of input: read a message, answer it."""
        prompt = "› " if sys.stdin.isatty() else ""
        while True:
            try:
                message = read_message(prompt)
            except EOFError:
                break
            except KeyboardInterrupt:
                self._dim("\n(Ctrl-D or /bye leaves)")
                continue
            if message in {"/bye", "/exit", "/quit"}:
                break
            if message:
                self._answer(message)
        self._dim("bye" if not sys.stdin.isatty() else "\nbye; everything said is kept")

    def _answer(self, message: str) -> None:
        """Run a command or stream a reply; an error is said and the chat goes on."""
        name, _, rest = message.partition(" ")
        try:
            if name in self.commands:
                self.commands[name](rest.strip())
            elif name.startswith("/") and name[1:].isalpha():
                self._dim(f"there is no {name}; /help lists the commands")
            else:
                self._dim(receipt_line(self._reply(message)))
        except AgentMemError as error:
            self.out.print(f"{' '.join(str(error).split())}", style="red", markup=False)
        except KeyboardInterrupt:
            self._dim("\n(stopped; this turn was not kept)")

    def _reply(self, message: str) -> Reply:
        return stream_to(sys.stdout.write, self.memory, message, self.options)

    def _help(self, rest: str) -> None:
        self._dim(HELP)

    def _explain(self, rest: str) -> None:
        explanation = self.memory.explain()
        if not explanation.blocks:
            self._dim("nothing was recalled: the first tokens and the recent window were enough")
        for block in explanation.blocks:
            where = f"{block.share:6.1%}  turn {block.turn}, {date(block.created_at)}  "
            self._dim(where + line(block.text, 160))

    def _history(self, rest: str) -> None:
        limit = int(rest) if rest.isdigit() and int(rest) else 10
        for turn in self.memory.history(limit=limit):
            said = " · ".join(line(str(message.get("content", "")), 48) for message in turn.messages)
            text = "(forgotten)" if turn.forgotten else said
            self._dim(f"{turn.turn:5d}  {date(turn.created_at)}  {text}")

    def _search(self, rest: str) -> None:
        hits = self.memory.search(rest) if rest else []
        for hit in hits:
            self._dim(f"{hit.turn:5d}  {date(hit.created_at)}  {hit.role}: {line(hit.text, 120)}")
        if not hits:
            self._dim("no turn holds these words" if rest else "say the words: /search dog biscuit")

    def _forget(self, rest: str) -> None:
        if not rest.isdigit():
            self._dim("say the turn's number: /forget 12 (/history shows them)")
            return
        receipt = self.memory.forget(turn=int(rest))
        self._dim(f"forgot {count(receipt.tokens, 'token')}. {receipt.residual}")

    def _fork(self, rest: str) -> None:
        if not rest:
            self._dim("say the new agent's name: /fork ada-2")
            return
        with self.memory.fork(rest):
            self._dim(f"{rest} now has this past; you are still talking to {self.memory.agent_id}")

    def _dim(self, text: str) -> None:
        self.out.print(harmless(text), style="dim", markup=False)


def stream_to(
    write: Callable[[str], object], memory: agentmem.AgentMemory, message: str, options: Mapping[str, Any]
) -> Reply:
    """Write a reply piece by piece as it is sampled. Stopped by Ctrl-C, the turn is taken back."""
    with memory.stream(message, **options) as pieces:
        for piece in pieces:
            write(harmless(piece))
            sys.stdout.flush()
    write("\n")
    return pieces.reply


def receipt_line(reply: Reply) -> str:
    """One line: what is held, what was read, from when something was recalled, how long it took."""
    receipt = reply.receipt
    parts = [
        f"{receipt.tokens_held:,} held",
        f"{receipt.tokens_reread} re-read",
        f"{receipt.tokens_prefilled:,} read",
        f"{receipt.tokens_generated:,} written",
    ]
    if receipt.blocks:
        top = max(receipt.blocks, key=lambda block: block.share)
        parts.append(f"recalled {date(top.created_at)} (turn {top.turn}, {top.share:.0%})")
    parts.append(took(receipt.seconds))
    if reply.finish_reason == "length":
        parts.append("cut at --max-tokens")
    return "[" + " · ".join(parts) + "]"


def resumed_line(memory: agentmem.AgentMemory) -> str:
    """One line for the start: "resumed ada: 31 turns, 8,412 tokens held, 0 re-read, 18 ms"."""
    receipt = memory.resumed
    if receipt.created:
        return f"new agent {memory.agent_id}; /help shows what you can do here"
    held = f"{count(receipt.turns, 'turn')}, {count(receipt.tokens_held, 'token')} held"
    return f"resumed {memory.agent_id}: {held}, {receipt.tokens_prefilled} re-read, {took(receipt.seconds)}"
