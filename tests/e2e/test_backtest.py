"""Rules tried on the quickstart's own history: exactly the calls flip that the rule is about, and each can be explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e_runtime import ROOT, Cli, mask
from jsonschema import Draft202012Validator
from syrupy.assertion import SnapshotAssertion

STRICTER = """# METADATA
# title: inbox only
# description: nothing but the inbox is read
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.inbox_only

# METADATA
# title: denied
# description: a file outside of the inbox is read
results contains {"rule": "inbox_only.denied", "effect": "deny", "reason": reason} if {
	input.syscall.tool == "read"
	not endswith(input.syscall.args.path, ".eml")
	reason := sprintf("%s is no mail", [input.syscall.args.path])
}
"""

LOOSER = """# METADATA
# title: egress
# description: what a session has read may leave
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.egress

# METADATA
# title: never
# description: nothing is denied
results contains {"rule": "egress.never", "effect": "deny", "reason": "never"} if {
	input.syscall.tool == "no-such-tool"
}
"""

NO_GRANTS = """# METADATA
# title: no grants
# description: nobody adds a grant for reading
# schemas:
#   - input: schema["admission-input"]
package agentos.admission.rules.no_grants

# METADATA
# title: denied
# description: a ToolGrant of the tool read is added
results contains {"rule": "no_grants.denied", "effect": "deny", "reason": "no more grants to read"} if {
	some change in input.changes
	change.action == "create"
	change.resource.kind == "ToolGrant"
	"read" in change.resource.spec.tools
}
"""


def write(folder: Path, name: str, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.rego").write_text(text)
    return str(folder)


def decided(up: Cli, session: str) -> list[dict[str, Any]]:
    """The decisions of a session as the log has them."""
    events = json.loads(up("logs", session, "-o", "json").out)
    return [
        {**event["data"], "id": f"{session}#{event['seq']}"} for event in events if event["type"] == "agentos.syscall.decided"
    ]


@pytest.mark.timeout(120)
def test_a_backtest_names_exactly_the_calls_that_flip(up: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """Stricter, looser and admission rules on the obedient agent's run, compared with the log decision by decision."""
    up("principal", "create", "cora", "--role", "compliance")
    up("apply", "programs/inbox-triage", "examples/quickstart", "--yes", "--allow-widen")
    ran = up("run", "triage-obedient", "Do what it asks.", "--input", "examples/quickstart/inbox", "--wait", expect=None)
    session = ran.out.split()[0]
    log = decided(up, session)

    def backtest(name: str, text: str, *words: str, flips: bool = True) -> Any:
        place = write(tmp_path / name, name, text)
        return up("--as", "cora", "policy", "backtest", place, "-o", "json", *words, expect=2 if flips else 0)

    stricter = backtest("inbox_only", STRICTER)
    Draft202012Validator(json.loads((ROOT / "schemas/v1/backtest.json").read_text())).validate(stricter.json)
    assert "agentos.syscall.rules.inbox_only: added, enforce" in stricter.err
    expected = [
        one["id"]
        for one in log
        if one["tool"] == "read" and one["decision"]["effect"] in {"allow", "ask"} and not one["args"]["path"].endswith(".eml")
    ]
    assert expected
    assert [flip["id"] for flip in stricter.json["flips"]] == expected
    assert stricter.json["decided"] == len(log)
    assert {(row["flip"], row["rule"], row["tool"]) for row in stricter.json["counts"]} <= {
        (f"{old} → deny", "inbox_only.denied", "read") for old in ("allow", "ask")
    }
    assert backtest("inbox_only", STRICTER, "--tool", "write", flips=False).json["flips"] == []
    assert backtest("inbox_only", STRICTER, "--mode", "dryrun", flips=False).json["flips"] == []

    looser = backtest("egress", LOOSER)
    assert "agentos.syscall.rules.egress: replaced, enforce" in looser.err
    only_egress = [
        one["id"]
        for one in log
        if one["decision"]["effect"] == "deny" and all(rule.startswith("egress.") for rule in one["decision"]["rules"])
    ]
    assert only_egress
    assert [flip["id"] for flip in looser.json["flips"] if flip["before"] == "deny"] == only_egress

    changes = backtest("no_grants", NO_GRANTS).json
    assert [(flip["id"], flip["before"], flip["after"]) for flip in changes["flips"]] == [("revision/1", "allow", "deny")]
    assert (changes["decided"], changes["admissions"], changes["undecidable"]) == (0, 1, 0)

    table = up("--as", "cora", "policy", "backtest", str(tmp_path / "no_grants"), expect=2)
    assert mask(table.out + table.err) == snapshot(name="backtest of an admission rule")
    why = up("policy", "why", only_egress[0])
    assert mask(why.out.replace(session, "s-SESSION")) == snapshot(name="why a denial")
    told = up("policy", "why", only_egress[0], "-o", "json").json
    Draft202012Validator(json.loads((ROOT / "schemas/v1/recorded-decision.json").read_text())).validate(told)
    assert told["same"]
    assert told["same_policy"]
    assert up("policy", "why", session, f"#{only_egress[0].rpartition('#')[2]}").out == why.out
    assert mask(up("policy", "why", "revision/1").out) == snapshot(name="why a change")
    assert mask(up("policy", "explain", "egress.untrusted", "--source").out) == snapshot(name="explain a rule in force")


def test_a_rule_is_explained_without_a_runtime(cli: Cli, snapshot: SnapshotAssertion) -> None:
    """Shipped rules and those of the library are explained; a name that is near one is told."""
    shipped = cli("policy", "explain", "grants.none")
    assert (ROOT / "policies/agentos/syscall/rules/grants/README.md").read_text().strip() in shipped.out
    assert mask(shipped.err, cli.home) == snapshot(name="without a runtime")
    found = cli("policy", "explain", "read_only", "-o", "json").json
    assert [(page["rule"], page["origin"], page["governs"]) for page in found] == [("read_only.denied", "library", None)]
    assert mask(cli("policy", "explain", "grant.none", expect=1).err, cli.home) == snapshot(name="a misspelt rule")


def test_a_decision_that_is_not_there_is_said(up: Cli) -> None:
    """Ids that name nothing end in an error, not in an explanation."""
    assert "no session s-none" in up("policy", "why", "s-none#3", expect=1).err
    assert "no revision 7" in up("policy", "why", "revision/7", expect=1).err
    assert "is no revision" in up("policy", "why", "revision/x", expect=64).err
    assert "only tests" in up("policy", "backtest", "examples/quickstart/policies/egress_test.rego", expect=64).err
