"""What approvers read and type: the list, yeses of every scope, two people, refusals with their exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from e2e_runtime import ROOT, Cli, Done, mask
from jsonschema import Draft202012Validator
from syrupy.assertion import SnapshotAssertion

WORKER = """
apiVersion: agentos/v1
kind: Model
metadata: {name: steps}
spec:
  provider: scripted
  scripted:
    play:
      name: steps
      rules:
        - id: write
          when: "results | length < 2"
          call: [{tool: write, args: {path: "n{{ results | length }}.txt", content: "{{ goal }}"}}]
        - {id: done, when: "true", say: "{{ results | ok | length }} of {{ results | length }}"}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: write}
spec: {description: Write a file., effect: write, idempotent: true, driver: {builtin: {primitive: write}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: worker}
spec:
  instructions: Write two files.
  model: steps
  tools: [write]
  governance: {owner: tests, purpose: testing, risk: minimal}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: writes}
spec: {agents: [worker], tools: [write], approval: required}
"""

TWO = """
apiVersion: agentos/v1
kind: Policy
metadata: {name: eyes}
spec: {files: [eyes.rego]}
"""

EYES = """# METADATA
# title: eyes
# description: a rule of a test
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.eyes

# METADATA
# title: two
# description: every write needs two people
results contains {
	"rule": "eyes.two",
	"effect": "ask",
	"reason": "two people look at every write",
	"obligations": [{"kind": "approvers", "count": 2}],
} if {
	input.syscall.tool == "write"
}
"""


def told(done: Done, *paths: Path) -> str:
    """Both streams, without what differs from run to run."""
    text = mask(f"{done.out}--- exit {done.code}\n{done.err}", *paths)
    return re.sub(r"standing-[0-9a-f]{16}", "standing-NAME", re.sub(r"sha256:[0-9a-f]{12}…", "sha256:SHORT…", text))


@pytest.fixture
def house(up: Cli, tmp_path: Path) -> Cli:
    """The worker, whom a person must let write; three approvers, one of whom may apply."""
    folder = tmp_path / "worker"
    folder.mkdir()
    (folder / "worker.yaml").write_text(WORKER)
    up("apply", str(folder), "--yes", "--allow-widen")
    up("principal", "create", "ann", "--role", "approver")
    up("principal", "create", "bo", "--role", "approver")
    up("principal", "create", "both", "--role", "approver", "--role", "operator")
    return up


def waits(cli: Cli) -> str:
    return str(cli("run", "worker", "hello", "--wait", "-o", "json", expect=5).json["session"])


def test_the_list_says_what_waits_and_how_long(house: Cli, snapshot: SnapshotAssertion) -> None:
    """For people in two widths, whole for programs, and of the published shape; empty when all is answered."""
    session = waits(house)
    assert told(house("approvals", "list")) == snapshot
    assert told(house("approvals", "list", "-o", "wide")) == snapshot
    assert re.sub(r"_ms: \d+", "_ms: MS", told(house("approvals", "list", "-o", "yaml"))) == snapshot
    assert house("approvals", "list", "-o", "name").out == f"{session}\n"
    [row] = house("approvals", "list", "-o", "json").json
    read = ("--call", row["call"], "--digest", row["args_digest"])
    said = [house("--as", "ann", "approvals", "approve", session, "--reason", "fine", *read)]
    house("wait", session, expect=5)
    said.append(house("--as", "ann", "approvals", "approve", session, "--reason", "the one before", *read, expect=4))
    said.append(house("--as", "ann", "approvals", "deny", session, "--reason", "not this one"))
    house("wait", session)
    said.append(house("--as", "ann", "approvals", "deny", session, "--reason", "too late", expect=4))
    assert "\n".join(told(done) for done in said) == snapshot(name="answers")
    assert told(house("approvals", "list", "--all", "-o", "wide")) == snapshot
    schema = json.loads((ROOT / "schemas" / "v1" / "approval-row.json").read_text())
    rows = house("approvals", "list", "--all", "-o", "json").json
    assert [row["state"] for row in rows] == ["approved", "denied"]
    for row in rows:
        Draft202012Validator(schema).validate(row)
    assert told(house("logs", session)) == snapshot


def test_who_may_not_approve_is_told_why(house: Cli, snapshot: SnapshotAssertion) -> None:
    """Exit code 3 with the rule for who started it; 4 for another digest or call; 64 for terms that make no sense."""
    session = waits(house)
    said = [
        house("approvals", "approve", session, "--reason", "mine", expect=3),
        house("--as", "ann", "approvals", "approve", session, "--reason", "r", "--digest", "sha256:" + "0" * 64, expect=4),
        house("--as", "ann", "approvals", "approve", session, "--reason", "r", "--call", "c9", expect=4),
        house("--as", "ann", "approvals", "approve", session, "--reason", "r", "--valid", "2w", expect=64),
        house("--as", "ann", "approvals", "approve", session, "--reason", "r", "--valid", "2d", expect=64),
        house("--as", "ann", "approvals", "approve", session, "--reason", "r", "--max-uses", "3", expect=64),
        house("--as", "ann", "approvals", "approve", session, "--reason", "r", "--for", "standing", expect=3),
    ]
    text = "\n".join(re.sub(r"call[_-][\w-]+|toolu_\w+", "CALL", told(done)) for done in said)
    assert text == snapshot
    assert house("approvals", "list", "-o", "json").json[0]["answers"] == []


def test_two_people_one_after_the_other(house: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """The first is told that somebody else is needed, the list shows `1 of 2`, the second lets the call through."""
    folder = tmp_path / "eyes"
    folder.mkdir()
    (folder / "eyes.yaml").write_text(TWO)
    (folder / "eyes.rego").write_text(EYES)
    house("apply", str(folder), "--yes", "--allow-widen")
    session = waits(house)
    first = house("--as", "ann", "approvals", "approve", session, "--reason", "looked")
    house("wait", session, expect=5)
    listed = house("approvals", "list", "-o", "wide")
    again = house("--as", "ann", "approvals", "approve", session, "--reason", "looked again", expect=3)
    second = house("--as", "bo", "approvals", "approve", session, "--reason", "looked too")
    house("wait", session, expect=5)
    assert "\n".join(told(done) for done in (first, listed, again, second)) == snapshot
    assert "1 of 2" in listed.out


def test_a_yes_for_the_session(house: Cli, snapshot: SnapshotAssertion) -> None:
    """The second write goes out on the same yes."""
    session = waits(house)
    house("--as", "ann", "approvals", "approve", session, "--reason", "its notes", "--for", "session", "--max-uses", "5")
    assert house("wait", session).code == 0
    assert "for the session (5 uses): its notes" in house("logs", session).out
    assert told(house("audit", "query", "--actor", "ann")) == snapshot


def test_a_standing_yes_shows_the_grant_first(house: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """Off a terminal nothing happens without --yes; with it the grant is there, and the next run is not asked for that call."""
    session = waits(house)
    words = ("--as", "both", "approvals", "approve", session, "--reason", "as every day", "--for", "standing", "--valid", "7d")
    shown = house(*words, expect=64)
    assert house("approvals", "list", "-o", "json").json[0]["state"] == "waiting"
    done = house(*words, "--yes")
    assert "\n".join(told(one, tmp_path) for one in (shown, done)) == snapshot
    house("wait", session, expect=5)
    other = waits(house)
    first = house("logs", other, "-o", "json").json
    decided = [
        event["data"] for event in first if event["type"] == "agentos.syscall.decided" and event["data"]["tool"] == "write"
    ]
    assert [data["decision"]["rules"] for data in decided] == [["grants.counted"], ["grants.approval"]]
