"""What programs read: the JSON of every verb is what its published schema says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e_runtime import ROOT, Cli
from jsonschema import Draft202012Validator

SCHEMAS = ROOT / "schemas" / "v1"


def check(schema: str, values: list[Any]) -> None:
    """Every value is what `schema` describes, and there is at least one."""
    validator = Draft202012Validator(json.loads((SCHEMAS / f"{schema}.json").read_text()))
    assert values
    for value in values:
        validator.validate(value)


def test_the_json_of_every_listing_is_what_its_schema_says(up: Cli, tmp_path: Path) -> None:
    """One run that ends and one that waits, and all that can be listed about them."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "complaint.txt").write_text("The brake pads you sent do not fit. I want my money back.\n")
    check("doctor-finding", up("doctor", "-o", "json").json)
    check("status", [up("status", "-o", "json").json])
    up("principal", "create", "ann", "--role", "approver")
    up("principal", "create", "bob", "--role", "auditor")
    up("principal", "revoke", "bob", "--reason", "left")
    check("principal", up("principal", "list", "-o", "json").json)
    up("apply", "programs/inbox-triage", "examples/quickstart", "examples/01-hello", "--yes", "--allow-widen")
    check("revision", up("history", "-o", "json").json)
    waiting = up("run", "triage", "triage", "--input", str(inbox), "--wait", "-o", "json", expect=5).json
    finished = up("run", "hello", "say hello", "--wait", "-o", "json").json
    check("session", [waiting, finished])
    assert (waiting["state"], finished["state"]) == ("waiting", "finished")
    check("approval-row", up("approvals", "list", "--all", "-o", "json").json)
    up("--as", "ann", "approvals", "approve", waiting["session"], "--reason", "fine")
    up("wait", waiting["session"])
    check("approval-row", up("approvals", "list", "--all", "-o", "json").json)
    check("session-row", up("ps", "--all", "-o", "json").json)
    check("audit-row", up("audit", "query", "-o", "json").json)
    check("event", up("logs", waiting["session"], "-o", "json").json)


def test_every_schema_is_described(tmp_path: Path) -> None:
    """Each published schema is a valid 2020-12 schema with a title and a description."""
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        Draft202012Validator.check_schema(schema)
        assert schema.get("title"), path
        assert schema.get("description"), path
