"""Where harnesses work: a place with nothing of the host but its programs: no workspace, no network, no home.

What the command itself needs is there read-only: the package of the built-in loop, and for `agentos harness check` the files that
stand among the words.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import agentos
from agentos.abi import rpc
from agentos.abi.errors import DriverError, Unavailable
from agentos.boot.system import LOOP, LoopSpawner, ProcessHarness
from agentos.kernel.port import Brief, Left, Misdeed
from agentos.sandbox.adapters.mounts import system_trees
from agentos.sandbox.piped import start_piped
from agentos.sandbox.port import Launch, Sandboxes, SandboxUnavailable
from agentos.sandbox.profile import Access, Isolation, Limits, Mount, Profile, standard

__all__ = ["LOOP", "PlacedSpawner", "bare", "brainly", "launch_of", "own_package", "words_and_mounts"]

log = logging.getLogger(__name__)

_NOWHERE: Final = Path("/nowhere")
_LIMITS: Final = Limits(memory_mib=1024, processes=64, file_mib=1, tmp_mib=16, open_files=256)

_NICE: Final = 10
"""How far harnesses stand back for the runtime and its servers: one that multiplies must not take the processor from them."""


def brainly(declared: Profile | None = None) -> Profile:
    """The profile of a harness: as a Sandbox declares it, with no workspace and no network whatever that says.

    Mounts are read-only: what one session could leave there for another would carry no labels.
    """
    if declared is None:
        return replace(standard("harness"), workspace=Access.NONE, limits=_LIMITS, mounts=own_package())
    mounts = tuple(replace(mount, write=False) for mount in declared.mounts)
    return replace(declared, workspace=Access.NONE, network=None, mounts=mounts)


def own_package() -> tuple[Mount, ...]:
    """This package, where it is installed from a checkout: else it stands among the libraries of its Python."""
    folder = os.path.realpath(Path(agentos.__file__).parent)
    return () if _stands(folder) else (Mount(folder, folder),)


def words_and_mounts(words: Sequence[str], folder: Path, there: Sequence[Path] = ()) -> tuple[tuple[str, ...], tuple[Mount, ...]]:
    """The words of a command typed in `folder`, its files by their whole paths, and mounts of those that are not there anyway.

    What is below a path in `there` is there: a program in an environment of its own, which is a link, keeps its name.
    """
    found: list[str] = []
    mounts: dict[str, Mount] = {}
    for number, word in enumerate(words):
        path = os.path.realpath(folder / word)
        # A bare first word is a program on the path, whatever lies in this folder.
        if (number == 0 and "/" not in word) or word.startswith("-") or not Path(path).exists() or path == "/":
            found.append(word)
            continue
        whole = os.path.normpath(folder / word)
        if _stands(whole) or any(Path(whole).is_relative_to(place) for place in there):
            found.append(whole)
            continue
        found.append(path)
        mounts[path] = Mount(path, path)
    return tuple(found), tuple(mounts.values())


def launch_of(command: Sequence[str], profile: Profile, owner: str, guard: Callable[[str], None] | None = None) -> Launch:
    """The launch of a harness; `guard`: see `Launch`."""
    return Launch(tuple(command), profile, _NOWHERE, owner, env={"LANG": "C.UTF-8"}, guard=guard)


def bare(profile: Profile) -> Profile:
    """The same without any sandbox."""
    return replace(profile, isolation=Isolation.UNSAFE_NONE, mounts=())


class PlacedHarness(ProcessHarness):
    """A harness in a place, which is left when it is stopped."""

    def __init__(self, owner: str, process: asyncio.subprocess.Process, place: AsyncExitStack) -> None:
        super().__init__(owner, process)
        self._place = place
        self._opened = ""

    @property
    def alive(self) -> bool:
        """Whether it has not ended, and is not about to be."""
        return not self._opened and super().alive

    @property
    def misdeed(self) -> Misdeed | None:
        """What it was killed for, once that is known."""
        return Misdeed.HOME if self._opened else super().misdeed

    def caught(self, path: str) -> None:
        """It has opened `path`, where homes are: it is killed before another word of it is heard."""
        if self._opened:
            return
        self._opened = path
        log.warning("the harness of %s has opened %s, and is killed", self._session, path)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def read_frame(self) -> bytes:
        """See `HarnessProcess`. What it wrote behind a look at a home is not heard."""
        frame = await super().read_frame()
        # By the next round of the loop what it opened before it wrote this has been told.
        await asyncio.sleep(0)
        return b"" if self._opened else frame

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        """See `HarnessProcess.stop`: the process ends, whatever `reuse` says. Nothing of it is left then."""
        left = Left(None)
        try:
            left = await super().stop(reuse=reuse, finished=finished)
        finally:
            await self._place.aclose()
        # What it has opened in its last moments is told when the place is left.
        return replace(left, misdeed=self.misdeed or left.misdeed)


class PlacedSpawner:
    """Starts harnesses in places of their own. Where the host has none, the built-in loop alone runs without; that is said."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes
        self._placed = False
        self.weak = ""
        """Why the built-in loop runs without a place; "": it has one, or was not started yet."""

    async def start(self, owner: str, command: Sequence[str], profile: Profile | None) -> ProcessHarness:
        """A fresh process of `command` in a place of its own, which awaits its `initialize`; `profile`: as it was declared.

        `owner`: `tenant/…`, whoever may not share a user with others. Raises Unavailable when it cannot be started, and
        DriverError when the place cannot be had or the program is not in it.
        """
        if profile is not None and profile.isolation is Isolation.UNSAFE_NONE:
            raise DriverError(
                f"sandbox {profile.name} isolates nothing, and no harness is run so", mend="declare another isolation"
            )
        ours = tuple(command) == LOOP and profile is None
        if ours and self.weak:
            return await self._plain(owner)
        try:
            started = await self._start(owner, command, brainly(profile))
        except SandboxUnavailable as error:
            if not ours or self._placed:
                raise
            self.weak = f"{error.message}: the built-in loop runs without a sandbox, and no other harness runs"
            log.warning("harness: %s", self.weak)
            return await self._plain(owner)
        self._placed = True
        return started

    async def _plain(self, owner: str) -> ProcessHarness:
        tenant, _, name = owner.partition("/")
        return await LoopSpawner().spawn(Brief(tenant, name))

    async def _start(self, owner: str, command: Sequence[str], profile: Profile) -> PlacedHarness:
        found: list[PlacedHarness] = []

        def caught(path: str) -> None:
            for one in found:
                one.caught(path)

        launch = launch_of(command, profile, owner, caught)
        async with AsyncExitStack() as stack:
            place = await stack.enter_async_context(self._sandboxes.place(launch))
            try:
                process = await start_piped(place, rpc.MAX_FRAME)
            except OSError as error:
                raise Unavailable(f"no harness could be started for {owner}: {error.strerror}") from error
            started = PlacedHarness(owner, process, stack.pop_all())
            found.append(started)
        try:
            _stand_back(process.pid)
            await place.started(process.pid)
        except BaseException:
            await started.stop()
            raise
        return started


def _stand_back(pid: int) -> None:
    """Whatever the process starts inherits it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, max(_NICE, os.getpriority(os.PRIO_PROCESS, pid)))


def _stands(path: str) -> bool:
    """Whether a path of the host is the same in every sandbox."""
    return any(path == tree.at or path.startswith(tree.at.rstrip("/") + "/") for tree in system_trees())
