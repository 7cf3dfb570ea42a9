"""What this host gives to the hands, and to the brain: how processes can be set apart here, each finding by trying or by looking.

Quick: one process is started. What it can do is for `agentos doctor --escape`, which tries it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentos.abi.errors import AgentOSError
from agentos.boot.finding import Finding, Level
from agentos.boot.harness_place import brainly, launch_of
from agentos.drivers.process import Child
from agentos.sandbox.adapters.bubblewrap import bwrap_program
from agentos.sandbox.adapters.bubblewrap_place import SETTLE_S
from agentos.sandbox.adapters.cgroups import groups
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.adapters.seccomp import filter_program
from agentos.sandbox.adapters.users import users
from agentos.sandbox.port import Launch
from agentos.sandbox.profile import standard

ENGINES: Final = ("podman", "docker")


def hands() -> Iterator[Finding]:
    """Each finding about processes of tools."""
    yield Finding(
        "hands (file tools)", Level.OK, "in the runtime; every path is opened below the workspace without following links"
    )
    yield Finding(
        "hands (exec, MCP servers)",
        Level.OK,
        "in the sandbox of their tool: bubblewrap without a network, unless another one is declared",
    )
    yield from _bubblewrap()
    yield namespaces(os.geteuid(), Path("/proc/sys"))
    yield _filter()
    yield from _users()
    yield _limits()
    yield Finding(
        "workspace size",
        Level.WEAK,
        "each file is bounded (`limits.fileMiB`), all files of a workspace together only by the disk",
        "put the home on a file system of its own, or one with quotas",
    )
    found = [f"{name} at {path}" for name in ENGINES if (path := shutil.which(name))]
    yield Finding("containers", Level.OK, ", ".join(found) or "no engine: sandboxes with `isolation: container` cannot be used")


def _bubblewrap() -> Iterator[Finding]:
    caught: list[str] = []
    brain = "brain (harness)"
    try:
        with tempfile.TemporaryDirectory(prefix="agentos-doctor-") as folder:
            version = asyncio.run(_started(Launch(("true",), standard(), Path(folder), "doctor/doctor")))
    except AgentOSError as error:
        yield Finding("bubblewrap", Level.FAIL, f"{error.message}: tools that start a process are refused", error.mend or "")
        found = "a process of the runtime's user with an empty environment: there is no sandbox; declared harnesses are refused"
        mend = "mend bubblewrap; until then the gate still decides every effect, whatever the harness does"
        yield Finding(brain, Level.WEAK, found, mend)
        return
    yield Finding("bubblewrap", Level.OK, f"{version}; a process was started in it")
    try:
        asyncio.run(_started(launch_of(("cat", "/etc/shadow"), brainly(), "doctor/brain", caught.append)))
    except AgentOSError as error:
        yield Finding(brain, Level.FAIL, f"no harness can be started: {error.message}", error.mend or "")
        return
    if caught:
        found = "a sandbox with a pipe alone; who makes a socket or opens a file where homes are is killed, as was tried"
        yield Finding(brain, Level.OK, found)
    else:
        found = "a sandbox with a pipe alone; who opens a file where homes are is not seen"
        yield Finding(brain, Level.WEAK, found, "let the file system of TMPDIR or /dev/shm be watched (inotify)")


async def _started(launch: Launch) -> str:
    """Run a process to its end in a place. Raises SandboxUnavailable."""
    async with HostSandboxes(None).place(launch) as place:
        ended = await Child(place).run()
    if ended.code != 0:
        said = ended.complaints.decode("utf-8", "replace").strip().splitlines()
        raise AgentOSError(f"exit code {ended.code}: {said[-1] if said else 'no word'}")
    return _version()


def _version() -> str:
    return subprocess.run([bwrap_program(), "--version"], capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def namespaces(user: int, system: Path) -> Finding:
    """Whether `user` may make user namespaces, as the settings below `system` (/proc/sys) say."""
    if user == 0:
        return Finding("user namespaces", Level.OK, "not needed: the runtime is root, and gives its processes other users")
    held = [
        f"{path.replace('/', '.')}={closed}"
        for path, closed in (
            ("user/max_user_namespaces", 0),
            ("kernel/unprivileged_userns_clone", 0),
            ("kernel/apparmor_restrict_unprivileged_userns", 1),
        )
        if _number(system / path) == closed
    ]
    if held:
        mend = "let the host make them, or declare another `isolation`"
        return Finding("user namespaces", Level.WEAK, f"held back by {', '.join(held)}", mend)
    most = _number(system / "user/max_user_namespaces")
    return Finding("user namespaces", Level.OK, f"this user may make {'them' if most is None else most}")


def _filter() -> Finding:
    try:
        size = len(filter_program())
    except AgentOSError as error:
        return Finding("system call filter", Level.FAIL, error.message, error.mend or "")
    return Finding("system call filter", Level.OK, f"libseccomp, {size // 8} instructions")


def _users() -> Iterator[Finding]:
    try:
        able = users()
    except AgentOSError as error:
        yield Finding("users of tools", Level.FAIL, error.message, error.mend or "")
        return
    if able.root and able.many:
        yield Finding("users of tools", Level.OK, "each session's processes have a user of their own")
    elif able.root:
        mend = "map more users into the container that the runtime is in"
        yield Finding("users of tools", Level.WEAK, "one user (nobody) for all sessions", mend)
    else:
        yield Finding(
            "users of tools",
            Level.WEAK,
            "the runtime's own user, in a user namespace",
            "run the runtime as root to give each session a user of its own, or each tenant a runtime of its own",
        )
    if able.root:
        yield Finding("user", Level.WEAK, "the runtime itself would run as root; no tool does", "run it as a user of its own")


def _limits() -> Finding:
    able = groups(os.getpid())
    if able is not None:
        soon = f"{SETTLE_S * 1000:.0f} ms after it began"
        found = f"cgroup v{able.version}: memory and processes of a call are bounded together, from {soon} on"
        return Finding("limits of tools", Level.OK, found)
    return Finding(
        "limits of tools",
        Level.WEAK,
        "rlimit: each process is bounded, and all of a call together only in their number",
        "delegate a cgroup to the runtime: `Delegate=yes` in its systemd unit",
    )


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
