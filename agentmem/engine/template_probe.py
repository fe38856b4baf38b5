"""What a chat template can do, found by trying: the facts the rules of the deltas rest on.

Every fact comes from rendering short conversations of made-up words; no template is known by name.
A template whose text for a new message depends on earlier contents, or on how many there were,
cannot be written turn by turn and is refused. Knows nothing of real conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentmem.engine.template_cut import MARK, PRIORS, ROLES, TemplateCutter
from agentmem.engine.template_text import Message
from agentmem.errors import TemplateError

_TOOL = {
    "type": "function",
    "function": {
        "name": "qxtool",
        "description": "Qxdescribed",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}


@dataclass(frozen=True)
class TemplateFacts:
    """Properties of one chat template, as probed."""

    plain: bool
    """The tokenizer has no template; the plain format stands in."""
    roles: frozenset[str]
    """Roles of messages it can write."""
    prefix_stable: bool
    """The deltas' texts, replies between them, joined are the text of the whole conversation."""
    exact_ids: bool
    """The same of the token ids, where a reply's text is tokenised as it was sampled."""
    drops_thinking: bool
    """Its rendering of an old reply leaves out the thinking."""
    opens_thinking: bool
    """Its generation prompt begins the thinking."""
    system_role: bool
    """It takes a system message first."""
    late_system: bool
    """It takes system messages later, too."""
    merged_roles: frozenset[str]
    """Roles of which it refuses two messages in a row; those are merged."""
    has_tools: bool
    """It writes tool definitions."""
    writes_calls: bool
    """It writes the tool calls of an assistant's message."""
    writes_results: bool
    """It writes each of several tools' results; some write the last message's content only."""

    @property
    def alternates(self) -> bool:
        """Whether user and assistant must take turns."""
        return "user" in self.merged_roles


def probe(cutter: TemplateCutter) -> TemplateFacts:
    """Try the template.

    Raises:
        TemplateError: it cannot write a user's message and a reply, or not turn by turn.
    """
    text = cutter.text
    for role in ("user", "assistant"):
        cutter.tail(role, reply=False)
    cutter.tail("user", reply=True)
    late_system = _late_system(cutter)
    merged = {role for role in ("user", "assistant") if not _takes_two(cutter, role)}
    if not late_system:
        merged.add("system")
    _refuse_dependence(cutter)
    stable, exact = _compare_whole(cutter)
    prompt = cutter.tail("user", reply=True)
    return TemplateFacts(
        plain=text.plain,
        roles=frozenset(role for role in ROLES if cutter.knows(role)),
        prefix_stable=stable,
        exact_ids=exact,
        drops_thinking=_drops_thinking(cutter),
        opens_thinking="<think>" in prompt and "</think>" not in prompt,
        system_role=_in_order(cutter, _say("system", "Qxs"), _say("user", "Qxu")),
        late_system=late_system,
        merged_roles=frozenset(merged),
        has_tools=_has_tools(cutter),
        writes_calls=_writes_calls(cutter),
        writes_results=_writes_results(cutter),
    )


def _say(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _try(cutter: TemplateCutter, messages: Sequence[Message], *, reply: bool = False) -> str:
    """The rendering; empty if the template refuses."""
    try:
        return cutter.text.render(messages, reply=reply)
    except TemplateError:
        return ""


def _in_order(cutter: TemplateCutter, *messages: Message) -> bool:
    """Whether all contents are written, in the order of the messages."""
    text, at = _try(cutter, messages), 0
    for message in messages:
        at = text.find(message["content"], at)
        if at < 0:
            return False
        at += len(message["content"])
    return True


def _late_system(cutter: TemplateCutter) -> bool:
    told = (_say("user", "Qxu"), _say("assistant", "Qxa"), _say("system", "Qxs"))
    return _in_order(cutter, *told, _say("user", "Qxv")) and cutter.knows("system")


def _takes_two(cutter: TemplateCutter, role: str) -> bool:
    start = [_say("user", "Qxu"), _say("assistant", "Qxa")]
    pair = [_say(role, "Qxone"), _say(role, "Qxtwo")]
    return _in_order(cutter, *(start if role == "user" else start[:1]), *pair)


def _drops_thinking(cutter: TemplateCutter) -> bool:
    reply = _say("assistant", "<think>\nQxthought\n</think>\n\nQxa")
    text = _try(cutter, [_say("user", "Qxu"), reply, _say("user", "Qxv")])
    return "Qxa" in text and "Qxthought" not in text


def _has_tools(cutter: TemplateCutter) -> bool:
    try:
        text = cutter.text.render([_say("user", "Qxu")], reply=True, tools=[_TOOL])
    except TemplateError:
        return False
    return "qxtool" in text


def _writes_calls(cutter: TemplateCutter) -> bool:
    call = {
        "type": "function",
        "id": "call00001",
        "function": {"name": "qxtool", "arguments": {"at": "Qxat"}},
    }
    called: Message = {"role": "assistant", "content": "", "tool_calls": [call]}
    text = _try(cutter, [_say("user", "Qxu"), called])
    return "qxtool" in text and "Qxat" in text


def _writes_results(cutter: TemplateCutter) -> bool:
    before = list(PRIORS["tool"])
    again = {**before[-1], "content": "Qxagain"}
    text = _try(cutter, [*before, again], reply=True)
    return 0 <= text.find(MARK) < text.find("Qxagain")


def _refuse_dependence(cutter: TemplateCutter) -> None:
    """Render one new exchange behind different pasts; the text after the mark must be one and the same."""
    marked = PRIORS["assistant"][-1]
    pasts: list[list[Message]] = [
        [_say("user", "Qxother\n\nwords, 1."), marked],
        [_say("user", "Qxa"), _say("assistant", "Qxb"), _say("user", "Qxc"), marked],
        [_say("system", "Qxs"), _say("user", "Qxa"), marked],
    ]
    new = _say("user", "Qxnew")
    expected = cutter.cut("assistant", [new], reply=True)
    for past in pasts:
        text = _try(cutter, [*past, new], reply=True)
        if not text and past[0]["role"] == "system":
            continue
        if text[text.find(MARK) + len(MARK) :] != expected.head + expected.tail:
            raise TemplateError(
                "the chat template writes a new message differently depending on the conversation "
                "before it, so a conversation cannot be kept turn by turn. Use a model with another template."
            )


def _compare_whole(cutter: TemplateCutter) -> tuple[bool, bool]:
    """Whether deltas joined equal the whole conversation: (as text, as ids)."""
    say = [_say("user", "How far is it?"), _say("user", "And back,\n\nplease."), _say("user", "Thanks")]
    replies = ["About 12 km.", "The same."]
    told = [say[0], _say("assistant", replies[0]), say[1], _say("assistant", replies[1]), say[2]]
    whole = _try(cutter, told, reply=True)
    first = cutter.cut(None, say[:1], reply=True)
    opened = first.head + first.tail
    at = whole.find(replies[0])
    if not whole.startswith(opened) or at < len(opened) or whole[len(opened) : at].strip():
        return False, False
    lead = whole[len(opened) : at]
    joined, ids = opened, _encode(cutter, first.head, first.tail, inside=False)
    for reply, message in zip(replies, say[1:], strict=True):
        cut = cutter.cut("assistant", [message], reply=True)
        joined += lead + reply + cut.head + cut.tail
        ids += cutter.text.encode(lead + reply, inside=True)
        ids += _encode(cutter, cut.head, cut.tail, inside=True)
    stable = joined == whole
    return stable, stable and ids == cutter.text.encode(whole, inside=False)


def _encode(cutter: TemplateCutter, head: str, tail: str, *, inside: bool) -> list[int]:
    first, second = cutter.text.encode_cut(head, tail, inside=inside)
    return first + second
