"""Which adapter makes the place of a process: the one that its profile declares, and never a weaker one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

from agentos.sandbox.adapters.bare import Bare
from agentos.sandbox.adapters.bubblewrap import Bubblewrap
from agentos.sandbox.adapters.container import Containers
from agentos.sandbox.port import Launch, Place
from agentos.sandbox.profile import Access, Isolation, Profile

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Kind(Protocol):
    def place(self, launch: Launch) -> AbstractAsyncContextManager[Place]: ...

    def workspace(self, workspace: Path) -> str: ...


class HostSandboxes:
    """The sandboxes of this host; see `sandbox.port.Sandboxes`.

    sandboxes = HostSandboxes(home)
    async with sandboxes.place(Launch(("python", "-V"), standard(), workspace, "default/s-1")) as place:
        ...
    """

    def __init__(self, home: Path | None, environ: Mapping[str, str] | None = None) -> None:
        """`home`: the runtime's own folder, of which nothing is ever mounted; `environ`: where `PATH` of the host is read."""
        variables = os.environ if environ is None else environ
        path = variables.get("PATH", _PATH)
        self._kinds: dict[Isolation, _Kind] = {
            Isolation.BUBBLEWRAP: Bubblewrap(home, path),
            Isolation.CONTAINER: Containers(home, variables),
            Isolation.UNSAFE_NONE: Bare(path),
        }

    def place(self, launch: Launch) -> AbstractAsyncContextManager[Place]:
        """A place for one process; see the port."""
        return self._kinds[launch.profile.isolation].place(launch)

    def workspace(self, profile: Profile, workspace: Path) -> str:
        """Where a process in a place of `profile` finds the workspace; without one, where it starts."""
        if profile.workspace is Access.NONE and profile.isolation is not Isolation.UNSAFE_NONE:
            return "/tmp"  # noqa: S108 - the sandbox's own
        return self._kinds[profile.isolation].workspace(workspace)
