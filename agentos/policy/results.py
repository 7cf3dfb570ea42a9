"""What a rule `results` gives must be readable here: its id, its effect, its obligations.

What is written out is held to the contract; what is computed when it runs is left to the runtime, which denies what it does not
know: an effect or an obligation that nobody understands never passes in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.obligation import KINDS
from agentos.policy import syntax
from agentos.policy.finding import Finding, Read
from agentos.policy.known import closest
from agentos.policy.source import Place, Span

EFFECTS: Final[Mapping[str, tuple[str, ...]]] = {
    "syscall": ("halt", "deny", "ask", "oblige"),
    "admission": ("halt", "deny", "ask"),
    "approval": ("deny",),
    "control": ("deny",),
}
"""What a rule of each target may answer; shipped ones may allow."""

_EXAMPLE: Final = 'write results contains {"rule": "…", "effect": "deny", "reason": "…"} if { … }'
_RUNTIME_ONLY: Final = frozenset({"uses"})
"""Kinds that only the shipped rule `grants` makes: it alone knows the digests of grants."""
_NAMES_GRANTS: Final = "grants"
"""The field of a result in which the shipped rule `grants`, and no other, names what lets the call through."""

Fields = Mapping[str, Json]


def check_results(item: Read, shipped: bool) -> Iterator[Finding]:
    """Each rule `results` gives objects with a plain id of this package, an effect of this target and a reason."""
    rules = [(rule, span) for rule, span in item.rules() if syntax.rule_name(rule) == "results"]
    if not rules and not shipped:
        top = item.source.first(r"^[ \t]*package\b")
        mend = 'write results contains {"rule": …} if { … }'
        yield item.finding(top, "result", "the policy gives no results: it decides nothing", mend)
    for rule, span in rules:
        emitted = list(_emitted(rule))
        if "key" not in rule["head"] or not emitted:
            message = "a rule results gives no object of rule, effect and reason that can be read here"
            yield item.finding(span.start, "result", message, _EXAMPLE)
        for fields in emitted:
            yield from _id(item, span, fields)
            yield from _shape(item, span, fields, shipped)


def check_ids(read: Sequence[Read], taken: Mapping[str, str]) -> Iterator[Finding]:
    """No id is given by two rules, of whatever policy. `taken`: ids of other modules and where they are."""
    first = dict(taken)
    for item in read:
        for span, name in ids(item):
            place = _id_place(item, span, name)
            where = first.setdefault(name, f"{item.module.path}:{place.line}")
            if where != f"{item.module.path}:{place.line}":
                message = f'rule id "{name}" is used already at {where}'
                yield item.finding(place, "rule-id", message, "give each rule an id of its own")


def ids(item: Read) -> Iterator[tuple[Span, str]]:
    """Each plain id that the rules of a module can give, with the place of its rule."""
    for rule, span in item.rules():
        if syntax.rule_name(rule) == "results":
            for fields in _emitted(rule):
                if fields["rule"]["type"] == "string":
                    yield span, fields["rule"]["value"]


def _emitted(node: Json) -> Iterator[Fields]:
    """The object terms that have a key `rule`, outermost first; what is inside of one (its obligations) is not looked at."""
    if isinstance(node, list):
        for one in node:
            yield from _emitted(one)
    elif isinstance(node, dict):
        if node.get("type") == "object" and isinstance(node.get("value"), list):
            fields = _keyed(node)
            if "rule" in fields:
                yield fields
                return
        for one in node.values():
            yield from _emitted(one)


def _keyed(term: Json) -> Fields:
    return {key["value"]: value for key, value in term["value"] if key["type"] == "string"}


def _id(item: Read, span: Span, fields: Fields) -> Iterator[Finding]:
    name = fields["rule"]
    if name["type"] != "string":
        place = item.source.first(r'"rule"\s*:', span)
        yield item.finding(place, "rule-id", "a rule id is not a plain text", f'write "rule": "{item.tail}.<id>"')
    elif not re.fullmatch(rf"{re.escape(item.tail)}\.[a-z][a-z0-9_.-]*", name["value"]):
        message = f'rule id "{name["value"]}" does not begin with its package'
        yield item.finding(_id_place(item, span, name["value"]), "rule-id", message, f"name it {item.tail}.<id>")


def _id_place(item: Read, span: Span, name: str) -> Place:
    return item.source.first(rf'"rule"\s*:\s*(?P<at>["`]{re.escape(name)}["`])', span)


def _field_place(item: Read, span: Span, name: str) -> Place:
    return item.source.first(rf'"{name}"\s*:\s*(?P<at>\S)', span)


def _shape(item: Read, span: Span, fields: Fields, shipped: bool) -> Iterator[Finding]:
    allowed = (*EFFECTS[item.target], *(("allow",) if shipped else ()))
    optional = {"obligations"} if item.target == "syscall" else set()
    if shipped and item.tail == _NAMES_GRANTS:
        optional.add(_NAMES_GRANTS)
    if set(fields) - optional != {"rule", "effect", "reason"}:
        place = _field_place(item, span, next(iter(sorted(set(fields) - optional - {"rule", "effect", "reason"})), "rule"))
        message = f"a result has the fields {', '.join(sorted(fields))}"
        more = ", perhaps obligations" if optional else ""
        yield item.finding(place, "result", message, f"give rule, effect and reason{more}, and no more")
    effect = fields.get("effect", {"type": "none", "value": None})
    if effect["type"] != "string" or effect["value"] not in allowed:
        said = f'"{effect["value"]}"' if effect["type"] == "string" else "not a plain text"
        *most, last = EFFECTS[item.target]
        mend = f"write {', '.join(most)} or {last}" if most else f"write {last}"
        place = _field_place(item, span, "effect")
        yield item.finding(place, "result", f"the effect is {said}", mend + "; only a ToolGrant can allow" * (not shipped))
    given = fields.get("obligations")
    if effect["value"] == "oblige" and (given is None or given.get("value") == []):
        place = _field_place(item, span, "effect")
        mend = 'add "obligations": [{"kind": …}], or give another effect'
        yield item.finding(place, "obligation", "the effect is oblige, and there is no obligation", mend)
    if given is not None and item.target == "syscall":
        yield from _obligations(item, span, given, shipped)


def _obligations(item: Read, span: Span, given: Json, shipped: bool) -> Iterator[Finding]:
    if given["type"] not in {"array", "var", "ref", "call", "arraycomprehension"}:
        place = _field_place(item, span, "obligations")
        yield item.finding(place, "obligation", "the obligations are no array", 'write "obligations": [{"kind": …}]')
        return
    for one in given["value"] if given["type"] == "array" else ():
        if one["type"] == "object":
            yield from _obligation(item, span, _keyed(one), shipped)
        elif one["type"] in {"string", "number", "boolean", "null", "array", "set"}:
            place = _field_place(item, span, "obligations")
            yield item.finding(place, "obligation", "an obligation is no object", 'write {"kind": …}')


def _obligation(item: Read, span: Span, fields: Fields, shipped: bool) -> Iterator[Finding]:
    kind = fields.get("kind")
    if kind is None:
        place = _field_place(item, span, "obligations")
        yield item.finding(place, "obligation", "an obligation has no kind", f"give one of {', '.join(sorted(KINDS))}")
        return
    if kind["type"] != "string":
        return
    name = kind["value"]
    place = item.source.first(rf'"kind"\s*:\s*(?P<at>["`]{re.escape(str(name))}["`])', span)
    if name not in KINDS or (name in _RUNTIME_ONLY and not shipped):
        meant = closest(name, KINDS)
        mend = (
            f"did you mean {meant}?" if meant and meant != name else f"there are {', '.join(sorted(set(KINDS) - _RUNTIME_ONLY))}"
        )
        yield item.finding(place, "obligation", f'an obligation of kind "{name}" is not one that a policy can give', mend)
        return
    wanted = {"kind", *KINDS[name]}
    if set(fields) != wanted:
        message = f"an obligation {name} has the fields {', '.join(sorted(fields))}"
        yield item.finding(place, "obligation", message, f"give {', '.join(sorted(wanted))}, and no more")
        return
    for field, check in KINDS[name].items():
        known, value = _value(fields[field])
        if known and not check(value):
            message = f"the field {field} of an obligation {name} may not be this value"
            at = item.source.first(rf'"{field}"\s*:\s*(?P<at>\S)', span)
            yield item.finding(at, "obligation", message, "policies/README.md shows each kind")


def _value(term: Json) -> tuple[bool, Json]:
    """The JSON value of a term that is written out, and whether it is."""
    match term["type"]:
        case "string" | "number" | "boolean":
            return True, term["value"]
        case "null":
            return True, None
        case "array":
            parts = [_value(one) for one in term["value"]]
            return all(known for known, _ in parts), [value for _, value in parts]
        case "object":
            pairs = [(_value(key), _value(value)) for key, value in term["value"]]
            known = all(left[0] and right[0] and isinstance(left[1], str) for left, right in pairs)
            return known, {str(left[1]): right[1] for left, right in pairs} if known else None
        case "set":
            return True, term["value"]
        case _:
            return False, None
