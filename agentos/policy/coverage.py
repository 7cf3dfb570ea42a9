"""Which parts of policies their tests have reached: per line, as OPA counts it, and per rule.

OPA tells of each head and each expression whether it was evaluated, with its place. From that: a rule was *entered* when any of
it was evaluated, and *succeeded* when its head was, for then its whole body held for some question. A rule with `else` succeeded
when one of its branches did. A rule that OPA's index rules out beforehand is not entered. A rule that gives a result is called by
the id of that result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.policy.adapters import opa
from agentos.policy.bundle import is_test
from agentos.policy.finding import Read, read
from agentos.policy.port import Module
from agentos.policy.results import ids
from agentos.policy.source import Span

Report = Mapping[str, Json]
"""What OPA reports (`opa test --coverage --format json`): `files` with `covered` and `not_covered` ranges of each."""

Range = tuple[int, int, int, int]
"""From row and column to row and column, both from 1."""

_ELSE: Final = re.compile(r"\belse\b")


@dataclass(frozen=True, slots=True)
class RuleCoverage:
    """One rule: its name (the id of its result, where it gives one), its lines, and what the tests made of it."""

    name: str
    line: int
    end: int
    entered: bool
    succeeded: bool

    def to_dict(self) -> dict[str, Json]:
        """JSON form."""
        return {"name": self.name, "line": self.line, "end": self.end, "entered": self.entered, "succeeded": self.succeeded}


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """One module. `missed`: first and last line of each stretch that no test has reached."""

    path: str
    covered_lines: int
    missed: tuple[tuple[int, int], ...]
    rules: tuple[RuleCoverage, ...]

    @property
    def missed_lines(self) -> int:
        """How many lines with Rego no test has reached."""
        return sum(last - first + 1 for first, last in self.missed)

    @property
    def percent(self) -> float:
        """Lines reached of all that can be, 0-100; a module without any counts as reached."""
        return _percent(self.covered_lines, self.missed_lines)

    @property
    def untested(self) -> tuple[RuleCoverage, ...]:
        """The rules that never succeeded in a test."""
        return tuple(rule for rule in self.rules if not rule.succeeded)

    def to_dict(self) -> dict[str, Json]:
        """JSON form."""
        return {
            "path": self.path,
            "percent": round(self.percent, 2),
            "covered_lines": self.covered_lines,
            "missed_lines": self.missed_lines,
            "missed": [f"{self.path}:{first}" if first == last else f"{self.path}:{first}-{last}" for first, last in self.missed],
            "rules": [rule.to_dict() for rule in self.rules],
        }


@dataclass(frozen=True, slots=True)
class Coverage:
    """All modules under test, in order of their paths; tests are not among them."""

    files: tuple[FileCoverage, ...]

    @property
    def percent(self) -> float:
        """Lines reached of all that can be, 0-100."""
        return _percent(sum(one.covered_lines for one in self.files), sum(one.missed_lines for one in self.files))

    @property
    def rules(self) -> int:
        """How many rules there are."""
        return sum(len(one.rules) for one in self.files)

    @property
    def succeeded(self) -> int:
        """How many of them succeeded in a test."""
        return sum(len(one.rules) - len(one.untested) for one in self.files)

    def to_dict(self) -> dict[str, Json]:
        """JSON form."""
        return {
            "percent": round(self.percent, 2),
            "rules": self.rules,
            "succeeded": self.succeeded,
            "files": [one.to_dict() for one in self.files],
        }


def coverage(modules: Sequence[Module], reports: Iterable[Report]) -> Coverage:
    """What `reports`, together, tell of the modules that are no tests. Raises PolicyError for a module that does not parse."""
    reached: dict[str, set[Range]] = {}
    there: dict[str, set[Range]] = {}
    for report in reports:
        for path, told in report.get("files", {}).items():
            covered = set(map(_range, told.get("covered") or ()))
            reached.setdefault(path, set()).update(covered)
            there.setdefault(path, set()).update(covered, map(_range, told.get("not_covered") or ()))
    return Coverage(
        tuple(
            _file(read(module, opa.parse(module), "syscall"), reached.get(module.path, set()), there.get(module.path, set()))
            for module in sorted(modules, key=lambda module: module.path)
            if not is_test(module)
        )
    )


def _file(item: Read, reached: set[Range], there: set[Range]) -> FileCoverage:
    covered = {row for first in reached for row in range(first[0], first[2] + 1)}
    missed = {row for first in there - reached for row in range(first[0], first[2] + 1)} - covered
    named = dict(ids(item))
    rules = tuple(_rule(item, span, named.get(span) or _name(rule), reached) for rule, span in item.rules())
    return FileCoverage(item.module.path, len(covered), tuple(_stretches(missed)), rules)


def _rule(item: Read, span: Span, name: str, reached: set[Range]) -> RuleCoverage:
    inside = [one for one in reached if span.start.line <= one[0] <= span.end]
    heads = {(span.start.line, _column(item, span.start.line, span.start.column))}
    for number in range(span.start.line, span.end + 1):
        text = item.source.lines[number - 1]
        heads |= {(number, _column(item, number, found.start() + 1)) for found in _ELSE.finditer(text)}
    return RuleCoverage(name, span.start.line, span.end, bool(inside), any(one[:2] in heads for one in inside))


def _column(item: Read, line: int, column: int) -> int:
    """OPA counts the bytes of a line, we count characters."""
    return len(item.source.lines[line - 1][: column - 1].encode()) + 1


def _name(rule: Json) -> str:
    name = ".".join(str(step["value"]) for step in rule["head"]["ref"] if step["type"] in {"var", "string"})
    return f"default {name}" if rule.get("default") else name


def _range(told: Json) -> Range:
    start, end = told["start"], told["end"]
    return start["row"], start["col"], end["row"], end["col"]


def _stretches(rows: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = 0
    for row in sorted(rows):
        if row == last + 1 and first:
            last = row
            continue
        if first:
            yield first, last
        first = last = row
    if first:
        yield first, last


def _percent(covered: int, missed: int) -> float:
    return 100 * covered / (covered + missed) if covered + missed else 100.0
