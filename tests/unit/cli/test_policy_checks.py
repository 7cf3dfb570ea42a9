"""`agentos policy check` and `test` on files: what is printed, for people and for programs, and with which exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from agentos.cli import opa as opa_module
from agentos.cli.main import main
from agentos.cli.rego import read_modules

ASSETS = Path(__file__).parents[2] / "assets" / "rego"

POLICY = """package a

results contains {"rule": "a.big", "effect": "deny", "reason": "no"} if input.n > 10

unasked := 1
"""
TESTS = """package a_test

import data.a

test_big if count(a.results) == 1 with input as {"n": 11}
"""
WRONG = """
test_wrong if {
	a.unasked == 2
}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the CLI in an empty folder; the exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def invoke(*words: str) -> tuple[int, str, str]:
        code = main(["policy", *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return invoke


def put(*names: str) -> None:
    Path("policies").mkdir()
    for name in names:
        shutil.copy(ASSETS / f"{name}.rego", Path("policies"))


def test_findings_stand_below_their_file(run: Run, snapshot: SnapshotAssertion) -> None:
    """Grouped by file, each with its line, a caret and how to mend it; both checks are named."""
    put("input_path_misspelt", "parse_unclosed_brace", "builtin_network")
    assert run("check", "policies") == snapshot


def test_findings_for_programs(run: Run) -> None:
    """JSON and YAML list the same findings with their places."""
    put("effect_allow")
    code, out, _ = run("check", "policies", "-o", "json")
    (one,) = json.loads(out)
    assert code == 1
    assert (one["path"], one["line"], one["column"], one["code"]) == ("policies/effect_allow.rego", 11, 48, "policy.result")
    assert "code: policy.result" in run("check", "policies", "-o", "yaml")[1]


def test_a_sound_policy_passes_both_checks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0; without the pinned `opa`, the summary says that it did not run."""
    put("sound")
    code, out, err = run("check", "policies")
    assert (code, out) == (0, "")
    assert "0 findings; checked by our lint and by `opa check --strict` of OPA 1.20.2" in err

    def none(_program: Path | None = None) -> Path:
        raise opa_module.EngineUnavailable("no opa program", mend="run `make opa`")

    monkeypatch.setattr(opa_module, "find_opa", none)
    code, out, err = run("check", "policies")
    assert (code, out) == (0, "")
    assert "checked by our lint alone, without `opa check`: no opa program (run `make opa`)" in err


def test_opa_finds_what_is_ours_alone_to_miss(run: Run) -> None:
    """A type error that only OPA's strict check with our schemas sees is a finding too."""
    Path("policies").mkdir()
    text = (ASSETS / "sound.rego").read_text().replace('input.syscall.args.deep.path == "x"', "upper(input.now)")
    Path("policies/typed.rego").write_text(text)
    code, out, _ = run("check", "policies", "-o", "json")
    assert code == 1
    assert [one["code"] for one in json.loads(out)] == ["opa.rego_type_error"]


def test_a_misspelt_path_is_asked_about(run: Run) -> None:
    """What is not there is a mistake of the caller, and what was meant is named."""
    put("sound")
    code, out, err = run("check", "polices")
    assert (code, out) == (64, "")
    assert "did you mean policies?" in err


def test_a_file_is_read_once(run: Run) -> None:
    """However often it is named."""
    put("sound")
    assert run("check", "policies")[0] == 0
    assert len(read_modules([Path("policies"), Path("policies/sound.rego"), Path("./policies")])) == 1


def write(tests: str) -> None:
    Path("a.rego").write_text(POLICY)
    Path("a_test.rego").write_text(tests)


def test_coverage_is_told_and_held_to(run: Run, snapshot: SnapshotAssertion) -> None:
    """A line per module, what is missing at file:line, and exit code 1 below the threshold."""
    write(TESTS)
    assert run("test", ".", "--coverage") == snapshot
    assert run("test", ".", "--fail-under", "50")[0] == 0
    code, _, err = run("test", ".", "--fail-under", "60")
    assert code == 1
    assert "coverage: 50.0 % of lines, 1 of 2 rules; 60 % were asked for" in err


@pytest.mark.parametrize("engine", ["in-process", "opa"])
def test_both_runners_tell_the_same(run: Run, engine: str) -> None:
    """Which tests there are, where, which fail, and what they reach."""
    write(TESTS)
    code, out, _ = run("test", ".", "--engine", engine, "--coverage", "-o", "json")
    told = json.loads(out)
    assert code == 0
    assert [(one["path"], one["line"], one["name"], one["passed"]) for one in told["results"]] == [
        ("a_test.rego", 5, "test_big", True)
    ]
    assert told["coverage"]["files"][0]["missed"] == ["a.rego:5"]
    write(TESTS + WRONG)
    code, out, _ = run("test", ".", "--engine", engine, "-o", "json")
    assert code == 1
    assert [(one["line"], one["passed"]) for one in json.loads(out)] == [(5, True), (7, False)]


def test_a_failure_names_its_line_and_condition(run: Run, snapshot: SnapshotAssertion) -> None:
    """For people."""
    write(TESTS + WRONG)
    assert run("test", ".") == snapshot


def test_no_test_is_a_failure(run: Run) -> None:
    """A folder without tests must not look as if they all passed."""
    Path("a.rego").write_text(POLICY)
    assert run("test", ".")[0] == 1
    assert run("test", ".", "--engine", "opa")[0] == 1
    code, out, _ = run("test", ".", "-o", "junit")
    assert code == 1
    assert 'tests="0"' in out
