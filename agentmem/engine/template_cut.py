"""Cutting a chat template's text where the content of a message ends, and only there.

What a template writes for new messages is found by rendering them behind a short, fixed prior
conversation whose last content is a mark; everything after the mark is what the new messages add.
Nothing of the real history is rendered, so the cost never depends on its length. The text is cut
behind the content of the last message, before the tokens that close it: those are written with
whatever comes next, and are simply not written if the message is continued.

Knows what a template writes; knows nothing of ids or memories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentmem.engine.template_text import Message, TemplateText
from agentmem.errors import TemplateError

ROLES = ("system", "user", "assistant", "tool")
MARK = "Qxmarkzero"
FOLLOWER = "Qxfollower"

_CALL_ID = "call00001"
_CALL = {"type": "function", "id": _CALL_ID, "function": {"name": "look", "arguments": {"at": MARK}}}
_ASKED: Message = {"role": "user", "content": "Qxasked"}
_ANSWERED: Message = {"role": "assistant", "content": "Qxanswered"}
_CALLED: Message = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_CALLED_UNMARKED: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{**_CALL, "function": {"name": "look", "arguments": {"at": "Qxplace"}}}],
}

PRIORS: dict[str, tuple[Message, ...]] = {
    "system": ({"role": "system", "content": MARK},),
    "user": (_ASKED, _ANSWERED, {"role": "user", "content": MARK}),
    "assistant": (_ASKED, {"role": "assistant", "content": MARK}),
    "tool": (
        _ASKED,
        _CALLED_UNMARKED,
        {"role": "tool", "content": MARK, "name": "look", "tool_call_id": _CALL_ID},
    ),
}
"""The fixed conversation behind which a message after one of that role is rendered."""

_NEXT: dict[str, Message] = {
    "system": {"role": "user", "content": FOLLOWER},
    "user": {"role": "assistant", "content": FOLLOWER},
    "assistant": {"role": "user", "content": FOLLOWER},
    "tool": {"role": "assistant", "content": FOLLOWER},
}
"""A message put behind the last one, so that it is rendered as history and not as the end."""


@dataclass(frozen=True)
class Cut:
    """What new messages add to a conversation."""

    head: str
    """Up to the end of the last content."""
    tail: str
    """What closes it and opens the reply; empty when no reply follows."""
    role: str
    """The role of the last message."""
    call_id: str | None
    """Which call the last message answers, if it is a tool's: some templates close it with that."""


class TemplateCutter:
    """Renders new messages as what they add to a conversation.

    Args:
        text: the template to cut.
    """

    def __init__(self, text: TemplateText) -> None:
        self.text = text
        self._tails: dict[tuple[str, bool], str] = {}
        for role in ROLES:
            for reply in (False, True):
                tail = self._find_tail(role, reply=reply)
                if tail is not None:
                    self._tails[role, reply] = tail
        self.tool_after_call = not self._renders_tool_after_answer()

    def knows(self, role: str) -> bool:
        """Whether a message of that role can be written and cut."""
        return (role, False) in self._tails

    def tail(self, role: str, *, reply: bool) -> str:
        """What closes a message of ``role`` and opens the reply, or the fixed follower message.

        Raises:
            TemplateError: the template cannot put that there.
        """
        if (role, reply) not in self._tails:
            what = "a reply" if reply else "another message"
            raise TemplateError(
                f"the chat template cannot write a {role!r} message with {what} behind it. "
                f"The roles it can write are {', '.join(r for r in ROLES if self.knows(r))}."
            )
        return self._tails[role, reply]

    def cut(
        self,
        open_role: str | None,
        messages: Sequence[Message],
        *,
        reply: bool,
        call_id: str | None = None,
        joined: str = "",
        tools: Sequence[Message] | None = None,
    ) -> Cut:
        """What ``messages`` add behind a message of ``open_role`` (None: they are the first).

        Args:
            call_id: the call that the open message answers, if it is a tool's.
            joined: text that first goes on with the open message.

        Raises:
            TemplateError: the template cannot express it.
        """
        prior = self._prior(open_role, messages, call_id)
        if joined:
            prior[-1] = {**prior[-1], "content": MARK + joined}
        whole = [*prior, *messages]
        last = whole[-1]
        role = str(last["role"])
        tail = self._tail_of(last, reply=reply)
        if not reply:
            whole.append(_NEXT[role])
        added = self.text.render(whole, reply=reply, tools=tools)
        if open_role is not None:
            added = self._after_mark(added, called=bool(prior[-1].get("tool_calls")))
        if not added.endswith(tail):
            raise TemplateError(
                f"the chat template ends a {role!r} message differently from message to message "
                f"(expected {tail!r} at the end of {added[-200:]!r}), so a turn cannot be cut out of it."
            )
        answers = last.get("tool_call_id") if role == "tool" else None
        return Cut(added[: len(added) - len(tail)], tail if reply else "", role, answers)

    def _prior(
        self, open_role: str | None, messages: Sequence[Message], call_id: str | None
    ) -> list[Message]:
        if open_role is None:
            return []
        if open_role == "assistant" and messages and messages[0]["role"] == "tool" and self.tool_after_call:
            return [_ASKED, _CALLED]
        prior = list(PRIORS[open_role])
        if call_id is not None:
            prior[-1] = {**prior[-1], "tool_call_id": call_id}
        return prior

    def _tail_of(self, message: Message, *, reply: bool) -> str:
        """What closes that very message; a tool's result may be closed with the id of its call."""
        role, call_id = str(message["role"]), message.get("tool_call_id")
        tail = self.tail(role, reply=reply)
        return tail.replace(_CALL_ID, str(call_id)) if role == "tool" and call_id else tail

    def _after_mark(self, rendered: str, *, called: bool = False) -> str:
        """The text behind the mark; behind a marked tool call, from the token that closes the message."""
        at = rendered.find(MARK)
        if at < 0:
            raise TemplateError(
                "the chat template left out the content of a message, so a turn cannot be cut out of it."
            )
        after = rendered[at + len(MARK) :]
        if called:
            closer = self.text.leading_token(self.tail("assistant", reply=False))
            after = after[max(after.find(closer), 0) :] if closer else after
        return after

    def _find_tail(self, role: str, *, reply: bool) -> str | None:
        messages = [*PRIORS[role]] if reply else [*PRIORS[role], _NEXT[role]]
        try:
            after = self._after_mark(self.text.render(messages, reply=reply))
        except TemplateError:
            return None
        return after if reply or FOLLOWER in after else None

    def _renders_tool_after_answer(self) -> bool:
        """Whether a tool's result may stand behind an answer that shows no call."""
        result = PRIORS["tool"][-1]
        try:
            plain = self.text.render([*PRIORS["assistant"], {**result, "content": FOLLOWER}], reply=True)
        except TemplateError:
            return False
        return 0 <= plain.find(MARK) < plain.find(FOLLOWER)
