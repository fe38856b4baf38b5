"""Putting a history into a memory piece by piece; an interrupted reading goes on where it stopped.

A short piece is appended as a message of its own, a long one observed in parts. When all is read, what a history
marks for it is forgotten through the memory's own ``forget``. Knows no task and no question.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from agentmem import AgentMemory, HistoryTurn
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
        for number in range(_done(memory), len(history.pieces)):
            read += _read_piece(
                memory, number, history.pieces[number], lambda held: tick(held, history.tokens)
            )
            tick(memory.tokens_held, history.tokens)
        _forget(memory, history)
    seconds = time.perf_counter() - started
    return Reading(memory.tokens_held, read, seconds, disk_bytes(home, memory.agent_id), peak.risen)


def disk_bytes(home: Path, agent_id: str) -> int:
    """Bytes an agent takes on disk."""
    return next(info.bytes for info in AgentMemory.list(home) if info.agent_id == agent_id)


def _read_piece(memory: AgentMemory, number: int, piece: Piece, tick: Callable[[int], None]) -> int:
    """Read one piece; returns the tokens that went through the model."""
    long = len(memory.tokenizer(piece.text, add_special_tokens=False)["input_ids"]) > LONG
    if long and piece.role != "assistant":
        held = memory.tokens_held
        receipt = memory.observe(
            piece.text,
            source=f"{number}:{piece.source or PIECE}",
            role=piece.role,
            at=piece.at,
            on_progress=lambda done, _: tick(held + done),
        )
    else:
        message = {
            "role": piece.role,
            "content": piece.text,
            "metadata": {PIECE: number, "source": piece.source},
        }
        receipt = memory.append([message], at=piece.at)
    return receipt.tokens_prefilled


def _done(memory: AgentMemory) -> int:
    """The number of the first piece that may not be wholly there; observing one again is harmless."""
    turns = memory.history(limit=1)
    if not turns:
        return 0
    return _number(turns[0]) + (turns[0].source is None)


def _forget(memory: AgentMemory, history: History) -> None:
    """Drop the pieces that are marked for it; what was forgotten before is left alone."""
    marked = {n for n, piece in enumerate(history.pieces) if (piece.source or "").startswith(FORGET)}
    if marked:
        for turn in memory.history():
            if not turn.forgotten and _number(turn) in marked:
                memory.forget(turn=turn.turn)


def _number(turn: HistoryTurn) -> int:
    """Which piece a turn holds, or a part of."""
    if turn.source is not None:
        return int(turn.source.partition(":")[0])
    return int(turn.messages[0]["metadata"][PIECE])
