"""`agentos doctor`: what it prints, for people and for programs."""

from __future__ import annotations

import json

from e2e_runtime import ROOT, Cli
from jsonschema import Draft202012Validator
from syrupy.assertion import SnapshotAssertion

SCHEMA = Draft202012Validator(json.loads((ROOT / "schemas/v1/doctor-finding.json").read_text()))


def test_escapes_are_a_table(cli: Cli, snapshot: SnapshotAssertion) -> None:
    """One row for each attempt with who refused it, and one line that counts them; it needs no home."""
    done = cli("doctor", "--escape")
    heading, *rows = done.out.splitlines()
    assert heading.split() == ["OUTCOME", "ATTEMPT", "TRIED", "REFUSED", "BY"]
    start, end = heading.index("ATTEMPT"), heading.index("REFUSED BY")
    assert [row[start:end].rstrip() for row in rows] == snapshot
    assert {row.split()[0] for row in rows} <= {"refused", "weak"}
    assert done.err.endswith(f" of {len(rows)} attempts refused in bubblewrap\n")
    assert not cli.home.exists()


def test_escapes_are_findings(cli: Cli) -> None:
    """As JSON each attempt is a finding that says what was tried, in which kind of sandbox, and what came of it."""
    found = cli("doctor", "--escape", "-o", "json").json
    for finding in found:
        SCHEMA.validate(finding)
    assert {finding["level"] for finding in found} <= {"ok", "weak"}
    assert {finding["escape"]["isolation"] for finding in found} == {"bubblewrap"}
    assert all(finding["escape"]["by"] for finding in found if finding["level"] == "ok")


def test_the_help(cli: Cli, snapshot: SnapshotAssertion) -> None:
    """What it checks, what it tries, and when it fails."""
    assert cli("doctor", "--help", more={"COLUMNS": "100"}).out == snapshot
