"""What whoever starts a process in a sandbox hands in, and is given.

async with sandboxes.place(launch) as place:
    transport, _ = await loop.subprocess_exec(
        ..., *place.argv, env=place.env, cwd=place.cwd, pass_fds=place.pass_fds, process_group=0
    )
    await place.started(transport.get_pid())          # limits are set, and only then the program begins
    ...
                                                      # leaving the block kills whatever is still there
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.sandbox.profile import Profile


class SandboxUnavailable(DriverError):
    """This host cannot set a process apart as it is declared, so nothing was started."""

    code = "driver.sandbox"


@dataclass(frozen=True, slots=True)
class Door:
    """The way out of a sandbox: the unix socket of its proxy on the host, and the authority to trust where it inspects (PEM)."""

    socket: Path
    authority: bytes | None = None
    settle: Callable[[], Awaitable[None]] | None = field(default=None, repr=False, compare=False)
    """A call is over, and the process stays: cuts what was let through for it; returns once that was told."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be started. `command[0]` is an absolute path on the host or a name on `PATH`; words are passed as they are."""

    command: tuple[str, ...]
    profile: Profile
    workspace: Path
    """The session's workspace on the host (absolute)."""
    owner: str
    """`tenant/session`: processes of different owners never share a user where the runtime can give each one."""
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Variables of the process, beside those of the profile; credentials may be among them."""
    folder: str = ""
    """The folder of the workspace to start in, relative; "": its top."""
    door: Door | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    """Files below `/run/secrets`, by name: their content."""
    guard: Callable[[str], None] | None = field(default=None, repr=False, compare=False)
    """For a process that is to have its pipe and nothing else, where namespaces set it apart: who makes a socket in it is killed,
    there are traps where homes are, and this is called with the path of what it opens of them, at the latest when it is left."""
    decision: str = ""
    """The hash of the event that decided the call which it is started for."""


class Place(Protocol):
    """A place that is ready for one process, which must be started as the leader of a process group."""

    @property
    def argv(self) -> Sequence[str]:
        """What to execute; its first word is an absolute path. No credential is among the words."""

    @property
    def env(self) -> Mapping[str, str]:
        """The whole environment to execute it with."""

    @property
    def cwd(self) -> str:
        """The folder to execute it in."""

    @property
    def pass_fds(self) -> Sequence[int]:
        """Descriptors that it must inherit."""

    async def started(self, pid: int) -> None:
        """To be called once with the pid of the process: sets the limits, and lets the program begin.

        Raises SandboxUnavailable when they cannot be set; the program has not begun then.
        """

    def report(self) -> dict[str, Json]:
        """What the log is told: `{name, digest, isolation, limits: cgroup | rlimit | none}`."""


class Sandboxes(Protocol):
    """Places for processes."""

    def place(self, launch: Launch) -> AbstractAsyncContextManager[Place]:
        """A place for one process, until the block is left: then all of its processes are dead. Raises SandboxUnavailable."""

    def workspace(self, profile: Profile, workspace: Path) -> str:
        """The absolute path at which a process in a place of `profile` finds the workspace."""
