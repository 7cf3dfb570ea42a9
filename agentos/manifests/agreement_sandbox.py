"""Rules within one Sandbox: what belongs to which isolation, what of the machine can be shown, whom it can be let reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Final

from agentos.abi.canonical import Json
from agentos.manifests.fault import Path, Problem, shown
from agentos.manifests.places import check_environment, guarded, odd_host, odd_path, within
from agentos.manifests.regex import refused_glob

_RESERVED: Final = (
    *("/workspace", "/proc", "/sys", "/dev", "/run"),
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc"),
)
"""Trees of a sandbox that the runtime makes itself; the programs that close it are in them."""
_TMP: Final = "/tmp"  # noqa: S108 - the private one of a sandbox

_HOST: Final = "for example api.github.com, *.github.com or 10.1.0.7"
_PATH: Final = "for example /repos/** or /v1/*/items"


def check_sandbox(body: Mapping[str, Json]) -> Iterator[Problem]:
    """Problems of a Sandbox that its schema accepts."""
    spec = body["spec"]
    yield from _container(spec)
    yield from _mounts(spec)
    yield from check_environment(spec.get("env", {}), ("spec", "env"), "sandbox.env")
    network = spec.get("network")
    if network is not None:
        yield from _destinations(network)
        yield from check_ranges(network.get("private", ()), ("spec", "network", "private"), "sandbox.range")


def _container(spec: Mapping[str, Json]) -> Iterator[Problem]:
    isolation = spec.get("isolation", "bubblewrap")
    if isolation == "container" and "image" not in spec:
        message = "isolation container needs the field `image`"
        yield Problem("sandbox.container", ("spec",), message, "add `image:`, such as debian:12-slim", at="key")
    if isolation != "container":
        for field in ("image", "engine", "runtime"):
            if field in spec:
                message = f"{field} is for isolation container, and this is {isolation}"
                yield Problem("sandbox.container", ("spec", field), message, "remove it, or write isolation: container", at="key")


def _mounts(spec: Mapping[str, Json]) -> Iterator[Problem]:
    places: set[str] = set()
    for index, mount in enumerate(spec.get("mounts", ())):
        here: Path = ("spec", "mounts", index)
        at = mount.get("at", mount["path"])
        for field, path in mount.items():
            if field != "write" and (straight := odd_path(path)):
                yield Problem("sandbox.path", (*here, field), f"{shown(path)} is not a straight path", f"write {straight}")
        if odd_path(mount["path"]) or odd_path(at):
            continue
        if shows := guarded(mount["path"]):
            message = f"{mount['path']} would show {shows} of the host"
            yield Problem("sandbox.mount", (*here, "path"), message, "mount the folder that is needed, and no more")
        if at == _TMP or any(within(at, tree) or within(tree, at) for tree in _RESERVED):
            message = f"{at} of a sandbox is the runtime's to fill"
            mend = "write another `at:`, such as /data" if "at" in mount else "write `at:`, such as /data"
            yield Problem("sandbox.place", (*here, "at" if "at" in mount else "path"), message, mend)
        if at in places:
            message = f"there is another mount at {at}"
            yield Problem("sandbox.twice", (*here, "at" if "at" in mount else "path"), message, "write another `at:`")
        places.add(at)


def _destinations(network: Mapping[str, Json]) -> Iterator[Problem]:
    for index, one in enumerate(network["allow"]):
        here: Path = ("spec", "network", "allow", index)
        if odd := odd_host(one["host"]):
            yield Problem("sandbox.host", (*here, "host"), f"{shown(one['host'])} can never be asked for: {odd}", _HOST)
        limits = [field for field in ("methods", "paths") if field in one]
        if limits and not network.get("inspect", False) and one.get("ports", [443]) == [443]:
            message = f"{limits[0]} of what is encrypted are seen by nobody, so this destination could never be reached"
            yield Problem("sandbox.opaque", (*here, limits[0]), message, "write inspect: true, or remove this", at="key")
        for number, path in enumerate(one.get("paths", ())):
            if reason := _odd_glob(path):
                yield Problem("sandbox.path", (*here, "paths", number), f"{shown(path)} can never match: {reason}", _PATH)


def _odd_glob(path: str) -> str | None:
    """Why no path of a request can match `path`, as a clause: those come without empty parts, `.` and `..`."""
    parts = path.split("/")[1:]
    if "" in parts[:-1]:
        return "paths have no empty parts"
    if {".", ".."} & set(parts):
        return "paths have no . and .."
    return refused_glob(path)


def check_ranges(ranges: Sequence[str], path: Path, code: str) -> Iterator[Problem]:
    """Problems of networks that may be reached beyond the public internet; they stand at `path`."""
    for index, text in enumerate(ranges):
        here = (*path, index)
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            yield Problem(code, here, f"{shown(text)} is not a network", "for example 10.1.0.0/16 or fd00::/8")
            continue
        if str(network) != text:
            yield Problem(code, here, f"{shown(text)} is not how this network is written", f"write {network}")
        elif network.prefixlen == 0:
            yield Problem(code, here, f"{text} is every network there is", "name the networks that are needed")
