"""Moving an agent to another model: its turns' text is read by the new one, in their order, as a new agent.

Roles, times, metadata, sources, trust, tool calls and what a turn was kept from seeing stay; forgotten turns
stay forgotten. Tools that were given are given again with the next turn that names them, and a reply's
thinking is kept beside it but not read. Only the current branch moves. The new agent is made in a workshop, a
turn at a time, so that what is finished stays finished after a kill; it is put in place in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from agentmem.agent.in_force import InForce
from agentmem.agent.messages import dressed
from agentmem.agent.observing import split
from agentmem.agent.opening import CONFIG_NOTE
from agentmem.agent.provenance import QUARANTINE_NOTE
from agentmem.agent.state_id import settings_of, state_id
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.engine.session import Progress
from agentmem.engine.template import ChatTemplate, Delta, Pending
from agentmem.errors import AgentExistsError, StoreError
from agentmem.memory.blocks import joined_ranges
from agentmem.store.base import Home, NewTurn, Store, Turn
from agentmem.store.upkeep import TurnMarks

SOURCE_NOTE = "reencoded"


@dataclass(frozen=True)
class Step:
    """A turn to be made: of which old turn, with which messages and part, and how it is marked."""

    old: Turn
    messages: Sequence[Mapping[str, Any]]
    part: int | None
    marks: TurnMarks

    def made(self, turn: Turn) -> bool:
        """Whether that is what became of this step."""
        wanted = (self.old.kind, list(self.messages), self.old.created_at, self.old.source, self.part)
        found = (turn.kind, list(turn.messages), turn.created_at, turn.source, turn.part)
        return (wanted, self.old.forgotten) == (found, turn.forgotten)


def make_draft(
    store: Store,
    home: Home,
    new_id: str | None,
    model: LanguageModel,
    config: MemoryConfig,
    on_progress: Progress | None,
) -> None:
    """Make the new agent in the workshop of the old one, or finish one that was begun; None: under its name.

    Raises AgentExistsError, and what turns raise.
    """
    if new_id is not None and home.exists(new_id):
        raise AgentExistsError(f"there is an agent {new_id!r} already; choose another name")
    model.check(config)
    marks = store.upkeep.marks()
    steps = list(_steps(store.turns(), marks, model))
    name = store.identity.agent_id if new_id is None else new_id
    draft = _opened(store, home, name, model, config, steps)
    try:
        writer = Writer(draft, model, config, steps)
        for step in steps[draft.turn_count :]:
            writer.write(step)
            if on_progress is not None:
                on_progress(step.old.stop, store.log.committed)
        draft.note(QUARANTINE_NOTE, store.noted(QUARANTINE_NOTE))
    finally:
        draft.close()


def _steps(turns: Sequence[Turn], marks: Mapping[int, TurnMarks], model: LanguageModel) -> Iterator[Step]:
    """One step for each turn; the parts of one observed text are cut anew, as the new model's tokens are."""
    for whole, group in groupby(turns, key=lambda turn: _text_key(turn, marks.get(turn.id))):
        parts = list(group)
        if whole is None or [turn.part for turn in parts] != list(range(len(parts))):
            for turn in parts:
                yield Step(turn, turn.messages, turn.part, marks.get(turn.id, TurnMarks()))
            continue
        text = "".join(str(turn.messages[0]["content"]) for turn in parts)
        first, role = parts[0], parts[0].messages[0]["role"]
        old = replace(first, stop=parts[-1].stop)
        for number, (piece, _) in enumerate(split(model, text)):
            yield Step(old, [{"role": role, "content": piece}], number, marks.get(first.id, TurnMarks()))


def _text_key(turn: Turn, marks: TurnMarks | None) -> object:
    """What the parts of one text have in common; None for a turn that is no part of one."""
    if turn.kind != "observe" or turn.forgotten or turn.part is None or turn.source is None:
        return None
    hidden = str(turn.settings.get("hidden"))
    return turn.source, turn.messages[0]["role"], turn.created_at, turn.trust, hidden, marks


def _opened(
    store: Store, home: Home, new_id: str, model: LanguageModel, config: MemoryConfig, steps: Sequence[Step]
) -> Store:
    """The draft that was begun, if it is of this very agent, model and configuration; else a new one."""
    agent_id, uuid = store.identity.agent_id, store.identity.uuid
    workshop = home.workshop(agent_id)
    if workshop.exists(new_id):
        with suppress(StoreError):
            draft = workshop.open(new_id)
            turns = draft.turns()
            same = (
                draft.identity.fingerprint == dict(model.fingerprint_as(config.kv_dtype))
                and (draft.noted(SOURCE_NOTE), draft.noted(CONFIG_NOTE)) == (uuid, config.model_dump())
                and len(turns) <= len(steps)
                and all(step.made(turn) for step, turn in zip(steps, turns, strict=False))
            )
            if same:
                return draft
            draft.close()
        home.clear_workshop(agent_id)
    layout = model.layout_for(config.kv_dtype)
    draft = home.workshop(agent_id).create(
        new_id,
        fingerprint=model.fingerprint_as(config.kv_dtype),
        layout=layout,
        model=model.name,
        facts={**store.identity.facts, "chunk_tokens": config.chunk_tokens},
    )
    draft.note(CONFIG_NOTE, config.model_dump())
    draft.note(SOURCE_NOTE, uuid)
    return draft


class Writer:
    """Writes steps as turns of a draft, one commit each."""

    def __init__(
        self, draft: Store, model: LanguageModel, config: MemoryConfig, steps: Sequence[Step]
    ) -> None:
        self._draft = draft
        self._model = model
        self._config = config
        self._done: list[tuple[Step, Turn]] = list(zip(steps, draft.turns(), strict=False))

    def write(self, step: Step) -> None:
        """Make one turn of it."""
        if step.old.forgotten:
            turn = self._commit(step, [], None, {}, {})
            self._draft.forget([turn.id])
            self._done.append((step, self._draft.turn(turn.id)))
            return
        hidden = self._hidden(step)
        last = self._last(hidden)
        delta = _delta(self._model.template, self._config, step, last)
        in_force = InForce() if last is None else InForce.after(last.settings, hidden)
        in_force = in_force.with_turn(step.old.kind, step.messages, None, self._draft.log.committed)
        settings = {**settings_of(self._config, hidden), **in_force.to_settings()}
        turn = self._commit(
            step, delta.ids, delta.pending, settings, {"tokens_prefilled": len(delta.ids)}, hidden
        )
        self._done.append((step, turn))
        if step.marks.pinned:
            self._draft.upkeep.pin(turn.id, pinned=True)

    def _commit(
        self,
        step: Step,
        ids: Sequence[int],
        pending: Pending | None,
        settings: Mapping[str, Any],
        receipt: Mapping[str, Any],
        hidden: Sequence[tuple[int, int]] = (),
    ) -> Turn:
        draft, old = self._draft, step.old
        draft.begin()
        try:
            with self._model.turn(draft.log, draft.digests, self._config, hidden=hidden) as session:
                if ids:
                    session.read(ids)
                session.memory.flush()
            head = draft.head
            name = state_id(
                parent=None if head is None else head.state_id,
                uuid=draft.identity.uuid,
                token_ids=ids,
                pending=None if pending is None else pending.to_json(),
                settings=settings_of(self._config, hidden),
                fingerprint=draft.identity.fingerprint,
            )
            return draft.commit(
                NewTurn(
                    state_id=old.state_id if old.forgotten else name,
                    kind=old.kind,
                    messages=step.messages,
                    token_ids=ids,
                    pending=None if pending is None else pending.to_json(),
                    created_at=old.created_at,
                    source=old.source,
                    part=step.part,
                    settings=settings,
                    receipt=receipt,
                    role=old.role,
                    trust=old.trust,
                    expires_at=step.marks.expires_at,
                )
            )
        except BaseException:
            draft.abort()
            raise

    def _hidden(self, step: Step) -> list[tuple[int, int]]:
        """What the old turn was kept from attending to, where it lies now: whole turns."""
        gone = [(int(start), int(stop)) for start, stop in step.old.settings.get("hidden", ())]
        return joined_ranges(
            (turn.start, turn.stop)
            for made, turn in self._done
            if any(start <= made.old.start and made.old.stop <= stop for start, stop in gone)
        )

    def _last(self, hidden: Sequence[tuple[int, int]]) -> Turn | None:
        """The newest turn that this one goes on from."""
        for _, turn in reversed(self._done):
            seen = not any(start <= turn.start and turn.stop <= stop for start, stop in hidden)
            if seen and not turn.forgotten:
                return turn
        return None


def _delta(template: ChatTemplate, config: MemoryConfig, step: Step, last: Turn | None) -> Delta:
    """The tokens of a turn: as they were written first, but a reply is read like any other message."""
    pending = None if last is None else Pending.from_json(last.pending)
    kept = [{key: value for key, value in one.items() if key != "thinking"} for one in step.messages]
    messages = dressed(kept, config, datetime.fromisoformat(step.old.created_at))
    goes_on = _goes_on(step, last)
    if pending is not None and goes_on is not None and pending.open_role == messages[0]["role"]:
        text = messages[0] if not step.part else kept[0]
        return template.continue_message(pending, text["content"], **({"separator": ""} if goes_on else {}))
    said = [one for one in messages if one["content"] or one.get("tool_calls") or one["role"] == "tool"]
    if said and said[-1] is messages[-1]:
        return template.delta(pending, said, reply=False)
    delta = template.delta(pending, said, reply=True)  # a reply of no words was opened, and left so
    return replace(delta, pending=Pending((), "assistant"))


def _goes_on(step: Step, last: Turn | None) -> bool | None:
    """Whether an observed text goes on with the one before it word for word; None: it is no such text."""
    if step.old.kind != "observe" or last is None or last.kind != "observe" or last.trust != step.old.trust:
        return None
    return bool(step.part) and last.source == step.old.source and last.part == (step.part or 0) - 1
