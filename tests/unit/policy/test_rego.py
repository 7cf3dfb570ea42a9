"""Every Rego test that stands beside the axioms is a test here."""

from __future__ import annotations

import pytest

from agentos.policy.bundle import axiom_tests, axioms
from agentos.policy.port import Module
from agentos.policy.testing import TestResult, run_rego_tests

RESULTS = run_rego_tests([*axioms(), *axiom_tests()])


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: f"{result.package}.{result.name}")
def test_the_axioms(result: TestResult) -> None:
    """A Rego test is true."""
    assert result.passed, str(result)


def test_each_rule_has_a_test_and_a_page() -> None:
    """Beside each rule stand its test and its page with the four headings."""
    from agentos.abi.assets import asset

    pages = sorted((asset("policies") / "agentos").glob("*/rules/*/"))
    assert pages
    for folder in pages:
        assert (folder / f"{folder.name}.rego").is_file()
        text = (folder / "README.md").read_text("utf-8")
        for heading in ("## Avoid", "## Prefer", "## Rationale", "## Configuration"):
            assert heading in text, folder
    tested = {result.package.removesuffix("_test") for result in RESULTS}
    for folder in pages:
        target = folder.parent.parent.name
        assert {f"agentos.{target}.rules.{folder.name}", f"agentos.{target}"} & tested


def test_every_rule_id_is_fired_by_a_test() -> None:
    """Each id that a shipped rule can give stands in a test beside it."""
    import re

    given = {name for module in axioms() for name in re.findall(r'"rule": "([a-z_]+\.[a-z]+)"', module.source)}
    tested = "\n".join(module.source for module in axiom_tests())
    assert {name for name in given if name not in tested} == set()


def test_what_a_failed_test_says() -> None:
    """Undefined, another value than true, and an error of evaluation each fail with a message."""
    rules = ["test_undefined if 1 == 2", "test_value := 3", "test_fine := true", 'test_error := startswith(data.x, "a")']
    results = run_rego_tests([Module("a_test.rego", "\n\n".join(["package a_test", *rules]))], {"x": 1})
    assert [(result.name, result.line, result.passed, result.message.partition(" data.x")[0]) for result in results] == [
        ("test_undefined", 3, False, "the rule is undefined: line 3 does not hold: test_undefined if 1 == 2"),
        ("test_value", 5, False, "the rule is 3"),
        ("test_fine", 7, True, ""),
        ("test_error", 9, False, "a_test.rego:9: eval_type_error: startswith: operand 1 must be string but got number"),
    ]
