"""The text of an explanation: whole for every kind of decision, and nothing in it drives a terminal."""

from __future__ import annotations

from typing import Any

from syrupy.assertion import SnapshotAssertion

from agentos.policy.why_text import why_lines

GRANTERS = {"roles": ["operator"], "principals": ["al", "olga"]}


def report(rule: str, outcome: str, line: int, **more: Any) -> dict[str, Any]:
    return {"rule": rule, "outcome": outcome, "path": f"{rule}.rego", "line": line, "reason": "", **more}


def answer(effect: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    fired = [one["rule"] for one in rules if one["outcome"] == "fired"]
    decision = {"effect": effect, "rules": fired, "reasons": ["because"] * len(fired)}
    question = {
        "syscall": {"tool": "send", "args": {"to": "a@acme.example", "text": "x" * 300}},
        "agent": {"name": "triage"},
        "session": {"labels": ["untrusted"]},
        "budget": {"calls": 2, "tokens": 300},
        "approvals": [{"by": "principal/anna", "reason": "fine\x1b[2J"}],
        "config_revision": 4,
    }
    body = {
        "id": "s-1#9",
        "call": "c1",
        "time": "2026-11-21T08:30:00.125Z",
        "question": question,
        "decision": decision,
        "replayed": decision,
        "same": True,
        "same_policy": True,
        "rules": list(rules),
        "grants": [],
        "granters": GRANTERS,
    }
    return {**body, **more}


NONE = report("grants.none", "fired", 12, reason="no grant lets agent triage call tool send")
FAILED = report("egress.untrusted", "failed", 3, condition_line=5, condition='"untrusted" in input.session.labels')
LEFT = report("model.undeclared", "left-out", 7)


def text(value: dict[str, Any]) -> str:
    return "\n".join(why_lines(value))


def test_a_denial_for_want_of_a_grant(snapshot: SnapshotAssertion) -> None:
    """It says who could grant it; what a person said cannot move the cursor."""
    told = text(answer("deny", NONE, FAILED, LEFT))
    assert "\x1b" not in told
    assert told == snapshot


def test_a_denial_that_no_grant_would_change(snapshot: SnapshotAssertion) -> None:
    """A grant that applies binds less than the rule that denies; a watched rule is told with its mode."""
    grant = {"name": "sends", "by": "principal/al", "args": {"to": {"glob": "*@acme.example"}}, "approval": True, "max_uses": 3}
    denied = report("egress.untrusted", "fired", 3, reason="the session has read strangers")
    allowed = report("grants.approval", "fired", 9, reason="grant sends asks")
    found = answer("deny", denied, allowed, report("hours.night", "fired", 2, reason="at night"), grants=[grant])
    found["decision"] = {
        "effect": "deny",
        "rules": ["egress.untrusted"],
        "reasons": ["the session has read strangers"],
        "observed": [{"rule": "hours.night", "effect": "deny", "reason": "at night", "mode": "dryrun"}],
    }
    assert text(found) == snapshot


def test_obligations_that_were_met_and_that_were_not(snapshot: SnapshotAssertion) -> None:
    """What a call was obliged to, and that the runtime overruled the decision where it could not do it."""
    said = answer("allow", report("grants.allowed", "fired", 9, reason="as granted"))
    said["decision"]["obligations"] = [
        {"kind": "redact", "rule": "pii.hide", "in": "result", "path": "/iban"},
        {"kind": "sandbox", "rule": "tools.boxed", "profile": "no-network"},
    ]
    overruled = dict(said["decision"])
    denied = {"effect": "deny", "rules": ["obligation.sandbox"], "reasons": ["there is no profile no-network"]}
    lost = {**said, "decision": denied, "overruled": overruled, "same": False, "replayed": overruled, "same_policy": False}
    assert text(said) + "\n\n-----\n\n" + text(lost) == snapshot


def test_the_grants_that_it_rests_on(snapshot: SnapshotAssertion) -> None:
    """Each has a line of its own, also where the rules are not told; a record from before they were named has none."""
    allowed = answer("allow", report("grants.allowed", "fired", 9, reason="as granted"))
    older = text(allowed)
    allowed["decision"]["grants"] = ["all", "mails"]
    told = text(allowed)
    assert told.replace("  grant: all\n  grant: mails\n", "") == older
    del allowed["rules"]
    assert "  grant: all\n  grant: mails\n" in text(allowed)
    assert told == snapshot


def test_what_was_erased_is_named(snapshot: SnapshotAssertion) -> None:
    """What is left of the decision is told, and why it is no more."""
    gone = {
        "id": "s-1#9",
        "call": "c1",
        "time": "2026-11-21T08:30:00.125Z",
        "revision": 4,
        "tool": "send",
        "agent": None,
        "decision": {"effect": "deny", "rules": ["grants.none"], "reasons": ["no grant"]},
        "undecidable": "erased: agent, args",
    }
    assert text(gone) == snapshot


def test_a_change_that_cannot_be_asked_about_again(snapshot: SnapshotAssertion) -> None:
    """A change by an actor that is no principal."""
    change = {
        "id": "revision/3",
        "revision": 3,
        "tenant": "default",
        "time": "2026-11-21T08:30:00.125Z",
        "actor": "system/boot",
        "decided_by": 2,
        "decision": {"effect": "allow", "rules": [], "reasons": []},
        "undecidable": "system/boot is no principal, so its roles are unknown",
    }
    assert text(change) == snapshot
