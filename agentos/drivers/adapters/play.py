"""A play: what the scripted model says, as data. This module reads a play, checks it and computes one turn of it.

A turn is a pure function of the play and of the conversation so far: everything that rules can see (`goal`, `turn`, `results`,
`calls`, `said`, `tools`) is derived from the messages, so a play says the same again after a restart.

    name: triage
    let: {texts: "results | of_tool('read') | ok"}
    rules:                                   # the first rule whose `when` is true speaks
      - id: look
        when: "not results"
        say: "I look at the inbox."
        call: [{tool: list, args: {path: inbox}}]
      - id: done
        say: "Finished after {{ texts | length }} files."

The names of a `let` may use each other, in whatever order they stand. Expressions are Jinja2's, compiled once per play in its
sandbox, with undefined names refused. Bounds: a regular expression has at most 200 characters, no repeated group that repeats
inside, and sees at most 1 MiB of text; `*` and `**` make no huge values. These do not bound every computation: a play is written
by an operator and runs in the kernel's process.
"""

from __future__ import annotations

import functools
import graphlib
import json
import operator
import re
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateError, Undefined, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError

MAX_REGEX: Final = 200
"""Longest regular expression of a filter, in characters."""

MAX_SUBJECT: Final = 1024 * 1024
"""Longest text that a regular expression is applied to, in characters."""

MAX_VALUE: Final = 1024 * 1024
"""Longest text or list that `*` may make."""

MAX_CALLS: Final = 200
"""Most calls in one turn."""

Fault = tuple[tuple[str | int, ...], str]
"""Where in the play (keys and indexes from its top) and what is wrong there."""

Scope = dict[str, Json]
_Evaluate = Callable[[Scope], Json]

_VARIABLES: Final = frozenset({"goal", "turn", "results", "calls", "said", "tools"})
_NESTED_REPEAT: Final = re.compile(r"[*+}]\??[^()\\]*\)\s*[*+{]")


@dataclass(frozen=True, slots=True)
class Turn:
    """What the play says in one turn: a text ("" for none) and the calls, as (tool, args)."""

    text: str
    calls: tuple[tuple[str, dict[str, Json]], ...]


def check_play(play: Json) -> list[Fault]:
    """Everything that is visibly wrong with `play` before it runs: shape, Jinja syntax, unknown filters, unknown variables."""
    return _Reader().read(play)[1]


class Play:
    """A play that was read and compiled. Raises DriverError at once if `check_play` would find a fault."""

    def __init__(self, play: Json) -> None:
        self._top, faults = _Reader().read(play)
        if faults:
            path, message = faults[0]
            raise DriverError(
                f"the play is broken: {message}",
                where="play" + "".join(f"[{part!r}]" for part in path),
                mend="mend the play and apply it",
            )

    def turn(self, scope: Mapping[str, Json]) -> Turn:
        """Compute one turn. `scope` holds the variables of a play. Raises DriverError naming the rule that failed."""
        names = dict(scope)
        for name, evaluate in self._top.let:
            names[name] = _guarded("let", name, evaluate, names)
        for rule in self._top.rules:
            here = dict(names)
            for name, evaluate in rule.let:
                here[name] = _guarded(rule.id, f"let {name}", evaluate, here)
            if _guarded(rule.id, "when", rule.when, here):
                return rule.speak(here)
        return Turn("the play has nothing more to say", ())


@dataclass(frozen=True, slots=True)
class _Call:
    tool: _Evaluate
    args: _Evaluate

    def propose(self, rule: str, names: Scope) -> tuple[str, dict[str, Json]]:
        return str(_guarded(rule, "tool", self.tool, names)), _guarded(rule, "args", self.args, names)


@dataclass(frozen=True, slots=True)
class _Rule:
    id: str
    let: tuple[tuple[str, _Evaluate], ...]
    when: _Evaluate
    say: _Evaluate | None
    each: _Evaluate | None
    calls: tuple[_Call, ...]

    def speak(self, names: Scope) -> Turn:
        text = str(_guarded(self.id, "say", self.say, names)) if self.say else ""
        items: Json = [None]
        if self.each is not None:
            items = _guarded(self.id, "for_each", self.each, names)
            if not isinstance(items, list):
                raise DriverError("`for_each` must give a list", where=f"play, rule {self.id}")
        calls: list[tuple[str, dict[str, Json]]] = []
        for item in items:
            here = names if self.each is None else {**names, "item": item}
            calls += [call.propose(self.id, here) for call in self.calls]
        if len(calls) > MAX_CALLS:
            raise DriverError(
                f"proposes {len(calls)} calls, and {MAX_CALLS} is the most in one turn", where=f"play, rule {self.id}"
            )
        if not text and not calls:
            text = f"rule {self.id} of the play has nothing to do"
        return Turn(text, tuple(calls))


@dataclass(frozen=True, slots=True)
class _Top:
    let: tuple[tuple[str, _Evaluate], ...]
    rules: tuple[_Rule, ...]


class _Reader:
    """Reads the tree of a play into closures, collecting faults on the way."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def read(self, play: Json) -> tuple[_Top, list[Fault]]:
        if not self._shape(play, (), {"name", "description", "let", "rules"}):
            return _Top((), ()), self._faults
        known = set(_VARIABLES)
        let = self._let(play.get("let", {}), ("let",), known)
        rules = play.get("rules")
        if not isinstance(rules, list) or not rules:
            self._faults.append((("rules",), "expected a list of at least one rule"))
            rules = []
        read = [self._rule(rule, ("rules", index), index, set(known)) for index, rule in enumerate(rules)]
        return _Top(tuple(let), tuple(read)), self._faults

    def _rule(self, rule: Json, path: tuple[str | int, ...], index: int, known: set[str]) -> _Rule:
        if not self._shape(rule, path, {"id", "when", "let", "say", "for_each", "call"}):
            return _Rule(str(index), (), _constant(False), None, None, ())
        let = self._let(rule.get("let", {}), (*path, "let"), known)
        when = self._expression(rule.get("when", "true"), (*path, "when"), known)
        say = self._template(rule["say"], (*path, "say"), known) if "say" in rule else None
        each = self._expression(rule["for_each"], (*path, "for_each"), known) if "for_each" in rule else None
        inner = known | {"item"} if each else known
        calls = rule.get("call", [])
        if not isinstance(calls, list):
            self._faults.append(((*path, "call"), "expected a list of calls"))
            calls = []
        read = [self._call(call, (*path, "call", at), inner) for at, call in enumerate(calls)]
        return _Rule(str(rule.get("id", index + 1)), tuple(let), when, say, each, tuple(read))

    def _call(self, call: Json, path: tuple[str | int, ...], known: set[str]) -> _Call:
        if not self._shape(call, path, {"tool", "args"}):
            return _Call(_constant(""), _constant({}))
        if not isinstance(call.get("tool"), str):
            self._faults.append(((*path, "tool"), "expected the name of a tool"))
        args = call.get("args", {})
        if not isinstance(args, dict):
            self._faults.append(((*path, "args"), "expected an object of arguments"))
            args = {}
        return _Call(self._template(call.get("tool", ""), (*path, "tool"), known), self._value(args, (*path, "args"), known))

    def _let(self, let: Json, path: tuple[str | int, ...], known: set[str]) -> list[tuple[str, _Evaluate]]:
        """The named expressions, each behind those that it uses: a declaration is kept without the order of its fields."""
        found = []
        if not isinstance(let, dict):
            self._faults.append((path, "expected an object of named expressions"))
            let = {}
        for name in let:
            if not isinstance(name, str) or not name.isidentifier():
                self._faults.append(((*path, name), f"{name!r} cannot be the name of a variable"))
        named = {name: source for name, source in let.items() if isinstance(name, str) and name.isidentifier()}
        for name in self._order(named, path, known):
            found.append((name, self._expression(named[name], (*path, name), known)))
            known.add(name)
        return found

    def _order(self, named: Mapping[str, Json], path: tuple[str | int, ...], known: set[str]) -> list[str]:
        """The names, each behind those that its expression uses. One that uses its own name means what that was before."""
        uses = {name: sorted((_used(source) & named.keys()) - {name}) for name, source in named.items()}
        try:
            return list(graphlib.TopologicalSorter(uses).static_order())
        except graphlib.CycleError as error:
            circle = set(error.args[1])
            self._faults.append(((*path, min(circle)), f"these use each other: {', '.join(sorted(circle))}"))
            known |= circle
            return self._order({name: source for name, source in named.items() if name not in circle}, path, known)

    def _value(self, value: Json, path: tuple[str | int, ...], known: set[str]) -> _Evaluate:
        """A value of an argument: texts are templates, or native values if they are one whole `{{ expression }}`."""
        if isinstance(value, str):
            inner = _whole_expression(value)
            return self._template(value, path, known) if inner is None else self._expression(inner, path, known)
        if isinstance(value, dict):
            fields = {str(key): self._value(item, (*path, key), known) for key, item in value.items()}
            return lambda scope: {key: item(scope) for key, item in fields.items()}
        if isinstance(value, list):
            items = [self._value(item, (*path, at), known) for at, item in enumerate(value)]
            return lambda scope: [item(scope) for item in items]
        return _constant(value)

    def _expression(self, source: Json, path: tuple[str | int, ...], known: set[str]) -> _Evaluate:
        if isinstance(source, bool):
            return _constant(source)
        if not isinstance(source, str):
            self._faults.append((path, "expected an expression, as text"))
            return _constant(None)
        try:
            expression = _environment().compile_expression(source, undefined_to_none=False)
            self._names("{{ (" + source + "\n) }}", path, known)
        except TemplateError as error:
            self._faults.append((path, f"not a Jinja expression: {error.message}"))
            return _constant(None)
        return lambda scope: _settle(expression(**scope))

    def _template(self, source: Json, path: tuple[str | int, ...], known: set[str]) -> _Evaluate:
        if not isinstance(source, str):
            self._faults.append((path, "expected text"))
            return _constant("")
        try:
            self._names(source, path, known)
            template = _environment().from_string(source)
        except TemplateError as error:
            self._faults.append((path, f"not a Jinja template: {error.message}"))
            return _constant("")
        return lambda scope: template.render(**scope)

    def _names(self, source: str, path: tuple[str | int, ...], known: set[str]) -> None:
        undeclared = meta.find_undeclared_variables(_environment().parse(source)) - known - set(_environment().globals)
        for name in sorted(undeclared):
            self._faults.append((path, f"unknown variable {name!r}; known here: {', '.join(sorted(known))}"))

    def _shape(self, value: Json, path: tuple[str | int, ...], fields: set[str]) -> bool:
        if not isinstance(value, dict):
            self._faults.append((path, "expected an object"))
            return False
        for key in value:
            if key not in fields:
                self._faults.append(((*path, key), f"unknown field; one of: {', '.join(sorted(fields))}"))
        return True


def _used(source: Json) -> set[str]:
    """The variables that an expression uses; none of what is no expression."""
    if not isinstance(source, str):
        return set()
    try:
        return meta.find_undeclared_variables(_environment().parse("{{ (" + source + "\n) }}"))
    except TemplateError:
        return set()


def _constant(value: Json) -> _Evaluate:
    return lambda _: value


def _whole_expression(source: str) -> str | None:
    """The inner part of a text that is exactly one `{{ … }}`, else None."""
    if not (source.startswith("{{") and source.endswith("}}")):
        return None
    try:
        body = _environment().parse(source).body
    except TemplateError:
        return None
    if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
        return None
    if isinstance(body[0].nodes[0], nodes.TemplateData):
        return None
    return source[2:-2].removeprefix("-").removesuffix("-").strip()


def _guarded(rule: str, part: str, evaluate: _Evaluate, scope: Scope) -> Json:
    try:
        return evaluate(scope)
    except (
        TemplateError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise DriverError(
            f"{part} of rule {rule} fails: {error}", where=f"play, rule {rule}", mend="mend the play and apply it"
        ) from error


def _settle(value: Any, depth: int = 0) -> Json:
    """A JSON value: generators and tuples become lists (a generator is always true, whatever it yields), undefined is refused."""
    if depth > 50:
        raise ValueError("nested too deeply")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Undefined):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _settle(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, range, Iterator, ItemsView, KeysView, ValuesView)):
        return [_settle(item, depth + 1) for item in value]
    raise TypeError(f"{type(value).__name__} is not a JSON value")


@functools.cache
def _regex(pattern: str) -> re.Pattern[str]:
    if not isinstance(pattern, str) or len(pattern) > MAX_REGEX:
        raise ValueError(f"a regular expression is a text of at most {MAX_REGEX} characters")
    if _NESTED_REPEAT.search(pattern):
        raise ValueError(f"the regular expression {pattern!r} repeats a group that repeats inside: its run time has no bound")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {pattern!r}: {error}") from error


def _findall(text: Any, pattern: str) -> list[Json]:
    return [list(match) if isinstance(match, tuple) else match for match in _regex(pattern).findall(str(text)[:MAX_SUBJECT])]


def _search(text: Any, pattern: str) -> bool:
    return _regex(pattern).search(str(text)[:MAX_SUBJECT]) is not None


def _of_tool(entries: Sequence[Mapping[str, Json]], name: str) -> list[Mapping[str, Json]]:
    return [entry for entry in entries if entry["tool"] == name]


def _ok(results: Sequence[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    return [result for result in results if not result["is_error"]]


def _failed(results: Sequence[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    return [result for result in results if result["is_error"]]


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a multiplication cannot fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, op: str, left: Any, right: Any) -> Any:
        if op == "**":
            if abs(left) > 1_000_000 or abs(right) > 64:
                raise ValueError("the power is too large")
            return operator.pow(left, right)
        for thing, times in ((left, right), (right, left)):
            if isinstance(thing, (str, list, tuple)) and isinstance(times, int) and len(thing) * times > MAX_VALUE:
                raise ValueError(f"the repetition is longer than {MAX_VALUE}")
        return operator.mul(left, right)


@functools.cache
def _environment() -> _Sandbox:
    environment = _Sandbox(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.filters.update(
        findall=_findall,
        search=_search,
        fromjson=json.loads,
        basename=lambda path: PurePosixPath(path).name,
        dirname=lambda path: str(PurePosixPath(path).parent),
        stem=lambda path: PurePosixPath(path).stem,
        suffix=lambda path: PurePosixPath(path).suffix,
        of_tool=_of_tool,
        ok=_ok,
        failed=_failed,
    )
    # A play says the same again: nothing in it may draw lots.
    del environment.filters["random"], environment.globals["lipsum"]
    return environment
