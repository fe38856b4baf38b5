"""Grammars for replies: tool calls, JSON of a schema, any JSON object. Needs the extra ``structured``.

They are llguidance's (Lark with JSON schemas inside), which masks whole tokens: one that spans the
end of a fixed text and the beginning of JSON is allowed if both halves fit. JSON is written as
``json.dumps`` writes it, on one line, which is what chat templates show their models.

Knows the syntax of calls and the model's tokenizer; knows nothing of LangChain.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

from agentmem.engine.model import LanguageModel
from agentmem.engine.sampling import LogitsProcessor
from agentmem.engine.tool_syntax import ToolSyntax
from agentmem.errors import InputError, MissingExtraError
from langchain_agentmem.bounded_schema import bounded, bounded_arguments
from langchain_agentmem.grammar_processor import GrammarProcessor

MOST_CALLS = 8
"""Forced calls in one reply: a greedy model might go on calling for ever."""
_WRITTEN = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_TEXT = "TEXT: /(.|\\n)*/"

_tokenizers: WeakKeyDictionary[LanguageModel, Any] = WeakKeyDictionary()
_making = threading.Lock()


def structured_available() -> bool:
    """Whether the extra ``structured`` is installed."""
    try:
        _llguidance()
    except MissingExtraError:
        return False
    return True


class Grammars:
    """Makes logits processors for one model's replies, each for a single use.

    The tokenizer's tables are made once per model (a third of a second) and shared.

    Args:
        language_model: the model whose replies are constrained.

    Raises:
        MissingExtraError: llguidance is not installed.
        InputError: its tokenizer is of a kind that llguidance cannot read.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        self._llguidance = _llguidance()
        self._template = language_model.template
        self._tables = _tables(language_model)
        added = language_model.tokenizer.added_tokens_decoder.items()
        self._special = {token.content: i for i, token in added if token.special}
        # llguidance takes any added token in angle brackets for a special one, <tool_call> as well
        self._apart = {t.content: i for i, t in added if self._tables.is_special_token(i)}
        self._any_apart = re.compile("|".join(map(re.escape, sorted(self._apart, key=len, reverse=True))))
        self._lead = "</think>\n\n" if self._template.facts.opens_thinking else ""

    def forced_calls(
        self,
        tools: Sequence[Mapping[str, Any]],
        syntax: ToolSyntax,
        *,
        names: Collection[str] | None = None,
        parallel: bool = True,
    ) -> LogitsProcessor:
        """The reply is a call, and nothing else; with ``parallel``, up to eight in a row.

        Args:
            tools: in OpenAI's form.
            syntax: how the model writes calls.
            names: the tools that may be called; None: all.
            parallel: whether several calls may be made.

        Raises:
            InputError: there is no such tool, or a schema that no grammar can be made of.
        """
        body = self._bodies(tools, syntax, names)
        one = "body" if syntax.listed else "call"
        again = self._again(syntax, one) if parallel and syntax.between is not None else ""
        opening = f"{self._opener(syntax)} {self._literal(syntax.before)}"
        if syntax.listed:
            start = f'{opening} "[" body {again} "]" {self._literal(syntax.after)}'
        else:
            start = f"call {again}"
        call = f"call: {opening} body {self._literal(syntax.after)}"
        return self._processor([f"start: {self._literal(self._lead)} {start}", call, *body])

    def free_calls(self, tools: Sequence[Mapping[str, Any]], syntax: ToolSyntax) -> LogitsProcessor:
        """The reply is any text; once a call's opening text stands in it, a call follows, then any text.

        Where bare JSON is a call, the reply's first characters are the opening text: ``{"name": "``.
        In the text itself only broken characters are ruled out.

        Raises:
            InputError: a schema that no grammar can be made of.
        """
        rest, body = self._rest(tools, syntax)
        if syntax.opener:
            head = f"{self._opener(syntax)} {self._literal(syntax.before)} rest"
            start = f"start: TEXT | {head} TEXT" if syntax.bare else f"start: (TEXT {head})* TEXT"
            rules = [start]
        elif syntax.bare:
            opening = self._body_opening(syntax)
            rules = ["start: TEXT | head rest TEXT", f"head[lazy]: {json.dumps(opening, ensure_ascii=False)}"]
        else:
            rules = ["start: (head rest)* TEXT", *self._head(syntax.before.rstrip())]
        return self._processor([*rules, f"rest: {rest}", *body, _TEXT], free_ids=self._apart.values())

    def json(self, schema: Mapping[str, Any]) -> LogitsProcessor:
        """The reply is JSON of that schema, and nothing else.

        Raises:
            InputError: no grammar can be made of the schema.
        """
        written = self._checked("the schema", bounded(schema))
        return self._processor([f"start: {self._literal(self._lead)} {written}"])

    def json_object(self) -> LogitsProcessor:
        """The reply is a JSON object, and nothing else."""
        return self.json({"type": "object"})

    def _bodies(
        self,
        tools: Sequence[Mapping[str, Any]],
        syntax: ToolSyntax,
        names: Collection[str] | None = None,
        *,
        begun: int = 0,
    ) -> list[str]:
        """Rules for ``body``: one call's JSON without its first ``begun`` characters, for each tool."""
        functions = {str(tool["function"]["name"]): tool["function"] for tool in tools}
        chosen = list(functions) if names is None else list(names)
        unknown = [name for name in chosen if name not in functions]
        if unknown or not chosen:
            known = ", ".join(functions) or "none"
            raise InputError(f"no tool is called {unknown[0] if unknown else ''!r}; the tools are {known}.")
        rules = [f"body: {' | '.join(f'body{at}' for at in range(len(chosen)))}"]
        for at, name in enumerate(chosen):
            schema = bounded_arguments(functions[name].get("parameters"))
            arguments = self._checked(f"the tool {name!r}", schema)
            written = json.dumps({syntax.name_key: name, syntax.arguments_key: None}, ensure_ascii=False)
            opening = written.removesuffix("null}")[begun:]
            rules.append(f'body{at}: {self._literal(opening)} {arguments} "}}"')
        return rules

    def _body_opening(self, syntax: ToolSyntax) -> str:
        return f'{{{json.dumps(syntax.name_key)}: "'

    def _rest(self, tools: Sequence[Mapping[str, Any]], syntax: ToolSyntax) -> tuple[str, list[str]]:
        """(what follows a call's opening text, rules for it)."""
        after = self._literal(syntax.after)
        if syntax.listed:
            again = self._again(syntax, "body")
            gap = "" if syntax.opener else self._literal(syntax.before[len(syntax.before.rstrip()) :])
            return f'{gap} "[" body {again} "]" {after}', self._bodies(tools, syntax)
        if syntax.opener:
            return f"body {after}", self._bodies(tools, syntax)
        if syntax.bare:
            begun = len(self._body_opening(syntax))
            return f"body {after}", self._bodies(tools, syntax, begun=begun)
        gap = self._literal(syntax.before[len(syntax.before.rstrip()) :])
        return f"{gap} body {after}", self._bodies(tools, syntax)

    def _again(self, syntax: ToolSyntax, rule: str) -> str:
        """More of a rule, after the first."""
        return f"({self._literal(syntax.between or '')} {rule}){{0,{MOST_CALLS - 1}}}"

    def _head(self, opening: str) -> list[str]:
        """Rules for ``head``: any text that ends with the opening text, in pieces or as one token."""
        rules = ["head: spelled", f"spelled[lazy]: TEXT {json.dumps(opening, ensure_ascii=False)}"]
        found = self._any_apart.search(opening) if self._apart else None
        if found:
            rules[0] += f" | TEXT {self._literal(opening[found.start() :])}"
        return rules

    def _literal(self, text: str) -> str:
        """A fixed text in Lark, tokens that stand apart as such; nothing for no text."""
        pieces, at = [], 0
        for found in self._any_apart.finditer(text) if self._apart else ():
            pieces += [text[at : found.start()], found.group()]
            at = found.end()
        pieces.append(text[at:])
        written = (
            f"<[{self._apart[piece]}]>" if index % 2 else json.dumps(piece, ensure_ascii=False)
            for index, piece in enumerate(pieces)
        )
        return " ".join(piece for piece in written if piece != '""')

    def _opener(self, syntax: ToolSyntax) -> str:
        """The special token in front of a call, in Lark."""
        if not syntax.opener:
            return ""
        if syntax.opener not in self._special:
            raise InputError(f"{syntax.opener!r} is no special token of this model's tokenizer.")
        return f"<[{self._special[syntax.opener]}]>"

    def _checked(self, what: str, schema: dict[str, Any]) -> str:
        """The schema as a piece of Lark."""
        written = "%json " + json.dumps({**schema, "x-guidance": _WRITTEN}, ensure_ascii=False)
        matcher = self._matcher(f"start: {written}")
        if matcher.is_error():
            words = str(matcher.get_error()).partition("\n")[0].partition("): ")[2]
            raise InputError(f"no grammar can be made of {what}: {words}. Give it a simpler schema.")
        return written

    def _processor(self, rules: Sequence[str], *, free_ids: Collection[int] = ()) -> GrammarProcessor:
        matcher = self._matcher("\n".join(rules))
        if matcher.is_error():
            words = str(matcher.get_error()).partition("\n")[0]
            raise InputError(f"no grammar can be made of these tools: {words}. Give fewer or simpler ones.")
        return GrammarProcessor(
            matcher, int(self._tables.vocab_size), self._template.stop_ids, free_ids=free_ids
        )

    def _matcher(self, lark: str) -> Any:
        return self._llguidance.LLMatcher(self._tables, lark, log_level=0)


def _llguidance() -> Any:
    try:
        import_module("llguidance.numpy")
        return import_module("llguidance")
    except ImportError:
        raise MissingExtraError(
            "forced tool calls and structured output need llguidance, which is not installed. "
            "Run: pip install 'agentmem-kv[structured]'"
        ) from None


def _tables(language_model: LanguageModel) -> Any:
    """The tokenizer as llguidance sees it."""
    with _making:
        if language_model not in _tokenizers:
            make = import_module("llguidance.hf").from_tokenizer
            stop_ids = sorted(language_model.template.stop_ids)
            try:
                _tokenizers[language_model] = make(language_model.tokenizer, eos_token=stop_ids or None)
            except ValueError as error:
                raise InputError(
                    f"llguidance cannot read the tokenizer of {language_model.name} ({error}); "
                    "use a model with a fast tokenizer for forced calls and structured output."
                ) from None
        return _tokenizers[language_model]
