"""Profiles: what a Sandbox declares, as the runtime reads it. A value; adapters turn it into namespaces, limits and mounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Final

from agentos.abi.canonical import Json, digest_of
from agentos.abi.resource import Resource

DEFAULT: Final = "default"
"""The profile of tools that name none: of this name if the tenant declares one, else `standard()`."""


class Isolation(StrEnum):
    """How a process is set apart."""

    BUBBLEWRAP = "bubblewrap"
    CONTAINER = "container"
    UNSAFE_NONE = "unsafe-none"


class Access(StrEnum):
    """What a process may do with the workspace."""

    WRITE = "write"
    READ = "read"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the host that is there too, at the absolute path `at`."""

    path: str
    at: str
    write: bool = False


@dataclass(frozen=True, slots=True)
class Network:
    """The way out, through the proxy alone. Whom it may lead to is for policy, which knows the declaration (`allow`)."""

    inspect: bool = False
    """Whether the proxy ends TLS, and so sees method and path and can put credentials in."""
    private: tuple[str, ...] = ()
    """CIDR ranges beyond the public internet that may be reached."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be used: sizes in MiB, time in seconds."""

    memory_mib: int = 1024
    processes: int = 256
    cpu_s: int | None = None
    file_mib: int = 256
    tmp_mib: int = 64
    open_files: int = 1024


@dataclass(frozen=True, slots=True)
class Profile:
    """A Sandbox. `digest` names exactly this declaration, in the log and in leases."""

    name: str
    digest: str
    isolation: Isolation = Isolation.BUBBLEWRAP
    workspace: Access = Access.WRITE
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    network: Network | None = None
    """None: no network at all."""
    limits: Limits = Limits()
    idle_s: int = 300
    """How long processes that serve several calls are kept after the last one, in seconds."""
    image: str = ""
    engine: str = ""
    runtime: str = ""

    def told(self) -> dict[str, Json]:
        """What the log is told of it."""
        return {"name": self.name, "digest": self.digest, "isolation": str(self.isolation)}


@cache
def standard(name: str = DEFAULT) -> Profile:
    """What holds where nothing is declared: bubblewrap, the workspace, no network."""
    return _profile(name, {})


def profile_of(resource: Resource) -> Profile:
    """The Profile of a validated Sandbox."""
    return _profile(resource.key.name, resource.spec)


def _profile(name: str, spec: Mapping[str, Json]) -> Profile:
    network, limits = spec.get("network"), spec.get("limits", {})
    return Profile(
        name=name,
        digest=digest_of({"sandbox": name, "spec": dict(spec)}),
        isolation=Isolation(spec.get("isolation", Isolation.BUBBLEWRAP)),
        workspace=Access(spec.get("workspace", Access.WRITE)),
        mounts=tuple(
            Mount(one["path"], one.get("at", one["path"]), bool(one.get("write", False))) for one in spec.get("mounts", ())
        ),
        env=dict(spec.get("env", {})),
        network=None if network is None else Network(bool(network.get("inspect", False)), tuple(network.get("private", ()))),
        limits=Limits(
            memory_mib=limits.get("memoryMiB", 1024),
            processes=limits.get("processes", 256),
            cpu_s=limits.get("cpuSeconds"),
            file_mib=limits.get("fileMiB", 256),
            tmp_mib=limits.get("tmpMiB", 64),
            open_files=limits.get("openFiles", 1024),
        ),
        idle_s=spec.get("idleSeconds", 300),
        image=spec.get("image", ""),
        engine=spec.get("engine", ""),
        runtime=spec.get("runtime", ""),
    )
