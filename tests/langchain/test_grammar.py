"""Grammars of replies: what they let pass, what they rule out, and where they end."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic import BaseModel, Field, TypeAdapter

from agentmem.engine.model import LanguageModel
from agentmem.engine.sampling import LogitsProcessor
from agentmem.engine.tool_syntax import HERMES, ToolSyntax
from agentmem.errors import InputError, MissingExtraError
from langchain_agentmem.grammar import MOST_CALLS, Grammars, structured_available
from langchain_agentmem.reply_parser import ParsedCall, parse_reply
from langchain_agentmem.tool_prompt import render_calls
from support.tiny_language_model import language_model

LLAMA = ToolSyntax("", "", "name", "parameters", between=None)
MISTRAL = ToolSyntax(" ", "", "name", "arguments", between=", ", listed=True, opener="[TOOL_CALLS]")
WORDED = ToolSyntax("CALLS: ", " END", "tool", "args", between=",", listed=True)
STOP = -1
"""In a list of ids: the end of the reply."""


def tool(name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    function = {"name": name, "description": "Does it."}
    return {
        "type": "function",
        "function": function | ({} if parameters is None else {"parameters": parameters}),
    }


def fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


LOOK = tool("look", fields(at={"type": "string"}))
ADD = tool("add", fields(n={"type": "integer"}))
NOW = tool("now")


class Walk:
    """One reply, token by token: which ids a processor lets pass, behind a prompt of three ids."""

    def __init__(
        self, processor: LogitsProcessor, model: LanguageModel, *, scored: int | None = None
    ) -> None:
        self.processor = processor
        self.tokenizer = model.tokenizer
        self.stop_ids = sorted(model.template.stop_ids)
        self.scored = scored or len(model.tokenizer)
        self.ids = [1, 2, 3]

    def allowed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(V,): which ids may come next."""
        scores = torch.zeros(1, self.scored)
        after = self.processor(torch.tensor([self.ids]), scores)
        assert after is scores
        return (after[0] != -math.inf).numpy()

    def follow(self, ids: Sequence[int]) -> bool:
        """Whether all these ids may come, one after the other."""
        for token in ids:
            allowed = self.allowed()
            if token == STOP:
                return bool(allowed[self.stop_ids].all())
            if not allowed[token]:
                return False
            self.ids.append(token)
        return True

    def draw(self, seed: int, limit: int = 400) -> str | None:
        """A reply of random tokens; None if it did not end by itself."""
        chance = np.random.default_rng(seed)
        for _ in range(limit):
            allowed = self.allowed()
            if allowed[self.stop_ids].any() and chance.random() < 0.5:
                break
            allowed[self.stop_ids] = False
            if not allowed.any():
                break
            self.ids.append(int(chance.choice(np.flatnonzero(allowed))))
        else:
            return None
        return str(self.tokenizer.decode(self.ids[3:]))


def admits(processor: LogitsProcessor, text: str, model: LanguageModel, *, ends: bool = True) -> bool:
    """Whether a reply may be this text, and, if it ``ends``, end there."""
    ids = list(model.tokenizer.encode(text, add_special_tokens=False))
    return Walk(processor, model).follow([*ids, STOP] if ends else ids)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return language_model()


@pytest.fixture(scope="module")
def grammars(model: LanguageModel) -> Grammars:
    return Grammars(model)


def written(*calls: ParsedCall, syntax: ToolSyntax = HERMES) -> str:
    return render_calls(calls, syntax)


def look(at: str) -> ParsedCall:
    return ParsedCall("look", {"at": at})


@pytest.mark.parametrize("syntax", [HERMES, LLAMA, WORDED])
def test_forced_calls(grammars: Grammars, model: LanguageModel, syntax: ToolSyntax) -> None:
    """A call of each tool passes, in any syntax; text, other tools and wrong arguments do not."""
    tools = [LOOK, ADD, NOW]
    good = [look("München 你好 🙂"), look('"\\\n'), ParsedCall("add", {"n": -12}), ParsedCall("now", {})]
    bad = [
        ParsedCall("loo", {"at": "x"}),
        ParsedCall("look", {}),
        ParsedCall("look", {"at": 1}),
        ParsedCall("look", {"at": "x", "to": "y"}),
        ParsedCall("add", {"n": "1"}),
        ParsedCall("add", {"n": 1.5}),
        ParsedCall("now", {"x": 1}),
    ]

    for call in good:
        text = written(call, syntax=syntax)
        assert admits(grammars.forced_calls(tools, syntax), text, model), text
        assert parse_reply(text, syntax).calls == [call]
    for call in bad:
        text = written(call, syntax=syntax)
        assert not admits(grammars.forced_calls(tools, syntax), text, model), text
    assert not admits(grammars.forced_calls(tools, syntax), "Hello", model, ends=False)
    assert not admits(grammars.forced_calls(tools, syntax), "", model)


def test_names_choose_among_the_tools(grammars: Grammars, model: LanguageModel) -> None:
    """With names, only those tools may be called."""
    add = written(ParsedCall("add", {"n": 1}))

    assert admits(grammars.forced_calls([LOOK, ADD], HERMES, names=["add"]), add, model)
    assert not admits(grammars.forced_calls([LOOK, ADD], HERMES, names=["look"]), add, model)
    with pytest.raises(InputError, match="no tool is called 'walk'; the tools are look, add"):
        grammars.forced_calls([LOOK, ADD], HERMES, names=["walk"])
    with pytest.raises(InputError, match="no tool is called"):
        grammars.forced_calls([], HERMES)


@pytest.mark.parametrize("syntax", [HERMES, WORDED])
def test_calls_in_a_row(grammars: Grammars, model: LanguageModel, syntax: ToolSyntax) -> None:
    """Several calls pass if asked for, up to a limit, one otherwise."""
    calls = [look(str(n)) for n in range(MOST_CALLS + 1)]

    def passes(number: int, *, parallel: bool) -> bool:
        processor = grammars.forced_calls([LOOK], syntax, parallel=parallel)
        return admits(processor, written(*calls[:number], syntax=syntax), model)

    assert [passes(n, parallel=True) for n in (1, 2, MOST_CALLS, MOST_CALLS + 1)] == [True, True, True, False]
    assert [passes(n, parallel=False) for n in (1, 2)] == [True, False]


def test_a_template_of_one_call_only(grammars: Grammars, model: LanguageModel) -> None:
    """Where a reply holds one call, another cannot follow, whatever is asked."""
    walk = Walk(grammars.forced_calls([NOW], LLAMA, parallel=True), model)
    text = written(ParsedCall("now", {}), syntax=LLAMA)

    assert walk.follow(model.tokenizer.encode(text, add_special_tokens=False))
    assert np.flatnonzero(walk.allowed()).tolist() == walk.stop_ids


def test_only_stop_tokens_end_a_reply(grammars: Grammars, model: LanguageModel) -> None:
    """Before its end no stop token passes; behind it nothing else does, as often as it is asked."""
    walk = Walk(grammars.json({"const": "a"}), model)

    assert not walk.allowed()[walk.stop_ids].any()
    assert walk.follow(model.tokenizer.encode('"a"', add_special_tokens=False))
    for _ in range(2):
        assert np.flatnonzero(walk.allowed()).tolist() == walk.stop_ids


def test_every_stop_token_of_the_template_ends_a_reply() -> None:
    """All ids that end a reply pass at the end, not the tokenizer's alone."""
    llama = language_model(template="llama3.1")
    walk = Walk(Grammars(llama).json({"const": 1}), llama)

    assert walk.follow(llama.tokenizer.encode("1", add_special_tokens=False))
    assert len(walk.stop_ids) > 1
    assert np.flatnonzero(walk.allowed()).tolist() == walk.stop_ids


def test_a_model_that_scores_more_ids_than_there_are_tokens(grammars: Grammars, model: LanguageModel) -> None:
    """Scores behind the tokenizer's last id are ruled out, in a call and in free text."""
    size = len(model.tokenizer)
    for processor in (grammars.json({"const": 1}), grammars.free_calls([LOOK], HERMES)):
        allowed = Walk(processor, model, scored=size + 37).allowed()
        assert allowed[:size].any() and not allowed[size:].any()
    fewer = Walk(grammars.json({"const": 1}), model, scored=size - 1).allowed()
    assert fewer.any()


def test_what_stood_before_the_reply_is_not_read(grammars: Grammars, model: LanguageModel) -> None:
    """The prompt's ids are skipped, whatever they are; ids that come several at once are all read."""
    ids = model.tokenizer.encode(written(look("x")), add_special_tokens=False)
    processor = grammars.forced_calls([LOOK], HERMES)
    processor(torch.tensor([ids]), torch.zeros(1, len(model.tokenizer)))
    scores = processor(torch.tensor([ids + ids]), torch.zeros(1, len(model.tokenizer)))

    assert scores[0, sorted(model.template.stop_ids)].isfinite().all()


def test_one_processor_one_reply(grammars: Grammars, model: LanguageModel) -> None:
    """A processor that is given another reply says so, as does one whose rulings were not kept."""
    size = len(model.tokenizer)
    processor = grammars.json({"const": "a"})
    processor(torch.tensor([[1, 2, 3]]), torch.zeros(1, size))

    with pytest.raises(InputError, match="make a new one"):
        processor(torch.tensor([[1, 2]]), torch.zeros(1, size))
    with pytest.raises(InputError, match="does not fit the grammar"):
        processor(torch.tensor([[1, 2, 3, 4]]), torch.zeros(1, size))


@pytest.mark.parametrize("syntax", [HERMES, WORDED])
def test_free_text_passes(grammars: Grammars, model: LanguageModel, syntax: ToolSyntax) -> None:
    """Any text passes and may end anywhere, one that nearly opens a call as well."""
    for text in ("", "Hello.", "你好 🙂\n\n  ```json\n{}\n```", "a < b <tool_cal CALLS", '{"name": "look"}'):
        assert admits(grammars.free_calls([LOOK], syntax), text, model), text


@pytest.mark.parametrize("syntax", [HERMES, WORDED])
def test_free_text_with_calls(grammars: Grammars, model: LanguageModel, syntax: ToolSyntax) -> None:
    """From the opening text on a call is constrained; behind it the text is free again."""
    good = "Let me see. " + written(look("here"), syntax=syntax)
    opening = syntax.before.strip()

    assert admits(grammars.free_calls([LOOK, NOW], syntax), good, model)
    assert admits(grammars.free_calls([LOOK, NOW], syntax), f"{good}\nAnd: {good} ok.", model)
    for text in (f"{opening} is a tag", f"{good} {opening}?", good.replace("look", "walk"), good[:-9]):
        assert not admits(grammars.free_calls([LOOK, NOW], syntax), text, model), text


def test_an_opening_text_in_pieces_or_inside_a_token(grammars: Grammars) -> None:
    """However tokens cut the opening text, the call behind it is constrained; also where one spans it."""
    qwen = language_model(template="qwen2.5")  # <tool_call> is one token, and "\\n" merges with what follows
    tokenizer = qwen.tokenizer
    one = tokenizer.convert_tokens_to_ids("<tool_call>")
    pieces = [i for part in ("<tool", "_", "call>") for i in tokenizer.encode(part, add_special_tokens=False)]
    body = tokenizer.encode('\n{"name": "now", "arguments": {}}\n</tool_call>', add_special_tokens=False)
    wrong = tokenizer.encode('\n{"name": "how', add_special_tokens=False)
    assert one not in pieces

    for opening in ([one], pieces):
        assert Walk(Grammars(qwen).free_calls([NOW], HERMES), qwen).follow([*opening, *body, STOP])
        assert not Walk(Grammars(qwen).free_calls([NOW], HERMES), qwen).follow([*opening, *wrong])
        assert not Walk(Grammars(qwen).free_calls([NOW], HERMES), qwen).follow([*opening, STOP])


def test_free_bare_calls(grammars: Grammars, model: LanguageModel) -> None:
    """Bare JSON is a call at the reply's start alone; there it is constrained once a name begins."""
    call = written(look("x"), syntax=LLAMA)

    assert admits(grammars.free_calls([LOOK], LLAMA), call, model)
    assert admits(grammars.free_calls([LOOK], LLAMA), call + " done", model)
    assert admits(grammars.free_calls([LOOK], LLAMA), 'So: {"name": "Bob"}', model)
    assert admits(grammars.free_calls([LOOK], LLAMA), '{"age": 3}', model)
    assert not admits(grammars.free_calls([LOOK], LLAMA), '{"name": "Bob"}', model)


def test_calls_behind_a_special_token() -> None:
    """Where a special token opens the calls, it is forced, or leads from free text into them."""
    mistral = language_model(template="mistral-v3")
    grammars, tokenizer = Grammars(mistral), mistral.tokenizer
    syntax = mistral.template.tool_syntax
    assert syntax == MISTRAL
    opener = tokenizer.convert_tokens_to_ids("[TOOL_CALLS]")
    calls = tokenizer.encode(written(look("x"), look("y"), syntax=syntax), add_special_tokens=False)
    text = tokenizer.encode("Hello", add_special_tokens=False)

    assert Walk(grammars.forced_calls([LOOK], syntax), mistral).follow([opener, *calls, STOP])
    assert not Walk(grammars.forced_calls([LOOK], syntax), mistral).follow(calls)
    assert Walk(grammars.free_calls([LOOK], syntax), mistral).follow([opener, *calls, STOP])
    assert Walk(grammars.free_calls([LOOK], syntax), mistral).follow([*text, STOP])
    assert not Walk(grammars.free_calls([LOOK], syntax), mistral).follow([opener, *text])
    with pytest.raises(InputError, match="no special token"):
        Grammars(language_model()).forced_calls([LOOK], MISTRAL)


def test_special_tokens_pass_in_free_text_only(grammars: Grammars, model: LanguageModel) -> None:
    """A special token has no text: in free text it passes and changes nothing, in a call it does not."""
    special = model.tokenizer.convert_tokens_to_ids("<|im_start|>")
    text = model.tokenizer.encode("Hi", add_special_tokens=False)
    opening = model.tokenizer.encode("<tool_call>", add_special_tokens=False)
    walk = Walk(grammars.free_calls([NOW], HERMES), model)

    assert walk.follow([*text, special, special, *text, special, *opening])
    assert not walk.allowed()[special]
    assert not Walk(grammars.json({"type": "string"}), model).allowed()[special]


def test_a_reply_that_begins_inside_the_thinking() -> None:
    """Where the prompt opens the thinking, a forced form closes it first, so that it is not thought."""
    r1 = language_model(template="r1")
    text = "</think>\n\n" + written(ParsedCall("now", {}))

    assert admits(Grammars(r1).forced_calls([NOW], HERMES), text, r1)
    assert admits(Grammars(r1).json({"const": 1}), "</think>\n\n1", r1)
    assert admits(Grammars(r1).free_calls([NOW], HERMES), "Hm. " + text, r1)
    assert parse_reply(text, HERMES, opens_thinking=True).calls == [ParsedCall("now", {})]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Dot(BaseModel):
    kind: Literal["dot"]
    x: float


class Line(BaseModel):
    kind: Literal["line"]
    dots: list[Dot] = Field(min_length=2, max_length=3)


class Picture(BaseModel):
    """A picture."""

    title: str = Field(max_length=6)
    colour: Colour
    shapes: list[Dot | Line] = Field(max_length=2)
    main: Dot | Line = Field(discriminator="kind")
    note: str | None = Field(None, max_length=4)
    inside: Picture | None = None
    sizes: dict[str, int] = Field(default_factory=dict, max_length=2)


PICTURE = Picture(
    title="Bäume",
    colour=Colour.RED,
    shapes=[Dot(kind="dot", x=-1.5), Line(kind="line", dots=[Dot(kind="dot", x=1)] * 2)],
    main=Dot(kind="dot", x=2),
    note=None,
    inside=Picture(title="你", colour=Colour.BLUE, shapes=[], main=Dot(kind="dot", x=0)),
    sizes={"a b": 1},
)


def test_nested_models(grammars: Grammars, model: LanguageModel) -> None:
    """Definitions, enums, unions, optional fields, lists and maps of a pydantic class are kept."""
    schema = Picture.model_json_schema()
    whole = json.dumps(PICTURE.model_dump(mode="json"), ensure_ascii=False)
    least = json.dumps(PICTURE.inside.model_dump(mode="json", exclude_unset=True), ensure_ascii=False)  # type: ignore[union-attr]

    assert admits(grammars.json(schema), whole, model)
    assert admits(grammars.json(schema), least, model)
    assert admits(
        grammars.forced_calls([tool("draw", schema)], HERMES),
        written(ParsedCall("draw", json.loads(whole))),
        model,
    )
    for old, new in (
        ("Bäume", "Bäume im Wald"),
        ('"red"', '"green"'),
        ('"kind": "dot", "x": 2.0', '"kind": "line", "x": 2.0'),
        ('"colour": "red", ', ""),
        ('"note": null', '"note": 1'),
        ('"a b": 1', '"a b": "1"'),
        ('"a b": 1', '"a b": 1, "b": 2, "c": 3'),
        ('"title": "你"', '"name": "你"'),
        ('"sizes": {"a b": 1}', '"sizes": {"a b": 1}, "more": 1'),
    ):
        assert old in whole
        assert not admits(grammars.json(schema), whole.replace(old, new), model), new


@pytest.mark.parametrize("seed", range(6))
def test_random_replies_fit_the_schema(grammars: Grammars, model: LanguageModel, seed: int) -> None:
    """Whatever is drawn within the grammar parses as the class it was made of."""
    small = TypeAdapter(Dot | list[Colour])
    text = Walk(grammars.json(small.json_schema()), model).draw(seed)
    call = Walk(
        grammars.forced_calls([tool("draw", Dot.model_json_schema()), NOW], HERMES, parallel=False), model
    ).draw(seed)

    if text is not None:
        small.validate_json(text)
    if call is not None:
        parsed = parse_reply(call, HERMES)
        assert [found.name in {"draw", "now"} for found in parsed.calls] == [True]
        assert (parsed.text, parsed.bad) == ("", [])
    assert text is not None or call is not None


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, ["x" * 512], ["x" * 513]),
        ({"type": "string", "minLength": 600}, ["x" * 600], ["x" * 599, "x" * 601]),
        ({"type": "string", "maxLength": 900}, ["x" * 900], ["x" * 901]),
        ({"type": "string", "pattern": "^a+$"}, ["a" * 512], ["a" * 513, "b"]),
        ({"type": ["string", "null"]}, ["x" * 512, None], ["x" * 513]),
        ({"type": "array", "items": {"type": "integer"}}, [[1] * 64], [[1] * 65, ["1"]]),
        ({"type": "array"}, [[1, "a", None]], [[1] * 65, ["x" * 513]]),
        ({"type": "array", "items": {"type": "null"}, "minItems": 70}, [[None] * 70], [[None] * 71]),
        ({"type": "object"}, [{}, {"a": {"b": ["c"]}}], [{"k" * 65: 1}, {"a": "x" * 513}]),
        ({"type": "object", "properties": {"a": {}}}, [{}, {"a": [1]}], [{"b": 1}, {"a": "x" * 513}]),
        ({"properties": {"a": {"minimum": 3}}}, [{"a": 3.5}], [{"a": 2}, {"a": "x"}, "x"]),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "null"}},
                "additionalProperties": {"type": "null"},
            },
            [{"a": None, "b": None}],
            [{"a": None, "b": 1}],
        ),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            [{"a": 1}],
            [{"a": "b"}, {"k" * 65: 1}],
        ),
        ({"type": "object", "properties": {}}, [{}], [{"a": 1}]),
        ({"type": "integer"}, [0, -9, 9 * 10**18], [10**19, -(10**19), 1.5]),
        ({"type": "integer", "minimum": 5}, [5, 9 * 10**18], [4, 10**19]),
        ({"type": "integer", "minimum": 10**17}, [10**17], [1]),
        ({}, [1, "a", None, [True], {"a": {}}], ["x" * 513]),
        ({"enum": ["a", 1, None]}, ["a", 1, None], ["b", 2]),
        ({"anyOf": [{"type": "integer"}, {"const": "all"}]}, [1, "all"], ["some"]),
        ({"type": "string", "format": "password"}, ["secret"], [1]),
        ({"type": "string", "format": "date"}, ["2024-02-29"], ["today"]),
        ({"type": "object", "propertyNames": {"type": "string"}}, [{"a": 1}], [1]),
        (
            {"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": fields(a={"type": "null"})}},
            [{"a": None}],
            [{"a": None, "b": 1}, {}],
        ),
        (
            {
                "allOf": [{"$ref": "#/$defs/A"}, fields(b={"type": "null"})],
                "$defs": {"A": fields(a={"type": "null"})},
            },
            [{"a": None, "b": None}],
            [{"a": None}, {"b": None}],
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "null"}},
                "anyOf": [fields(b={"type": "null"}), fields(c={"type": "null"})],
            },
            [{"a": None, "b": None}, {"c": None}],
            [{"a": None}],
        ),
        ({"$ref": "#/definitions/A", "definitions": {"A": fields(a={"type": "null"})}}, [{"a": None}], [{}]),
        (
            fields(format={"type": "null"}, properties={"type": "null"}),
            [{"format": None, "properties": None}],
            [{}],
        ),
    ],
    ids=range(28),
)
def test_schemas_are_bounded_and_never_loosened(
    grammars: Grammars, model: LanguageModel, schema: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    """What has no end gets one, objects are closed where that is safe, and every rule of a schema holds."""
    before = json.dumps(schema)
    for value in good:
        text = json.dumps(value, ensure_ascii=False)
        assert admits(grammars.json(schema), text, model), text[:80]
    for value in bad:
        text = json.dumps(value, ensure_ascii=False)
        assert not admits(grammars.json(schema), text, model), text[:80]
    assert json.dumps(schema) == before


def test_any_object(grammars: Grammars, model: LanguageModel) -> None:
    """json_object gives an object of any depth, and nothing but an object."""
    assert admits(grammars.json_object(), '{"a": [1, {"b": null}], "ä": "x"}', model)
    assert admits(grammars.json_object(), "{}", model)
    for text in ("[]", "1", '"a"', "{} ", " {}"):
        assert not admits(grammars.json_object(), text, model), text


@pytest.mark.parametrize(
    "parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": {}}, {"properties": {}}]
)
def test_tools_without_arguments(grammars: Grammars, model: LanguageModel, parameters: Any) -> None:
    """Missing or empty parameters mean that there are none."""
    for processor in (
        grammars.forced_calls([tool("now", parameters)], HERMES),
        grammars.forced_calls([tool("now", parameters), LOOK], HERMES, names=["now"]),
    ):
        assert admits(processor, written(ParsedCall("now", {})), model)
    assert not admits(
        grammars.forced_calls([tool("now", parameters)], HERMES), written(ParsedCall("now", {"a": 1})), model
    )


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "if": {"minLength": 1}}, "if"),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"$ref": "#/$defs/Missing"}, "Missing"),
        ({"type": "objekt"}, "objekt"),
    ],
)
def test_schemas_that_no_grammar_can_be_made_of(
    grammars: Grammars, schema: dict[str, Any], words: str
) -> None:
    """What llguidance cannot do is refused in its words, and the tool is named."""
    with pytest.raises(InputError, match=f"the schema.*{words}"):
        grammars.json(schema)
    for make in (grammars.forced_calls, grammars.free_calls):
        with pytest.raises(InputError, match=f"the tool 'odd'.*{words}"):
            make([NOW, tool("odd", fields(a=schema) | {"$defs": {}})], HERMES)


def test_names_that_need_escaping(grammars: Grammars, model: LanguageModel) -> None:
    """A tool's name or key may hold quotes, line breaks and letters of any script."""
    name = 'größe "x"\n\\'
    odd = tool(name, fields(**{'a"\\ü': {"type": "integer"}}))

    assert admits(grammars.forced_calls([odd], HERMES), written(ParsedCall(name, {'a"\\ü': 1})), model)


def test_a_tokenizer_with_pieces() -> None:
    """A SentencePiece-like tokenizer, with bytes for rare characters, is constrained as well."""
    llama2 = language_model(template="llama2")
    text = Walk(
        Grammars(llama2).forced_calls([LOOK, NOW], HERMES, names=["now"], parallel=False), llama2
    ).draw(1)

    assert text is not None
    assert parse_reply(text, HERMES).calls == [ParsedCall("now", {})]


def test_tables_are_made_once_per_model(model: LanguageModel) -> None:
    """Two Grammars of one model share its tokenizer's tables; another model has its own."""
    other = language_model(template="qwen2.5")

    assert Grammars(model)._tables is Grammars(model)._tables
    assert Grammars(model)._tables is not Grammars(other)._tables


def test_without_the_extra(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without llguidance the error names the extra, and it can be asked for beforehand."""
    assert structured_available()
    monkeypatch.setitem(sys.modules, "llguidance", None)
    monkeypatch.setitem(sys.modules, "llguidance.numpy", None)

    assert not structured_available()
    with pytest.raises(MissingExtraError, match=r"pip install 'agentmem-kv\[structured\]'"):
        Grammars(model)
