"""Guided fuzzing in CI: frames, manifests, events and archives, the same cases each time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_targets import TARGETS
from test_structured import EXAMPLES

HERE: Final = Path(__file__).parent

LEAST: Final = 20_000
"""Cases that CI runs in all."""


def fuzz(*words: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """What `make fuzz` prints for these words, and the summary of each target."""
    done = subprocess.run([sys.executable, str(HERE), *words], capture_output=True, text=True, check=False)
    return done, [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"target"')]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", ["frames", "manifests", "events", "archives"])
def test_nothing_is_found(family: str, record_property: Any) -> None:
    """No traceback, no second of the processor for a case, no growth, and nothing taken that others read otherwise."""
    done, summaries = fuzz(family)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    wanted = {name: target.cases for name, target in TARGETS.items() if name.partition(".")[0] == family}
    assert {one["target"]: one["cases"] for one in summaries} == wanted
    # Who never takes anything has tried nothing.
    assert [one["target"] for one in summaries if not one["came"].get("taken")] == []
    record_property("fuzzed cases", sum(wanted.values()))


@pytest.mark.timeout(300)
def test_planted_bugs_are_found() -> None:
    """Leniency, a traceback, a leak and a slow case, each put in on purpose, are found by the same run that finds nothing."""
    bugs = {
        "frames.serve+lenient": "does not hold",
        "frames.envelope+forgiving": "two spellings",
        "frames.webhook+leaking": "memory grew by",
        "frames.control+slow": "of the processor",
        "events.record+raising": "a traceback came out",
    }
    done, summaries = fuzz(*bugs)
    assert [one["found"] for one in summaries] == [True] * len(bugs), done.stdout[-4000:] + done.stderr[-2000:]
    assert [words for words in bugs.values() if words not in done.stdout] == []


@pytest.mark.timeout(300)
def test_coverage_leads_where_chance_does_not() -> None:
    """A place behind three comparisons is reached with atheris, and not by chance; without it nothing says that it is guided."""
    _, blind = fuzz("frames.envelope+deep", "--blind", "--cases", "20000")
    _, led = fuzz("frames.envelope+deep", "--cases", "150000")
    assert (blind[0]["found"], led[0]["found"]) == (False, led[0]["guided"])


def test_ci_runs_as_many_cases_as_promised() -> None:
    """20,000 in all, guided and structured."""
    assert sum(target.cases for target in TARGETS.values()) + sum(EXAMPLES.values()) >= LEAST
