"""Putting a history into a memory piece by piece; an interrupted reading goes on where it stopped.

Short pieces of one moment are appended together, as an agent stores a session; a long piece is observed in parts.
When all is read, what a history marks for it is forgotten through the memory's own ``forget``, so it is a turn of its
own. Knows no task and no question.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agentmem import AgentMemory, HistoryTurn
from agentmem.store.files import folder_bytes
from agentmem.store.names import folder_name
from benchmarks.machine import PeakMemory
from benchmarks.recall.cells import Reading
from benchmarks.recall.items import History, Piece

LONG = 4064
"""Tokens above which a piece is read in parts, each durable by itself."""
PIECE = "piece"
FORGET = "forget:"
"""A piece whose source begins so is dropped from the memory before any question is asked."""

Tick = Callable[[int, int], None]
"""Told (tokens held, tokens expected)."""


def read_history(memory: AgentMemory, history: History, home: Path, tick: Tick) -> Reading:
    """Put what is not there yet into the memory; nothing is read twice."""
    started, read = time.perf_counter(), 0
    with PeakMemory(every=0.1) as peak:
        for numbers in _together(history.pieces, _done(memory), lambda text: _is_long(memory, text)):
            read += _read(memory, numbers, history.pieces, lambda held: tick(held, history.tokens))
            tick(memory.tokens_held, history.tokens)
        _forget(memory, history)
    seconds = time.perf_counter() - started
    return Reading(memory.tokens_held, read, seconds, disk_bytes(home, memory.agent_id), peak.risen)


def disk_bytes(home: Path, agent_id: str) -> int:
    """Bytes an agent takes on disk; agents beside it may come and go meanwhile."""
    return folder_bytes(home / "agents" / folder_name(agent_id))


def _together(pieces: Sequence[Piece], first: int, is_long: Callable[[str], bool]) -> Iterator[Sequence[int]]:
    """Numbers of the pieces from ``first`` on, in runs that are read at once."""
    run: list[int] = []
    for number in range(first, len(pieces)):
        piece = pieces[number]
        alone = piece.at is None or _is_marked(piece) or is_long(piece.text)
        if run and (alone or piece.at != pieces[run[0]].at):
            yield run
            run = []
        if alone:
            yield [number]
        else:
            run.append(number)
    if run:
        yield run


def _read(
    memory: AgentMemory, numbers: Sequence[int], pieces: Sequence[Piece], tick: Callable[[int], None]
) -> int:
    """Read pieces of one moment; returns the tokens that went through the model."""
    first = pieces[numbers[0]]
    if first.role != "assistant" and _is_long(memory, first.text):
        held = memory.tokens_held
        receipt = memory.observe(
            first.text,
            source=f"{numbers[0]}:{first.source or PIECE}",
            role=first.role,
            at=first.at,
            on_progress=lambda done, _: tick(held + done),
        )
    else:
        messages = [
            {
                "role": pieces[number].role,
                "content": pieces[number].text,
                "metadata": {PIECE: number, "source": pieces[number].source},
            }
            for number in numbers
        ]
        receipt = memory.append(messages, at=first.at)
    return receipt.tokens_prefilled


def _is_long(memory: AgentMemory, text: str) -> bool:
    return len(memory.tokenizer(text, add_special_tokens=False)["input_ids"]) > LONG


def _is_marked(piece: Piece) -> bool:
    return (piece.source or "").startswith(FORGET)


def _done(memory: AgentMemory) -> int:
    """The number of the first piece that may not be wholly there; observing one again is harmless."""
    turns = memory.history(limit=1)
    if not turns:
        return 0
    return _number(turns[0]) + (turns[0].source is None)


def _forget(memory: AgentMemory, history: History) -> None:
    """Drop the pieces that are marked for it; what was forgotten before is left alone."""
    marked = {n for n, piece in enumerate(history.pieces) if _is_marked(piece)}
    if marked:
        for turn in memory.history():
            if not turn.forgotten and _number(turn) in marked:
                memory.forget(turn=turn.turn)


def _number(turn: HistoryTurn) -> int:
    """Which piece a turn holds, or a part of; the last one of several."""
    if turn.source is not None:
        return int(turn.source.partition(":")[0])
    return int(turn.messages[-1]["metadata"][PIECE])
