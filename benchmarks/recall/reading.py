"""Putting a history into a memory piece by piece; an interrupted reading goes on where it stopped.

A short piece is appended as a message of its own, a long one observed in parts. Knows no task and no question.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from agentmem import AgentMemory
from benchmarks.recall.cells import Reading
from benchmarks.recall.items import History, Piece

LONG = 4064
"""Tokens above which a piece is read in parts, each durable by itself."""
PIECE = "piece"

Tick = Callable[[int, int], None]
"""Told (tokens held, tokens expected)."""


def read_history(memory: AgentMemory, history: History, home: Path, tick: Tick) -> Reading:
    """Put what is not there yet into the memory; nothing is read twice."""
    started, read = time.perf_counter(), 0
    for number in range(_done(memory), len(history.pieces)):
        read += _read_piece(memory, number, history.pieces[number], lambda held: tick(held, history.tokens))
        tick(memory.tokens_held, history.tokens)
    seconds = time.perf_counter() - started
    return Reading(memory.tokens_held, read, seconds, disk_bytes(home, memory.agent_id))


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
    if turns[0].source is not None:
        return int(turns[0].source.partition(":")[0])
    return int(turns[0].messages[0]["metadata"][PIECE]) + 1
