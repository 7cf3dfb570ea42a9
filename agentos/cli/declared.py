"""What an operator declares on the command line: files and folders, read and validated before the runtime is asked.

A reference may lead to what was applied earlier: only when one leads nowhere in the files is the runtime asked what it holds.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentos.abi.canonical import Json
from agentos.abi.errors import ManifestError, UsageError
from agentos.abi.resource import Key, is_fleet_kind
from agentos.cli.command import call, settings

if TYPE_CHECKING:
    from agentos.manifests import Finding, Loaded
    from agentos.policy.port import Module


@dataclass(frozen=True, slots=True)
class Declared:
    """Manifests as they are sent, and where each stands: `agent/default/triage` → `agents.yaml:14:1`."""

    manifests: list[Json] = field(hash=False)
    positions: Mapping[str, str] = field(hash=False)


def read_declarations(paths: Sequence[str]) -> Declared:
    """Read and validate `paths` (`-`: standard input). Raises ManifestError with every fault, UsageError for no path at all."""
    if not paths:
        raise UsageError("nothing to read", mend="name files or folders of manifests, or - for standard input")
    stdin = sys.stdin.buffer.read() if "-" in paths else None
    loaded = _load(paths, stdin, ())
    if any(fault.code == "reference.unknown" for fault in loaded.faults):
        loaded = _load(paths, stdin, _applied())
    if loaded.faults:
        count = len(loaded.faults)
        raise ManifestError(
            f"{count} fault{'' if count == 1 else 's'} in the declarations; nothing was changed",
            faults=[{**fault.to_dict(), "text": str(fault)} for fault in loaded.faults],
        )
    _same_tenant(loaded)
    return Declared(
        [resource.to_dict() for resource in loaded.resources],
        {str(key): str(position) for key, position in loaded.positions.items()},
    )


def _same_tenant(loaded: Loaded) -> None:
    """Raises UsageError when `--tenant` names another tenant than a declaration: what is meant cannot be told."""
    for resource in loaded.resources:
        key = resource.key
        if settings.tenant is not None and not is_fleet_kind(key.kind) and key.tenant != settings.tenant:
            raise UsageError(
                f"{key} belongs to tenant {key.tenant}, and --tenant says {settings.tenant}; nothing was changed",
                where=str(loaded.positions.get(key, "")) or None,
                mend=f"write metadata.tenant: {settings.tenant} into the declaration, or leave out --tenant",
            )


def _load(paths: Sequence[str], stdin: bytes | None, existing: Collection[Key]) -> Loaded:
    from agentos.drivers.adapters.play import check_play
    from agentos.manifests import load

    return load(paths, stdin=stdin, existing=existing, check_policies=_check_policies, check_play=check_play)


def _check_policies(modules: Sequence[Module], target: str) -> Sequence[Finding]:
    # Imported where it is needed: OPA takes a while to load, and most sets hold no policy.
    from agentos.policy.lint import lint

    return lint(modules, target=target)


def _applied() -> set[Key]:
    """The keys of what the runtime holds, as far as the caller may see; a model that a tenant was lent counts as its own."""
    answer = call("registry.list", {})
    tenants = {Key("Tenant", "*", name) for name in answer["tenants"]}
    lent = {Key("Model", tenant, name) for tenant, names in answer["lent"].items() for name in names}
    return tenants | lent | {Key.parse(item["key"]) for item in answer["items"]}
