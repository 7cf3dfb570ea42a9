"""What the tests of the policy room share: a factory of real engines, and facts that let one call through."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos.policy.adapters.embedded import EmbeddedFactory

sys.path.insert(0, str(Path(__file__).parents[2] / "parity"))

from opa_server import OperatorsServer


@pytest.fixture
def operators_server(tmp_path: Path) -> Iterator[OperatorsServer]:
    server = OperatorsServer(tmp_path / "operator")
    yield server
    server.stop()


@pytest.fixture
def factory() -> Iterator[EmbeddedFactory]:
    return EmbeddedFactory()


@pytest.fixture
def facts() -> dict[str, Any]:
    return {
        "agentos": {
            "tenant": {"name": "default", "limits": {"sessions": 100}},
            "agents": {
                "triage": {
                    "model": "small",
                    "models": ["small"],
                    "tools": ["read", "send"],
                    "budget": {"calls": 3, "tokens": 100},
                    "governance": {"owner": "ops", "purpose": "sort mail", "risk": "limited"},
                }
            },
            "tools": {
                "read": {
                    "effect": "read",
                    "labels": ["untrusted"],
                    "idempotent": True,
                    "driver": "builtin",
                    "primitive": "read",
                    "workspace_args": ["path"],
                },
                "send": {"effect": "external", "labels": [], "idempotent": False, "driver": "mcp", "workspace_args": []},
            },
            "grants": {
                "triage": {
                    "read": [{"name": "may-read", "args": {}, "approval": False, "by": "principal/al"}],
                    "send": [
                        {"name": "may-send", "args": {"to": {"glob": "*@acme.example"}}, "approval": True, "by": "principal/al"},
                        {"name": "until-noon", "args": {}, "approval": False, "by": "principal/al", "until": 1000},
                    ],
                }
            },
            "policies": {},
            "roles": {},
        }
    }


@pytest.fixture
def call() -> dict[str, Any]:
    return {
        "abi": "agentos/v1",
        "syscall": {"tool": "read", "effect": "read", "args": {"path": "in/a.md"}, "args_digest": "sha256:" + "0" * 64},
        "agent": {"name": "triage", "labels": {}},
        "session": {"id": "s-1", "tenant": "default", "actor": "principal/al", "labels": [], "delegation": []},
        "budget": {"calls": 0, "tokens": 0},
        "approvals": [],
        "config_revision": 1,
        "now": 2000,
    }
