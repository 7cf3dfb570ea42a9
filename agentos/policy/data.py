"""What policy knows about a tenant: its declarations folded into one document (`schemas/v1/policy-data.json`).

Grants are indexed by agent and tool, so that a decision looks one list up and never scans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import PolicyError
from agentos.abi.event import parse_rfc3339
from agentos.abi.resource import Key, Resource
from agentos.policy import reach
from agentos.policy.bundle import TEST_SUFFIX, axioms

_STRICTNESS: Final = {"dryrun": 0, "warn": 1, "enforce": 2}
_DEFAULT_SESSIONS: Final = 100
DEFAULT_CALLS: Final = 200
DEFAULT_TOKENS: Final = 1_000_000
DEFAULT_DEPTH: Final = 1
DEFAULT_CHILDREN: Final = 16
_PATHLESS: Final = frozenset({"declassify", "lock", "unlock", "wait", "signal", "fire"})
"""Primitives that name no file."""
_TARGETS: Final = ("syscall", "admission", "approval")
_PACKAGE: Final = re.compile(r"package\s+agentos\.(syscall|admission|approval)\.rules\.([A-Za-z_][A-Za-z0-9_]*)[ \t\r]*(?:#.*)?")


def build_data(resources: Sequence[Resource], tenant: str, *, granted_by: Mapping[Key, str]) -> dict[str, Json]:
    """The root document `{"agentos": {...}}` for the policies of `tenant`; resources of other tenants are left out.

    `rules` lists the packages of the axioms and of the tenant's own modules, which are loaded together.
    `granted_by` tells for each ToolGrant which actor applied it (`principal/alice`); absent: `unknown`.
    Times become milliseconds since the epoch. Raises PolicyError for an `until` that is no time.
    """
    own = sorted((resource for resource in resources if resource.key.tenant == tenant), key=lambda resource: resource.key)
    classes = {item.key.name: _routed(item.spec) for item in own if item.key.kind == "ModelClass"}
    return {
        "agentos": {
            "tenant": _tenant(resources, tenant),
            "agents": {item.key.name: _agent(item.spec, classes) for item in own if item.key.kind == "Agent"},
            "tools": {item.key.name: _tool(item.spec) for item in own if item.key.kind == "Tool"},
            "grants": _grants([item for item in own if item.key.kind == "ToolGrant"], granted_by),
            "sandboxes": reach.sandboxes([item for item in own if item.key.kind == "Sandbox"]),
            "policies": _policies([item for item in own if item.key.kind == "Policy"]),
            **_rules([item for item in own if item.key.kind == "Policy"]),
            "roles": {},
        }
    }


def _tenant(resources: Sequence[Resource], name: str) -> Json:
    sessions = _DEFAULT_SESSIONS
    for resource in resources:
        if resource.key.kind == "Tenant" and resource.key.name == name:
            sessions = resource.spec.get("limits", {}).get("sessions", _DEFAULT_SESSIONS)
    return {"name": name, "limits": {"sessions": sessions}}


def _routed(spec: Mapping[str, Json]) -> list[Json]:
    """The models that a ModelClass may stand for."""
    return sorted({model for route in spec["routes"] for model in route["models"]})


def _agent(spec: Mapping[str, Json], classes: Mapping[str, list[Json]]) -> Json:
    budget = spec.get("budget", {})
    return {
        "model": spec["model"],
        "models": classes.get(spec["model"], [spec["model"]]),
        "tools": list(spec.get("tools", [])),
        "budget": {"calls": budget.get("calls", DEFAULT_CALLS), "tokens": budget.get("tokens", DEFAULT_TOKENS)},
        "governance": dict(spec["governance"]),
        **({"sandbox": spec["sandbox"]} if "sandbox" in spec else {}),
        **_delegates(spec.get("delegates")),
    }


def _delegates(spec: Mapping[str, Json] | None) -> dict[str, Json]:
    """How an agent may delegate; without a declaration nothing, which is not at all."""
    if spec is None:
        return {}
    depth, children = spec.get("maxDepth", DEFAULT_DEPTH), spec.get("maxChildren", DEFAULT_CHILDREN)
    return {"delegates": {"max_depth": depth, "max_children": children}}


def _tool(spec: Mapping[str, Json]) -> Json:
    facts: dict[str, Json] = {
        "effect": spec["effect"],
        "labels": list(spec.get("labels", [])),
        "idempotent": spec.get("idempotent", False),
    }
    facts |= {key: spec[key] for key in ("sandbox", "reversible") if key in spec}
    if spec.get("credentials"):
        facts["credentials"] = sorted({one["secret"] for one in spec["credentials"]})
    driver = spec["driver"]
    if "builtin" in driver:
        primitive = driver["builtin"]["primitive"]
        # Every file primitive names its place in the workspace by `path`.
        facts |= {"driver": "builtin", "primitive": primitive, "workspace_args": [] if primitive in _PATHLESS else ["path"]}
        if "space" in driver["builtin"]:
            facts["space"] = driver["builtin"]["space"]
    elif "delegate" in driver:
        facts |= {"driver": "delegate", "agents": list(driver["delegate"]["agents"]), "workspace_args": ["inputs"]}
        if driver["delegate"].get("reduce") is not None:
            facts["reduce"] = driver["delegate"]["reduce"]["agent"]
    elif "http" in driver:
        facts |= {"driver": "http", "workspace_args": [], "reach": reach.of_address(driver["http"]["url"], below=True)}
    else:
        kind = "exec" if "exec" in driver else "mcp"
        facts |= {"driver": kind, "workspace_args": list(driver[kind].get("workspaceArgs", []))}
        if "url" in driver[kind].get("server", {}):
            facts["reach"] = reach.of_address(driver[kind]["server"]["url"], below=False)
    return facts


def _grants(grants: Sequence[Resource], granted_by: Mapping[Key, str]) -> Json:
    index: dict[str, dict[str, list[Json]]] = {}
    for grant in grants:
        spec = grant.spec
        fact: dict[str, Json] = {
            "name": grant.key.name,
            "args": dict(spec.get("args", {})),
            "approval": spec.get("approval", "none") != "none",
            "by": granted_by.get(grant.key, "unknown"),
            "digest": grant.digest(),
        }
        if spec.get("maxUses") is not None:
            fact["max_uses"] = spec["maxUses"]
        if spec.get("until") is not None:
            try:
                fact["until"] = parse_rfc3339(spec["until"])
            except (TypeError, ValueError) as error:
                raise PolicyError(
                    f"until: {spec['until']!r} is not an RFC 3339 time", where=str(grant.key), mend="write 2027-01-31T00:00:00Z"
                ) from error
        for agent in dict.fromkeys(spec["agents"]):
            for tool in dict.fromkeys(spec["tools"]):
                index.setdefault(agent, {}).setdefault(tool, []).append(fact)
    return index


def _policies(policies: Sequence[Resource]) -> Json:
    """Policies by package tail; one whose package cannot be read binds, and so does one that is named as an axiom is.

    A package that two policies share takes the stricter mode and, unless both say the same, no scope.
    """
    shipped = {tail for tails in _shipped().values() for tail in tails}
    found: dict[str, dict[str, Json]] = {}
    for policy in policies:
        mode = policy.spec.get("mode", "enforce")
        declared = {"name": policy.key.name, **{key: policy.spec[key] for key in ("scope", "parameters") if policy.spec.get(key)}}
        for module in policy.spec.get("modules", []):
            place = _package(module["source"])
            if place is None or place[1] in shipped:
                continue
            known = found.get(place[1])
            if known is None:
                found[place[1]] = {"mode": mode, **declared}
                continue
            if _STRICTNESS[known["mode"]] < _STRICTNESS[mode]:
                known |= {"mode": mode, "name": policy.key.name}
            if known.get("scope") != declared.get("scope"):
                known.pop("scope", None)
    return found


def _rules(policies: Sequence[Resource]) -> dict[str, Json]:
    """`{rules: packages of rules by target}`; empty where one cannot be read, for then every package is evaluated."""
    found = {target: set(tails) for target, tails in _shipped().items()}
    for policy in policies:
        for module in policy.spec.get("modules", []):
            place = _package(module["source"])
            if place is not None:
                found[place[0]].add(place[1])
            elif not str(module["path"]).endswith(TEST_SUFFIX):
                return {}
    return {"rules": {target: sorted(tails) for target, tails in found.items()}}


@cache
def _shipped() -> dict[str, set[str]]:
    places = {target: [_package(module.source) for module in axioms(target)] for target in _TARGETS}
    return {target: {place[1] for place in found if place is not None} for target, found in places.items()}


def _package(source: str) -> tuple[str, str] | None:
    """Target and tail of a package of rules, read from the first statement, which is the package clause; None for any other."""
    for line in source.split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            found = _PACKAGE.fullmatch(line)
            return (found[1], found[2]) if found is not None else None
    return None
