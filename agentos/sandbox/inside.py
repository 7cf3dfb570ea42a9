"""What a process finds in a sandbox: where its files stand, what its environment says, and the words it is started with.

Pure: the adapters put it there, each in its own way. A variable that the dynamic loader obeys would be obeyed by every program on
the way to the command too, and those have rights that the command has not; so such variables are set last, by `env`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos.abi.errors import DriverError
from agentos.sandbox.port import Launch
from agentos.sandbox.profile import Access, Profile

WORKSPACE: Final = "/workspace"
RUN: Final = "/run/agentos"
SECRETS: Final = "/run/secrets"
RELAY: Final = f"{RUN}/relay.py"
SOCKET: Final = f"{RUN}/egress.sock"
AUTHORITY: Final = f"{RUN}/authority.pem"
PORT: Final = 3128
"""Where the relay listens, on the loopback of a sandbox that has a network of its own."""

USER: Final = "agent"
"""The name of the only user there."""

_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
_TRUSTED: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "PIP_CERT")

# What glibc itself keeps from set-user-ID programs (sysdeps/generic/unsecvars.h), and `LD_*`.
_OBEYED: Final = frozenset(
    {
        "GCONV_PATH",
        "GETCONF_DIR",
        "GLIBC_TUNABLES",
        "HOSTALIASES",
        "LOCALDOMAIN",
        "LOCPATH",
        "MALLOC_CHECK_",
        "MALLOC_PERTURB_",
        "MALLOC_TRACE",
        "NIS_PATH",
        "NLSPATH",
        "RESOLV_HOST_CONF",
        "RES_OPTIONS",
        "TZDIR",
    }
)


@dataclass(frozen=True, slots=True)
class Tree:
    """A file or folder of the host (`source`) that stands in the sandbox (`at`)."""

    source: str
    at: str
    write: bool = False


def workspace_at(profile: Profile) -> str:
    """Where a process of `profile` starts and lives: the workspace, or where there is none `/tmp`."""
    return "/tmp" if profile.workspace is Access.NONE else WORKSPACE  # noqa: S108 - the sandbox's own


def folder_of(launch: Launch) -> str:
    """The folder to start in, as seen inside. Raises DriverError when it is not one of the workspace."""
    top = workspace_at(launch.profile)
    if not launch.folder:
        return top
    parts = launch.folder.split("/")
    if launch.folder.startswith("/") or ".." in parts or "\0" in launch.folder or launch.profile.workspace is Access.NONE:
        raise DriverError(f"{launch.folder!r} is not a folder of the workspace", mend="name a folder below the workspace")
    return f"{top}/{launch.folder}"


def environment(launch: Launch, path: str, *, proxy: str | None, authority: str | None, home: str) -> dict[str, str]:
    """The whole environment of the process. `proxy`: where its way out listens; `authority`: whom to trust, if that inspects."""
    env = {"PATH": path, "HOME": home, "USER": USER, "LOGNAME": USER, "LC_CTYPE": "C.UTF-8"}
    env.update(launch.profile.env)
    env.update(launch.env)
    if proxy is not None:
        env.update(dict.fromkeys(_PROXIES, proxy))
        env.update({"NO_PROXY": "", "no_proxy": ""})
    if authority is not None:
        env.update(dict.fromkeys(_TRUSTED, authority))
    return env


def apart(env: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split variables into those that every program on the way may see, and those that only the command itself may obey."""
    late = {name: value for name, value in env.items() if name.startswith("LD_") or name in _OBEYED}
    return {name: value for name, value in env.items() if name not in late}, late


def relayed(python: str, relay: str, socket: str, port: int, command: Sequence[str]) -> tuple[str, ...]:
    """The command behind the relay: a listener on the loopback that leads to `socket`."""
    return (python, "-I", "-S", relay, "--socket", socket, "--port", str(port), "--", *command)


def with_late(command: Sequence[str], late: Mapping[str, str]) -> tuple[str, ...]:
    """The command, with variables that only it may obey."""
    if not late:
        return tuple(command)
    return ("/usr/bin/env", *(f"{name}={value}" for name, value in sorted(late.items())), *command)


def seen_as(path: str, trees: Iterable[Tree]) -> str | None:
    """Where the host's `path` stands inside; None: nowhere."""
    found = [tree for tree in trees if path == tree.source or path.startswith(tree.source.rstrip("/") + "/")]
    if not found:
        return None
    tree = max(found, key=lambda tree: len(tree.source))
    return tree.at.rstrip("/") + path[len(tree.source.rstrip("/")) :]


def found_at(path: str, trees: Iterable[Tree]) -> str | None:
    """Which path of the host stands at `path` inside; None: none."""
    found = [tree for tree in trees if path == tree.at or path.startswith(tree.at.rstrip("/") + "/")]
    if not found:
        return None
    tree = max(found, key=lambda tree: len(tree.at))
    return tree.source.rstrip("/") + path[len(tree.at.rstrip("/")) :]


def program(word: str, path: str, trees: Sequence[Tree]) -> str:
    """The first word of a command as it is found inside. Raises DriverError when no such program is there."""
    if "/" in word:
        if not word.startswith("/"):
            raise DriverError(
                f"{word!r} is neither an absolute path nor a name on PATH", mend="write the whole path of the program"
            )
        inside = seen_as(word, trees)
        if inside is None or not os.access(word, os.X_OK):
            raise DriverError(
                f"there is no program {word} in the sandbox",
                mend="add its folder to `mounts` of the Sandbox, or look at the path",
            )
        return inside
    for folder in path.split(":"):
        outside = found_at(f"{folder}/{word}", trees) if folder.startswith("/") else None
        if outside is not None and os.access(outside, os.X_OK) and not Path(outside).is_dir():
            return f"{folder}/{word}"
    raise DriverError(
        f"there is no program {word!r} in the sandbox", mend="install it on the host, or add its folder to `mounts` and PATH"
    )
