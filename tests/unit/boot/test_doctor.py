"""The doctor says what is, changes nothing, and does not flatter."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentos.abi.errors import Unavailable
from agentos.boot import doctor, doctor_hands
from agentos.boot.doctor import examine
from agentos.boot.finding import Finding, Level
from agentos.boot.home import Home
from agentos.sandbox.adapters.users import Users
from agentos.sandbox.port import SandboxUnavailable


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_it_changes_nothing(tmp_path: Path) -> None:
    """A home that does not exist is not made by being looked at."""
    found = by_name(examine(Home(tmp_path / "none")))
    assert not (tmp_path / "none").exists()
    assert found["home"].level is Level.OK
    assert "does not exist yet" in found["home"].found


def test_it_proves_default_deny_and_says_what_is_weak(tmp_path: Path) -> None:
    """The engine is asked, not believed, and so is the sandbox; what runs without one is called weak."""
    found = by_name(examine(Home(tmp_path / "none")))
    assert found["policy engine"].level is Level.OK
    assert (found["default deny"].level, found["default deny"].found) == (Level.OK, "an empty question is answered with deny")
    assert found["nats-server"].level is Level.OK
    assert found["workspace size"].level is Level.WEAK
    assert found["brain (harness)"].level is Level.OK
    assert found["brain (harness)"].found.endswith("is killed, as was tried")
    assert found["bubblewrap"].level is Level.OK
    assert found["bubblewrap"].found.endswith("; a process was started in it")
    assert found["system call filter"].level is Level.OK
    assert found["hands (exec, MCP servers)"].found.startswith("in the sandbox of their tool: bubblewrap without a network")
    assert {"user namespaces", "users of tools", "limits of tools", "containers"} <= found.keys()


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


@pytest.mark.parametrize(
    ("able", "level", "found"),
    [
        (Users(root=True, many=True), Level.OK, "each session's processes have a user of their own"),
        (Users(root=True), Level.WEAK, "one user (nobody) for all sessions"),
        (Users(root=False), Level.WEAK, "the runtime's own user, in a user namespace"),
    ],
)
def test_whom_tools_work_as(monkeypatch: pytest.MonkeyPatch, able: Users, level: Level, found: str) -> None:
    """A user for each session is the best there is; that the runtime is root is said beside it."""
    monkeypatch.setattr(doctor_hands, "users", lambda: able)
    findings = by_name(list(doctor_hands.hands()))
    assert (findings["users of tools"].level, findings["users of tools"].found) == (level, found)
    assert ("user" in findings) is able.root


def test_a_host_that_cannot_set_processes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thing that is missing is a finding with its mend, and the rest is still looked at."""

    def unavailable(*_: object) -> None:
        raise SandboxUnavailable("it is not allowed here", mend="allow it")

    for name in ("HostSandboxes", "filter_program", "users"):
        monkeypatch.setattr(doctor_hands, name, unavailable)
    monkeypatch.setattr(doctor_hands, "groups", lambda _: None)
    monkeypatch.setattr(doctor_hands.shutil, "which", lambda _: None)
    findings = by_name(list(doctor_hands.hands()))
    failing = {name: finding.mend for name, finding in findings.items() if finding.level is Level.FAIL}
    assert failing == dict.fromkeys(("bubblewrap", "system call filter", "users of tools"), "allow it")
    assert findings["bubblewrap"].found == "it is not allowed here: tools that start a process are refused"
    assert findings["limits of tools"].level is Level.WEAK
    assert findings["containers"].found.startswith("no engine")


def test_what_holds_user_namespaces_back(tmp_path: Path) -> None:
    """The setting of the kernel that does is named; root needs none."""
    assert doctor_hands.namespaces(0, tmp_path).level is Level.OK
    assert doctor_hands.namespaces(1000, tmp_path).found == "this user may make them"
    (tmp_path / "user").mkdir()
    (tmp_path / "kernel").mkdir()
    (tmp_path / "user/max_user_namespaces").write_text("5\n")
    assert doctor_hands.namespaces(1000, tmp_path).found == "this user may make 5"
    (tmp_path / "kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    (tmp_path / "user/max_user_namespaces").write_text("0\n")
    held = doctor_hands.namespaces(1000, tmp_path)
    named = "held back by user.max_user_namespaces=0, kernel.apparmor_restrict_unprivileged_userns=1"
    assert (held.level, held.found) == (Level.WEAK, named)
