"""Looking at a memory: its history, what fed the last reply, what its texts say. Changes nothing."""

from __future__ import annotations

from agentmem.agent.provenance import quarantined
from agentmem.agent.receipts import Explanation, HistoryTurn, SearchHit
from agentmem.agent.turns import Turns
from agentmem.errors import InputError
from agentmem.store.base import Store, Turn
from agentmem.store.search import holds_all, words_of
from agentmem.store.upkeep import TurnMarks


def history(store: Store, limit: int | None, at: str | None) -> list[HistoryTurn]:
    """The turns of the current branch, or of the one that ends at a state; with a limit, the newest ones."""
    if limit is not None and not _is_positive(limit):
        raise InputError(f"limit={limit!r}: use a positive whole number, or None for all turns")
    held = {row.source for row in quarantined(store)}
    marks, none = store.upkeep.marks(), TurnMarks()
    return [
        HistoryTurn(
            turn=turn.id,
            state_id=turn.state_id,
            kind=turn.kind,
            created_at=turn.created_at,
            messages=turn.messages,
            tokens=turn.stop - turn.start,
            source=turn.source,
            forgotten=turn.forgotten,
            role=turn.role,
            trust=turn.trust,
            quarantined=turn.source in held,
            pinned=marks.get(turn.id, none).pinned,
            expires_at=marks.get(turn.id, none).expires_at,
        )
        for turn in store.turns(limit=limit, at=at)
    ]


def search(store: Store, query: str, limit: int) -> list[SearchHit]:
    """Messages with a word of the query, of the turns that hold them all; newest turn first. Needs no model.

    What came from a source in quarantine is not found.
    """
    if not isinstance(query, str):
        raise InputError(f"the search must be words as a str, got {type(query).__name__}")
    wanted = words_of(query)
    if not wanted:
        raise InputError(f"the search {query!r} holds no word; give one or more")
    if not _is_positive(limit):
        raise InputError(f"limit={limit!r}: use a positive whole number")
    hits: list[SearchHit] = []
    held = {row.source for row in quarantined(store)}
    found = store.search(query, limit=limit if not held else store.turn_count)
    for turn in found:
        if turn.source in held:
            continue
        for message in turn.messages:
            text = str(message.get("content") or "")
            if any(holds_all([message], [word]) for word in wanted):
                hits.append(SearchHit(turn.id, turn.state_id, turn.created_at, message["role"], text))
    return hits[:limit]


def explain(store: Store, turns: Turns) -> Explanation:
    """What fed the newest reply of the current branch."""
    turn = _last_reply(store)
    if turn is None:
        return Explanation(None, None, "", "", 0.0, ())
    asked = [str(message.get("content") or "") for message in turn.messages if message["role"] == "user"]
    return Explanation(
        turn=turn.id,
        created_at=turn.created_at,
        question=asked[-1] if asked else "",
        answer=str(turn.messages[-1].get("content") or ""),
        recalled_mass=turn.receipt.get("recalled_mass", 0.0),
        blocks=turns.blocks(turn.receipt.get("blocks", ())),
    )


def _is_positive(limit: object) -> bool:
    return isinstance(limit, int) and not isinstance(limit, bool) and limit > 0


def _last_reply(store: Store) -> Turn | None:
    """The newest turn that the model answered; looks back in growing steps."""
    limit = 16
    while True:
        turns = store.turns(limit=limit)
        for turn in reversed(turns):
            if turn.kind == "chat" and not turn.forgotten:
                return turn
        if len(turns) < limit:
            return None
        limit *= 4
