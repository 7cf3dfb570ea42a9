"""`unsafe-none`: a plain process of the runtime's own user, which sees and may do all that the runtime may.

It is there for machines on which nothing better works and for tools that need the whole machine. Each use is logged as a warning,
and policy can forbid it (`isolation` of a sandbox is in its input). What is kept: the process has no variables but its own, is
bounded by prlimit, and is killed with its group. Files of secrets are refused: anybody on the machine could be their reader.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import agentos
from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.sandbox.adapters.ending import kill, over, readable, reaped, watched
from agentos.sandbox.adapters.rlimits import limit, rlimits
from agentos.sandbox.inside import Tree, environment, folder_of, program, relayed, workspace_at
from agentos.sandbox.port import Launch, Place, SandboxUnavailable
from agentos.sandbox.profile import Access, Profile

_log = logging.getLogger(__name__)
_DEATH_S: Final = 10.0
_EVERYTHING: Final = (Tree("/", "/"),)


class Bare:
    """Places that are none."""

    def __init__(self, path: str) -> None:
        """`path`: where the host looks for programs."""
        self._python = os.path.realpath(sys.executable)
        self._path = ":".join(dict.fromkeys((f"{sys.prefix}/bin", *path.split(":"))))

    def place(self, launch: Launch) -> AbstractAsyncContextManager[Place]:
        """See `Sandboxes.place`."""
        return self._place(launch)

    def workspace(self, workspace: Path) -> str:
        """Where the workspace is found: where it is."""
        return os.fspath(workspace)

    @asynccontextmanager
    async def _place(self, launch: Launch) -> AsyncIterator[Place]:
        profile = launch.profile
        _log.warning("sandbox %s is unsafe-none: %s runs with all rights of the runtime", profile.name, launch.command[0])
        if launch.secrets:
            raise DriverError(
                f"sandbox {profile.name} isolates nothing, so no file of a secret is put there",
                mend="hand the credential over as a variable, or declare `isolation: bubblewrap`",
            )
        if profile.mounts:
            raise SandboxUnavailable(
                f"sandbox {profile.name} is unsafe-none and cannot mount", mend="remove `mounts`: all of the host is there anyway"
            )
        with contextlib.ExitStack() as files:
            authority = None
            if launch.door is not None and launch.door.authority is not None:
                folder = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="agentos-authority-")))
                (folder / "authority.pem").write_bytes(launch.door.authority)
                authority = os.fspath(folder / "authority.pem")
            top = "/tmp" if profile.workspace is Access.NONE else os.fspath(launch.workspace)  # noqa: S108 - nothing is put there
            # The relay takes a port that is free, and puts it there.
            proxy = None if launch.door is None else "http://127.0.0.1:0"
            env = environment(launch, self._path, proxy=proxy, authority=authority, home=top)
            command = (program(launch.command[0], env["PATH"], _EVERYTHING), *launch.command[1:])
            if launch.door is not None:
                relay = os.fspath(Path(agentos.__file__).parent / "egress" / "relay.py")
                command = relayed(self._python, relay, os.fspath(launch.door.socket), 0, command)
            inside = folder_of(launch)
            cwd = top + inside[len(workspace_at(profile)) :]
            place = BarePlace(command, env, cwd, profile)
            try:
                yield place
            finally:
                await place.end()


@dataclass(slots=True)
class BarePlace:
    """See `sandbox.port.Place`. Whoever starts the process gives it a session of its own."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    profile: Profile
    pass_fds: Sequence[int] = ()
    _group: int | None = field(default=None, init=False)
    _watched: int | None = field(default=None, init=False)

    async def started(self, pid: int) -> None:
        """See `Place.started`. It has begun already: the limits hold from now on."""
        self._watched = watched(pid)
        with contextlib.suppress(ProcessLookupError):
            if self._watched is not None and os.getpgid(pid) != pid:
                raise SandboxUnavailable(
                    "a process was started in the process group of the runtime, and could not be killed with its own",
                    mend="start it with process_group=0",
                )
        self._group = pid
        if self._watched is not None:
            try:
                limit(pid, rlimits(self.profile.limits))
            except SandboxUnavailable:
                # It may have ended, and been reaped, while that was tried.
                if not over(self._watched):
                    raise

    def report(self) -> dict[str, Json]:
        return self.profile.told() | {"limits": "rlimit"}

    async def end(self) -> None:
        """Kill it and its group."""
        try:
            if self._group is not None and not _given_away(self._group, self._watched):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._group, signal.SIGKILL)
            if self._watched is not None:
                kill(self._watched)
                if not await readable(self._watched, _DEATH_S):
                    _log.error("a process of sandbox %s was killed and is not gone", self.profile.name)
        finally:
            if self._watched is not None:
                os.close(self._watched)


def _given_away(group: int, leader: int | None) -> bool:
    """Whether the number of a group is another process's by now; `leader`: a pidfd of who had it, None: that was reaped.

    It is not as long as the leader is there or not reaped, nor as long as anybody is in the group.
    """
    return (leader is None or reaped(leader)) and Path(f"/proc/{group}").exists()
