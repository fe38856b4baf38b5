"""JSON schemas made finite: what a small model would write without end gets an end.

A greedy model repeats itself; without a limit it fills a string until its tokens run out, and the
answer is cut. So strings, lists, keys and whole numbers without a limit get a generous one, and an
object holds what its schema names. Nothing is ever loosened, but for two things that say nothing:
a ``format`` that is only a remark, and a rule that keys be strings. Knows JSON schemas; knows no
grammar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LONGEST_TEXT = 512
"""Characters of a string without ``maxLength``."""
LONGEST_KEY = 64
"""Characters of a key that the schema does not name."""
MOST_ITEMS = 64
"""Items of a list without ``maxItems``; entries of an object whose keys the schema does not name."""
LARGEST_WHOLE = 9 * 10**18
"""Whole numbers without a limit of their own stay between this and its negative: ids of 64 bits fit."""

_ANY = "agentmem_any"
_ANY_REF = {"$ref": f"#/$defs/{_ANY}"}
_KEYS = f"^.{{0,{LONGEST_KEY}}}$"
_ANY_VALUE: dict[str, Any] = {
    "maxLength": LONGEST_TEXT,
    "maxItems": MOST_ITEMS,
    "items": _ANY_REF,
    "maxProperties": MOST_ITEMS,
    "patternProperties": {_KEYS: _ANY_REF},
    "additionalProperties": False,
}
"""What a schema that says nothing allows, as deep as it likes."""

_CHECKED_FORMATS = frozenset(
    "date date-time time duration email hostname ipv4 ipv6 uuid uri".split(),
)
"""Formats the grammars know; any other, such as "password" or "path", is a remark to people."""
_COMBINERS = ("allOf", "anyOf", "oneOf", "$ref")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties")
_IMPLIED = {
    "object": {"properties", "required", "additionalProperties", "patternProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"pattern", "format", "minLength", "maxLength"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
"""Keywords that name a type without saying so, as hand-written schemas do."""
_SAYS_NOTHING = frozenset(
    "title description default examples deprecated readOnly writeOnly $comment $schema $id".split()
)


def bounded(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with a limit wherever it has none. The given one is left as it is."""
    open_refs = frozenset(_shared_refs(schema))
    done: Any = _bound(schema, open_refs)
    done["$defs"] = {**done.get("$defs", {}), _ANY: _ANY_VALUE}
    return dict(done)


def bounded_arguments(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """The same for a tool's parameters, which are an object always: without any, an empty one."""
    whole = dict(parameters or {})
    if not any(key in whole for key in (*_COMBINERS, "additionalProperties", "patternProperties")):
        whole.setdefault("properties", {})
    whole.setdefault("type", "object")
    return bounded(whole)


def _bound(node: Any, open_refs: frozenset[str], *, seal: bool = True) -> Any:
    """One schema, and all in it.

    Args:
        node: the schema; true and false are schemas, too.
        open_refs: names of definitions that are combined with other schemas somewhere.
        seal: whether the object may be closed; not so where another schema adds properties to it.
    """
    if not isinstance(node, Mapping):
        return dict(_ANY_REF) if node is True else node
    if node.keys() <= _SAYS_NOTHING | {"$defs", "definitions"}:
        node = {**node, **_ANY_REF}
    done = {key: value for key, value in node.items() if key not in {"format", "propertyNames"}}
    _keep_checked(node, done)
    combined = _combines(node)
    for key in _NAMED:
        if key in done:
            done[key] = {k: _bound(v, open_refs, seal=k not in open_refs) for k, v in done[key].items()}
    for key in _SINGLE:
        if key in done:
            done[key] = _bound(done[key], open_refs)
    if "prefixItems" in done:
        done["prefixItems"] = [_bound(item, open_refs) for item in done["prefixItems"]]
    for key in _COMBINERS[:-1]:
        if key in done:
            done[key] = [_bound(branch, open_refs, seal=seal and not combined) for branch in done[key]]
    _limit(done, seal=seal and not any(key in done for key in _COMBINERS))
    return done


def _keep_checked(node: Mapping[str, Any], done: dict[str, Any]) -> None:
    """Keep what is more than a remark of the two keywords that may be one."""
    if node.get("format") in _CHECKED_FORMATS:
        done["format"] = node["format"]
    names = node.get("propertyNames", {})
    if not (isinstance(names, Mapping) and names.keys() <= _SAYS_NOTHING | {"type"}):
        done["propertyNames"] = names


def _combines(node: Mapping[str, Any]) -> bool:
    """Whether properties come from more than one schema at this place."""
    sources = sum(key in node for key in (*_COMBINERS, "properties"))
    return sources > 1 or len(node.get("allOf", ())) > 1


def _shared_refs(node: Any) -> Iterator[str]:
    """Names of definitions that are referred to where schemas are combined."""
    if isinstance(node, Mapping):
        if _combines(node):
            branches = [node, *(branch for key in _COMBINERS[:-1] for branch in node.get(key, ()))]
            for branch in branches:
                if isinstance(branch, Mapping) and "$ref" in branch:
                    yield str(branch["$ref"]).rpartition("/")[2]
        for value in node.values():
            yield from _shared_refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from _shared_refs(value)


def _limit(node: dict[str, Any], *, seal: bool) -> None:
    """Limits of the schema's own types, where it has none."""
    if any(key in node for key in ("enum", "const", *_COMBINERS)) and "type" not in node:
        return
    implied = [kind for kind, keys in _IMPLIED.items() if keys & node.keys()]
    if "type" not in node and len(implied) == 1:
        node["type"] = implied[0]
    kinds = node.get("type", ())
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if "enum" in node or "const" in node:
        return
    if "string" in kinds:
        node.setdefault("maxLength", max(LONGEST_TEXT, node.get("minLength", 0)))
    if "integer" in kinds and "multipleOf" not in node:
        _limit_whole(node)
    if "array" in kinds:
        node.setdefault(
            "maxItems", max(MOST_ITEMS, node.get("minItems", 0), len(node.get("prefixItems", ())))
        )
        if "prefixItems" not in node:
            node.setdefault("items", dict(_ANY_REF))
    if "object" in kinds:
        _limit_keys(node, seal=seal)


def _limit_whole(node: dict[str, Any]) -> None:
    lower = node.get("minimum", node.get("exclusiveMinimum"))
    upper = node.get("maximum", node.get("exclusiveMaximum"))
    if lower is None and (upper is None or upper > -LARGEST_WHOLE):
        node["minimum"] = -LARGEST_WHOLE
    if upper is None and (lower is None or lower < LARGEST_WHOLE):
        node["maximum"] = LARGEST_WHOLE


def _limit_keys(node: dict[str, Any], *, seal: bool) -> None:
    """Close an object that names its properties; bound the keys of one that does not."""
    if "patternProperties" in node:
        return
    if "properties" in node:
        if seal:
            node.setdefault("additionalProperties", False)
        return
    values = node.get("additionalProperties", _ANY_REF)
    if values is False or not seal or "required" in node:
        return
    node["patternProperties"] = {_KEYS: dict(values)}
    node["additionalProperties"] = False
    node.setdefault("maxProperties", max(MOST_ITEMS, node.get("minProperties", 0)))
