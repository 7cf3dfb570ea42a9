"""Where requests may go, as policy knows it: the destinations that a Sandbox lists, and the one that a tool's address is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from agentos.abi.canonical import Json
from agentos.abi.resource import Resource
from agentos.egress.asking import NetDenied
from agentos.egress.names import PORTS, authority_of, target_of
from agentos.sandbox.profile import DEFAULT, Profile, profile_of, standard

_HTTPS: Final = 443
_OF_GLOBS: Final = re.compile(r"[*?\[\]{}\\!,]")


def sandboxes(declared: Sequence[Resource]) -> dict[str, Json]:
    """The Sandboxes of a tenant by name; `default` is always there."""
    found = {item.key.name: _sandbox(profile_of(item), item.spec) for item in declared}
    return {DEFAULT: _sandbox(standard(), {}), **found}


def _sandbox(profile: Profile, spec: Mapping[str, Json]) -> Json:
    allowed = spec.get("network", {}).get("allow", ())
    return {
        "isolation": str(profile.isolation),
        "workspace": str(profile.workspace),
        "network": profile.network is not None,
        "inspect": profile.network is not None and profile.network.inspect,
        "mounts": [{"path": one.path, "at": one.at, "write": one.write} for one in profile.mounts],
        "reach": [_destination(one) for one in allowed],
    }


def _destination(one: Mapping[str, Json]) -> Json:
    limits = {key: list(one[key]) for key in ("methods", "paths") if key in one}
    return {"host": one["host"], "ports": list(one.get("ports", [_HTTPS])), **limits}


def of_address(url: str, *, below: bool) -> list[Json]:
    """What a tool with this address reaches: its host and port; if `below`, only at its path and below that.

    Empty for an address that is none: such a tool reaches nothing.
    """
    try:
        parts = urlsplit(url)
        host, port = authority_of(parts.netloc, PORTS.get(parts.scheme))
        path = target_of(parts.path).path
    except (ValueError, NetDenied):
        return []
    found: dict[str, Json] = {"host": host, "ports": [port]}
    base = _OF_GLOBS.sub(r"\\\g<0>", path.rstrip("/"))
    if below and base:
        found["paths"] = [base, f"{base}/**"]
    return [found]
