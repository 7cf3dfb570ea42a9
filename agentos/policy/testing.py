"""Running the tests of Rego modules in the process: every rule named `test_…`, as `opa test` would.

All tests are compiled at once, and each is then asked for by itself, so that one that fails hides no other and each has its time.
Names that begin with `todo_test_` are skipped, as OPA does. Tests with cases (`test_x[case]`) need OPA's runner: they fail here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentos.abi.canonical import Json
from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.coverage import Coverage, Report, coverage
from agentos.policy.finding import read
from agentos.policy.port import Module
from agentos.policy.source import Span

_PACKAGE: Final = "agentos_tests_asked_for"
_SELECTED: Final = "agentos.test_asked_for"
_TODO: Final = "todo_"


@dataclass(frozen=True, slots=True)
class TestResult:
    """What came of one test. `message` is empty for one that passed; `line` is that of its rule, `seconds` its evaluation."""

    __test__ = False
    path: str
    package: str
    name: str
    passed: bool
    message: str
    line: int = 1
    seconds: float = 0.0
    skipped: bool = False

    @property
    def failed(self) -> bool:
        """Whether it was run and is not true."""
        return not self.passed and not self.skipped

    def __str__(self) -> str:
        outcome = "passed" if self.passed else "skipped" if self.skipped else "failed: " + self.message
        return f"{self.path}:{self.line}: {self.package}.{self.name}: {outcome}"

    def to_dict(self) -> dict[str, Json]:
        """JSON form."""
        return {
            "path": self.path,
            "line": self.line,
            "package": self.package,
            "name": self.name,
            "passed": self.passed,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 6),
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class TestRun:
    """All tests of a set of modules, and what they reached (None: not asked for)."""

    __test__ = False
    results: tuple[TestResult, ...]
    coverage: Coverage | None = None

    @property
    def failed(self) -> int:
        """How many are not true."""
        return sum(one.failed for one in self.results)

    @property
    def seconds(self) -> float:
        """How long all of them took."""
        return sum(one.seconds for one in self.results)


@dataclass(frozen=True, slots=True)
class _Test:
    module: Module
    package: tuple[str, ...]
    name: str
    span: Span
    cases: bool

    @property
    def key(self) -> str:
        return ".".join((*self.package, self.name))

    @property
    def path(self) -> str:
        return "data" + "".join(f"[{json.dumps(part)}]" for part in (*self.package, self.name))


def run_rego_tests(modules: Sequence[Module], data: Mapping[str, Json] | None = None) -> list[TestResult]:
    """Evaluate each `test_…` rule of `modules` (policies and tests together), in order of module and rule.

    A test passes when its value is true. Raises PolicyError for modules that do not load, EngineUnavailable without OPA.
    """
    return list(run_tests(modules, data).results)


def run_tests(modules: Sequence[Module], data: Mapping[str, Json] | None = None, *, covered: bool = False) -> TestRun:
    """The same, with what the tests reached of the modules if `covered`."""
    tests = [test for module in modules for test in _tests(module)]
    engine = opa.build(modules, data or {})
    try:
        asked = _Asked(engine, tests)
        results = tuple(asked.run(test) for test in tests)
        reports = asked.reports(tests) if covered else ()
    finally:
        engine.close()
    return TestRun(results, coverage(modules, reports) if covered else None)


def _tests(module: Module) -> Iterator[_Test]:
    item = read(module, opa.parse(module), "syscall")
    seen: set[str] = set()
    for rule, span in item.rules():
        name = syntax.rule_name(rule)
        if name.removeprefix(_TODO).startswith("test_") and name not in seen:
            seen.add(name)
            yield _Test(module, item.package, name, span, len(rule["head"]["ref"]) > 1)


class _Asked:
    """An engine with one rule more, whose value is that of the test whose turn it is."""

    def __init__(self, engine: Any, tests: Sequence[_Test]) -> None:
        self._engine = engine
        self._error: type[Exception] = opa.bindings().OpaError
        self._undefined: type[Exception] = opa.bindings().OpaUndefinedError
        self._turn = ""
        engine.register_function(_SELECTED, lambda: self._turn, arity=0)
        rules = [f"values[{json.dumps(test.key)}] := {test.path}" for test in tests]
        engine.add_policy(f"{_PACKAGE}.rego", "\n".join([f"package {_PACKAGE}", *rules, f"value := values[{_SELECTED}()]"]))

    def run(self, test: _Test) -> TestResult:
        if test.name.startswith(_TODO):
            return self._result(test, 0.0, "", skipped=True)
        if test.cases:
            return self._result(test, 0.0, "a test with cases is run by opa alone: --engine opa")
        self._turn = test.key
        started = time.perf_counter()
        try:
            value = self._engine.eval_document(f"{_PACKAGE}.value")
        except self._undefined:
            return self._result(test, time.perf_counter() - started, f"the rule is undefined{self._first_failure(test)}")
        except self._error as error:
            return self._result(test, time.perf_counter() - started, str(getattr(error, "message", error)))
        message = "" if value is True else f"the rule is {json.dumps(value)}"
        return self._result(test, time.perf_counter() - started, message)

    def reports(self, tests: Sequence[_Test]) -> list[Report]:
        """What OPA tells of coverage: of all tests in one evaluation, or of each where one of them is an error."""
        try:
            self._engine.eval_document(f"{_PACKAGE}.values", coverage=True)
        except self._error:
            return [report for test in tests if (report := self._report(test)) is not None]
        return [self._engine.last_coverage]

    def _report(self, test: _Test) -> Report | None:
        self._turn = test.key
        try:
            self._engine.eval_document(f"{_PACKAGE}.value", coverage=True)
        except self._undefined:
            # What was reached on the way is told all the same.
            return self._last_report()
        except self._error:
            return None
        return self._last_report()

    def _last_report(self) -> Report | None:
        report: Report | None = self._engine.last_coverage
        return report

    def _first_failure(self, test: _Test) -> str:
        """The condition of the test that got furthest and did not hold."""
        try:
            self._engine.eval_document(f"{_PACKAGE}.value", trace=True)
        except self._undefined:
            lines = [_line(event) for event in self._engine.last_trace or () if event["op"] == "Fail" and _is_in(event, test)]
        except self._error:
            return ""
        if not lines:
            return ""
        condition = test.module.source.split("\n")[max(lines) - 1].strip()
        return f": line {max(lines)} does not hold: {condition}"

    @staticmethod
    def _result(test: _Test, seconds: float, message: str, *, skipped: bool = False) -> TestResult:
        return TestResult(
            test.module.path,
            ".".join(test.package),
            test.name,
            not message and not skipped,
            message,
            test.span.start.line,
            seconds,
            skipped,
        )


def _is_in(event: Mapping[str, Json], test: _Test) -> bool:
    return str(event["location"]).rpartition(":")[0] == test.module.path and _line(event) in test.span


def _line(event: Mapping[str, Json]) -> int:
    line = str(event["location"]).rpartition(":")[2]
    return int(line) if line.isdigit() else 0
