"""Checking a tenant's Rego before it is declared: what OPA does not refuse and would let a policy fail open.

`lint` reads the syntax trees that OPA itself makes; it never guesses at Rego. Findings come with file, line, column,
a stable code, what is wrong and how to mend it. Codes:

    policy.parse     not Rego                       policy.metadata    no title or description
    policy.compile   OPA does not load it           policy.schema      no schema of the input, or that of another target
    policy.package   not agentos.<target>.rules.x   policy.result      a rule `results` that main would not understand
    policy.input     an input path that is not      policy.rule-id     an id that is not <name>.<id>, or used twice
    policy.data      a data path that is not        policy.obligation  an obligation that the runtime would not understand
    policy.builtin   a builtin that reaches outside or is no function
    policy.unused    a variable, an argument or an import that nothing reads
    policy.conflict  a complete rule that can have two values at once
    policy.negation  `not f(x)` with an x that may be undefined: that is undefined, not true

What is seen of paths: `scope`; of conflicts: `complete`; of results: `results`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

from agentos.abi.canonical import Json
from agentos.abi.errors import PolicyError
from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms, is_test
from agentos.policy.complete import check_complete
from agentos.policy.finding import Finding, Read, read
from agentos.policy.known import INPUTS, closest, unknown_data, unknown_input
from agentos.policy.metadata import check_metadata
from agentos.policy.port import Module
from agentos.policy.results import check_ids, check_results, ids
from agentos.policy.scope import Kind, Names, Use
from agentos.policy.scope import Module as ModuleNames
from agentos.policy.source import Span

__all__ = ["Finding", "lint", "lint_tenant"]

Virtual = Mapping[tuple[str, ...], set[str]]
"""The names of the rules of each package."""


def lint(modules: Sequence[Module], *, target: str, shipped: bool = False) -> list[Finding]:
    """Everything wrong with the modules of one tenant (or one Policy) for `target` (a key of `known.INPUTS`), sorted.

    Tests (`…_test.rego`) are only parsed and compiled. `shipped`: the modules are axioms, which own their packages and may allow.
    Raises EngineUnavailable without OPA, for nothing can be said then.
    """
    found: list[Finding] = []
    parsed: list[Read] = []
    for module in modules:
        try:
            tree = opa.parse(module)
        except PolicyError as error:
            found.extend(_of_opa(error, module))
            continue
        package = syntax.package(tree)
        own = package[1] if len(package) > 1 and package[1] in INPUTS else target
        parsed.append(read(module, tree, own if shipped else target))
    judged = [item for item in parsed if not is_test(item.module)]
    known = () if shipped else _axioms()
    virtual = _packages([*parsed, *known])
    for item in judged:
        found.extend(_package(item, shipped))
        found.extend(_names(item, virtual))
        found.extend(_builtins(item))
        found.extend(check_metadata(item))
        found.extend(check_results(item, shipped))
        found.extend(check_complete(item))
    found.extend(check_ids(judged, {} if shipped else _axiom_ids()))
    if not {"policy.parse", "policy.package"} & {finding.code for finding in found}:
        # A file that is missing from the set, or in another package, would only be told of again in other words.
        seen = {one.path for one in found if one.code == "policy.conflict"}
        compiled = _compile(modules, shipped)
        found.extend(one for one in compiled if one.path not in seen or "multiple default rules" not in one.message)
    return sorted(set(found))


def lint_tenant(policies: Mapping[str, Sequence[Module]]) -> list[Finding]:
    """Everything wrong with all policies of one tenant, its modules by target: `lint` of each, and names that two targets share.

    Modes, scopes and parameters are kept by the last part of the package: one name for two targets would mix them up.
    """
    found = [finding for target, modules in policies.items() for finding in lint(modules, target=target)]
    first: dict[str, tuple[str, str]] = {}
    for target, modules in policies.items():
        for module in modules:
            if is_test(module):
                continue
            try:
                item = read(module, opa.parse(module), target)
            except PolicyError:
                continue
            other, where = first.setdefault(item.tail, (target, module.path))
            place = item.source.first(r"^[ \t]*package\b")
            if other != target:
                message = f"a {other} policy has the name {item.tail} already, in {where}"
                found.append(item.finding(place, "package", message, "choose another name"))
            elif _policy(where) != _policy(module.path):
                # What one Policy forbids in a package, another could take back there.
                message = f"policy {_policy(where)} has the name {item.tail} already, in {where}"
                found.append(item.finding(place, "package", message, "choose another name"))
    return sorted(set(found))


def _policy(path: str) -> str:
    """The Policy that a module is of: the first part of its path."""
    return path.rpartition("/")[0].partition("/")[0]


@cache
def _axioms() -> tuple[Read, ...]:
    return tuple(read(module, opa.parse(module), "") for module in axioms())


@cache
def _axiom_ids() -> Mapping[str, str]:
    return {name: f"{item.module.path}:{span.start.line}" for item in _axioms() for span, name in ids(item)}


def _of_opa(error: PolicyError, module: Module) -> Iterator[Finding]:
    """OPA's own words about a file that it does not read."""
    told = list(opa.complaints(str(getattr(error.__cause__, "message", "")), [module.path]))
    for one in told:
        yield Finding(one.path, one.row, one.column, "policy.parse", one.message, _parse_mend(one.message))
    if not told:
        line = int((error.where or "").rpartition(":")[2] or 1)
        yield Finding(module.path, line, 1, "policy.parse", error.message, error.mend or "correct the Rego")


def _parse_mend(message: str) -> str:
    if "keyword is required" in message:
        return "this is Rego v0: `opa fmt --v0-v1 --write` turns it into v1"
    return "correct the Rego"


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


def _package(item: Read, shipped: bool) -> Iterator[Finding]:
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


def _packages(parsed: Iterable[Read]) -> Virtual:
    found: dict[tuple[str, ...], set[str]] = {}
    for item in parsed:
        found.setdefault(item.package, set()).update(syntax.rule_name(rule) for rule in syntax.rules(item.tree))
    return found


def _names(item: Read, virtual: Virtual) -> Iterator[Finding]:
    """Paths that do not exist, names that nothing reads, and negations that are neither true nor false."""
    names = ModuleNames(item.tree)
    for rule, span in item.rules():
        found = names.names(rule)
        for use in found.uses:
            yield from _path(item, span, use, virtual)
        yield from _unused(item, span, found)
        yield from _negations(item, span, rule, names)
    for binding in names.imports:
        place = item.source.first(rf"^[ \t]*import\b[^\n]*\b{re.escape(binding.name)}\b")
        imported = _imported(binding.term)
        if imported is not None:
            yield from _path(item, Span(place, place.line), imported, virtual)
        if not binding.used:
            yield item.finding(place, "unused", f"import {binding.name} is never read", "remove it, or use it")


def _imported(term: object) -> Use | None:
    ref = next(iter(syntax.refs(term)), None)
    return Use(ref, ref) if ref is not None else None


def _path(item: Read, span: Span, use: Use, virtual: Virtual) -> Iterator[Finding]:
    meant = use.meant
    if meant.head not in {"input", "data"}:
        return
    of = INPUTS[item.target] if meant.head == "input" else "policy-data"
    wrong = unknown_input(item.target, meant.steps) if meant.head == "input" else _wrong_data(meant, virtual)
    if wrong is None:
        return
    path, likely = wrong
    # An alias stands for the first steps; one that is wrong itself is told of where it is made.
    length = len(path) - (len(meant.steps) - len(use.written.steps))
    if use.call:
        key = next((step for step in reversed(path) if step != "_"), "")
        places = [item.source.first(rf"object\.get\s*\([^\n]*?(?P<at>[\"`]{re.escape(key)}[\"`])", span)]
    elif length < 0 or (length == 0 and use.written.steps):
        return
    else:
        places = item.source.path(use.written.head, use.written.steps[:length], span)
    mend = f"did you mean {likely}?" if likely else f"schemas/v1/{of}.json lists what there is"
    message = ".".join((meant.head, *path))
    for place in places:
        yield item.finding(place, meant.head, f"{message} does not exist", mend)


def _wrong_data(ref: syntax.Ref, virtual: Virtual) -> tuple[tuple[str, ...], str] | None:
    static = ref.static()
    if not static:
        return None if ref.steps else ((), "")
    if len(static) > 1 and any(package[: len(static)] == static for package in virtual):
        return None
    for package, names in sorted(virtual.items(), reverse=True):
        if package == static[: len(package)] and len(static) > len(package):
            name = static[len(package)]
            return None if name in names else (static[: len(package) + 1], closest(name, names))
    if len(static) > 1 and static[0] == "agentos" and static[1] in INPUTS:
        return static, ""
    return unknown_data(ref.steps)


def _unused(item: Read, span: Span, names: Names) -> Iterator[Finding]:
    for binding in names.unused:
        name = re.escape(binding.name)
        if binding.kind is Kind.ARGUMENT:
            place = item.source.first(rf"\((?:[^)\n]*?[^\w\n])?(?P<at>{name})\b", span)
            yield item.finding(place, "unused", f"argument {binding.name} is never read", "write _ in its place")
        else:
            place = item.source.first(rf"(?P<at>\b{name}\b)[^\n=]*:=", span)
            yield item.finding(place, "unused", f"variable {binding.name} is assigned and never read", "remove it, or use it")


def _builtins(item: Read) -> Iterator[Finding]:
    for name in sorted({ref.dotted() for ref in syntax.refs(syntax.without_package(item.tree))} & syntax.UNSTEADY):
        mend = "use input.now (milliseconds)" if name == "time.now_ns" else "decide on the input and on data.agentos alone"
        head, *steps = name.split(".")
        for place in item.source.places(rf"(?<![\w.\"`]){re.escape(head)}" + "".join(rf"\s*\.\s*{step}" for step in steps)):
            message = f"{name} reaches outside of the decision, or gives another value each time"
            yield item.finding(place, "builtin", message, mend)


def _negations(item: Read, span: Span, rule: object, names: ModuleNames) -> Iterator[Finding]:
    for node in syntax.nodes(rule):
        terms = node.get("terms")
        if not node.get("negated") or not isinstance(terms, list) or _operator(terms) == "equal":
            continue
        told = next(_undefined(terms[1:], names), None)
        if told is not None:
            written, path = told
            place = item.source.first(rf"(?P<at>\bnot\b)[^\n]*\b{re.escape(written)}", span)
            message = f"a negated call with {path}: where that is undefined, the rule does not fire"
            yield item.finding(place, "negation", message, "put the condition into a rule without arguments and negate that")


def _undefined(terms: object, names: ModuleNames) -> Iterator[tuple[str, str]]:
    """What may be undefined in the arguments of a call: how it is written first, and what it is."""
    for ref in syntax.refs(terms):
        if ref.head in {"input", "data"}:
            steps = ref.static()
            yield steps[0] if steps else ref.head, ".".join((ref.head, *steps))
    for node in syntax.nodes(terms):
        name = str(node["value"]) if node.get("type") == "var" else ""
        meant = names.may_be_undefined(name)
        if meant is not None:
            yield name, f"{name}, which is {'.'.join((meant.head, *meant.static()))}"


def _operator(terms: Sequence[Json]) -> str:
    term = terms[0]
    return ".".join(str(part["value"]) for part in term["value"]) if term.get("type") == "ref" else ""
