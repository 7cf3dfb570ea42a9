"""What the names in a module stand for: which variable is bound where, which are never used, and what an alias refers to.

    s := input.syscall          the path that is read is input.syscall.tol, and `Use.meant` says so; s.tol is how it is written
    s.tol == "mail"

A body is a scope; so are comprehensions, `every`, and each `else`. What is followed: `:=` and `=`, `some … in`, `every`, imports,
rules of the module that are one reference, constants in brackets, and `object.get` with constant keys. What is not: values that
come out of calls, arguments of functions, references into other modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from agentos.abi.canonical import Json
from agentos.policy import syntax
from agentos.policy.syntax import Ref, Step

_COMPREHENSIONS = frozenset({"arraycomprehension", "setcomprehension", "objectcomprehension"})


class Kind(StrEnum):
    """How a variable came to be; OPA itself refuses the unused ones of `some` and `every`."""

    ASSIGNED = "variable"
    ARGUMENT = "argument"
    IMPORT = "import"
    OTHER = "name"


@dataclass(slots=True, eq=False)
class Binding:
    """A variable: what it is bound to (None: not a thing that can be followed), where, and whether anything reads it."""

    name: str
    kind: Kind
    term: Json = None
    scope: Scope | None = None
    item: bool = False
    """It is an element of what `term` refers to, not the whole."""
    used: bool = False


@dataclass(slots=True, eq=False)
class Scope:
    """The variables of one body, inside of those around it."""

    above: Scope | None = None
    names: dict[str, Binding] = field(default_factory=dict)

    def find(self, name: str) -> Binding | None:
        """The binding of a name, the innermost first."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.above
        return None


@dataclass(frozen=True, slots=True)
class Use:
    """One reference: as it is written, and what it refers to when aliases are followed. `call`: it is read by object.get."""

    written: Ref
    meant: Ref
    call: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """What came of looking at one rule: the references in it, and the variables that nothing reads."""

    uses: tuple[Use, ...]
    unused: tuple[Binding, ...]


class Module:
    """The names of one module: its imports and those of its rules that only give a reference another name."""

    def __init__(self, tree: Json) -> None:
        self._top = Scope()
        self._optional: set[str] = set()
        self.imports = [_import(item) for item in tree.get("imports", [])]
        for binding in self.imports:
            binding.scope = self._top
            self._top.names[binding.name] = binding
        self._rules = tree.get("rules", [])
        for name, term in _aliases(self._rules):
            self._top.names[name] = Binding(name, Kind.OTHER, term, self._top)
        defaults = {syntax.rule_name(rule) for rule in self._rules if rule.get("default")}
        self._optional = {name for name, _ in _aliases(self._rules)} - defaults

    def names(self, rule: Json) -> Names:
        """The references of a rule and its unused variables."""
        walk = _Walk(self._top)
        walk.rule(rule)
        return Names(tuple(walk.uses), tuple(one for one in walk.declared if not one.used))

    def may_be_undefined(self, name: str) -> Ref | None:
        """What a rule refers to that is nothing but another name for a part of the input or the data, without a default."""
        if name not in self._optional:
            return None
        meant = resolve(Ref(name, ()), self._top)
        return meant if meant is not None and meant.head in {"input", "data"} else None


def resolve(ref: Ref, scope: Scope, depth: int = 0) -> Ref | None:
    """What a reference refers to; None where its head is a variable that cannot be followed."""
    binding = scope.find(ref.head)
    if binding is None:
        return ref
    if binding.term is None or binding.scope is None or depth > 16:
        return None
    inner = _ref_of(binding.term, binding.scope, depth + 1)
    if inner is None:
        return None
    return Ref(inner.head, (*inner.steps, *((None,) if binding.item else ()), *ref.steps))


def _ref_of(term: Json, scope: Scope, depth: int) -> Ref | None:
    match term.get("type"):
        case "var":
            name = str(term["value"])
            # A variable that is its own value (`x := x` of an outer one) is looked up outside.
            found = scope.find(name)
            if found is not None and found.term is term and scope.above is not None:
                return resolve(Ref(name, ()), scope.above, depth)
            return resolve(Ref(name, ()), scope, depth) if found or name in {"input", "data"} else None
        case "ref":
            written = _written(term)
            return resolve(_constant(term, written, scope), scope, depth) if written is not None else None
        case "call":
            got = _object_get(term["value"], scope)
            return resolve(got[1], scope, depth) if got else None
        case _:
            return None


def _written(term: Json) -> Ref | None:
    head, *rest = term["value"]
    if head.get("type") != "var":
        return None
    return Ref(str(head["value"]), tuple(_literal(step) for step in rest))


def _literal(term: Mapping[str, Json]) -> Step:
    if term["type"] == "string":
        return str(term["value"])
    if term["type"] == "number" and isinstance(term["value"], int):
        return term["value"]
    return None


def _constant(term: Json, written: Ref, scope: Scope) -> Ref:
    """`input[k]` with `k := "syscall"`: the constant in its place."""
    steps = list(written.steps)
    for number, step in enumerate(term["value"][1:]):
        if step.get("type") == "var":
            bound = scope.find(str(step["value"]))
            if bound is not None and not bound.item and isinstance(bound.term, dict):
                steps[number] = _literal(bound.term) if bound.term.get("type") in {"string", "number"} else None
    return Ref(written.head, tuple(steps))


def _object_get(terms: list[Json], scope: Scope) -> tuple[Ref, Ref] | None:
    """The reference whose key an `object.get` reads, and the same with the key, where both are known."""
    if len(terms) != 4 or _operator(terms[0]) != "object.get":
        return None
    of, key = terms[1], terms[2]
    if of.get("type") == "ref":
        written = _written(of)
        base = _constant(of, written, scope) if written else None
    elif of.get("type") == "var":
        written = base = Ref(str(of["value"]), ())
    else:
        return None
    keys = key["value"] if key.get("type") == "array" else [key]
    steps = tuple(_literal(one) for one in keys if isinstance(one, dict))
    if written is None or base is None or not steps:
        return None
    return written, Ref(base.head, (*base.steps, *steps))


def _operator(term: Json) -> str:
    if not isinstance(term, dict) or term.get("type") != "ref":
        return ""
    return ".".join(str(part.get("value")) for part in term["value"])


def _import(item: Json) -> Binding:
    path = item["path"]
    name = item.get("alias") or str(path["value"][-1]["value"] if path.get("type") == "ref" else path["value"])
    # `rego.v1` and `future.keywords` bind nothing that could be left unused.
    head = str(path["value"][0]["value"]) if path.get("type") == "ref" else name
    return Binding(name, Kind.IMPORT, path, used=head in {"rego", "future"})


def _aliases(rules: list[Json]) -> Iterator[tuple[str, Json]]:
    """Rules that give another name to one reference: no arguments, no other definition but a default."""
    by_name: dict[str, list[Json]] = {}
    for rule in rules:
        by_name.setdefault(syntax.rule_name(rule), []).append(rule)
    for name, definitions in by_name.items():
        real = [rule for rule in definitions if not rule.get("default")]
        if len(real) != 1:
            continue
        head = real[0]["head"]
        value = head.get("value", {})
        plain = "args" not in head and "key" not in head and len(head["ref"]) == 1 and "else" not in real[0]
        if plain and value.get("type") == "ref" and value["value"][0].get("value") in {"input", "data"}:
            yield name, value


class _Walk:
    """One pass over a rule: scopes are opened on the way down, every variable and reference is looked up in its scope."""

    def __init__(self, top: Scope) -> None:
        self._top = top
        self.uses: list[Use] = []
        self.declared: list[Binding] = []

    def rule(self, rule: Json) -> None:
        outer = Scope(self._top)
        for term in rule["head"].get("args", []):
            self._declare(term, Kind.ARGUMENT, outer)
        branch: Json = rule
        while branch:
            scope = Scope(outer)
            self._open(branch.get("body", []), scope)
            head = branch["head"]
            # The first step is the rule's own name.
            for part in (*head.get("ref", [])[1:], head.get("key"), head.get("value")):
                self._term(part, scope)
            for term in head.get("args", []) if branch is rule else []:
                self._pattern(term, scope)
            branch = branch.get("else")

    def _open(self, body: list[Json], scope: Scope) -> None:
        for expr in body:
            self._bind(expr.get("terms"), scope)
        for expr in body:
            self._expr(expr, scope)

    def _bind(self, terms: Json, scope: Scope) -> None:
        if isinstance(terms, list) and len(terms) == 3:
            operator = _operator(terms[0])
            if operator == "assign":
                self._declare(terms[1], Kind.ASSIGNED, scope, terms[2])
            elif operator in {"eq", "unify"}:
                self._unify(terms[1], terms[2], scope)
                self._unify(terms[2], terms[1], scope)
        elif isinstance(terms, dict) and "symbols" in terms:
            for symbol in terms["symbols"]:
                self._some(symbol, scope)

    def _unify(self, left: Json, right: Json, scope: Scope) -> None:
        """`x = input.a`: binds a variable that nothing else has bound."""
        if isinstance(left, dict) and left.get("type") == "var" and scope.find(str(left["value"])) is None:
            name = str(left["value"])
            if name not in {"input", "data"}:
                scope.names[name] = Binding(name, Kind.OTHER, right, scope)

    def _some(self, symbol: Json, scope: Scope) -> None:
        if symbol.get("type") == "var":
            self._name(str(symbol["value"]), Kind.OTHER, scope, None)
            return
        _, *parts = symbol["value"]
        *key, value, domain = parts
        for term in key:
            self._declare(term, Kind.OTHER, scope)
        if value.get("type") == "var":
            self._name(str(value["value"]), Kind.OTHER, scope, domain, item=True)
        else:
            self._declare(value, Kind.OTHER, scope)

    def _declare(self, term: Json, kind: Kind, scope: Scope, bound: Json = None) -> None:
        if term.get("type") == "var":
            self._name(str(term["value"]), kind, scope, bound)
            return
        for node in _pattern_vars(term):
            self._name(node, kind, scope, None)

    def _name(self, name: str, kind: Kind, scope: Scope, term: Json, *, item: bool = False) -> None:
        # `_` is written `$0`, `$1`, … in the tree.
        if name.startswith(("$", "_")):
            return
        known = scope.names.get(name)
        if known is not None:
            known.term = None
            return
        binding = Binding(name, kind, term, scope, item)
        scope.names[name] = binding
        if kind in {Kind.ASSIGNED, Kind.ARGUMENT}:
            self.declared.append(binding)

    def _expr(self, expr: Json, scope: Scope) -> None:
        terms = expr.get("terms")
        for modifier in expr.get("with", []):
            self._term(modifier["target"], scope)
            self._term(modifier["value"], scope)
        if isinstance(terms, list):
            self._call(terms, scope)
        elif isinstance(terms, dict) and "symbols" in terms:
            for symbol in terms["symbols"]:
                if symbol.get("type") == "call":
                    for part in symbol["value"][1:-1]:
                        self._pattern(part, scope)
                    self._term(symbol["value"][-1], scope)
        elif isinstance(terms, dict) and "domain" in terms:
            self._term(terms["domain"], scope)
            inner = Scope(scope)
            if terms.get("key"):
                self._declare(terms["key"], Kind.OTHER, inner)
            self._name(str(terms["value"]["value"]), Kind.OTHER, inner, terms["domain"], item=True)
            self._open(terms["body"], inner)
        else:
            self._term(terms, scope)

    def _call(self, terms: list[Json], scope: Scope) -> None:
        if len(terms) == 3 and _operator(terms[0]) == "assign":
            self._pattern(terms[1], scope)
            self._term(terms[2], scope)
            return
        got = _object_get(terms, scope)
        if got is not None:
            meant = resolve(got[1], scope)
            if meant is not None:
                self.uses.append(Use(got[0], meant, call=True))
        for term in terms:
            self._term(term, scope)

    def _pattern(self, term: Json, scope: Scope) -> None:
        """The side that binds: its variables are not read there, but what its keys and references name is."""
        if term.get("type") == "var":
            return
        for node in syntax.nodes(term):
            if node.get("type") == "ref":
                self._term(node, scope)

    def _term(self, term: Json, scope: Scope) -> None:
        if isinstance(term, list):
            for one in term:
                self._term(one, scope)
            return
        if not isinstance(term, dict):
            return
        if "terms" in term:
            self._expr(term, scope)
            return
        kind, value = term.get("type"), term.get("value")
        if kind == "var":
            self._var(str(value), scope)
        elif kind == "ref" and isinstance(value, list):
            self._ref(term, scope)
        elif kind in _COMPREHENSIONS and isinstance(value, dict):
            inner = Scope(scope)
            self._open(value["body"], inner)
            for name in ("key", "value", "term"):
                self._term(value.get(name), inner)
        elif kind == "call" and isinstance(value, list):
            self._call(value, scope)
        elif isinstance(value, list | dict):
            self._term(value, scope)
        else:
            self._term(term.get("parts"), scope)

    def _var(self, name: str, scope: Scope) -> None:
        found = scope.find(name)
        if found is not None:
            found.used = True
        elif name in {"input", "data"}:
            self.uses.append(Use(Ref(name, ()), Ref(name, ())))

    def _ref(self, term: Json, scope: Scope) -> None:
        head, *rest = term["value"]
        for step in rest:
            self._term(step, scope)
        written = _written(term)
        if written is None:
            self._term(head, scope)
            return
        found = scope.find(written.head)
        if found is not None:
            found.used = True
        meant = resolve(_constant(term, written, scope), scope)
        if meant is not None:
            self.uses.append(Use(written, meant))


def _pattern_vars(term: Json) -> Iterator[str]:
    """The variables that a pattern binds: elements of arrays and values of objects, at any depth; keys are read."""
    match term.get("type"):
        case "var":
            yield str(term["value"])
        case "array":
            for one in term["value"]:
                yield from _pattern_vars(one)
        case "object":
            for _, value in term["value"]:
                yield from _pattern_vars(value)
        case _:
            return
