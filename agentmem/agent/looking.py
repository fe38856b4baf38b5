"""Looking at a memory: its history, what fed the last reply, what its texts say. Changes nothing."""

from __future__ import annotations

from agentmem.agent.receipts import Explanation, HistoryTurn, SearchHit
from agentmem.agent.turns import Turns
from agentmem.errors import InputError
from agentmem.store.base import Store, Turn


def history(store: Store, limit: int | None) -> list[HistoryTurn]:
    """The turns of the current branch, oldest first; with a limit, the newest ones."""
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}: use a positive number, or None for all turns")
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
        )
        for turn in store.turns(limit=limit)
    ]


def search(store: Store, query: str, limit: int) -> list[SearchHit]:
    """Messages that hold all the words, newest first. Searches text, not K/V, so no model is needed."""
    words = query.casefold().split()
    if not words:
        raise InputError("the search is empty; give one or more words")
    hits = []
    for turn in store.search(query, limit=limit):
        for message in turn.messages:
            text = str(message.get("content") or "")
            if any(word in text.casefold() for word in words):
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


def _last_reply(store: Store) -> Turn | None:
    """The newest turn that ends with an answer; looks back in growing steps."""
    limit = 16
    while True:
        turns = store.turns(limit=limit)
        for turn in reversed(turns):
            if not turn.forgotten and turn.messages and turn.messages[-1]["role"] == "assistant":
                return turn
        if len(turns) < limit:
            return None
        limit *= 4
