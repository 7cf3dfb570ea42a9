"""The axiom policies that ship with AgentOS, the policies that a tenant declares, and the digest of a set of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from agentos.abi.assets import asset
from agentos.abi.canonical import digest_of
from agentos.abi.errors import EngineUnavailable
from agentos.abi.resource import Resource
from agentos.policy.port import Module

TARGETS: Final = ("syscall", "admission", "approval", "control")
"""What is decided by policy; each is a package `agentos.<target>` with the rule `decision`."""

TEST_SUFFIX: Final = "_test.rego"


def axioms(target: str | None = None) -> tuple[Module, ...]:
    """The shipped modules in order of their paths, tests left out; those of one target, or of all.

    Paths are `policies/agentos/…`. Raises EngineUnavailable where the installation lacks them.
    """
    prefix = "policies/agentos/" if target is None else f"policies/agentos/{target}/"
    return tuple(module for module in _shipped() if module.path.startswith(prefix) and not is_test(module))


def axiom_tests() -> tuple[Module, ...]:
    """The test modules that stand beside the axioms."""
    return tuple(module for module in _shipped() if is_test(module))


def is_test(module: Module) -> bool:
    """Whether a module is a test (`…_test.rego`): checked and run by people, never loaded to decide."""
    return module.path.endswith(TEST_SUFFIX)


def policy_modules(resources: Sequence[Resource], tenant: str) -> tuple[Module, ...]:
    """The modules of a tenant's Policy resources, tests left out, in order of policy and file.

    Each path is `<policy name>/<path in the policy>`, so that no two policies, and no axiom, share one.
    """
    return tuple(
        Module(f"{resource.key.name}/{module['path']}", module["source"])
        for resource in sorted(resources, key=lambda resource: resource.key)
        if resource.key.kind == "Policy" and resource.key.tenant == tenant
        for module in resource.spec.get("modules", [])
        if not str(module["path"]).endswith(TEST_SUFFIX)
    )


def policy_digest(modules: Sequence[Module]) -> str:
    """`sha256:…` over the paths and sources of `modules`, whatever their order."""
    return digest_of(sorted([module.path, module.source] for module in modules))


@cache
def _shipped() -> tuple[Module, ...]:
    try:
        root = asset("policies")
    except FileNotFoundError as error:
        raise EngineUnavailable(str(error), mend="install agentos again") from error
    return tuple(
        Module(f"policies/{path.relative_to(root).as_posix()}", path.read_text("utf-8"))
        for path in sorted((root / "agentos").rglob("*.rego"))
    )
