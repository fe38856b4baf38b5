"""Running turns: text in, tokens through the model, one committed turn out, or nothing at all.

Joins the engine and the store. An exception, a kill or a closed stream leaves the state before the turn:
the store is told ``begin`` first and ``commit`` last, and everything in between is dropped by ``abort``.
Knows no locking and no lazy loading; its owner sees to both.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from agentmem.agent.hot_blocks import HotBlocks
from agentmem.agent.in_force import InForce, tools_digest
from agentmem.agent.messages import dressed
from agentmem.agent.provenance import Admission, RecallFrom
from agentmem.agent.receipts import RecalledBlock, RecallReceipt, Reply, Usage, WriteReceipt
from agentmem.agent.state_id import settings_of, state_id
from agentmem.config import MemoryConfig
from agentmem.engine.decoding import Decoded, decode
from agentmem.engine.model import LanguageModel
from agentmem.engine.sampling import LogitsProcessor, SamplingOptions
from agentmem.engine.session import Progress, Session
from agentmem.engine.template import ChatTemplate, Delta, Pending
from agentmem.memory.blocks import BlockGrid, clip_ranges
from agentmem.memory.residency import CacheUse
from agentmem.store.base import HEAD, NewTurn, Store, Turn
from agentmem.store.origins import role_of

BLOCKS_KEPT = 32
"""Recalled blocks that a receipt names, by share."""


@dataclass(frozen=True)
class Asked:
    """What a turn is made of, before it is run."""

    kind: str
    messages: Sequence[Mapping[str, Any]]
    when: datetime
    tools: Sequence[Mapping[str, Any]] | None = None
    source: str | None = None
    part: int | None = None
    after: str | None = HEAD
    """The state to go on from; None for the empty one."""
    trust: str | None = None
    """How far the words are trusted; None: as their role is."""
    recall_from: RecallFrom | None = None
    """Which turns this one may attend to; None: all that are not in quarantine."""
    expires_at: str | None = None
    """When retention may drop it, ISO 8601."""


@dataclass(frozen=True)
class Said:
    """What the memory keeps of a reply."""

    text: str
    thinking: str
    ids: tuple[int, ...]
    """All ids the turn added to the log, the prompt's included."""
    pending: Pending
    dropped: int
    """Tokens that were forwarded and then cut out of the log again."""
    reread: int = 0
    """Of ``ids``, how many at the end were read in one piece behind that cut."""


class Turns:
    """Runs turns of one agent on one model. ``config`` may be changed between turns.

    ``hot``: the agent's blocks on the device, if any may be kept there.
    """

    def __init__(
        self, model: LanguageModel, store: Store, config: MemoryConfig, hot: HotBlocks | None = None
    ) -> None:
        self._model = model
        self._store = store
        self.config = config
        self._hot = hot
        self._grid = BlockGrid(config.sink_tokens, config.block_tokens)
        self._admission = Admission.standing(store)

    @property
    def last(self) -> Turn | None:
        """The newest turn that was not forgotten and may be attended to: what the conversation goes on from."""
        return self._last(self._admission)

    @property
    def in_force(self) -> InForce:
        """The system prompt and the tools that were given on this branch, and can be seen still."""
        return self._in_force(self._admission)

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template."""
        return self._model.template

    @property
    def pending(self) -> Pending | None:
        """What the last turn left to be forwarded; None before the first turn."""
        return _pending(self.last)

    def delta(self, asked: Asked, *, reply: bool) -> Delta:
        """The tokens that new messages add, template included. Raises TemplateError, InputError.

        Tools that are in force already are not written again.
        """
        messages = dressed(asked.messages, self.config, asked.when)
        admission = self._admission.narrowed(asked.recall_from)
        known = asked.tools is None or tools_digest(asked.tools) == self._in_force(admission).tools
        tools = None if known else asked.tools
        pending = _pending(self._last(admission))
        return self._model.template.delta(pending, messages, tools=tools, reply=reply)

    def write(
        self, asked: Asked, delta: Delta | None = None, on_progress: Progress | None = None
    ) -> WriteReceipt:
        """Forward the messages, or a delta made of them, and commit them, without a reply."""
        started = time.perf_counter()
        store = self._store
        store.begin(asked.after)
        try:
            if delta is None:
                delta = self.delta(asked, reply=False)
            hidden = self._hidden(asked)
            with self._session(hidden) as session:
                if delta.ids:
                    session.read(delta.ids, on_progress=on_progress)
                session.memory.flush()
            receipt = {"tokens_prefilled": len(delta.ids)}
            self._commit(asked, asked.messages, list(delta.ids), delta.pending, receipt, hidden)
        except BaseException:
            store.abort()
            raise
        return WriteReceipt(
            tokens_prefilled=len(delta.ids),
            tokens_held=store.log.committed,
            bytes_written=len(delta.ids) * store.log.layout.bytes_per_token,
            seconds=time.perf_counter() - started,
        )

    def reply(
        self,
        asked: Asked,
        options: SamplingOptions,
        processors: Sequence[LogitsProcessor],
        *,
        remember: bool,
    ) -> Generator[str, None, Reply]:
        """Forward the messages, then decode: yields pieces of text, returns the reply.

        Closing the generator early drops the turn.
        """
        started = time.perf_counter()
        store, model = self._store, self._model
        store.begin(asked.after)
        try:
            delta = self.delta(asked, reply=True)
            hidden = self._hidden(asked)
            with self._session(hidden) as session:
                before = session.length
                logits = session.read(delta.ids, measure=True)
                first = time.perf_counter() - started
                decoded = yield from decode(
                    session, logits, delta.ids, options, processors, model.template, model.tokenizer
                )
                said = self._keep(session, delta, decoded)
                if remember:
                    said = _closed(session, said)
                session.memory.flush()
                grown = session.length - before
                figures = {
                    "tokens_prefilled": len(delta.ids),
                    "tokens_generated": decoded.sampled,
                    "tokens_reread": session.forwarded - said.dropped - grown,
                    "tokens_behind_cut": said.reread,
                    "seconds_to_first": first,
                    **self._recalled(session),
                    **_cache_figures(session),
                }
            figures["seconds"] = time.perf_counter() - started
            return self._conclude(asked, delta, decoded, said, figures, hidden if remember else None)
        except BaseException:
            store.abort()
            raise

    # -- the end of a reply ---------------------------------------------------------------------------

    def _keep(self, session: Session, delta: Delta, decoded: Decoded) -> Said:
        """Leave in the log exactly what the reply kept: cut after a stop string, drop thinking."""
        template = self._model.template
        thinking, answer = template.split_thinking(decoded.text)
        start = session.length - decoded.forwarded - len(delta.ids)
        only = None if self.config.keep_thinking else template.answer_only(delta, decoded.text)
        if only is not None:
            session.memory.truncate(start + delta.reply_start)
            session.read(only.ids)
            dropped = len(delta.ids) - delta.reply_start + decoded.forwarded
            ids = (*delta.ids[: delta.reply_start], *only.ids)
            return Said(answer, thinking, ids, only.pending, dropped)
        dropped = decoded.forwarded - len(decoded.logged)
        if dropped:
            session.memory.truncate(session.length - dropped)
        pending = template.after_reply(decoded.unforwarded, decoded.finish_reason)
        return Said(answer, thinking, (*delta.ids, *decoded.logged), pending, dropped)

    def _recalled(self, session: Session) -> dict[str, Any]:
        shares = session.memory.shares
        return {
            "selections": session.memory.selections,
            "recalled_mass": shares.recalled_mass,
            "blocks": [[*self._grid.bounds(block), share] for block, share in shares.top(BLOCKS_KEPT)],
        }

    def _conclude(
        self,
        asked: Asked,
        delta: Delta,
        decoded: Decoded,
        said: Said,
        figures: dict[str, Any],
        hidden: Sequence[tuple[int, int]] | None,
    ) -> Reply:
        """Commit, or (``hidden`` None) drop what shall not be remembered; then hand back the reply with its receipt."""
        name, held = None, self._store.log.committed
        if hidden is not None:
            message = {"role": "assistant", "content": said.text}
            if said.thinking:
                message["thinking"] = said.thinking
            messages = [*asked.messages, message]
            name = self._commit(asked, messages, said.ids, said.pending, figures, hidden).state_id
        receipt = self.receipt(figures)  # while the store still stands on the branch it speaks of
        if hidden is None:
            self._store.abort()
            receipt = replace(receipt, tokens_held=self._store.log.committed)
        return Reply(
            text=said.text,
            thinking=said.thinking,
            receipt=receipt,
            usage=Usage(len(delta.ids), decoded.sampled, held),
            state_id=name,
            finish_reason=decoded.finish_reason,
            token_ids=(*decoded.logged, *decoded.unforwarded),
        )

    def _commit(
        self,
        asked: Asked,
        messages: Sequence[Mapping[str, Any]],
        ids: Sequence[int],
        pending: Pending,
        receipt: Mapping[str, Any],
        hidden: Sequence[tuple[int, int]],
    ) -> Turn:
        head = self._store.head
        start = self._store.log.committed
        admission = self._admission.narrowed(asked.recall_from)
        in_force = self._in_force(admission).with_turn(asked.kind, asked.messages, asked.tools, start)
        settings = settings_of(self.config, hidden)
        identity = self._store.identity
        name = state_id(
            parent=None if head is None else head.state_id,
            uuid=identity.uuid,
            token_ids=ids,
            pending=pending.to_json(),
            settings=settings,
            fingerprint=identity.fingerprint,
        )
        turn = self._store.commit(
            NewTurn(
                state_id=name,
                kind=asked.kind,
                messages=messages,
                token_ids=ids,
                pending=pending.to_json(),
                created_at=asked.when.isoformat(),
                source=asked.source,
                part=asked.part,
                settings={**settings, **in_force.to_settings()},
                receipt=receipt,
                role=role_of(asked.messages),
                trust=asked.trust,
                expires_at=asked.expires_at,
            )
        )
        if self._hot is not None:
            self._hot.committed(turn)
        return turn

    def _session(self, hidden: Sequence[tuple[int, int]]) -> AbstractContextManager[Session]:
        """A session for the turn that was begun in the store."""
        store, model, share = self._store, self._model, None
        if self._hot is not None:
            share = self._hot.begun(model.device_cache, store, self.config)
        return model.turn(store.log, store.digests, self.config, hidden=hidden, share=share)

    def _hidden(self, asked: Asked) -> list[tuple[int, int]]:
        """The tokens that a turn may not attend to, on the branch it was begun on."""
        return self._admission.narrowed(asked.recall_from).hidden(self._store)

    def _last(self, admission: Admission) -> Turn | None:
        turn = self._store.head
        while turn is not None and (turn.forgotten or not admission.admits(turn)):
            turn = None if turn.parent is None else self._store.turn(turn.parent)
        return turn

    def _in_force(self, admission: Admission) -> InForce:
        last = self._last(admission)
        if last is None:
            return InForce()
        return InForce.after(last.settings, [*self._store.log.dead, *admission.hidden(self._store)])

    # -- receipts -------------------------------------------------------------------------------------

    def receipt(self, figures: Mapping[str, Any]) -> RecallReceipt:
        """A receipt as it was stored, with the blocks' text, turn and date looked up."""
        return RecallReceipt(
            tokens_held=self._store.log.committed,
            tokens_prefilled=figures["tokens_prefilled"],
            tokens_generated=figures["tokens_generated"],
            tokens_reread=figures["tokens_reread"],
            blocks=self.blocks(figures["blocks"]),
            recalled_mass=figures["recalled_mass"],
            seconds=figures.get("seconds", 0.0),
            seconds_to_first=figures.get("seconds_to_first", 0.0),
            device_cache=CacheUse(**figures["device_cache"]) if "device_cache" in figures else None,
        )

    def blocks(self, rows: Sequence[Sequence[Any]]) -> list[RecalledBlock]:
        """Blocks [start, stop, share] with what they say; forgotten and not remembered ones are left out."""
        found = (self._block(int(start), int(stop), float(share)) for start, stop, share in rows)
        return [block for block in found if block is not None]

    def _block(self, start: int, stop: int, share: float) -> RecalledBlock | None:
        log = self._store.log
        dead = {token for low, high in clip_ranges(log.dead, start, stop) for token in range(low, high)}
        living = [token for token in range(start, min(stop, log.committed)) if token not in dead]
        if not living:
            return None
        turn = self._store.turn_at(living[0])
        ids = self._store.token_ids(start, min(stop, log.committed))
        text = str(self._model.tokenizer.decode([ids[token - start] for token in living]))
        return RecalledBlock(turn.id, start, stop, text, turn.created_at, share)


def _closed(session: Session, said: Said) -> Said:
    """Forward what the reply kept and the log lacks, so that a turn's words lie in its own tokens alone.

    Else the next turn would begin with them, and keep them when this one is forgotten.
    """
    left, cut = said.pending.ids, said.dropped > 0
    if cut:
        session.read(left)
    else:
        for token in left:
            session.step(token)
    pending = replace(said.pending, ids=())
    return replace(said, ids=(*said.ids, *left), pending=pending, reread=len(left) if cut else 0)


def _cache_figures(session: Session) -> dict[str, Any]:
    """What the receipt says of the device cache, if there is one."""
    use = session.memory.cache_use
    return {} if use is None else {"device_cache": asdict(use)}


def _pending(last: Turn | None) -> Pending | None:
    """What a turn left to be forwarded; None before the first turn."""
    return None if last is None else Pending.from_json(last.pending)
