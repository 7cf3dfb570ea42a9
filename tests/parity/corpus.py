"""Questions for the parity suite: worlds of policies and data, and documents made by moving values around what the policies test.

The paths that are changed are those which the modules themselves read, told from their syntax trees; the values are those that
stand in the data and in the Rego (limits, ends, patterns, names), one less, one more, of another type, and hostile ones.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms
from agentos.policy.port import Module

ROOT = Path(__file__).parents[2]
EGRESS = Module("egress/egress.rego", (ROOT / "examples/quickstart/policies/egress.rego").read_text("utf-8"))

HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1.5, 0.1 + 0.2, 1e21, 2**53 + 1, 2**64, "", " ", "\0", "ä\u2028🚲", "../x", "/etc/passwd",
    "a\\b", "(", [], {}, ["../x", "ok"], {"deep": {"er": [1, None]}}, "x" * 300, "*", "untrusted", ["untrusted"], "9" * 40,
]  # fmt: skip

TENANT_RULE = """# METADATA
# title: {name}
# description: made for the parity suite
package agentos.syscall.rules.{name}

results contains {{"rule": "{name}.one", "effect": "{effect}", "reason": sprintf("%v of %v", [input.budget.calls, input.syscall.args])}} if {{
	{condition}
}}
"""  # noqa: E501 - Rego as it is written


@dataclass(frozen=True)
class World:
    """Modules, data, the entry that is asked, a document that is right, and values that its policies care about."""

    name: str
    entry: str
    modules: tuple[Module, ...]
    data: dict[str, Any]
    document: dict[str, Any]
    values: tuple[Any, ...]


def worlds() -> list[World]:
    """Syscalls in five worlds, admission, and the control door."""
    rules = {
        "count": ("deny", "count(input.session.labels) > 1"),
        "clock": ("ask", "input.now % 2 == 1"),
        "shape": ("halt", 'regex.match(`^[a-z]+$`, input.syscall.args.to); walk(input.syscall.args, [_, "x"])'),
        "fails": ("deny", "startswith(input.syscall.args.path, input.syscall.args.to)"),
        "sums": ("deny", "sum([input.budget.calls, input.budget.tokens]) / input.now > 1"),
    }
    own = {
        name: Module(f"{name}/{name}.rego", TENANT_RULE.format(name=name, effect=effect, condition=condition))
        for name, (effect, condition) in rules.items()
    }
    made = {
        "shipped": ((), {}),
        "egress": ((EGRESS,), {}),
        "watched": (
            (EGRESS, own["count"], own["clock"]),
            {"egress": {"mode": "warn", "name": "egress"}, "clock": {"mode": "dryrun", "name": "clock"}},
        ),
        "numbers": ((own["sums"], own["clock"], own["shape"]), {}),
        "failing": ((own["fails"], own["count"]), {"count": {"mode": "warn", "name": "count"}}),
    }
    syscalls = [
        World(
            name,
            "agentos.syscall.decision",
            (*axioms(), *modules),
            {"agentos": FACTS["agentos"] | {"policies": policies}},
            CALL,
            tuple(_values(FACTS)),
        )
        for name, (modules, policies) in made.items()
    ]
    admission = World("admission", "agentos.admission.decision", axioms(), FACTS, CHANGE, tuple(_values(CHANGE)))
    words = tuple(_values([opa.parse(module)["rules"] for module in axioms("control")]))
    control = World("control", "agentos.control.decision", axioms("control"), {"agentos": {}}, COMMAND, words)
    return [*syscalls, admission, control]


def documents(world: World, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` documents that differ in what the policies read."""
    chance = random.Random(f"{seed} {world.name}")
    paths = sorted(_paths(world))
    assert paths
    read = syntax.as_tree(paths)
    seen: set[str] = set()
    for _ in range(count * 50):
        if len(seen) == count:
            return
        document = copy.deepcopy(world.document)
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            _change(document, list(chance.choice(paths)), world, chance)
        key = repr(syntax.project(document, read))
        if key not in seen:
            seen.add(key)
            yield document


def _paths(world: World) -> set[tuple[str, ...]]:
    """The paths that the modules read, and those below them that the document has (arguments, elements of lists)."""
    found: set[tuple[str, ...]] = set()
    for module in world.modules:
        for ref in syntax.refs(syntax.without_package(opa.parse(module))):
            if ref.head == "input" and ref.static():
                found.add(ref.static())
    for path in list(found):
        found |= {(*path, *below) for below in _below(_at(world.document, path))}
    return found


def _below(value: Any) -> Iterator[tuple[str, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (str(key),)
        for rest in _below(item):
            yield (str(key), *rest)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _change(document: dict[str, Any], path: list[str], world: World, chance: random.Random) -> None:
    node: Any = document
    for step in path[:-1]:
        node = _child(node, step)
    value = copy.deepcopy(chance.choice(world.values if chance.random() < 0.6 else HOSTILE))
    gone = chance.random() < 0.15
    if isinstance(node, dict):
        if gone:
            node.pop(path[-1], None)
        else:
            node[path[-1]] = value
    elif isinstance(node, list) and path[-1].isdigit() and int(path[-1]) < len(node):
        node[int(path[-1])] = value


def _child(node: Any, step: str) -> Any:
    if isinstance(node, dict):
        return node.get(step)
    return node[int(step)] if isinstance(node, list) and step.isdigit() and int(step) < len(node) else None


def _values(tree: Any) -> Iterator[Any]:
    """Each scalar of a tree, and what lies next to it."""
    seen: set[str] = set()
    for value in _scalars(tree):
        near = [value, value - 1, value + 1] if type(value) is int else [value]
        if isinstance(value, str):
            near += [value + "x", value.replace("*", "a"), value.upper(), f"{value}/b.md", [value]]
        for item in near:
            if repr(item) not in seen:
                seen.add(repr(item))
                yield item


def _scalars(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _scalars(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _scalars(value)
    else:
        yield tree


def _grant(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "args": {}, "approval": False, "by": "principal/al"} | more


FACTS: dict[str, Any] = {
    "agentos": {
        "tenant": {"name": "default", "limits": {"sessions": 100}},
        "agents": {
            "triage": {
                "model": "small", "models": ["small"], "tools": ["read", "send", "pay"], "budget": {"calls": 3, "tokens": 100},
                "governance": {"owner": "ops", "purpose": "sort mail", "risk": "limited"},
            },
            "payer": {
                "model": "large", "models": ["large"], "tools": ["pay"], "budget": {"calls": 200, "tokens": 1000000},
                "governance": {"owner": "ops", "purpose": "pay", "risk": "high"},
            },
        },
        "tools": {
            "read": {
                "effect": "read", "labels": ["untrusted"], "idempotent": True, "driver": "builtin", "primitive": "read",
                "workspace_args": ["path"],
            },
            "send": {"effect": "external", "labels": [], "idempotent": False, "driver": "mcp", "workspace_args": ["files"]},
            "pay": {"effect": "external", "labels": ["pii"], "idempotent": False, "driver": "mcp", "workspace_args": []},
        },
        "grants": {
            "triage": {
                "read": [
                    _grant("may-read", args={"path": {"glob": "in/**"}}),
                    _grant("names", args={"path": {"pattern": "[a-z]+\\.md"}}),
                ],
                "send": [
                    _grant(
                        "may-send", approval=True, args={"to": {"glob": "*@acme.example"}, "size": {"maximum": 10, "minimum": 1}},
                    ),
                    _grant("until-noon", until=1000),
                    _grant("short", args={"to": {"oneOf": ["bo", 7, True]}, "text": {"maxLength": 5}}),
                ],
                "pay": [_grant("may-pay", args={"amount": {"equals": 5}}, approval=True)],
            },
            "payer": {"pay": [_grant("pays", until=3000, args={"amount": {"maximum": 100}})]},
        },
        "policies": {},
        "roles": {},
    }
}  # fmt: skip

CALL: dict[str, Any] = {
    "abi": "agentos/v1",
    "syscall": {
        "tool": "send", "effect": "external", "args_digest": "sha256:" + "0" * 64,
        "args": {
            "path": "in/a.md", "to": "bo@acme.example", "size": 3, "text": "hi", "amount": 5, "files": ["in/a.md"],
            "model": "small",
        },
    },
    "agent": {"name": "triage", "labels": {}},
    "session": {"id": "s-1", "tenant": "default", "actor": "principal/al", "labels": [], "delegation": []},
    "budget": {"calls": 0, "tokens": 0},
    "approvals": [{"tool": "send", "args_digest": "sha256:" + "0" * 64, "by": "principal/bo", "reason": "fine"}],
    "config_revision": 1,
    "now": 2000,
}  # fmt: skip

_RESOURCES: list[dict[str, Any]] = [
    {"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {}},
    {"apiVersion": "agentos/v1", "kind": "Agent", "metadata": {"name": "payer"}, "spec": {"governance": {"risk": "high"}}},
    {
        "apiVersion": "agentos/v1", "kind": "Tool", "metadata": {"name": "pay", "tenant": "default"},
        "spec": {"effect": "external"},
    },
    {
        "apiVersion": "agentos/v1", "kind": "ToolGrant", "metadata": {"name": "g"},
        "spec": {"agents": ["payer"], "tools": ["pay"], "approval": "required"},
    },
    {
        "apiVersion": "agentos/v1", "kind": "Model", "metadata": {"name": "large"},
        "spec": {"provider": "anthropic", "anthropic": {"model": "m", "apiKeyEnv": "AGENTOS_MODEL_X", "baseUrl": "https://api.anthropic.com/"}},
    },
]  # fmt: skip

CHANGE: dict[str, Any] = {
    "abi": "agentos/v1",
    "principal": {"name": "al", "roles": ["operator"], "tenant": "*"},
    "tenant": "default",
    "changes": [{"action": "create", "resource": copy.deepcopy(resource)} for resource in _RESOURCES],
    "resources": _RESOURCES,
}

COMMAND: dict[str, Any] = {
    "abi": "agentos/v1",
    "principal": {"name": "al", "roles": ["auditor"], "tenant": "*"},
    "verb": "registry.apply",
    "tenant": "default",
}
