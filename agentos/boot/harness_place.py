"""Where harnesses work: a place with nothing of the host but its programs: no workspace, no network, no home.

What the command itself needs is there read-only: the package of the built-in loop, and for `agentos harness check` the files that
stand among the words.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import agentos
from agentos.abi import rpc
from agentos.abi.errors import DriverError, Unavailable
from agentos.boot.system import LOOP, LoopSpawner, ProcessHarness
from agentos.kernel.port import HarnessSpec
from agentos.sandbox.adapters.mounts import system_trees
from agentos.sandbox.piped import start_piped
from agentos.sandbox.port import Launch, Sandboxes
from agentos.sandbox.profile import Access, Isolation, Limits, Mount, Profile, standard

__all__ = ["LOOP", "PlacedSpawner", "bare", "brainly", "launch_of", "own_package", "words_and_mounts"]

_NOWHERE: Final = Path("/nowhere")
_LIMITS: Final = Limits(memory_mib=1024, processes=64, file_mib=1, tmp_mib=16, open_files=256)


def brainly(declared: Profile | None = None) -> Profile:
    """The profile of a harness: as a Sandbox declares it, with no workspace and no network whatever that says."""
    if declared is None:
        return replace(standard("harness"), workspace=Access.NONE, limits=_LIMITS, mounts=own_package())
    return replace(declared, workspace=Access.NONE, network=None)


def own_package() -> tuple[Mount, ...]:
    """This package, where it is installed from a checkout: else it stands among the libraries of its Python."""
    folder = os.path.realpath(Path(agentos.__file__).parent)
    return () if _stands(folder) else (Mount(folder, folder),)


def words_and_mounts(words: Sequence[str], folder: Path) -> tuple[tuple[str, ...], tuple[Mount, ...]]:
    """The words of a command typed in `folder`, its files by their whole paths, and mounts of those that are not there anyway."""
    found: list[str] = []
    mounts: dict[str, Mount] = {}
    for number, word in enumerate(words):
        path = os.path.realpath(folder / word)
        # A bare first word is a program on the path, whatever lies in this folder.
        if (number == 0 and "/" not in word) or word.startswith("-") or not Path(path).exists() or path == "/":
            found.append(word)
            continue
        whole = os.path.normpath(folder / word)
        if _stands(whole):
            found.append(whole)
            continue
        found.append(path)
        mounts[path] = Mount(path, path)
    return tuple(found), tuple(mounts.values())


def launch_of(command: Sequence[str], profile: Profile, owner: str) -> Launch:
    """The launch of a harness."""
    return Launch(tuple(command), profile, _NOWHERE, owner, env={"LANG": "C.UTF-8"})


def bare(profile: Profile) -> Profile:
    """The same without any sandbox."""
    return replace(profile, isolation=Isolation.UNSAFE_NONE, mounts=())


class PlacedHarness(ProcessHarness):
    """A harness in a place, which is left when it is stopped."""

    def __init__(self, session: str, process: asyncio.subprocess.Process, place: AsyncExitStack) -> None:
        super().__init__(session, process)
        self._place = place

    async def stop(self) -> int | None:
        try:
            return await super().stop()
        finally:
            await self._place.aclose()


class PlacedSpawner(LoopSpawner):
    """Starts declared programs in places, each for one session; the built-in loop as `LoopSpawner` does."""

    def __init__(self, sandboxes: Sandboxes, command: Sequence[str] = LOOP) -> None:
        super().__init__(command)
        self._sandboxes = sandboxes

    async def spawn_declared(self, tenant: str, session: str, harness: HarnessSpec, profile: Profile | None) -> ProcessHarness:
        """See `kernel.port.Spawner`."""
        if profile is not None and profile.isolation is Isolation.UNSAFE_NONE:
            raise DriverError(
                f"sandbox {profile.name} isolates nothing, and no harness is run so", mend="declare another isolation"
            )
        launch = launch_of(harness.command, brainly(profile), f"{tenant}/{session}")
        async with AsyncExitStack() as stack:
            place = await stack.enter_async_context(self._sandboxes.place(launch))
            try:
                process = await start_piped(place, rpc.MAX_FRAME)
            except OSError as error:
                raise Unavailable(f"no harness could be started for session {session}: {error.strerror}") from error
            started = PlacedHarness(session, process, stack.pop_all())
        try:
            await place.started(process.pid)
        except BaseException:
            await started.stop()
            raise
        return started


def _stands(path: str) -> bool:
    """Whether a path of the host is the same in every sandbox."""
    return any(path == tree.at or path.startswith(tree.at.rstrip("/") + "/") for tree in system_trees())
