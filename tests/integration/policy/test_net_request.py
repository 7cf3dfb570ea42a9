"""Requests that leave, from the declarations of a tenant and a request in its normal form to the decision of the axioms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi.canonical import digest_of
from agentos.abi.decision import Decision, Verdict, parse_decision
from agentos.abi.resource import Key, Resource
from agentos.egress.asking import NetDenied, NetRequest, Scheme
from agentos.egress.names import host_of, target_of
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms
from agentos.policy.data import build_data
from agentos.policy.decide import SYSCALL

GOVERNANCE = {"owner": "o", "purpose": "p", "risk": "limited"}
OPEN = [
    {"host": "pypi.org"},
    {"host": "*.pythonhosted.org", "methods": ["GET"]},
    {"host": "intranet", "ports": [80], "paths": ["/wiki/**"]},
]
DECLARED: list[tuple[str, str, dict[str, Any]]] = [
    ("Agent", "triage", {"model": "m", "tools": ["pip", "issues"], "governance": GOVERNANCE}),
    ("Sandbox", "online", {"network": {"allow": OPEN}}),
    ("Tool", "pip", {"effect": "external", "sandbox": "online", "driver": {"exec": {"command": ["pip"]}}}),
    ("Tool", "issues", {"effect": "external", "driver": {"http": {"url": "https://api.github.com/repos/"}}}),
    (
        "Tool",
        "remote",
        {"effect": "external", "driver": {"mcp": {"server": {"url": "https://mcp.acme.example/mcp"}, "tool": "x"}}},
    ),
]


class Asked:
    """The axioms over these declarations."""

    def __init__(self) -> None:
        resources = [Resource(Key(kind, "default", name), {}, {}, spec) for kind, name, spec in DECLARED]
        self._engine = opa.build(axioms("syscall"), build_data(resources, "default", granted_by={}))

    def __call__(self, tool: str, request: NetRequest, sandbox: str | None = "online", calls: int = 3) -> Decision:
        args = {"call": "c-1", "tool": tool, **request.args(), **({"sandbox": sandbox} if sandbox else {})}
        question: dict[str, Any] = {
            "abi": "agentos/v1",
            "syscall": {"tool": "net-request", "effect": "external", "args": args, "args_digest": digest_of(args)},
            "agent": {"name": "triage", "labels": {}},
            "session": {"id": "s-1", "tenant": "default", "actor": "principal/al", "labels": [], "delegation": []},
            "budget": {"calls": calls, "tokens": 5},
            "approvals": [],
            "config_revision": 1,
            "now": 1,
            "policy_digest": "",
            "spent": [],
        }
        return parse_decision(self._engine.eval_document(SYSCALL, question))

    def close(self) -> None:
        self._engine.close()


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    made = Asked()
    yield made
    made.close()


def get(host: str, path: str = "/", port: int = 443, method: str = "GET") -> NetRequest:
    return NetRequest(Scheme.HTTP if port == 80 else Scheme.HTTPS, host_of(host), port, method, target_of(path).path)


def tunnel(host: str) -> NetRequest:
    return NetRequest(Scheme.TUNNEL, host_of(host), 443)


@pytest.mark.parametrize(
    ("tool", "request_", "rule"),
    [
        ("pip", get("PyPI.org."), "grants.net"),
        ("pip", tunnel("pypi.org"), "grants.net"),
        ("pip", get("files.pythonhosted.org", "/a/b"), "grants.net"),
        ("pip", get("files.pythonhosted.org", method="POST"), "network.undeclared"),
        ("pip", tunnel("files.pythonhosted.org"), "network.opaque"),
        ("pip", get("intranet", "/wiki/../admin", 80), "network.undeclared"),
        ("pip", get("intranet", "/x/../wiki/a", 80), "grants.net"),
        ("pip", get("169.254.169.254", port=80), "network.undeclared"),
        ("issues", get("api.github.com", "/repos/a"), "grants.net"),
        ("issues", get("api.github.com", "/user"), "network.undeclared"),
        ("issues", get("pypi.org"), "network.undeclared"),
        ("remote", get("mcp.acme.example", "/mcp", method="POST"), "grants.net"),
        ("remote", get("api.github.com", "/repos/a"), "network.undeclared"),
        ("ghost", get("pypi.org"), "network.undeclared"),
    ],
)
def test_a_request_is_decided_by_what_is_declared(asked: Asked, tool: str, request_: NetRequest, rule: str) -> None:
    """The address of a tool, or the sandbox that its process works in, and nothing else lets a request leave."""
    found = asked(tool, request_)
    assert found.rules == (rule,)
    assert found.effect is (Verdict.ALLOW if rule == "grants.net" else Verdict.DENY)


def test_what_is_not_declared_leads_nowhere(asked: Asked) -> None:
    """The sandbox that is always there, one that is not, and none at all."""
    for sandbox in ("default", "ghost", None):
        assert asked("pip", get("pypi.org"), sandbox).rules == ("network.undeclared",)


def test_a_request_is_no_call_of_its_own(asked: Asked) -> None:
    """A session whose calls are used up ends its last one."""
    assert asked("pip", get("pypi.org"), calls=10_000).effect is Verdict.ALLOW


TEXTS = st.text("abAZ019.-_:%/;@\\ äﬀ。xn[]", max_size=12)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS, st.sampled_from([80, 443, 65_535]))
def test_what_the_proxy_lets_through_is_in_the_form_that_policy_compares(asked: Asked, host: str, path: str, port: int) -> None:
    """Whatever is normalised is compared, and whatever is not declared is denied."""
    try:
        request = get(host, f"/{path}", port)
    except NetDenied:
        return
    assert asked("pip", request).rules == ("network.undeclared",)
