"""Taking a reply apart: text, thinking and calls, however the text arrives."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmem.engine.tool_syntax import HERMES, ToolSyntax
from agentmem.errors import InputError
from langchain_agentmem.reply_parser import (
    BadCall,
    CallArguments,
    CallStart,
    ParsedCall,
    ParsedReply,
    Part,
    ReplyParser,
    TextPart,
    ThinkingPart,
    may_hold_parts,
    parse_reply,
)

LLAMA = ToolSyntax("", "", "name", "parameters", between=None)
MISTRAL = ToolSyntax(" ", "", "name", "arguments", between=", ", listed=True, opener="[TOOL_CALLS]")
SYNTAXES = [None, HERMES, LLAMA, MISTRAL, ToolSyntax("CALL", "", "name", "arguments", listed=True)]


def call(name: str, **arguments: object) -> ParsedCall:
    return ParsedCall(name, arguments)


def hermes(name: str, **arguments: object) -> str:
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def joined(parts: list[Part]) -> list[Part]:
    """Neighbours of one kind put together."""
    done: list[Part] = []
    for part in parts:
        last = done[-1] if done else None
        if isinstance(part, TextPart) and isinstance(last, TextPart):
            done[-1] = TextPart(last.text + part.text)
        elif isinstance(part, ThinkingPart) and isinstance(last, ThinkingPart):
            done[-1] = ThinkingPart(last.text + part.text)
        elif isinstance(part, CallArguments) and isinstance(last, CallArguments):
            done[-1] = CallArguments(part.index, last.text + part.text)
        else:
            done.append(part)
    return done


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ParsedReply("", "", [], [])),
        (" Hello,\n <world> \n", ParsedReply(" Hello,\n <world> \n", "", [], [])),
        ("almost <tool_cal", ParsedReply("almost <tool_cal", "", [], [])),
        (hermes("look", at="here"), ParsedReply("", "", [call("look", at="here")], [])),
        ("Let me.\n" + hermes("look"), ParsedReply("Let me.", "", [call("look")], [])),
        (hermes("a") + "\n" + hermes("b", n=1), ParsedReply("", "", [call("a"), call("b", n=1)], [])),
        ("One " + hermes("a") + "\n two", ParsedReply("One\ntwo", "", [call("a")], [])),
        ('<tool_call>{"name":"a","arguments":{}}</tool_call>', ParsedReply("", "", [call("a")], [])),
        ('<tool_call>\n{"name": "a"}\n</tool_call>', ParsedReply("", "", [call("a")], [])),
        (
            '<tool_call>{"arguments": {"x": 1}, "name": "a", "id": [{}]}</tool_call>',
            ParsedReply("", "", [call("a", x=1)], []),
        ),
        (
            '<tool_call>[{"name": "a"}, {"name": "b"}]</tool_call>.',
            ParsedReply(".", "", [call("a"), call("b")], []),
        ),
        (
            hermes("write", text='</tool_call> {"'),
            ParsedReply("", "", [call("write", text='</tool_call> {"')], []),
        ),
    ],
)
def test_text_and_calls(text: str, expected: ParsedReply) -> None:
    """Calls stand before, behind and between text; text without calls is given unchanged."""
    assert parse_reply(text, HERMES) == expected


def test_no_syntax_no_calls() -> None:
    """Without a syntax a call is text like any other."""
    text = hermes("a", x=1)

    assert parse_reply(text, None) == ParsedReply(text, "", [], [])


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"name": "a", "arguments": {"x": 1}', [call("a", x=1)]),
        ('{"name": "a", "arguments": {"x": 1}}}', [call("a", x=1)]),
        ('{"name": "a", "arguments": "{\\"x\\": \\"é\\"}"}', [call("a", x="é")]),
        ('{"name": "a", "arguments": ""}', [call("a")]),
        ('{"name": "a", "arguments": null}', [call("a")]),
        ('{"name": "a", "parameters": {"x": 1}}', [call("a", x=1)]),
        ('{"name": "a", "arguments": {"x": "two\nlines"}}', [call("a", x="two\nlines")]),
    ],
)
def test_common_slips_are_forgiven(text: str, calls: list[ParsedCall]) -> None:
    """A brace too few or too many, arguments as a JSON text or none, a bare line break in a string."""
    assert parse_reply(f"<tool_call>\n{text}\n</tool_call>done", HERMES) == ParsedReply("done", "", calls, [])


@pytest.mark.parametrize(
    "text",
    [
        "look at it",
        "{'name': 'a', 'arguments': {}}",
        '{"name": "a", "arguments": {"x": }}',
        '{"name": "a", "arguments": {"x": NaN}}',
        '{"name": "a", "arguments": {"x": "\\ud800"}}',
        '{"name": "a", "arguments": {"x": [1}}}',
        '{"name": "a", "arguments": {"x": "y}}',
        '{"name": "a", "arguments": [1]}',
        '{"name": "a", "arguments": "x"}',
        '{"name": "", "arguments": {}}',
        '{"name": 3, "arguments": {}}',
        '{"arguments": {}}',
        '{"name": "a" "arguments": {}}',
        '{"name": "a", "arguments": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=range(14),
)
def test_what_is_no_json_call_is_bad(text: str) -> None:
    """A broken call is given as it was written, and what follows it is read as usual."""
    reply = f"<tool_call>\n{text}\n</tool_call>\nSorry. {hermes('b')}"

    assert parse_reply(reply, HERMES) == ParsedReply("Sorry.", "", [call("b")], [text])


@pytest.mark.parametrize("length", range(1, len('{"name": "look", "arguments": {"at": "here"')))
def test_a_cut_call_is_bad(length: int) -> None:
    """A call that the token limit cut is never a call, wherever the cut is."""
    cut = '{"name": "look", "arguments": {"at": "here"}}'[:length]

    assert parse_reply("<tool_call>\n" + cut, HERMES) == ParsedReply("", "", [], [cut.strip()])


def test_a_cut_behind_the_arguments_loses_nothing() -> None:
    """A call whose arguments are whole is whole, though its closing text was cut."""
    for cut in ("}", "}}", "}}\n", "}}\n</tool_c"):
        text = '<tool_call>\n{"name": "look", "arguments": {"at": 1' + cut
        assert parse_reply(text, HERMES) == ParsedReply("", "", [call("look", at=1)], [])


def test_a_started_call_that_breaks_is_named() -> None:
    """A call that broke after its start was given carries its number; later calls keep theirs."""
    parts = ReplyParser(HERMES).push(
        '<tool_call>{"name": "a", "arguments": {"x": tru}}</tool_call>' + hermes("b")
    )

    assert [part for part in parts if not isinstance(part, CallArguments)] == [
        CallStart(0, "a"),
        BadCall('{"name": "a", "arguments": {"x": tru}}', 0),
        CallStart(1, "b"),
    ]


@pytest.mark.parametrize(
    ("text", "opens", "expected"),
    [
        ("<think>\nhm\n</think>\n\nYes", False, ParsedReply("Yes", "hm", [], [])),
        (" \n<think>hm</think>Yes", False, ParsedReply("Yes", "hm", [], [])),
        ("<think>\n\n</think>\n\nYes", False, ParsedReply("Yes", "", [], [])),
        ("<think>\nhm", False, ParsedReply("", "hm", [], [])),
        ("hm, <tool_call>?\n</think>\n\nYes", True, ParsedReply("Yes", "hm, <tool_call>?", [], [])),
        ("<think>\nhm</think>Yes", True, ParsedReply("Yes", "hm", [], [])),
        ("</think>\n\n" + hermes("a"), True, ParsedReply("", "", [call("a")], [])),
        ("cut", True, ParsedReply("", "cut", [], [])),
        ("", True, ParsedReply("", "", [], [])),
        ("<thin", False, ParsedReply("<thin", "", [], [])),
        ("So <think> is a tag </think>", False, ParsedReply("So <think> is a tag </think>", "", [], [])),
        ("<think>a</think>b<think>c</think>", False, ParsedReply("b<think>c</think>", "a", [], [])),
    ],
)
def test_thinking(text: str, opens: bool, expected: ParsedReply) -> None:
    """A thought before the answer is kept apart from it; the prompt may have begun it."""
    assert parse_reply(text, HERMES, opens_thinking=opens) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "a", "parameters": {"x": 1}}', ParsedReply("", "", [call("a", x=1)], [])),
        ('\n{ "name" : "a", "parameters": {}}\n', ParsedReply("", "", [call("a")], [])),
        (
            '{"name": "a", "parameters": {}}; {"name": "b", "parameters": {}}',
            ParsedReply("", "", [call("a"), call("b")], []),
        ),
        ('{"name": "a", "parameters": {}} done', ParsedReply("done", "", [call("a")], [])),
        ('{"name": "a", "parameters": {}}, done', ParsedReply(", done", "", [call("a")], [])),
        ('{"name": "Bob", "age": 3}', ParsedReply('{"name": "Bob", "age": 3}', "", [], [])),
        ('{"name": "Bob"}', ParsedReply('{"name": "Bob"}', "", [], [])),
        (' {"age": 3}', ParsedReply(' {"age": 3}', "", [], [])),
        ("{broken", ParsedReply("{broken", "", [], [])),
        ('{"na', ParsedReply('{"na', "", [], [])),
        (
            'Use {"name": "a", "parameters": {}}',
            ParsedReply('Use {"name": "a", "parameters": {}}', "", [], []),
        ),
        ('{"name": "a", "parameters": {"x"', ParsedReply("", "", [], ['{"name": "a", "parameters": {"x"'])),
        ('{"name": "a", "par', ParsedReply("", "", [], ['{"name": "a", "par'])),
        ('<think>hm</think> {"name": "a", "parameters": {}}', ParsedReply("", "hm", [call("a")], [])),
    ],
)
def test_bare_json(text: str, expected: ParsedReply) -> None:
    """Without an opening text, JSON is a call only at the start, with a name first and then arguments."""
    assert parse_reply(text, LLAMA) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (' [{"name": "a", "arguments": {"x": 1}}]', ParsedReply("", "", [call("a", x=1)], [])),
        (
            '[{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}] end',
            ParsedReply("end", "", [call("a"), call("b")], []),
        ),
        ("[1, 2]", ParsedReply("[1, 2]", "", [], [])),
        (" []", ParsedReply(" []", "", [], [])),
        ('{"name": "a", "arguments": {}}', ParsedReply('{"name": "a", "arguments": {}}', "", [], [])),
        (
            '[{"name": "a", "arguments": {}}, {"name": "b", "arg',
            ParsedReply("", "", [call("a")], ['{"name": "b", "arg']),
        ),
    ],
)
def test_listed_calls(text: str, expected: ParsedReply) -> None:
    """Calls in one JSON list, as Mistral writes them."""
    assert parse_reply(text, MISTRAL) == expected


UNWRAPPED = '{"name": "look", "arguments": {"at": "here"}}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (UNWRAPPED, ParsedReply("", "", [call("look", at="here")], [])),
        (f"```json\n{UNWRAPPED}\n```\n", ParsedReply("", "", [call("look", at="here")], [])),
        (f"```\n{UNWRAPPED}\n``` There.", ParsedReply("There.", "", [call("look", at="here")], [])),
        (f"<tools>{UNWRAPPED}</tools>", ParsedReply("", "", [call("look", at="here")], [])),
        (
            f"<think>hm</think>\n{UNWRAPPED}\n{UNWRAPPED}",
            ParsedReply("", "hm", [call("look", at="here")] * 2, []),
        ),
        (f"{UNWRAPPED}\n{hermes('b')}", ParsedReply("", "", [call("look", at="here"), call("b")], [])),
        (UNWRAPPED[:-7], ParsedReply("", "", [], [UNWRAPPED[:-7]])),
        ("```json\n" + UNWRAPPED[:40], ParsedReply("", "", [], [UNWRAPPED[:40]])),
        (UNWRAPPED[:20], ParsedReply(UNWRAPPED[:20], "", [], [])),
        ('```json\n{"age": 3}\n```', ParsedReply('```json\n{"age": 3}\n```', "", [], [])),
        ('{"name": "Bob", "age": 3}', ParsedReply('{"name": "Bob", "age": 3}', "", [], [])),
        ("```python\nx\n```", ParsedReply("```python\nx\n```", "", [], [])),
        (f"So: {UNWRAPPED}", ParsedReply(f"So: {UNWRAPPED}", "", [], [])),
        (f"{{}} {hermes('b')}", ParsedReply("{}", "", [call("b")], [])),
    ],
)
def test_calls_without_their_tags(text: str, expected: ParsedReply) -> None:
    """At the start, the JSON of a call is one without its tags too; other JSON, or elsewhere, is text."""
    assert parse_reply(text, HERMES) == expected
    assert parse_reply(text, None).calls == []


PIECES = [
    "<tool_call>",
    "\n",
    " ",
    "</tool_call>",
    '{"name": "a", "arguments": {"x": [1, "}"]}}',
    "{",
    "}",
    '"',
    '{"name": "b", "parameters": {}}',
    '{"name": ',
    '"arguments": ',
    "<think>",
    "</think>",
    "Hello",
    "<",
    "[",
    "]",
    ",",
    ";",
    "CALL",
    "é",
    "\\",
    '{"arguments": "{}", "name": "c"}',
    "</tool",
    "tool_call>",
    "```json\n",
    "```",
    "<tools>",
    "</tools>",
    "null",
    "\t",
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14), st.sampled_from(SYNTAXES), st.booleans(), st.data())
def test_any_pieces_give_the_same(
    pieces: list[str], syntax: ToolSyntax | None, opens: bool, data: st.DataObject
) -> None:
    """However a text is cut, the parts are those of the whole text, and nothing is lost but space."""
    text = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    whole, cut = ReplyParser(syntax, opens_thinking=opens), ReplyParser(syntax, opens_thinking=opens)
    expected = [*whole.push(text), *whole.finish()]
    got: list[Part] = []
    for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
        got += cut.push(text[start:stop])
    got += cut.finish()

    assert joined(got) == joined(expected)
    for part in expected:
        if isinstance(part, CallStart):
            assert part.name in {"a", "b", "c"}
    parsed = parse_reply(text, syntax, opens_thinking=opens)
    if not parsed.calls and not parsed.bad and "think>" not in text and not opens:
        assert parsed.text == text
    if syntax is not None and not opens and not may_hold_parts(text, syntax):
        assert parsed == ParsedReply(text, "", [], [])


@settings(max_examples=100, deadline=None)
@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda t: "<" not in t),
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda values: (
                st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=3,
    ),
    st.sampled_from([HERMES, LLAMA, MISTRAL]),
)
def test_any_arguments_survive(lead: str, arguments: dict[str, object], syntax: ToolSyntax) -> None:
    """Whatever JSON the arguments are, the fragments add up to it, one character at a time."""
    body = json.dumps({syntax.name_key: "look", syntax.arguments_key: arguments}, ensure_ascii=False)
    lead = "" if syntax.bare else lead
    text = lead + syntax.before + (f"[{body}]" if syntax.listed else body) + syntax.after
    parser = ReplyParser(syntax)
    parts = joined([part for character in text for part in parser.push(character)] + parser.finish())

    assert parts[-2] == CallStart(0, "look")
    assert isinstance(parts[-1], CallArguments)
    assert json.loads(parts[-1].text) == arguments
    assert "".join(part.text for part in parts[:-2] if isinstance(part, TextPart)) == lead.rstrip()


def test_text_is_held_back_only_while_it_may_begin_a_call() -> None:
    """Text is given as soon as it is certain; a beginning that came to nothing is given then."""
    parser = ReplyParser(HERMES)

    assert parser.push("Hello") == [TextPart("Hello")]
    assert parser.push(" <tool") == []
    assert parser.push("s> and") == [TextPart(" <tools> and")]
    assert parser.push("<") == []
    assert parser.finish() == [TextPart("<")]


def test_arguments_are_given_while_they_are_written() -> None:
    """A call shows as soon as its arguments begin, and each piece of them as it comes."""
    parser = ReplyParser(HERMES)

    assert parser.push('<tool_call>\n{"name": "look"') == []
    assert parser.push(', "arguments": {') == [CallStart(0, "look"), CallArguments(0, "{")]
    assert parser.push('"at": "he') == [CallArguments(0, '"at": "he')]
    assert parser.push('re"}}\n</tool_call>') == [CallArguments(0, 're"}')]
    assert parser.finish() == []


def test_one_parser_one_reply() -> None:
    """A finished parser takes no more text."""
    parser = ReplyParser(HERMES)
    parser.finish()

    assert parser.finish() == []
    with pytest.raises(InputError, match="make a new one"):
        parser.push("more")
