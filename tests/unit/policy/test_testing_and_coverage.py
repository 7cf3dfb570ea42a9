"""Rego tests are run one by one, with their time and place; what they reach is what OPA says they reach."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from agentos.policy.coverage import coverage
from agentos.policy.junit import junit
from agentos.policy.port import Module
from agentos.policy.testing import TestResult, run_tests

OPA = Path(sys.executable).with_name("opa")

POLICY = """package a

results contains {"rule": "a.big", "effect": "deny", "reason": "é"} if input.n > 10

results contains {"rule": "a.small", "effect": "deny", "reason": "no"} if {
	input.n < 0
	input.sure > 1
}

kind := "odd" if {
	input.n % 2 == 1
} else := "even"

default never := false

never if input.n == 1.5

unasked := {
	"a": 1,
	"b": 2,
}
"""
TESTS = """package a_test

import data.a

test_big if count(a.results) == 1 with input as {"n": 11}

test_kind if {
	a.kind == "even" with input as {"n": 2}
	a.results == set() with input as {"n": -1, "sure": 0}
}

test_default if a.never == false with input as {"n": 2}

todo_test_later if false

test_wrong if {
	1 == 1
	a.kind == "odd" with input as {"n": 2}
}
"""
MODULES = [Module("a.rego", POLICY), Module("a_test.rego", TESTS)]


def test_each_rule_is_told_what_came_of_it() -> None:
    """Succeeded, entered only, or neither; a rule with else succeeds by any of its branches."""
    told = run_tests(MODULES, covered=True).coverage
    assert told is not None
    (file,) = told.files
    assert [(rule.name, rule.line, rule.entered, rule.succeeded) for rule in file.rules] == [
        ("a.big", 3, True, True),
        ("a.small", 5, True, False),
        ("kind", 10, True, True),
        ("default never", 14, True, True),
        ("never", 16, False, False),
        ("unasked", 18, False, False),
    ]
    assert file.missed == ((5, 5), (10, 10), (16, 16), (18, 21))
    assert told.to_dict()["files"][0]["missed"][-1] == "a.rego:18-21"
    assert (told.rules, told.succeeded) == (6, 3)


def test_opa_tells_the_same(tmp_path: Path) -> None:
    """Lines and rules are those of `opa test --coverage` on the same files; percentages too."""
    modules = [Module(str(tmp_path / module.path), module.source) for module in MODULES]
    for module in modules:
        Path(module.path).write_text(module.source)
    words = [OPA, "test", "--coverage", "--format", "json", *(module.path for module in modules)]
    own = run_tests([modules[0], Module(modules[1].path, TESTS.partition("test_wrong")[0])], covered=True).coverage
    Path(modules[1].path).write_text(TESTS.partition("test_wrong")[0])
    report = json.loads(subprocess.run(words, capture_output=True, text=True, check=False).stdout)
    assert own == coverage(modules, [report])
    assert own is not None
    theirs = report["files"][modules[0].path]
    assert (own.files[0].covered_lines, own.files[0].missed_lines) == (theirs["covered_lines"], theirs["not_covered_lines"])


def test_results_have_place_time_and_reason() -> None:
    """A failure names the line of its rule and the condition that did not hold; what is still to do is skipped."""
    run = run_tests(MODULES)
    assert run.coverage is None
    assert run.failed == 1
    found = {one.name: one for one in run.results}
    assert [one.name for one in run.results] == ["test_big", "test_kind", "test_default", "todo_test_later", "test_wrong"]
    assert found["todo_test_later"].skipped
    wrong = found["test_wrong"]
    assert str(wrong).startswith(
        "a_test.rego:16: a_test.test_wrong: failed: the rule is undefined: line 18 does not hold: a.kind"
    )
    assert all(one.seconds > 0 for one in run.results if not one.skipped)


def test_an_error_in_one_test_spoils_no_other() -> None:
    """The others pass, and what they reach is told."""
    tests = Module("a_test.rego", TESTS + '\ntest_error if startswith(data.n, "a")\n')
    run = run_tests([MODULES[0], tests], {"n": 1}, covered=True)
    assert {one.name for one in run.results if one.failed} == {"test_wrong", "test_error"}
    assert run.coverage == run_tests(MODULES, covered=True).coverage


def test_no_test_and_no_module_are_nothing() -> None:
    """Nothing is asked, nothing is covered, nothing is divided by zero."""
    run = run_tests([Module("a.rego", "package a\n")], covered=True)
    assert run.results == ()
    assert run.coverage is not None
    assert run.coverage.percent == 100.0


@given(st.lists(st.tuples(st.text(), st.text(), st.booleans(), st.booleans()), max_size=4))
def test_junit_is_xml_whatever_is_in_it(told: list[tuple[str, str, bool, bool]]) -> None:
    """Control characters, quotes and surrogates are written so that every reader takes them; the counts are right."""
    results = [
        TestResult("a.rego", package, "test_x", not message and not skipped, message, 3, 0.25, skipped)
        for package, message, skipped, _ in told
    ]
    root = ET.fromstring(junit(results).encode("utf-8"))  # noqa: S314 (our own text)
    assert int(root.attrib["tests"]) == len(root.findall(".//testcase")) == len(results)
    assert int(root.attrib["failures"]) == len(root.findall(".//failure")) == sum(one.failed for one in results)
    assert all(case.attrib["time"] == "0.250000" and case.attrib["line"] == "3" for case in root.iter("testcase"))
    assert all(one.attrib["message"].startswith("a.rego:3: ") for one in root.iter("failure"))
