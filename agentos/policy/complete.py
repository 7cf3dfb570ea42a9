"""Complete rules and functions that can have two values at once.

OPA tells of a conflict only when it meets one, and then there is no decision at all: the runtime denies. What can be seen without
running it is refused here: two constants for one name (or for one function and the same arguments) under conditions that are not
plainly exclusive, and two different values without any condition. What cannot be seen: values that are computed under conditions.
Plainly exclusive are `x == 1` against `x == 2`, a condition against its `not`, and a comparison against its opposite.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Final

from agentos.abi.canonical import Json
from agentos.policy import syntax
from agentos.policy.finding import Finding, Read
from agentos.policy.source import Span

_CONSTANT: Final = frozenset({"string", "number", "boolean", "null"})
_OPPOSITE: Final = {"equal": "neq", "neq": "equal", "lt": "gte", "gte": "lt", "gt": "lte", "lte": "gt"}


def check_complete(item: Read) -> Iterator[Finding]:
    """A finding for each definition that may give another value than an earlier one of the same name."""
    groups: dict[str, list[tuple[Json, Span]]] = {}
    for rule, span in item.rules():
        head = rule["head"]
        if "key" not in head and all(step["type"] == "string" for step in head["ref"][1:]):
            groups.setdefault(_key(head["ref"]), []).append((rule, span))
    for definitions in groups.values():
        usual = [one for one in definitions if not one[0].get("default")]
        defaults = [one for one in definitions if one[0].get("default")]
        told: set[Span] = set()
        for (_, first), (_, second) in combinations(defaults, 2):
            name = _name(defaults[0][0])
            yield item.finding(second.start, "conflict", f"{name} has a default already in line {first.start.line}", "keep one")
        for (one, first), (other, second) in combinations(usual, 2):
            if second not in told and _may_conflict(one, other):
                told.add(second)
                yield item.finding(
                    second.start,
                    "conflict",
                    f"{_name(one)} can have two values at once: this and the one of line {first.start.line}; that is an error, "
                    "and no decision",
                    "write } else := … behind the first, or conditions of which only one can hold",
                )


def _name(rule: Json) -> str:
    return ".".join(str(step["value"]) for step in rule["head"]["ref"])


def _key(term: Json) -> str:
    return json.dumps(term, sort_keys=True)


def _may_conflict(one: Json, other: Json) -> bool:
    first, second = list(_values(one)), list(_values(other))
    if any(value is None for value in (*first, *second)):
        return False
    if {_key(value) for value in first} == {_key(value) for value in second} and len(first) == 1:
        return False
    constant = all(value["type"] in _CONSTANT for value in (*first, *second))
    always = _unconditional(one) and _unconditional(other)
    if not constant and not always:
        return False
    arguments = one["head"].get("args", []), other["head"].get("args", [])
    if len(arguments[0]) != len(arguments[1]):
        return False
    if any(_different(left, right) for left, right in zip(*arguments, strict=True)):
        return False
    return not _exclusive(one, other)


def _values(rule: Json) -> Iterator[Json]:
    """The value of each branch of a rule; one without `:=` is true."""
    branch: Json = rule
    while branch:
        yield branch["head"].get("value", {"type": "boolean", "value": True})
        branch = branch.get("else")


def _unconditional(rule: Json) -> bool:
    body = rule.get("body", [])
    return all(expr.get("terms") == {"type": "boolean", "value": True} for expr in body) and "else" not in rule


def _exclusive(one: Json, other: Json) -> bool:
    """Whether no input lets both bodies hold, as far as two conditions side by side can tell; `else` is not looked into."""
    if "else" in one or "else" in other:
        return False
    first, second = (list(_conditions(rule)) for rule in (one, other))
    return any(_against(left, right) for left in first for right in second)


def _conditions(rule: Json) -> Iterator[Json]:
    """The conditions of a body that mean one thing: no variables of its own, no iteration. Arguments are numbered."""
    local = _bound(rule)
    numbers = {term["value"]: f"#{at}" for at, term in enumerate(rule["head"].get("args", [])) if term["type"] == "var"}
    for expr in rule.get("body", []):
        if "with" not in expr and not _variables(expr) & local and not _iterates(expr):
            yield _renamed(expr, numbers)


def _iterates(expr: Json) -> bool:
    return any(
        step["type"] == "var" for node in syntax.nodes(expr) if node.get("type") == "ref" for step in node["value"][1:]
    ) or any("domain" in node or "symbols" in node for node in syntax.nodes(expr))


def _renamed(tree: Json, names: Mapping[str, str]) -> Json:
    if isinstance(tree, list):
        return [_renamed(one, names) for one in tree]
    if isinstance(tree, dict):
        if tree.get("type") == "var" and tree.get("value") in names:
            return {"type": "var", "value": names[tree["value"]]}
        return {key: _renamed(one, names) for key, one in tree.items() if key != "index"}
    return tree


def _bound(rule: Json) -> set[str]:
    """Names that are variables of the body; arguments are not among them."""
    found: set[str] = set()
    for node in syntax.nodes(rule.get("body", [])):
        terms = node.get("terms")
        if isinstance(terms, list) and len(terms) == 3 and _operator(terms) in {"assign", "eq"}:
            found |= _variables(terms[1])
        elif isinstance(terms, dict) and "symbols" in terms:
            found |= _variables(terms["symbols"])
        for name in ("key", "value"):
            if isinstance(node.get("domain"), dict) and isinstance(node.get(name), dict):
                found |= _variables(node[name])
    return found


def _variables(tree: Json) -> set[str]:
    return {str(node["value"]) for node in syntax.nodes(tree) if node.get("type") == "var"}


def _operator(terms: Json) -> str:
    head = terms[0]
    return ".".join(str(part["value"]) for part in head["value"]) if head.get("type") == "ref" else ""


def _against(left: Json, right: Json) -> bool:
    if _key(left.get("terms")) == _key(right.get("terms")):
        return bool(left.get("negated")) != bool(right.get("negated"))
    terms, others = left.get("terms"), right.get("terms")
    if left.get("negated") or right.get("negated") or not isinstance(terms, list) or not isinstance(others, list):
        return False
    if len(terms) != 3 or len(others) != 3:
        return False
    operator, opposite = _operator(terms), _operator(others)
    if _OPPOSITE.get(operator) == opposite and _key(terms[1:]) == _key(others[1:]):
        return True
    return operator == opposite == "equal" and any(
        _key(terms[side]) == _key(others[side]) and _different(terms[3 - side], others[3 - side]) for side in (1, 2)
    )


def _different(left: Json, right: Json) -> bool:
    return left["type"] in _CONSTANT and right["type"] in _CONSTANT and left != right
