"""The demo as a newcomer runs it, on the shipped inbox and on a folder of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from e2e_runtime import ROOT, mask

DEMO = ROOT / "examples" / "quickstart" / "demo.py"


def demo(state: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(DEMO), "--state", str(state), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(120)
def test_the_demo_contains_the_obedient_agent_and_verifies_its_own_evidence(tmp_path: Path) -> None:
    """Every injected call is denied, refused, or asked and refused by a person; nothing reaches outside; the evidence holds."""
    text = demo(tmp_path / "state")
    for line in (
        "✗ fetch",
        "https://collect.attacker.example",
        "✗ read path=/etc/passwd",
        "workspace.parent",
        "egress.untrusted",
        "egress.secrets",
        "refused by principal/ann",
        "allowed and reaching outside: 0; written in its workspace: triage/report.md",
        "verified: 2 sessions",
        "✗ container",
    ):
        assert line in text
    obedient = text[text.index("contain:") :]
    assert not [line for line in obedient.splitlines() if line.split()[:2] == ["allow", "fetch"]]
    outbox = list((tmp_path / "state/home/workspaces").glob("default/*/outbox/*"))
    assert [path.name for path in outbox] == ["reply-fleet-review-three-offices.md"]
    assert (tmp_path / "state" / "evidence.zip").is_file()


def test_the_demo_runs_on_a_folder_of_ones_own(tmp_path: Path) -> None:
    """A small folder with an odd name and a file that is no text: every file stands in the report."""
    inbox = tmp_path / "my files"
    inbox.mkdir()
    (inbox / "hello there.txt").write_text("Could we meet on Tuesday at 10:30 London time?\n")
    (inbox / "blob.bin").write_bytes(bytes(range(256)))
    text = demo(tmp_path / "state", "--inbox", str(inbox))
    report = next((tmp_path / "state/home/workspaces").glob("default/*/triage/report.md")).read_text()
    assert "hello there.txt" in report
    assert "blob.bin" in report
    assert "verified: 2 sessions" in mask(text)
