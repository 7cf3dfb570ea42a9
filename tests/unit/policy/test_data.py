"""Declarations become the facts that policy reads."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentos.abi.canonical import Json
from agentos.abi.errors import PolicyError
from agentos.abi.resource import Key, Resource
from agentos.policy.bundle import policy_digest, policy_modules
from agentos.policy.data import build_data
from agentos.policy.known import schema
from agentos.policy.port import Module


def resource(kind: str, name: str, spec: dict[str, Any], tenant: str = "default") -> Resource:
    return Resource(Key(kind, tenant, name), {}, {}, spec)


def policy(name: str, package: str, mode: str) -> Resource:
    return resource("Policy", name, {"mode": mode, "modules": [{"path": "p.rego", "source": f"# x\npackage {package}\n"}]})


AGENT = {"model": "small", "tools": ["read"], "governance": {"owner": "o", "purpose": "p", "risk": "high"}}
READ = {"effect": "read", "driver": {"builtin": {"primitive": "read"}}}
GIT = {"effect": "read", "labels": ["code"], "idempotent": True, "driver": {"mcp": {"tool": "log", "workspaceArgs": ["repo"]}}}
UNDECLARED = {
    "isolation": "bubblewrap",
    "workspace": "write",
    "network": False,
    "inspect": False,
    "mounts": [],
    "reach": [],
}


def test_the_whole_document() -> None:
    """Defaults are filled in, times are milliseconds, approval is a boolean, and the result fits its schema."""
    grant = {"agents": ["b", "a"], "tools": ["git", "read"], "approval": "required", "until": "1970-01-01T00:00:01Z"}
    built = build_data(
        [
            resource("Tenant", "default", {"limits": {"sessions": 7}}, "*"),
            resource("Agent", "a", AGENT),
            resource("Tool", "read", READ),
            resource("Tool", "git", GIT),
            resource("ToolGrant", "g", grant),
            resource("ToolGrant", "h", {"agents": ["a"], "tools": ["git"], "args": {"repo": {"equals": "x"}}, "maxUses": 3}),
            resource("Agent", "other", AGENT, "acme"),
        ],
        "default",
        granted_by={Key("ToolGrant", "default", "g"): "principal/al"},
    )
    limited = {"agents": ["a"], "tools": ["git"], "args": {"repo": {"equals": "x"}}, "maxUses": 3}
    digests = {name: resource("ToolGrant", name, spec).digest() for name, spec in (("g", grant), ("h", limited))}
    g = {"name": "g", "args": {}, "approval": True, "by": "principal/al", "digest": digests["g"], "until": 1000}
    h = {
        "name": "h",
        "args": {"repo": {"equals": "x"}},
        "approval": False,
        "by": "unknown",
        "digest": digests["h"],
        "max_uses": 3,
    }
    assert built == {
        "agentos": {
            "tenant": {"name": "default", "limits": {"sessions": 7}},
            "agents": {
                "a": {
                    "model": "small",
                    "models": ["small"],
                    "tools": ["read"],
                    "budget": {"calls": 200, "tokens": 1_000_000},
                    "governance": AGENT["governance"],
                }
            },
            "tools": {
                "git": {"effect": "read", "labels": ["code"], "idempotent": True, "driver": "mcp", "workspace_args": ["repo"]},
                "read": {
                    "effect": "read",
                    "labels": [],
                    "idempotent": False,
                    "driver": "builtin",
                    "primitive": "read",
                    "workspace_args": ["path"],
                },
            },
            "grants": {"a": {"git": [g, h], "read": [g]}, "b": {"git": [g], "read": [g]}},
            "sandboxes": {"default": UNDECLARED},
            "policies": {},
            "rules": {
                "syscall": ["budget", "declassify", "delegation", "grants", "model", "network", "propose", "workspace"],
                "admission": ["high_risk", "host", "model_key", "priority", "retention", "tenant"],
                "approval": ["distinct", "requester"],
            },
            "roles": {},
        }
    }
    assert Draft202012Validator(schema("policy-data")).is_valid(built)


def test_what_delegation_is_decided_by() -> None:
    """How an agent may delegate, with its defaults, and to whom a tool does; an agent that declares nothing has no such fact."""
    spec = {"effect": "write", "driver": {"delegate": {"agents": ["a", "b"], "reduce": {"agent": "b", "goal": "sum up"}}}}
    alone = {"effect": "write", "driver": {"delegate": {"agents": ["a"], "tools": ["read"]}}}
    built = build_data(
        [
            resource("Agent", "a", AGENT),
            resource("Agent", "b", {**AGENT, "delegates": {}}),
            resource("Agent", "c", {**AGENT, "delegates": {"maxDepth": 3, "maxChildren": 5}}),
            resource("Tool", "both", spec),
            resource("Tool", "one", alone),
        ],
        "default",
        granted_by={},
    )
    agents, tools = built["agentos"]["agents"], built["agentos"]["tools"]
    assert {name: agent.get("delegates") for name, agent in agents.items()} == {
        "a": None,
        "b": {"max_depth": 1, "max_children": 16},
        "c": {"max_depth": 3, "max_children": 5},
    }
    common = {"effect": "write", "labels": [], "idempotent": False, "driver": "delegate", "workspace_args": ["inputs"]}
    assert tools == {"both": {**common, "agents": ["a", "b"], "reduce": "b"}, "one": {**common, "agents": ["a"]}}
    assert Draft202012Validator(schema("policy-data")).is_valid(built)


@pytest.mark.parametrize(
    ("builtin", "paths", "space"),
    [
        ({"primitive": "read"}, ["path"], None),
        ({"primitive": "write", "space": "reports"}, ["path"], "reports"),
        ({"primitive": "wait"}, [], None),
        ({"primitive": "signal"}, [], None),
        ({"primitive": "lock"}, [], None),
        ({"primitive": "fire"}, [], None),
        ({"primitive": "propose", "space": "reports"}, ["path"], "reports"),
    ],
)
def test_what_a_primitive_acts_on(builtin: dict[str, str], paths: list[str], space: str | None) -> None:
    """Files by `path`, in the workspace or in a shared space; the others name no file."""
    built = build_data([resource("Tool", "t", {"effect": "read", "driver": {"builtin": builtin}})], "default", granted_by={})
    tool = built["agentos"]["tools"]["t"]
    assert (tool["workspace_args"], tool.get("space")) == (paths, space)
    assert Draft202012Validator(schema("policy-data")).is_valid(built)


def facts_of(**driver: Any) -> dict[str, Any]:
    """What policy knows of a tool with this driver."""
    spec = {"effect": "external", "driver": driver}
    built = build_data([resource("Tool", "t", spec)], "default", granted_by={})
    assert Draft202012Validator(schema("policy-data")).is_valid(built)
    return dict(built["agentos"]["tools"]["t"])


def test_what_a_tool_is_made_with() -> None:
    """Its sandbox, the secrets that it is given, each once, and whether it can be taken back; of a process the files it names."""
    spec = {
        "effect": "write",
        "sandbox": "offline",
        "reversible": False,
        "credentials": [{"secret": "b", "env": "B"}, {"secret": "a", "env": "A"}, {"secret": "b", "file": "b"}],
        "driver": {"exec": {"command": ["sort"], "workspaceArgs": ["files"]}},
    }
    resources = [
        resource("Tool", "sort", spec),
        resource("Agent", "a", {**AGENT, "sandbox": "offline"}),
        resource("Tool", "read", READ),
    ]
    built = build_data(resources, "default", granted_by={})
    assert built["agentos"]["tools"]["sort"] == {
        "effect": "write",
        "labels": [],
        "idempotent": False,
        "driver": "exec",
        "workspace_args": ["files"],
        "sandbox": "offline",
        "reversible": False,
        "credentials": ["a", "b"],
    }
    assert built["agentos"]["agents"]["a"]["sandbox"] == "offline"
    assert not {"sandbox", "reversible", "credentials", "reach"} & built["agentos"]["tools"]["read"].keys()
    assert Draft202012Validator(schema("policy-data")).is_valid(built)


@pytest.mark.parametrize(
    ("url", "reach"),
    [
        ("https://API.github.com", {"host": "api.github.com", "ports": [443]}),
        ("https://api.github.com/", {"host": "api.github.com", "ports": [443]}),
        ("http://127.1:8080/v1/", {"host": "127.0.0.1", "ports": [8080], "paths": ["/v1", "/v1/**"]}),
        ("http://[::1]/a*[b]", {"host": "::1", "ports": [80], "paths": [r"/a\*\[b\]", r"/a\*\[b\]/**"]}),
        ("https://bücher.example/%7Ea/../b", {"host": "xn--bcher-kva.example", "ports": [443], "paths": ["/b", "/b/**"]}),
    ],
)
def test_where_a_tool_with_an_address_sends_its_requests(url: str, reach: dict[str, Json]) -> None:
    """To that host and port in the form in which requests are asked about, and for `http` only below the path."""
    assert facts_of(http={"url": url})["reach"] == [reach]
    at = {key: value for key, value in reach.items() if key != "paths"}
    assert facts_of(mcp={"server": {"url": url}, "tool": "x"})["reach"] == [at]


def test_an_address_that_is_none_reaches_nothing() -> None:
    """What cannot be read opens nothing, and a process goes where its sandbox lets it alone."""
    for url in ("https://", "https://a:99999", "https://a b/", "https://a/%2e%2f"):
        assert facts_of(http={"url": url})["reach"] == []
    assert "reach" not in facts_of(mcp={"server": {"command": ["x"]}, "tool": "x"})
    assert "reach" not in facts_of(exec={"command": ["x"]})


def test_sandboxes() -> None:
    """As they are declared, with defaults filled in; `default` is there in any case, and may be declared."""
    spec = {
        "isolation": "container",
        "image": "debian",
        "workspace": "read",
        "mounts": [{"path": "/opt/models"}, {"path": "/opt/x", "at": "/x", "write": True}],
        "network": {
            "inspect": True,
            "allow": [{"host": "a.example", "paths": ["/x"]}, {"host": "*.b.example", "ports": [80, 443]}],
        },
    }
    declared = {
        "isolation": "container",
        "workspace": "read",
        "network": True,
        "inspect": True,
        "mounts": [
            {"path": "/opt/models", "at": "/opt/models", "write": False},
            {"path": "/opt/x", "at": "/x", "write": True},
        ],
        "reach": [{"host": "a.example", "ports": [443], "paths": ["/x"]}, {"host": "*.b.example", "ports": [80, 443]}],
    }
    other = resource("Sandbox", "else", {}, "acme")
    built = build_data([resource("Sandbox", "wide", spec), other], "default", granted_by={})
    assert built["agentos"]["sandboxes"] == {"default": UNDECLARED, "wide": declared}
    assert Draft202012Validator(schema("policy-data")).is_valid(built)
    built = build_data([resource("Sandbox", "default", spec)], "default", granted_by={})
    assert built["agentos"]["sandboxes"] == {"default": declared}


def test_a_grant_of_another_tenant_is_not_seen() -> None:
    """No tenant's grant reaches another's policy."""
    built = build_data([resource("ToolGrant", "g", {"agents": ["a"], "tools": ["t"]}, "acme")], "default", granted_by={})
    assert built["agentos"]["grants"] == {}


@pytest.mark.parametrize(
    ("modes", "expected"),
    [(["warn"], "warn"), (["dryrun", "warn"], "warn"), (["dryrun", "enforce", "warn"], "enforce")],
)
def test_policies_that_share_a_package_take_the_strictest_mode(modes: list[str], expected: str) -> None:
    """A second policy cannot loosen the first by naming its package."""
    resources = [policy(f"p{n}", "agentos.syscall.rules.care", mode) for n, mode in enumerate(modes)]
    assert build_data(resources, "default", granted_by={})["agentos"]["policies"]["care"]["mode"] == expected


def test_a_package_that_cannot_be_read_binds() -> None:
    """A mode that is not known for sure to belong to a package does not apply: the policy is enforced."""
    built = build_data([policy("p", 'agentos.syscall["rules"].care', "dryrun")], "default", granted_by={})
    assert built["agentos"]["policies"] == {}


@pytest.mark.parametrize(
    "source",
    [
        'package agentos.syscall["rules"].care\n',
        " package agentos.syscall.rules.care\n",
        "package agentos . syscall.rules.care\nx := `\npackage agentos.syscall.rules.other\n`\n",
    ],
)
def test_where_a_package_cannot_be_read_every_package_is_evaluated(source: str) -> None:
    """The list of what is loaded is whole, or there is none: a policy that is not listed would not be asked."""
    spec = {"mode": "dryrun", "modules": [{"path": "p.rego", "source": source}]}
    built = build_data([resource("Policy", "p", spec)], "default", granted_by={})["agentos"]
    assert "rules" not in built
    assert built["policies"] == {}


def test_what_is_declared_travels() -> None:
    """Scope and parameters stand by the package; two policies of one package with two scopes have none."""
    scoped = {"scope": {"agents": ["a"]}, "parameters": {"limit": 3}}
    one, other = policy("p", "agentos.syscall.rules.care", "enforce"), policy("q", "agentos.syscall.rules.care", "enforce")
    alone = resource("Policy", "p", {**one.spec, **scoped})
    assert build_data([alone], "default", granted_by={})["agentos"]["policies"] == {
        "care": {"mode": "enforce", "name": "p", **scoped}
    }
    shared = build_data([alone, other], "default", granted_by={})["agentos"]["policies"]["care"]
    assert "scope" not in shared


@pytest.mark.parametrize("target", ["syscall", "admission", "approval"])
def test_no_policy_changes_the_mode_of_an_axiom(target: str) -> None:
    """A tenant's policy that bears the name of an axiom, for whatever target, watches nothing and scopes nothing."""
    built = build_data([policy("p", f"agentos.{target}.rules.grants", "dryrun")], "default", granted_by={})
    assert built["agentos"]["policies"] == {}


@pytest.mark.parametrize("until", ["tomorrow", "2027-01-01T00:00:00", 5])
def test_an_end_that_is_no_time_is_refused(until: Any) -> None:
    """A grant never becomes endless because its end could not be read."""
    with pytest.raises(PolicyError, match="not an RFC 3339 time"):
        build_data([resource("ToolGrant", "g", {"agents": ["a"], "tools": ["t"], "until": until})], "default", granted_by={})


def test_modules_are_named_by_policy_and_tests_are_left_out() -> None:
    """Two policies may call their files alike."""
    files = [{"path": "x.rego", "source": "package a"}, {"path": "x_test.rego", "source": "package a_test"}]
    resources = [resource("Policy", name, {"modules": files}) for name in ("q", "p")]
    assert policy_modules(resources, "default") == (Module("p/x.rego", "package a"), Module("q/x.rego", "package a"))


def test_the_digest_depends_on_paths_and_sources_and_not_on_order() -> None:
    """One set of modules, one digest."""
    one, two = Module("a", "x"), Module("b", "y")
    assert policy_digest([one, two]) == policy_digest([two, one])
    assert len({policy_digest(modules) for modules in ([one], [two], [one, two], [Module("a", "xb"), Module("b", "y")], [])}) == 5


def test_an_agent_may_call_what_its_model_class_stands_for() -> None:
    """All models of all routes, each once; of another tenant's class of that name nothing."""
    routes = [{"models": ["b", "a"], "when": {"maxTokens": 5}}, {"models": ["c", "b"]}]
    resources = [
        resource("Agent", "x", {**AGENT, "model": "large"}),
        resource("ModelClass", "large", {"routes": routes}),
        resource("ModelClass", "large", {"routes": [{"models": ["z"]}]}, "acme"),
    ]
    built = build_data(resources, "default", granted_by={})
    assert built["agentos"]["agents"]["x"]["models"] == ["a", "b", "c"]
    assert Draft202012Validator(schema("policy-data")).is_valid(built)
