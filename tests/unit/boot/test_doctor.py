"""The doctor says what is, changes nothing, and does not flatter."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentos.abi.errors import Unavailable
from agentos.boot import doctor
from agentos.boot.doctor import Finding, Level, examine
from agentos.boot.home import Home


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_it_changes_nothing(tmp_path: Path) -> None:
    """A home that does not exist is not made by being looked at."""
    found = by_name(examine(Home(tmp_path / "none")))
    assert not (tmp_path / "none").exists()
    assert found["home"].level is Level.OK
    assert "does not exist yet" in found["home"].found


def test_it_proves_default_deny_and_says_what_is_weak(tmp_path: Path) -> None:
    """The engine is asked, not believed; what runs without a sandbox is called weak."""
    found = by_name(examine(Home(tmp_path / "none")))
    assert found["policy engine"].level is Level.OK
    assert (found["default deny"].level, found["default deny"].found) == (Level.OK, "an empty question is answered with deny")
    assert found["nats-server"].level is Level.OK
    assert {name for name, finding in found.items() if finding.level is Level.WEAK} >= {"brain (harness)", "hands (MCP servers)"}


def test_open_doors_are_failures(tmp_path: Path) -> None:
    """A home or a secret that others may read: which, and the command that mends it."""
    home = Home(tmp_path / "home")
    home.prepare()
    secret = home.identities / "operator.json"
    secret.write_text("{}")
    secret.chmod(0o644)
    home.root.chmod(0o755)
    found = by_name(examine(home))
    assert (found["home"].level, found["home"].mend) == (Level.FAIL, f"chmod 700 {home.root}")
    assert (found["secret"].level, found["secret"].mend) == (Level.FAIL, f"chmod 600 {secret}")
    secret.chmod(0o600)
    home.root.chmod(0o700)
    assert not [finding for finding in examine(home) if finding.level is Level.FAIL and finding.what != "disk"]


def test_a_missing_server_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with how to get it; the rest is still looked at."""

    def missing() -> Path:
        raise Unavailable("there is no nats-server", mend="make")

    monkeypatch.setattr(doctor, "find_server", missing)
    found = by_name(examine(Home(tmp_path / "none")))
    assert found["nats-server"].to_dict() == {
        "what": "nats-server",
        "level": "fail",
        "found": "there is no nats-server",
        "mend": "make",
    }
    assert "policy engine" in found
