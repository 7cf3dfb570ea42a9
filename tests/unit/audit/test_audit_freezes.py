"""What the audit chain says of freezes and switches: folded from its events alone, and refused where it says nothing clear."""

from __future__ import annotations

from typing import Any

import pytest

from agentos.abi import event as ev
from agentos.abi.event import Event
from agentos.abi.freeze import FreezeScope, ScopeKind
from agentos.abi.ids import FLEET
from agentos.audit.audit_chain import AuditRecord, frozen_entry, refused_entry, switched_entry, thawed_entry

AGENT = FreezeScope(ScopeKind.AGENT, "triage")


def told(record: AuditRecord, *entries: tuple[str, dict[str, Any]]) -> AuditRecord:
    for number, (kind, data) in enumerate(entries, 1):
        event = Event(f"e-{number}", kind, "acme", "audit", number, "", 1000 + number, "principal/ann", 1, None, data)
        record.take(event, "acme")
    return record


def test_a_freeze_is_in_force_until_it_is_taken_back() -> None:
    """With whom it holds, who threw it and why; the other one holds on."""
    record = told(
        AuditRecord(),
        frozen_entry("f-1", AGENT, "it mails", 90),
        frozen_entry("f-2", FreezeScope(ScopeKind.FLEET), "incident", 80),
        thawed_entry("f-1", "mended"),
    )
    assert (list(record.frozen), list(record.thawed)) == (["f-2"], ["f-1"])
    assert (record.thawed["f-1"].scope, record.thawed["f-1"].tenant, record.thawed["f-1"].actor) == (
        AGENT,
        "acme",
        "principal/ann",
    )
    assert record.frozen["f-2"].tenant == FLEET


def test_the_last_switch_counts() -> None:
    """By kind and name; a refusal changes nothing that is in force."""
    record = told(
        AuditRecord(),
        switched_entry("agent", "triage", "not now", on=False),
        switched_entry("trigger", "triage", "not now", on=False),
        switched_entry("agent", "triage", "again", on=True),
        refused_entry("delegation", "signature", 3, 1, 2),
    )
    assert {key: one.on for key, one in record.switched.items()} == {("agent", "triage"): True, ("trigger", "triage"): False}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (ev.AUDIT_THAWED, {"freeze": "f-1", "reason": "x"}),
        (ev.AUDIT_FROZEN, {"freeze": "f-1", "scope": {"kind": "agent"}, "reason": "x", "in_force_us": 1}),
        (ev.AUDIT_FROZEN, {"freeze": "f-1", "scope": {"kind": "world"}, "reason": "x", "in_force_us": 1}),
        (ev.AUDIT_SWITCHED, {"what": "agent", "name": "a", "on": "no", "reason": "x"}),
        (ev.AUDIT_REFUSED, {"what": "delegation"}),
    ],
)
def test_what_says_nothing_clear_is_refused(kind: str, data: dict[str, Any]) -> None:
    """A chain that holds such an event is broken: nobody guesses what is frozen."""
    with pytest.raises((ValueError, LookupError, TypeError)):
        told(AuditRecord(), (kind, data))
