"""Places outside of a workspace that a declaration names: paths and hosts, and those that none may name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Final

from agentos.egress.asking import NetDenied
from agentos.egress.names import host_of
from agentos.manifests.fault import Path, Problem, shown

_MACHINE: Final = ("/proc", "/sys", "/dev")
"""Trees that are the machine itself."""

_KEPT: Final = ("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh", "/etc/ssl/private", "/boot")
"""Trees that hold what opens the machine."""

_SOCKETS: Final = frozenset({"docker.sock", "podman.sock", "containerd.sock", "crio.sock"})
"""Sockets that give whoever reaches them the machine."""

_KEYS: Final = frozenset({".ssh", ".gnupg", ".aws", ".kube", ".docker"})
"""Folders of homes that hold keys."""

_TOPS: Final = frozenset({"/", "/etc", "/home", "/root", "/run", "/var", "/var/run", "/var/lib"})
"""Folders that are too much as a whole: the machine's own, and the homes of people."""

_LOADER: Final = re.compile(r"LD_.*|GLIBC_TUNABLES|GCONV_PATH")


def odd_path(path: str) -> str:
    """How an absolute path is to be written; "" if it is written so: no empty part, no `.` and `..`, no `/` at its end."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    straight = "/" + "/".join(parts)
    if ".." in parts:
        return "a path without .."
    return "" if straight == path else straight


def within(path: str, tree: str) -> bool:
    """Whether `path` is `tree` or below it."""
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def guarded(path: str) -> str:
    """What of the machine a straight absolute path would show that no declaration may; "" if nothing."""
    parts = path.split("/")[1:]
    for tree in (*_MACHINE, *_KEPT):
        if within(path, tree) or (tree in _KEPT and within(tree, path)):
            return tree
    if path in _TOPS or (parts[0] == "home" and len(parts) == 2):
        return path
    if parts[-1] in _SOCKETS:
        return path
    return next(("/" + "/".join(parts[: index + 1]) for index, part in enumerate(parts) if part in _KEYS), "")


def odd_host(pattern: str) -> str:
    """What is wrong with a host, or `*.` and a host, that its schema accepts; "" if nothing.

    Hosts are compared as text, in the one form that a request has: an address as `ipaddress` writes it, a name of labels.
    """
    host = pattern.removeprefix("*.")
    if host != pattern and _is_address(host):
        return "nothing is below an address"
    if ":" in host and not _is_address(host):
        return "no port stands here"
    try:
        form = host_of(host)
    except NetDenied:
        return "it is neither a name nor an address"
    return "" if form == host else f"that is asked for as {form}"


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def check_environment(env: Iterable[str], path: Path, code: str) -> Iterator[Problem]:
    """Variables that no process may be given: the loader of programs acts upon them before the sandbox is closed.

    `env` are the keys of the mapping at `path`.
    """
    for name in env:
        if (reason := odd_variable(name)) is not None:
            yield Problem(code, (*path, name), reason, "remove it; let the command set it inside", at="key")


def odd_variable(name: str) -> str | None:
    """Why no process may be given the variable `name`, as a clause; None if it may."""
    if _LOADER.fullmatch(name) is None:
        return None
    return f"{shown(name)} changes how programs are loaded, and so those that set the sandbox up"
