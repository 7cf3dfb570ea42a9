"""Checking a tenant's Rego before it is declared: what OPA does not refuse and would let a policy fail open.

`lint` reads the syntax trees that OPA itself makes; it never guesses at Rego. Findings come with file, line, column,
a stable code, what is wrong and how to mend it. Codes:

    policy.parse     not Rego                       policy.metadata  no title or description
    policy.compile   OPA does not load it           policy.result    a rule `results` that main would not understand
    policy.package   not agentos.<target>.rules.x   policy.rule-id   an id that is not <name>.<id>, or used twice
    policy.input     an input path that is not      policy.builtin   a builtin that reaches outside or is no function
    policy.data      a data path that is not        policy.unused    a variable that is assigned and never read
    policy.negation  `not f(x)` with an x that may be undefined: that is undefined, not true
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import PolicyError
from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms, is_test
from agentos.policy.known import closest, unknown_data, unknown_input
from agentos.policy.port import Module
from agentos.policy.source import Comment, Place, Source

EFFECTS: Final = ("halt", "deny", "ask")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One flaw. `line` and `column` start at 1 and are 1 where the place is not known."""

    path: str
    line: int
    column: int
    code: str
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.code}: {self.message}; {self.mend}"


@dataclass(frozen=True, slots=True)
class _Read:
    """A module that parses: its tree, its source to find places in, its package, and the target it speaks to."""

    module: Module
    tree: Json
    source: Source
    package: tuple[str, ...]
    target: str

    @property
    def tail(self) -> str:
        return self.package[-1]

    def finding(self, place: Place, code: str, message: str, mend: str) -> Finding:
        return Finding(self.module.path, place.line, place.column, f"policy.{code}", message, mend)


def lint(modules: Sequence[Module], *, target: str, shipped: bool = False) -> list[Finding]:
    """Everything wrong with the modules of one tenant (or one Policy) for `target` (`syscall` or `admission`), sorted.

    Tests (`…_test.rego`) are only parsed and compiled. `shipped`: the modules are axioms, which own their packages and may allow.
    Raises EngineUnavailable without OPA, for nothing can be said then.
    """
    found: list[Finding] = []
    read: list[_Read] = []
    for module in modules:
        try:
            tree = opa.parse(module)
        except PolicyError as error:
            found.extend(_of_opa(error, module))
            continue
        package = syntax.package(tree)
        own = package[1] if len(package) > 1 and package[1] in {"syscall", "admission", "control"} else target
        read.append(_Read(module, tree, Source(module.source, tree), package, own if shipped else target))
    judged = [item for item in read if not is_test(item.module)]
    virtual = _packages([*read, *(() if shipped else _axioms())])
    for item in judged:
        found.extend(_package(item, shipped))
        found.extend(_paths(item, virtual))
        found.extend(_builtins(item))
        found.extend(_metadata(item))
        found.extend(_results(item, shipped))
        found.extend(_unused(item))
        found.extend(_negations(item))
    found.extend(_ids(judged))
    if not {"policy.parse", "policy.package"} & {finding.code for finding in found}:
        # A file that is missing from the set, or in another package, would only be told of again in other words.
        found.extend(_compile(modules, shipped))
    return sorted(set(found))


def _axioms() -> list[_Read]:
    read = []
    for module in axioms():
        tree = opa.parse(module)
        read.append(_Read(module, tree, Source(module.source, tree), syntax.package(tree), ""))
    return read


def _of_opa(error: PolicyError, module: Module) -> Iterator[Finding]:
    """OPA's own words about a file that it does not read."""
    told = list(opa.complaints(str(getattr(error.__cause__, "message", "")), [module.path]))
    for one in told:
        yield Finding(one.path, one.row, one.column, "policy.parse", one.message, "correct the Rego")
    if not told:
        line = int((error.where or "").rpartition(":")[2] or 1)
        yield Finding(module.path, line, 1, "policy.parse", error.message, error.mend or "correct the Rego")


def _compile(modules: Sequence[Module], shipped: bool) -> Iterator[Finding]:
    try:
        opa.build([*(() if shipped else axioms()), *modules], {"agentos": {}}).close()
    except PolicyError as error:
        text = str(getattr(error.__cause__, "message", ""))
        told = list(opa.complaints(text, [module.path for module in modules]))
        for one in told:
            yield Finding(one.path, one.row, one.column, "policy.compile", one.message, "correct the Rego")
        if not told:
            where, _, line = (error.where or f"{modules[0].path if modules else 'policy'}:1").rpartition(":")
            yield Finding(where, int(line), 1, "policy.compile", error.message, error.mend or "correct the Rego")


def _package(item: _Read, shipped: bool) -> Iterator[Finding]:
    if shipped:
        return
    wanted = ("agentos", item.target, "rules")
    place = item.source.first(r"^[ \t]*package\b")
    if item.package[:3] != wanted or len(item.package) != 4:
        yield item.finding(
            place,
            "package",
            f"package {'.'.join(item.package)} is not one that a {item.target} policy may have: its rules would never be asked",
            f"name it {'.'.join(wanted)}.<name>, one name only",
        )
    elif item.package in {other.package for other in _axioms()}:
        yield item.finding(place, "package", f"package {'.'.join(item.package)} is AgentOS's own", "choose another name")


def _packages(read: Iterable[_Read]) -> dict[tuple[str, ...], set[str]]:
    found: dict[tuple[str, ...], set[str]] = {}
    for item in read:
        found.setdefault(item.package, set()).update(syntax.rule_name(rule) for rule in syntax.rules(item.tree))
    return found


def _paths(item: _Read, virtual: dict[tuple[str, ...], set[str]]) -> Iterator[Finding]:
    for ref in sorted(set(syntax.refs(syntax.without_package(item.tree))), key=repr):
        if ref.head == "input":
            wrong = unknown_input(item.target, ref.steps)
            of = {"syscall": "policy-input", "admission": "admission-input", "control": "control-input"}[item.target]
        elif ref.head == "data":
            wrong, of = _wrong_data(ref, virtual), "policy-data"
        else:
            continue
        if wrong is None:
            continue
        path, meant = wrong
        mend = f"did you mean {meant}?" if meant else f"schemas/v1/{of}.json lists what there is"
        written = path[: path.index("_")] if "_" in path else path
        for place in item.source.path(ref.head, written):
            yield item.finding(place, ref.head, f"{ref.head}.{'.'.join(path)} does not exist", mend)


def _wrong_data(ref: syntax.Ref, virtual: dict[tuple[str, ...], set[str]]) -> tuple[tuple[str, ...], str] | None:
    static = ref.static()
    if not static:
        return None if ref.steps else ((), "")
    if len(static) > 1 and any(package[: len(static)] == static for package in virtual):
        return None
    for package, names in sorted(virtual.items(), reverse=True):
        if package == static[: len(package)] and len(static) > len(package):
            name = static[len(package)]
            return None if name in names else (static[: len(package) + 1], closest(name, names))
    if len(static) > 1 and static[0] == "agentos" and static[1] in {"syscall", "admission", "control"}:
        return static, ""
    return unknown_data(ref.steps)


def _builtins(item: _Read) -> Iterator[Finding]:
    for name in sorted({ref.dotted() for ref in syntax.refs(syntax.without_package(item.tree))} & syntax.UNSTEADY):
        mend = "use input.now (milliseconds)" if name == "time.now_ns" else "decide on the input and on data.agentos alone"
        head, *steps = name.split(".")
        for place in item.source.path(head, tuple(steps)):
            yield item.finding(
                place, "builtin", f"{name} reaches outside of the decision, or gives another value each time", mend
            )


def _metadata(item: _Read) -> Iterator[Finding]:
    places = [(item.source.first(r"^[ \t]*package\b"), f"package {'.'.join(item.package)}")]
    places += [(place, "rule results") for place in item.source.places(r"^results\b")]
    for place, what in places:
        missing = _missing(item.source.block_above(place.line))
        if missing:
            mend = "write above it: # METADATA, # title: …, # description: …"
            yield item.finding(place, "metadata", f"{what} has no {' and no '.join(missing)}", mend)


def _missing(block: Sequence[Comment]) -> list[str]:
    texts = [comment.text.strip() for comment in block]
    if "METADATA" not in texts:
        return ["METADATA"]
    fields = {text.partition(":")[0] for text in texts[texts.index("METADATA") + 1 :] if text.partition(":")[2].strip()}
    return [name for name in ("title", "description") if name not in fields]


def _result_rules(item: _Read) -> list[Json]:
    return [rule for rule in syntax.rules(item.tree) if syntax.rule_name(rule) == "results"]


def _emitted(rule: Json) -> list[dict[str, Json]]:
    """The object terms of a rule that have a key `rule`: what it gives."""
    found = []
    for node in syntax.nodes(rule):
        if node.get("type") == "object" and isinstance(node.get("value"), list):
            fields = {key["value"]: value for key, value in node["value"] if key["type"] == "string"}
            if "rule" in fields:
                found.append(fields)
    return found


def _results(item: _Read, shipped: bool) -> Iterator[Finding]:
    rules = _result_rules(item)
    top = item.source.first(r"^results\b") if rules else item.source.first(r"^[ \t]*package\b")
    if not rules and not shipped:
        yield item.finding(
            top, "result", "the policy gives no results: it decides nothing", 'write results contains {"rule": …} if { … }'
        )
    for rule in rules:
        emitted = _emitted(rule)
        if "key" not in rule["head"] or not emitted:
            yield item.finding(
                top,
                "result",
                "a rule results gives no object of rule, effect and reason that can be read here",
                'write results contains {"rule": "…", "effect": "deny", "reason": "…"} if { … }',
            )
        for fields in emitted:
            yield from _shape(item, fields, shipped)


def _shape(item: _Read, fields: dict[str, Json], shipped: bool) -> Iterator[Finding]:
    place = item.source.first(r"^results\b")
    name = fields["rule"]
    if name["type"] != "string":
        yield item.finding(
            item.source.first(r'"rule"\s*:'), "rule-id", "a rule id is not a plain text", f'write "rule": "{item.tail}.<id>"'
        )
    else:
        place = _id_places(item, name["value"])[0]
        if not re.fullmatch(rf"{re.escape(item.tail)}\.[a-z][a-z0-9_.-]*", name["value"]):
            yield item.finding(
                place, "rule-id", f'rule id "{name["value"]}" does not begin with its package', f"name it {item.tail}.<id>"
            )
    if set(fields) != {"rule", "effect", "reason"}:
        yield item.finding(
            place, "result", f"a result has the fields {', '.join(sorted(fields))}", "give rule, effect and reason, and no more"
        )
    effect = fields.get("effect", {"type": "none", "value": None})
    allowed = (*EFFECTS, "allow") if shipped else EFFECTS
    if effect["type"] != "string" or effect["value"] not in allowed:
        said = f'"{effect["value"]}"' if effect["type"] == "string" else "not a plain text"
        yield item.finding(place, "result", f"the effect is {said}", "write halt, deny or ask; only a ToolGrant can allow")


def _id_places(item: _Read, name: str) -> list[Place]:
    return list(item.source.places(rf'"rule"\s*:\s*["`]{re.escape(name)}["`]')) or [Place(1, 1)]


def _ids(read: Sequence[_Read]) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for item in read:
        ids = [
            fields["rule"]["value"]
            for rule in _result_rules(item)
            for fields in _emitted(rule)
            if fields["rule"]["type"] == "string"
        ]
        for name in dict.fromkeys(ids):
            places = _id_places(item, name)
            count = ids.count(name)
            again = places if name in first else places[1:] if count > 1 else []
            where = first.setdefault(name, f"{item.module.path}:{places[0].line}")
            for place in again:
                yield item.finding(
                    place, "rule-id", f'rule id "{name}" is used already at {where}', "give each rule an id of its own"
                )


def _unused(item: _Read) -> Iterator[Finding]:
    for rule in syntax.rules(item.tree):
        count: dict[str, int] = {}
        assigned: set[str] = set()
        for node in syntax.nodes(rule):
            if node.get("type") == "var" and isinstance(node.get("value"), str):
                count[node["value"]] = count.get(node["value"], 0) + 1
            terms = node.get("terms")
            if isinstance(terms, list) and len(terms) == 3 and _operator(terms) == "assign":
                assigned |= {term["value"] for term in syntax.nodes(terms[1]) if term.get("type") == "var"}
        for name in sorted(assigned):
            if count[name] == 1 and not name.startswith(("$", "_")):
                place = item.source.first(rf"\b{re.escape(name)}\b[^\n]*:=")
                yield item.finding(place, "unused", f"variable {name} is assigned and never read", "remove it, or use it")


def _operator(terms: Sequence[Json]) -> str:
    term = terms[0]
    return ".".join(str(part["value"]) for part in term["value"]) if term.get("type") == "ref" else ""


def _negations(item: _Read) -> Iterator[Finding]:
    for rule in syntax.rules(item.tree):
        for node in syntax.nodes(rule):
            terms = node.get("terms")
            if not node.get("negated") or not isinstance(terms, list) or _operator(terms) == "equal":
                continue
            for ref in syntax.refs(terms[1:]):
                if ref.head in {"input", "data"}:
                    steps = ref.static()
                    place = item.source.first(
                        rf"\bnot\b[^\n]*\b{ref.head}\b" + (rf"[^\n]*\b{re.escape(steps[0])}\b" if steps else "")
                    )
                    path = ".".join((ref.head, *steps))
                    message = f"a negated call with {path}: where that is undefined, the rule does not fire"
                    yield item.finding(
                        place, "negation", message, "put the condition into a rule without arguments and negate that"
                    )
                    break
