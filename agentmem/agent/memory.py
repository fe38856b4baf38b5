"""AgentMemory: the public face. Opens one agent's memory and goes on where it stopped.

Joins the engine and the store; holds no logic of its own beyond checking arguments and queueing calls.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Unpack

from agentmem.agent import archive, looking
from agentmem.agent.finding import Wanted
from agentmem.agent.forgetting import forget
from agentmem.agent.forks import note_fork
from agentmem.agent.gate import Gate, in_worker
from agentmem.agent.hot_blocks import HotBlocks
from agentmem.agent.in_force import system_digest
from agentmem.agent.keywords import (
    ChatKeywords,
    GenerateKeywords,
    ObserveKeywords,
    TurnKeywords,
)
from agentmem.agent.messages import checked, checked_state, checked_tools, sampling_options, user_message
from agentmem.agent.observing import observe
from agentmem.agent.opening import Asked as AskedOpening
from agentmem.agent.opening import Opened, open_agent
from agentmem.agent.places import end_of, find_home, key_of, moment
from agentmem.agent.provenance import (
    RecallFrom,
    checked_trust,
    origin_options,
    quarantine,
    quarantined,
    release,
)
from agentmem.agent.receipts import (
    Explanation,
    ForgetReceipt,
    HistoryTurn,
    Quarantined,
    QuarantineReceipt,
    Reply,
    ResumeReceipt,
    RetentionReceipt,
    SearchHit,
    WriteReceipt,
)
from agentmem.agent.reencoding import make_draft
from agentmem.agent.repairing import repair
from agentmem.agent.retention import Quota, apply_retention
from agentmem.agent.streams import AsyncReplyStream, ReplyStream, gathered
from agentmem.agent.turns import Asked, Turns
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel, Tokenizer
from agentmem.engine.sampling import LogitsProcessor
from agentmem.engine.session import Progress
from agentmem.errors import ClosedError, KeyNeededError, ReadOnlyError, StaleWriterError
from agentmem.store import DiskHome, MemoryKey
from agentmem.store.base import HEAD, AgentInfo, Home, Store, VerifyReport
from agentmem.store.mended import RepairReport, SalvageReport
from agentmem.store.upkeep import AuditRow

Message = Mapping[str, Any]


class AgentMemory:
    """One agent's memory, open. Made by :meth:`resume`; close it, or use it as a context manager.

    Calls from several threads queue. Another process that wants to write gets ``AgentBusyError``.
    """

    def __init__(self, opened: Opened, home: Home) -> None:
        self._home = home
        self._store: Store = opened.store
        self._model = opened.model
        self._config = opened.config
        self._hot = HotBlocks()
        self._gate = Gate(f"agent {opened.store.identity.agent_id!r}")
        self._stream: weakref.ref[ReplyStream] | None = None  # weak: a stream let go of closes itself
        self._resumed = ResumeReceipt(opened.created, 0, 0, 0, 0, 0.0)

    # -- opening and closing ----------------------------------------------------------------------

    @classmethod
    def resume(
        cls,
        agent_id: str,
        *,
        model: str | Path | LanguageModel | None = None,
        home: str | Path | Home | None = None,
        device: str = "auto",
        dtype: str = "auto",
        config: MemoryConfig | None = None,
        system: str | None = None,
        create: bool = True,
        wait: float = 0.0,
        read_only: bool = False,
        key: MemoryKey | None = None,
        expect_state: str | None = None,
    ) -> AgentMemory:
        """Open an agent's memory, or create it; nothing of the past is read again.

        Args:
            agent_id: any text of 1 to 512 characters.
            model: a built-in name, a Hugging Face id, a folder, a GGUF file or a ``LanguageModel``;
                None: the one the agent was made with, else the default. Another one is refused. With
                ``:int8`` behind a name its weights are held in one byte each, on the CPU: half the memory and
                a faster reply, and another model to a memory.
            home: where all agents are; None: ``AGENTMEM_HOME``, else the user's data folder.
            device: "auto", "cpu", "cuda" or "cuda:1".
            dtype: "auto" (as stored, else the checkpoint's), "bfloat16" or "float32".
            config: None: as stored, else the default. ``chunk_tokens`` is fixed at creation.
            system: the system prompt; another one than before is appended as a turn.
            create: False: an unknown agent is an error.
            wait: seconds to wait for another writer.
            read_only: look, but change nothing; needs no lock and, for texts, no model.
            key: makes an encrypted agent, or opens it (extra ``crypto``); None: ``AGENTMEM_KEY_FILE`` or
                ``AGENTMEM_PASSPHRASE`` if one is set, else a plain one.
            expect_state: what :meth:`checkpoint` gave once, kept elsewhere: an agent that never came to that state is
                refused, and none is created. So a whole older copy of its folder that was put back does not pass
                for it. A state that was forgotten or left behind since is fine; one that was pruned is not.

        Raises:
            StateNotFoundError: ``expect_state`` is not there; nothing has changed.
            AgentBusyError, AgentNotFoundError, FingerprintMismatchError, ConfigError, DamagedError, ModelError.
        """
        if system is not None:
            user_message(system, role="system")
        place = find_home(home, key)
        started = time.perf_counter()
        opened = open_agent(
            AskedOpening(agent_id, model, place, device, dtype, config, create, wait, read_only, expect_state)
        )
        memory = cls(opened, place)
        try:
            prefilled = memory._settle_system(system)
        except BaseException:
            memory.close()
            if opened.created:
                place.delete(agent_id)
            raise
        seconds = time.perf_counter() - started - opened.model.seconds
        memory._note_resumed(prefilled, seconds)
        return memory

    @property
    def resumed(self) -> ResumeReceipt:
        """What opening found and cost."""
        return self._resumed

    def close(self) -> None:
        """Let the agent go. Everything acknowledged is already on disk. Closing twice is fine.

        An unfinished stream of this thread or task is closed, and its turn dropped; another thread's is waited for.
        """
        stream = self._stream() if self._gate.held_here and self._stream is not None else None
        if stream is not None:
            stream.close()
        with suppress(ClosedError, StaleWriterError), self._gate.even_parked():
            self._gate.shut()
            self._store.close()
            self._hot.close()

    def park(self) -> None:
        """Give the right to write up between calls, and keep everything warm: model, files, checked pages.

        Until :meth:`unpark` the agent may be opened, changed or deleted elsewhere, here and in other
        processes; every call on this object but ``unpark`` and ``close`` raises ClosedError. Parking
        twice is fine.

        Raises:
            AgentBusyError: a stream of this thread or task has not ended.
            ReadOnlyError: it was opened read-only, and holds no such right.
        """
        with self._gate.even_parked():
            self._check_writable()
            self._store.park()
            self._gate.park()

    def unpark(self, wait: float = 0.0) -> bool:
        """Go on after :meth:`park`; nothing is read or checked again. Does nothing if it is not parked.

        Args:
            wait: seconds to wait for another writer.

        Returns:
            False when another writer had it open meanwhile, or it was deleted: this object is closed
            then, and :meth:`resume` opens the agent as it now is.

        Raises:
            AgentBusyError: another writer holds it; it stays parked.
            ClosedError: it was closed.
        """
        with self._gate.even_parked():
            current = self._store.unpark(wait)
            self._gate.unpark()
            if not current:
                self._gate.shut()
            return current

    def __enter__(self) -> AgentMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        held = "parked" if self._gate.parked else f"{self._store.log.committed} tokens"
        state = "closed" if self._gate.closed else held
        return f"<AgentMemory {self.agent_id!r}: {state}>"

    # -- talking ----------------------------------------------------------------------------------

    def chat(
        self,
        text: str,
        *,
        remember: bool = True,
        at: datetime | str | None = None,
        speaker: str | None = None,
        **options: Unpack[TurnKeywords],
    ) -> Reply:
        """Say something, get the answer; both become memory.

        Args:
            text: the user's words.
            remember: False: answer, then leave the memory as it was.
            at: when this is said; None: now.
            speaker: a name put before the text, for memories of several people.
            options: ``max_new_tokens=256, temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0,
                seed=None, stop=()``; temperature 0 is greedy and deterministic. ``source=None, trust=None``
                are kept with the turn, by default the role is its trust. ``recall_from=None``: this turn
                attends to turns that fit alone, such as ``{"trust": ["system", "user"]}``; keys are "role",
                "source" and "trust", and turns of trust "system" always fit. ``expires_at=None``: from then on
                :meth:`apply_retention` drops the turn.

        Raises:
            InputError: the text is empty or an option cannot be used; nothing has changed.
        """
        return self.stream(text, remember=remember, at=at, speaker=speaker, **options).read()

    def stream(
        self,
        text: str,
        *,
        remember: bool = True,
        at: datetime | str | None = None,
        speaker: str | None = None,
        **options: Unpack[TurnKeywords],
    ) -> ReplyStream:
        """As :meth:`chat`, but gives pieces of text as they are decoded; ``.reply`` at the end.

        Closed early, the memory stays as it was before.
        """
        return self.generate_stream([user_message(text, speaker)], remember=remember, at=at, **options)

    def generate(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        logits_processor: Sequence[LogitsProcessor] = (),
        remember: bool = True,
        at: datetime | str | None = None,
        after: str | None = HEAD,
        **options: Unpack[TurnKeywords],
    ) -> Reply:
        """Answer new messages, which may be of any role; what is in the memory is not given again.

        Args:
            messages: {"role", "content"} dicts, new ones only; "metadata", plain JSON, is kept with a message
                and shown in the history, and never to the model.
            tools: JSON schemas, rendered by the model's own template; those in force are not rendered again.
            logits_processor: callables (input_ids (1, n), scores (1, V)) -> scores, as in transformers.
            remember, at, options: as in :meth:`chat`.
            after: where the turn goes on from: the head, the id of a state of any branch, or None, before
                the first turn. The head moves when the turn is remembered, and not before.

        Raises:
            InputError, StateNotFoundError, StateForgottenError: nothing has changed.
        """
        return self.generate_stream(
            messages,
            tools=tools,
            logits_processor=logits_processor,
            remember=remember,
            at=at,
            after=after,
            **options,
        ).read()

    def generate_stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        logits_processor: Sequence[LogitsProcessor] = (),
        remember: bool = True,
        at: datetime | str | None = None,
        after: str | None = HEAD,
        **options: Unpack[TurnKeywords],
    ) -> ReplyStream:
        """As :meth:`generate`, piece by piece."""
        given: dict[str, Any] = {**options}
        origin, sampling = origin_options(given), sampling_options(given)
        asked = Asked(
            "chat",
            checked(messages),
            moment(at),
            checked_tools(tools),
            after=checked_state("after", after),
            **origin,
        )
        self._gate.enter()
        try:
            self._check_writable()
            pieces: Generator[str, None, Reply] = self._turns().reply(
                asked, sampling, logits_processor, remember=remember
            )
            stream = ReplyStream(pieces, self._gate.leave)
        except BaseException:
            self._gate.leave()
            raise
        self._stream = weakref.ref(stream)
        return stream

    def append(
        self,
        messages: Sequence[Message],
        *,
        at: datetime | str | None = None,
        after: str | None = HEAD,
        source: str | None = None,
        trust: str | None = None,
        recall_from: RecallFrom | None = None,
        expires_at: datetime | str | None = None,
    ) -> WriteReceipt:
        """Put messages into the memory without an answer.

        ``after`` is as in :meth:`generate`; ``source``, ``trust``, ``recall_from`` and ``expires_at`` are as in
        :meth:`chat`.
        """
        origin = origin_options(
            {"source": source, "trust": trust, "recall_from": recall_from, "expires_at": expires_at}
        )
        asked = Asked("append", checked(messages), moment(at), after=checked_state("after", after), **origin)
        with self._gate:
            self._check_writable()
            return self._turns().write(asked)

    def observe(
        self,
        text: str,
        *,
        source: str | None = None,
        role: str = "user",
        trust: str | None = None,
        at: datetime | str | None = None,
        expires_at: datetime | str | None = None,
        on_progress: Progress | None = None,
    ) -> WriteReceipt:
        """Read a text of any length without answering.

        Long texts are committed in parts of at most 4,096 tokens. With a ``source``, repeating an
        interrupted call goes on where it stopped, and repeating a finished one does nothing.

        Args:
            text: what to read.
            source: a name for the text, kept with it.
            role: "user" or "system".
            trust: how far the text is trusted, such as "web"; None: as its role is.
            at: when; None: now.
            expires_at: from then on :meth:`apply_retention` drops it; None: never.
            on_progress: told (tokens done, tokens in all).
        """
        with self._gate:
            self._check_writable()
            return observe(
                self._turns(),
                self._model.get(),
                self._store,
                text,
                source=source,
                role=role,
                trust=checked_trust(trust),
                when=moment(at),
                on_progress=on_progress,
                expires_at=end_of(expires_at),
            )

    # -- looking ----------------------------------------------------------------------------------

    @property
    def agent_id(self) -> str:
        """The agent's name."""
        return self._store.identity.agent_id

    @property
    def config(self) -> MemoryConfig:
        """The options in force."""
        return self._config

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._model.get().tokenizer

    @property
    def language_model(self) -> LanguageModel:
        """The model that answers; agents opened with it share its weights."""
        return self._model.get()

    @property
    def tokens_held(self) -> int:
        """Tokens in the memory."""
        return self._store.log.committed

    def checkpoint(self) -> str | None:
        """The id of the current state, for ``rewind``; None while the memory is empty.

        Every turn is durable when it is acknowledged, so there is nothing left to save.
        """
        with self._gate:
            head = self._store.head
            return None if head is None else head.state_id

    def explain(self) -> Explanation:
        """Which blocks of the past fed the last reply, with text, turn, date and share of attention."""
        with self._gate:
            return looking.explain(self._store, self._turns())

    def history(self, *, limit: int | None = None, at: str | None = HEAD) -> list[HistoryTurn]:
        """The turns so far, oldest first; with ``limit``, the newest ones.

        With a state id for ``at`` those of the branch that ends there.

        Raises:
            StateNotFoundError, StateForgottenError: there is no such state (any more).
        """
        with self._gate:
            return looking.history(self._store, limit, checked_state("at", at))

    def search(self, query: str, *, limit: int = 20) -> list[SearchHit]:
        """What was said with these words: messages of the turns that hold them all, newest turn first."""
        with self._gate:
            return looking.search(self._store, query, limit)

    def verify(self, *, deep: bool = False) -> VerifyReport:
        """Check the files: index and sizes, and with ``deep`` every checksum."""
        with self._gate:
            return self._store.verify(deep=deep)

    def repair(self, *, dry_run: bool = False, encode: bool = True) -> RepairReport:
        """Compute damaged keys and values anew from the stored token ids, and drop damaged digests.

        Each damaged turn is run again as it was run. The report says of which ranges the bits are those
        that were committed. Nothing old is altered before all of it is done; then one commit swaps it in.

        Args:
            dry_run: only say what is damaged and what would become of it.
            encode: False: set damaged tokens aside, so that no turn attends to them, until a later repair.

        Raises:
            StoreError: the disk failed; nothing has changed.
        """
        with self._gate:
            if not dry_run:
                self._check_writable()
                self._hot.clear()
            return repair(self._store, self._model.get() if encode else None, dry_run=dry_run)

    # -- changing the past ------------------------------------------------------------------------

    def rewind(self, state_id: str | None) -> None:
        """Go back to an earlier state (None: before the first turn). Later turns stay reachable by id."""
        with self._gate:
            self._check_writable()
            self._store.rewind(state_id)

    def fork(self, agent_id: str) -> AgentMemory:
        """A new agent with this agent's past, opened; from here on they go their own ways."""
        with self._gate:
            note_fork(self._store, agent_id)
            self._home.fork(self.agent_id, agent_id)
        model = self._model.get()
        return AgentMemory.resume(agent_id, model=model, home=self._home, config=self._config)

    def reencode(
        self,
        model: str | Path | LanguageModel,
        *,
        agent_id: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        config: MemoryConfig | None = None,
        on_progress: Progress | None = None,
    ) -> AgentMemory:
        """Move to another model: the text of the current branch is read by it, as a new agent, which is opened.

        A call that was killed goes on where it stopped when it is repeated. States of the old agent are not
        states of the new one.

        Args:
            model: as in :meth:`resume`.
            agent_id: the new agent's name; None: it takes this one's place in one step, when it is whole.
                This object is closed then, and the old keys and values are removed. Opened read-only, the
                old model is not needed; the right to write is taken for that step alone.
            device, dtype: as in :meth:`resume`.
            config: None: this agent's.
            on_progress: told (tokens done, tokens in all), counted in the old model's tokens.

        Raises:
            AgentExistsError, AgentBusyError, ModelError, ConfigError, StoreError: this agent is as it was.
            StaleWriterError: it went on elsewhere meanwhile, so it was not replaced.
        """
        with self._gate:
            wanted = model
            if not isinstance(wanted, LanguageModel):
                wanted = LanguageModel.load(wanted, device=device, dtype=dtype)
            name = self.agent_id if agent_id is None else agent_id
            make_draft(self._store, self._home, agent_id, wanted, config or self._config, on_progress)
            over = None
            if agent_id is None:
                head = self._store.head
                over = (self._store.identity.uuid, None if head is None else head.state_id)
                self._gate.shut()
                self._store.close()
            self._home.put_in_place(self.agent_id, name, over=over)
        return AgentMemory.resume(name, model=wanted, home=self._home)

    def forget(
        self,
        *,
        turn: int | None = None,
        match: str | None = None,
        source: str | None = None,
        before: datetime | str | None = None,
        after: datetime | str | None = None,
        everything: bool = False,
        mode: Literal["drop", "rebuild"] = "drop",
        dry_run: bool = False,
        on_progress: Progress | None = None,
    ) -> ForgetReceipt:
        """Drop turns for good: all that fit every condition given, on every branch.

        Args:
            turn: a turn id, as in ``history``.
            match: text that the turn holds; case and white space are ignored, and where a long observation was
                split does not matter.
            source: the source of an observation.
            before, after: turns made then.
            everything: all turns; the agent stays, with its name, its options and its audit. :meth:`delete`
                removes that, too.
            mode: "drop" is quick, and leaves a trace in the keys and values of later turns. "rebuild" reads those
                again, as if the turns had never been; also without those that were dropped before. Turn numbers
                stay, later states get new ids, and the old ids lead to them.
            dry_run: say what would be dropped, drop nothing.
            on_progress: told (tokens done, tokens in all) by a rebuild.

        Raises:
            RebuildNeededError: a turn lies in the sinks and mode is "drop"; nothing was dropped.
            StoreError: the disk failed; either nothing was dropped, or the message says what is left to do.
        """
        wanted = Wanted(turn, match, source, before, after, everything)
        with self._gate:
            self._check_writable()
            if not dry_run:
                self._home.clear_workshop(self.agent_id)  # an unfinished move holds the same words
                self._hot.clear()
            return forget(
                self._store,
                self._home,
                self._model.get,
                self._config,
                wanted,
                mode=mode,
                dry_run=dry_run,
                on_progress=on_progress,
            )

    def pin(self, turn: int, *, pinned: bool = True) -> None:
        """Let retention never drop a turn; ``pinned=False``: let it again. ``forget`` drops it all the same.

        Raises:
            StateNotFoundError, StateForgottenError: there is no such turn (any more).
        """
        with self._gate:
            self._check_writable()
            self._store.upkeep.pin(turn, pinned=pinned)

    def apply_retention(
        self,
        *,
        max_tokens: int | None = None,
        max_bytes: int | None = None,
        policy: Literal["oldest", "least-recalled"] = "oldest",
        at: datetime | str | None = None,
        mode: Literal["drop", "rebuild"] = "drop",
        dry_run: bool = False,
        on_progress: Progress | None = None,
    ) -> RetentionReceipt:
        """Drop the turns that have expired, then as many as the quota asks for; never one that is pinned.

        Args:
            max_tokens: how many tokens may stay, on all branches together; None: any number.
            max_bytes: the same in bytes of keys and values.
            policy: which go first when it is more: the oldest, or those that later replies attended to least.
            at: what time it is, for what expires; None: now.
            mode: as in :meth:`forget`; "drop" leaves turns in the sinks where they are.
            dry_run: say what would be dropped, drop nothing.
            on_progress: told (tokens done, tokens in all) by a rebuild.
        """
        with self._gate:
            self._check_writable()
            quota = Quota(max_tokens, max_bytes, policy, at)
            if not dry_run:
                self._home.clear_workshop(self.agent_id)
                self._hot.clear()
            return apply_retention(
                self._store,
                self._model.get,
                self._config,
                quota,
                mode=mode,
                dry_run=dry_run,
                on_progress=on_progress,
            )

    def audit(self) -> Sequence[AuditRow]:
        """What was dropped from this memory, oldest first: what, why, when and how much; nothing of what it said."""
        with self._gate:
            return self._store.upkeep.audit()

    def quarantine(self, source: str, *, reason: str | None = None) -> QuarantineReceipt:
        """Hold a source: no later turn attends to what came from it, until :meth:`release`. Deletes nothing.

        Its tokens are treated as forgotten ones: not recalled, and masked in the sinks and the window. What
        is observed under that name later is held too.
        """
        with self._gate:
            self._check_writable()
            return quarantine(self._store, source, reason, moment(None))

    def release(self, source: str) -> QuarantineReceipt:
        """Let a source be attended to again. Raises InputError when it is not in quarantine."""
        with self._gate:
            self._check_writable()
            return release(self._store, source)

    @property
    def quarantined(self) -> Sequence[Quarantined]:
        """The sources in quarantine, with since when and why."""
        with self._gate:
            return quarantined(self._store)

    # -- async twins ------------------------------------------------------------------------------

    async def achat(self, text: str, **options: Unpack[ChatKeywords]) -> Reply:
        """The async twin of :meth:`chat`; cancelling it drops the turn."""
        return await gathered(self.astream(text, **options))

    def astream(self, text: str, **options: Unpack[ChatKeywords]) -> AsyncReplyStream:
        """The async twin of :meth:`stream`."""
        return AsyncReplyStream(lambda: self.stream(text, **options))

    async def agenerate(self, messages: Sequence[Message], **options: Unpack[GenerateKeywords]) -> Reply:
        """The async twin of :meth:`generate`; cancelling it drops the turn."""
        return await gathered(AsyncReplyStream(lambda: self.generate_stream(messages, **options)))

    async def aobserve(self, text: str, **options: Unpack[ObserveKeywords]) -> WriteReceipt:
        """The async twin of :meth:`observe`."""
        return await in_worker(lambda: self.observe(text, **options))

    # -- all agents -------------------------------------------------------------------------------

    @staticmethod
    def list(home: str | Path | Home | None = None, key: MemoryKey | None = None) -> list[AgentInfo]:
        """Every agent there is, most recently used first; of one that ``key`` does not open, name and model."""
        return find_home(home, key).list()

    @staticmethod
    def delete(agent_id: str, home: str | Path | Home | None = None) -> None:
        """Remove an agent and its files. Raises AgentNotFoundError, AgentBusyError."""
        find_home(home).delete(agent_id)

    @staticmethod
    def salvage(
        agent_id: str,
        *,
        home: str | Path | Home | None = None,
        dry_run: bool = False,
        key: MemoryKey | None = None,
    ) -> SalvageReport:
        """Make an agent that cannot be opened usable again, without its model; nobody may have it open.

        A damaged index is built anew from all that can be read of it and is what was written. Keys and values
        that are damaged, or cannot be checked any more, are set aside: no turn attends to them until
        :meth:`repair` computes them again. A sound index is left as it is. ``key`` is as for :meth:`resume`: of
        an encrypted index only what is authenticated is taken.

        Raises:
            AgentNotFoundError, AgentBusyError, StoreError: nothing has changed.
            DamagedError: not enough is left to know whose it is; restore an export.
        """
        return find_home(home, key).salvage(agent_id, dry_run=dry_run)

    @staticmethod
    def change_key(
        agent_id: str, new: MemoryKey, *, home: str | Path | Home | None = None, key: MemoryKey | None = None
    ) -> None:
        """Lock an encrypted agent, which ``key`` opens and nobody has open, with another key from now on.

        Its data is not written again: only the agent's own key is wrapped anew. Older copies of the file
        ``key`` in its folder still open with the old one.

        Raises:
            KeyNeededError, WrongKeyError, AgentBusyError, StoreError: nothing has changed.
        """
        place = find_home(home, key)
        if not isinstance(place, DiskHome):
            raise KeyNeededError(f"agent {agent_id!r} is not on disk, so it is not encrypted")
        place.change_key(agent_id, new)

    @staticmethod
    def export(
        agent_id: str,
        path: str | Path,
        *,
        kv: bool = False,
        home: str | Path | Home | None = None,
        key: MemoryKey | None = None,
    ) -> Path:
        """Write an agent's past to one file: its text and token ids, with ``kv`` its keys and values.

        Only its owner may read the file. That of an encrypted agent is encrypted with the same key.
        """
        place = find_home(home, key)
        return archive.export(place, agent_id, Path(path), kv=kv, key=key_of(place))

    @staticmethod
    def restore(
        path: str | Path,
        *,
        agent_id: str | None = None,
        model: str | Path | LanguageModel | None = None,
        home: str | Path | Home | None = None,
        device: str = "auto",
        on_progress: Progress | None = None,
        key: MemoryKey | None = None,
    ) -> AgentMemory:
        """Make an agent from an export, and open it.

        With keys and values in the file nothing is read again; without, its tokens are. With a key, which
        an encrypted export needs, the new agent is encrypted.
        """
        place = find_home(home, key)
        name = archive.restore(place, Path(path), agent_id, model, device, on_progress, key_of(place))
        return AgentMemory.resume(name, model=model, home=place, device=device)

    # -- inside -----------------------------------------------------------------------------------

    def _turns(self) -> Turns:
        return Turns(self._model.get(), self._store, self._config, self._hot)

    def _check_writable(self) -> None:
        if self._store.read_only:
            raise ReadOnlyError(
                f"agent {self.agent_id!r} was opened with read_only=True; open it without to change it"
            )

    def _settle_system(self, system: str | None) -> int:
        """Append the system prompt if it is another one than before; returns the tokens read."""
        if system is None or self._store.read_only:
            return 0
        turns = self._turns()
        if turns.in_force.system == system_digest(system):
            return 0
        asked = Asked("system", checked([{"role": "system", "content": system}]), moment(None))
        return turns.write(asked).tokens_prefilled

    def _note_resumed(self, prefilled: int, seconds: float) -> None:
        self._resumed = ResumeReceipt(
            created=self._resumed.created,
            tokens_held=self._store.log.committed,
            tokens_prefilled=prefilled,
            turns=self._store.turn_count,
            bytes_read=self._store.bytes_read,
            seconds=seconds,
        )
