"""Running the tests of Rego modules in the process: every rule named `test_…`, as `opa test` would."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentos.abi.canonical import Json
from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.port import Module


@dataclass(frozen=True, slots=True)
class TestResult:
    """What came of one test. `message` is empty for one that passed."""

    __test__ = False
    path: str
    package: str
    name: str
    passed: bool
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.package}.{self.name}: {'passed' if self.passed else 'failed: ' + self.message}"


def run_rego_tests(modules: Sequence[Module], data: Mapping[str, Json] | None = None) -> list[TestResult]:
    """Evaluate each `test_…` rule of `modules` (policies and tests together), in order of module and rule.

    A test passes when its value is true. Raises PolicyError for modules that do not load, EngineUnavailable without OPA.
    """
    engine = opa.build(modules, data or {})
    library = opa.library()
    results: list[TestResult] = []
    try:
        for module in modules:
            tree = opa.parse(module)
            package = syntax.package(tree)
            names = [name for name in dict.fromkeys(map(syntax.rule_name, syntax.rules(tree))) if name.startswith("test_")]
            values = _whole(engine, library, package) if names else {}
            for name in names:
                if values.get(name) is True:
                    results.append(TestResult(module.path, ".".join(package), name, True, ""))
                    continue
                query = "x := data" + "".join(f"[{json.dumps(part)}]" for part in (*package, name))
                try:
                    bindings = engine.eval_query(query)
                    message = "" if bindings and bindings[0]["x"] is True else _told(bindings)
                except library.OpaError as error:
                    message = error.message
                results.append(TestResult(module.path, ".".join(package), name, not message, message))
    finally:
        engine.close()
    return results


def _whole(engine: Any, library: Any, package: tuple[str, ...]) -> Mapping[str, Json]:
    """All values of a package in one evaluation: each query of its own would be compiled anew. Empty if one of them fails."""
    try:
        values: Mapping[str, Json] = engine.eval_document(".".join(package))
    except library.OpaError:
        return {}
    return values


def _told(bindings: Sequence[Mapping[str, Json]]) -> str:
    return f"the rule is {json.dumps(bindings[0]['x'])}" if bindings else "the rule is undefined"
