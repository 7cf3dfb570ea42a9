"""The published policy schemas mean the same to `jsonschema` (2020-12) and to OPA (draft 7)."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentos.abi.assets import asset
from agentos.abi.decision import Verdict, parse_decision
from agentos.policy.adapters import opa
from agentos.policy.data import build_data

DIGEST = "sha256:" + "a" * 64
INPUT: dict[str, Any] = {
    "abi": "agentos/v1",
    "syscall": {"tool": "read", "effect": "read", "args": {"path": "a", "n": [1, {"b": None}]}, "args_digest": DIGEST},
    "agent": {"name": "triage", "labels": {"team": "ops"}},
    "session": {"id": "s-1", "tenant": "default", "actor": "principal/al", "labels": ["pii"], "delegation": []},
    "budget": {"calls": 0, "tokens": 12},
    "approvals": [
        {
            "tool": "read",
            "args_digest": DIGEST,
            "by": "principal/bo",
            "reason": "fine",
            "at": 1,
            "expires": 2,
            "policy_digest": DIGEST,
            "scope": "once",
            "rules": ["a.b"],
            "uses_left": 1,
        }
    ],
    "config_revision": 3,
    "policy_digest": DIGEST,
    "spent": [],
    "now": 1_700_000_000_000,
}
DECISION: dict[str, Any] = {
    "effect": "deny",
    "rules": ["a.b"],
    "reasons": ["no"],
    "observed": [{"rule": "c.d", "effect": "halt", "reason": "x", "mode": "warn"}],
}
CONTROL: dict[str, Any] = {
    "abi": "agentos/v1",
    "principal": {"name": "al", "roles": ["operator"], "tenant": "*"},
    "verb": "registry.apply",
    "tenant": "default",
}
MODEL = {"apiVersion": "agentos/v1", "kind": "Model", "metadata": {"name": "m", "labels": {"a": "b"}}, "spec": {"x": [1]}}
ADMISSION: dict[str, Any] = {
    "abi": "agentos/v1",
    "principal": {"name": "al", "roles": ["operator"], "tenant": "*"},
    "tenant": "default",
    "changes": [{"action": "update", "resource": MODEL, "before": MODEL}],
    "resources": [MODEL],
}


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one part set, or taken away where `value` is `...`."""
    copied = copy.deepcopy(document)
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    node: Any = copied
    for step in parents:
        node = node[step]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return copied


LINK = {"session": "s-0", "agent": "lead", "labels": {"team": "ops"}, "tool": "hand-on", "tools": None}
CHAIN = [LINK, LINK | {"session": "s-2", "tools": ["read"]}]

CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("policy-input", INPUT, True),
    ("policy-input", changed(changed(INPUT, "session.delegators", CHAIN), "session.tools", ["read"]), True),
    ("policy-input", changed(INPUT, "session.children", 3), True),
    *(
        ("policy-input", changed(INPUT, path, value), False)
        for path, value in [
            ("abi", "agentos/v2"),
            ("syscall", ...),
            ("syscall.tool", "Read"),
            ("syscall.effect", "delete"),
            ("syscall.args", []),
            ("syscall.args_digest", "sha256:1"),
            ("syscall.call", "c-1"),
            ("agent.labels", {"a": 1}),
            ("session.labels", "pii"),
            ("session.delegation", [1]),
            ("session.delegators", ["lead"]),
            ("session.delegators", [LINK | {"tools": "read"}]),
            ("session.delegators", [{key: value for key, value in LINK.items() if key != "tool"}]),
            ("session.tools", None),
            ("session.children", -1),
            ("budget.calls", -1),
            ("budget.calls", 1.5),
            ("approvals.0.by", ...),
            ("approvals.0.scope", "for ever"),
            ("approvals.0.expires", ...),
            ("policy_digest", ...),
            ("config_revision", "3"),
            ("now", None),
            ("extra", 1),
        ]
    ),
    ("policy-decision", DECISION, True),
    ("policy-decision", {"effect": "allow", "rules": [], "reasons": []}, True),
    ("policy-decision", changed(DECISION, "obligations", [{"kind": "label", "rule": "a.b", "labels": ["x"]}]), True),
    ("policy-decision", {"effect": "allow", "rules": ["a.b"], "reasons": [], "grants": ["all", "mails"]}, True),
    ("policy-decision", {"effect": "ask", "rules": ["a.b"], "reasons": [], "grants": ["mails"]}, True),
    *(
        ("policy-decision", changed(DECISION, path, value), False)
        for path, value in [
            ("effect", "permit"),
            ("effect", ...),
            ("rules", "a.b"),
            ("rules", []),
            ("reasons", [1]),
            ("observed.0.mode", "enforce"),
            ("observed.0.rule", ...),
            ("grants", ["mails"]),
            ("obligations", {}),
            ("obligations", [{"kind": "erase", "rule": "a.b"}]),
            ("obligations", [{"kind": "label", "rule": "a.b", "labels": []}]),
            ("obligations", [{"kind": "label", "rule": "a.b", "labels": ["x"], "more": 1}]),
        ]
    ),
    *(
        ("policy-decision", {"effect": "allow", "rules": ["a.b"], "reasons": [], "grants": grants}, False)
        for grants in ["mails", [1], ["mails", "mails"], ["Mails"], ["a,b"], [""], ["a" * 64], [f"g{n}" for n in range(101)]]
    ),
    ("control-input", CONTROL, True),
    *(
        ("control-input", changed(CONTROL, path, value), False)
        for path, value in [("principal.roles", ["root"]), ("principal.tenant", "**"), ("verb", "registry"), ("tenant", ...)]
    ),
    ("admission-input", ADMISSION, True),
    ("admission-input", changed(ADMISSION, "principal.tenant", ...), True),
    *(
        ("admission-input", changed(ADMISSION, path, value), False)
        for path, value in [("changes.0.action", "patch"), ("resources.0.kind", "Program"), ("resources.0.metadata.name", ...)]
    ),
    ("policy-data", build_data([], "default", granted_by={}), True),
    ("policy-data", {"agentos": {}}, False),
]


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((asset("schemas") / "v1" / f"{name}.json").read_text("utf-8"))
    return loaded


@pytest.mark.parametrize(("name", "document", "valid"), CASES)
def test_both_readers_agree(name: str, document: dict[str, Any], valid: bool) -> None:
    """A document is valid for both or for neither."""
    assert Draft202012Validator(schema(name)).is_valid(document) is valid
    engine = opa.bindings().OpaEngine()
    answer = engine.eval_query(
        "x := json.match_schema(input.document, input.schema)", {"document": document, "schema": schema(name)}
    )
    engine.close()
    assert answer[0]["x"][0] is valid


@pytest.mark.parametrize("name", sorted({case[0] for case in CASES}))
def test_a_schema_is_sound_and_documented(name: str) -> None:
    """Every schema is valid 2020-12, keeps to what OPA reads as well, and describes each property."""
    loaded = schema(name)
    Draft202012Validator.check_schema(loaded)
    stack: list[Any] = [loaded]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            assert not {"prefixItems", "unevaluatedProperties", "dependentRequired", "$dynamicRef"} & set(node)
            for key, below in node.get("properties", {}).items() if isinstance(node.get("properties"), dict) else ():
                assert "$ref" in below or "description" in below or "enum" in below or "minItems" in below, key
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


@pytest.mark.parametrize("document", [document for name, document, valid in CASES if name == "policy-decision" and valid])
def test_a_valid_decision_is_read_as_it_is(document: dict[str, Any]) -> None:
    """What the schema calls a decision, the runtime reads as that decision."""
    assert parse_decision(document).to_dict() == document


@pytest.mark.parametrize("document", [document for name, document, valid in CASES if name == "policy-decision" and not valid])
def test_an_invalid_decision_never_allows(document: dict[str, Any]) -> None:
    """What the schema refuses never lets a call through."""
    assert parse_decision(document).effect is not Verdict.ALLOW
