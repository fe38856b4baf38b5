"""Chat templates as deltas: what a turn's new messages add to the token log, and nothing else.

A log holds ids that were forwarded. A turn forwards what the turn before left *pending*, then the
delta of its messages, then the generation prompt; what follows is sampled. The history is never
rendered or tokenised again, and a delta costs the same behind any history. The rules:

- The log is cut where a message's content ends. The tokens that close it are written by the next
  delta, or never, if the message is continued.
- On a prefix-stable template the deltas' text, with the replies between, is the text of the whole
  conversation. Where the closing text begins with a special token the ids are the same too.
- A template that drops old thinking: the log keeps what was really generated, or, on request, the
  answer alone as the template writes an old reply (:meth:`ChatTemplate.answer_only`).
- A template that insists on alternation: messages of one role in a row become one message, a blank
  line between them, across turns too. A system message it cannot take where it stands is written as
  the user's text.
- Tools are rendered with the first delta. Given later, the template's own place for them is used if
  that lies in the new text; else what it would have written becomes a system message.
- No content ever becomes a control token (see :mod:`agentmem.engine.template_text`).

Knows the template; knows nothing of models, logs or turns' storage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from agentmem.engine.template_cut import TemplateCutter
from agentmem.engine.template_messages import BLANK_LINE, checked, fitted, marked
from agentmem.engine.template_probe import TemplateFacts, probe
from agentmem.engine.template_text import PLAIN_STOPS, Message, TemplateText
from agentmem.engine.tool_syntax import ToolSyntax, probe_tool_syntax
from agentmem.errors import InputError, TemplateError

FinishReason = Literal["stop", "length", "stop_string"]

_ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"),
    *("<|end_of_turn|>", "<end_of_turn>", "<|END_OF_TURN_TOKEN|>", "<|return|>", "<|call|>", "</s>"),
)
"""Well-known tokens that end a reply; only those a tokenizer has as special tokens count."""
_THINK, _THOUGHT = "<think>", "</think>"


@dataclass(frozen=True)
class Pending:
    """What a turn left to be forwarded first by the next one. JSON round trip by to_json, from_json."""

    ids: tuple[int, ...]
    """Content not yet forwarded: the end of a reply that was cut short, until it is forwarded; a turn that was
    committed with some was written by an earlier version."""
    open_role: str
    """The role of the last message. It is not closed yet, so it can still be continued."""
    call_id: str | None = None
    """Which call the last message answers, if it is a tool's."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"ids": list(self.ids), "open_role": self.open_role, "call_id": self.call_id}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Pending:
        """The inverse of ``to_json``."""
        return cls(tuple(int(i) for i in value["ids"]), str(value["open_role"]), value.get("call_id"))


@dataclass(frozen=True)
class Delta:
    """Ids to forward now, and what is pending afterwards."""

    ids: tuple[int, ...]
    """All ids, pending ones first."""
    reply_start: int
    """``ids[reply_start:]`` close the last message and open the reply; ``len(ids)`` without a reply."""
    pending: Pending
    """What is pending if no reply follows; with a reply, see ``ChatTemplate.after_reply``."""


class ChatTemplate:
    """One model's chat template, probed once and then applied turn by turn. Immutable; threads may share it.

    Args:
        tokenizer: the model's tokenizer. Without a chat template of its own the plain format of
            :data:`agentmem.engine.template_text.PLAIN_TEMPLATE` is used.
        eos_ids: further ids that end a reply, from the model's generation config.

    Raises:
        TemplateError: the template cannot be written turn by turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, eos_ids: Iterable[int] = ()) -> None:
        self._text = TemplateText(tokenizer)
        self._cutter = TemplateCutter(self._text)
        self.facts: TemplateFacts = probe(self._cutter)
        self.tool_syntax: ToolSyntax | None = probe_tool_syntax(self._cutter)
        self.digest: str = hashlib.sha256(self._text.source.encode()).hexdigest()
        self.stop_ids: frozenset[int] = self._find_stop_ids(tokenizer, eos_ids)
        self.stop_strings: tuple[str, ...] = PLAIN_STOPS if self.facts.plain else ()

    def delta(
        self,
        pending: Pending | None,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        reply: bool,
    ) -> Delta:
        """What to forward for new messages, and for opening a reply.

        Args:
            pending: what the turn before left; None for the very first turn.
            messages: new messages only, as {"role", "content", ...}; may be empty if a reply follows
                messages of an earlier turn.
            tools: tool definitions as JSON schemas, if not given before.
            reply: whether the model is to answer.

        Raises:
            InputError: nothing to write, or a message that cannot be used.
            TemplateError: the template cannot express it.
        """
        open_role = pending.open_role if pending else None
        new = marked(self._text, checked(messages))
        self._refuse_lost(new)
        if not new and not (pending and reply):
            raise InputError("there is no message to write; give at least one.")
        tools = self._text.mark(list(tools)) if tools else None
        if tools and not self.facts.has_tools:
            raise TemplateError(_NO_TOOLS)
        if tools and pending is not None:
            new, tools = self._late_tools(pending, new, tools)
        joined, new = self._arranged(open_role, new)
        call_id = pending.call_id if pending else None
        cut = self._cutter.cut(open_role, new, reply=reply, call_id=call_id, joined=joined, tools=tools)
        inside = open_role is not None
        head, tail = self._text.encode_cut(cut.head, cut.tail, inside=inside)
        before = pending.ids if pending else ()
        return Delta((*before, *head, *tail), len(before) + len(head), Pending((), cut.role, cut.call_id))

    def continue_message(self, pending: Pending, text: str, *, separator: str = BLANK_LINE) -> Delta:
        """Go on with the message that is still open: ``separator`` and ``text``, word for word.

        Consecutive observations become one user message this way; the parts of one document are
        joined with ``separator=""`` (cut them before whitespace: many templates strip a first part).

        Raises:
            InputError: ``text`` is empty.
        """
        if not text:
            raise InputError("the text to go on with is empty; give some text.")
        trusted = pending.open_role == "assistant"
        ids = self._text.encode(self._text.mark(separator + text, trusted=trusted), inside=True)
        ids = [*pending.ids, *ids]
        return Delta(tuple(ids), len(ids), Pending((), pending.open_role, pending.call_id))

    def after_reply(self, unforwarded: Sequence[int], finish: FinishReason) -> Pending:
        """What is pending when a reply has ended.

        Args:
            unforwarded: ids of the reply that were not forwarded: the last sampled one, or, after a
                stop string, those of ``encode_reply`` for the text the log lacks. A stop token at
                their end is not content: the template's own closing tokens stand for it.
            finish: why the reply ended.
        """
        ids = tuple(unforwarded)
        if finish == "stop" and ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        return Pending(ids, "assistant")

    def answer_only(self, delta: Delta, reply: str) -> Delta | None:
        """The reply without its thinking, as the template writes an old reply; None if it has none.

        The ids take the place of everything from ``delta.reply_start`` on, in the log as well: cut
        it there, forward them, and go on with their ``pending``.
        """
        thinking, answer = self.split_thinking(reply)
        if not thinking:
            return None
        message = {"role": "assistant", "content": self._text.mark(answer, trusted=True)}
        asked = delta.pending
        cut = self._cutter.cut(asked.open_role, [message], reply=False, call_id=asked.call_id)
        ids = tuple(self._text.encode(cut.head, inside=True))
        return Delta(ids, len(ids), Pending((), "assistant"))

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """Ids of text inside a reply, such as what is kept of a token that a stop string cut."""
        return tuple(self._text.encode(self._text.mark(text, trusted=True), inside=True))

    def split_thinking(self, text: str) -> tuple[str, str]:
        """A reply's (thinking, answer); the thinking is empty if there is none."""
        opened = self.facts.opens_thinking or text.lstrip().startswith(_THINK)
        before, _, after = text.partition(_THOUGHT)
        if not opened:
            return "", text
        thinking = before.strip().removeprefix(_THINK).strip()
        return thinking, after.lstrip()

    def _refuse_lost(self, messages: Sequence[Message]) -> None:
        """Raise TemplateError when the template would leave out a call or a result without a word."""
        results = [message for message in messages if message["role"] == "tool"]
        if results and messages[-1] is results[-1]:
            results.pop()  # the last message is always written: its cut is looked for
        if results and not self.facts.writes_results:
            raise TemplateError(
                "the chat template leaves out a tool's result that is not the last message. Give results one at a "
                "time, or as a user's text."
            )
        if not self.facts.writes_calls and any(message.get("tool_calls") for message in messages):
            raise TemplateError(
                "the chat template leaves out tool calls. Write the call into the assistant's content, "
                "as the model would."
            )

    def _arranged(
        self, open_role: str | None, messages: list[dict[str, Any]]
    ) -> tuple[str, list[dict[str, Any]]]:
        """(text that goes on with the open message, the messages behind it), as the template takes them."""
        new = fitted(self.facts, messages, open_role=open_role)
        joins = new and new[0]["role"] == open_role and open_role in self.facts.merged_roles
        if joins and not new[0].get("tool_calls"):
            return BLANK_LINE + new[0]["content"], new[1:]
        return "", new

    def _late_tools(
        self, pending: Pending, messages: list[dict[str, Any]], tools: Sequence[Message]
    ) -> tuple[list[dict[str, Any]], Sequence[Message] | None]:
        """Tools given after the first turn: as the template does, or what it would have written, as a message."""
        role = pending.open_role
        joined, new = self._arranged(role, messages)
        try:
            with_tools = self._cutter.cut(role, new, reply=True, joined=joined, tools=tools)
            if with_tools != self._cutter.cut(role, new, reply=True, joined=joined):
                return messages, tools
        except TemplateError:
            pass  # the template writes them elsewhere, or not in one piece: take what it writes at the start
        asked: list[Message] = [{"role": "user", "content": "Qxasked"}]
        written = self._text.render(asked, reply=True, tools=tools)
        without = self._text.render(asked, reply=True)
        before = _shared(written, without)
        after = _shared(written[before:][::-1], without[before:][::-1])
        block = written[before : len(written) - after].strip()
        if not block or self._text.has_special(block):
            raise TemplateError(
                "the chat template writes tools at the start of a conversation only; "
                "give them with the first message."
            )
        return [{"role": "system", "content": block}, *messages], None

    def _find_stop_ids(self, tokenizer: PreTrainedTokenizerBase, eos_ids: Iterable[int]) -> frozenset[int]:
        """Ends of a reply: configured, well known, and the token the template closes a reply with."""
        ids = {int(i) for i in eos_ids}
        if isinstance(tokenizer.eos_token_id, int):
            ids.add(tokenizer.eos_token_id)
        closer = self._text.leading_token(self._cutter.tail("assistant", reply=False))
        for token in (closer, *_ENDS):
            found = self._text.token_id(token) if token else None
            if found is not None and found in self._text.special_ids:
                ids.add(found)
        if (
            self._text.token_id("<|return|>") in ids
        ):  # harmony: a reply is several messages, <|end|> closes each
            ids.discard(self._text.token_id("<|end|>") or -1)
        return frozenset(ids)


def _shared(first: str, second: str) -> int:
    """How many characters the two texts begin with in common."""
    return next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )


_NO_TOOLS = (
    "the model's chat template has no place for tools. Use a model with a template for tools, "
    "or describe them in a system message."
)
