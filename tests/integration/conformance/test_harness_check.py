"""`harness check` on real processes: the built-in loop passes, and each broken harness fails the cases that it breaks."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from agentos.abi.assets import asset
from agentos.abi.errors import DriverError
from agentos.boot.harness_check import check_harness
from agentos.conformance import Verdict, all_cases

EXAMPLE = Path(__file__).parents[3] / "examples" / "foreign-harness"
HARNESSES = Path(__file__).parents[2] / "assets" / "harnesses"

BREAKS = {
    "always_ahead": {"greeting.not-concurrent", "greeting.concurrent-absent", "several.nobody-reads"},
    "asks_when_parked": {"parked.session.view", "parked.model.call", "ended.model.call", "finish.alone"},
    "ends_badly": {"greeting.answers", "finish.once", "eof.at-model.call", "parked.tool.call"},
    "forgets_pending": {"view.pending", "view.final", "parked.resumed"},
    "greets_first": {"greeting.silent-before"},
    "hoards": {"apart.memory"},
    "insists": {"refused.model.call", "refused.session.view", "refused.finish", "refused.internal"},
    "knows_all_blocks": {"turn.unknown-blocks"},
    "looks_around": {"apart.home"},
    "makes_sockets": {"apart.network", "turn.one-call"},
    "one_number": {"view.empty", "turn.one-call"},
    "renames_calls": {"turn.ids", "turn.one-call", "view.pending"},
    "repeats_denied": {"outcome.denied", "outcome.failed", "outcome.unknown-outcome"},
    "short_lines": {"view.large", "outcome.large", "outcome.longest"},
    "speaks_any_version": {"greeting.unknown-version"},
    "spins": {"apart.idle"},
    "stays": {"eof.before-greeting", "eof.terminated", "finish.alone", "parked.tool.call"},
    "stops_early": {"turn.several-calls", "turn.blocks-decide", "turn.many-calls"},
    "takes_any_answer": {"passes.foreign-answer", "passes.unknown-notification"},
    "talks_on_stderr": {"apart.standard-error"},
    "talks_on_stdout": {"greeting.answers", "view.empty"},
    "writes_behind_finish": {"finish.once", "slow.finish"},
}
CASES = {case.id: case for case in all_cases()}


def test_there_is_a_broken_harness_for_each_entry() -> None:
    """Every file is checked, and every case that is named exists."""
    assert {path.stem for path in HARNESSES.glob("*.py")} == set(BREAKS)
    assert set().union(*BREAKS.values()) <= set(CASES)
    assert len(CASES) == len(all_cases()) >= 60


def test_the_number_of_cases_is_told_as_it_is() -> None:
    """Wherever the documents name it."""
    root = Path(__file__).parents[3]
    for name in ("docs/abi.md", "examples/framework-harness/README.md"):
        told = re.findall(r"(\d+) cases", (root / name).read_text())
        assert set(told) == {str(len(CASES))}, name


@pytest.mark.timeout(300)
def test_the_built_in_loop_passes_every_case() -> None:
    """In the sandbox of this host, where everything can be seen: nothing fails, and nothing is left untried."""
    report = check_harness((), all_cases(), apart=True, patience=60)
    assert [(one.case.id, one.why) for one in report.outcomes if one.verdict is not Verdict.PASSED] == []
    assert report.sound
    assert (report.sandbox, report.to_dict()["score"]) == ("bubblewrap", 100)
    Draft202012Validator(json.loads((asset("schemas") / "v1" / "harness-check.json").read_text())).validate(report.to_dict())


@pytest.mark.timeout(400)
def test_the_harness_in_shell_keeps_to_the_abi() -> None:
    """The example passes whatever the built-in loop does, but for being used again, which it does not offer."""
    report = check_harness(("sh", str(EXAMPLE / "loop.sh")), all_cases(), apart=True, patience=110)
    assert [(one.case.id, one.why) for one in report.outcomes if one.verdict is Verdict.FAILED] == []
    assert {one.case.id for one in report.outcomes if one.verdict is not Verdict.PASSED} == {"reuse.parked", "reuse.many"}
    assert report.sound


def test_without_a_sandbox_what_needs_one_is_not_tried() -> None:
    """The report says so, and nothing counts as passed that was not seen."""
    report = check_harness((), [CASES["apart.network"], CASES["apart.home"], CASES["turn.one-call"]], apart=False, patience=60)
    assert [str(one.verdict) for one in report.outcomes] == ["not tried", "not tried", "passed"]
    assert (report.sandbox, report.sound) == ("unsafe-none", True)


def test_a_program_that_is_not_there_is_no_report() -> None:
    """It could not be started: that is an error, and no failed case."""
    with pytest.raises(DriverError, match="no-such-program"):
        check_harness(("no-such-program",), [CASES["turn.one-call"]], apart=True, patience=5)


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_a_broken_harness_fails_what_it_breaks(name: str) -> None:
    """Each of its cases fails, and says something; the report is not sound."""
    command = (sys.executable, "-I", str(HARNESSES / f"{name}.py"))
    patience = 1.5 if name in {"stays", "always_ahead", "short_lines"} else 15
    report = check_harness(command, [CASES[one] for one in sorted(BREAKS[name])], apart=True, patience=patience)
    assert [one.case.id for one in report.outcomes if one.verdict is not Verdict.FAILED or not one.why] == []
    assert not report.sound
