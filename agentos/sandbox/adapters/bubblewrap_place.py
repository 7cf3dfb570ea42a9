"""One place of bubblewrap, from the words to start it with to the death of its last process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.sandbox.adapters.cgroups import Group, Groups
from agentos.sandbox.adapters.ending import child_of, childless, kill, over, readable
from agentos.sandbox.adapters.rlimits import limit, rlimits
from agentos.sandbox.port import SandboxUnavailable
from agentos.sandbox.profile import Profile

_log = logging.getLogger(__name__)

SETTLE_S: Final = 0.05
"""Seconds after the beginning at which a process is moved into its control group: many a call is over by then."""

_BEGIN_S: Final = 10.0
"""Seconds that bubblewrap may take to make the namespaces."""

_DEATH_S: Final = 10.0
"""Seconds that killed processes may take to be gone."""

_OWN: Final = 3
"""Processes of bubblewrap and of the relay, beside those of the command."""

_HOLD: Final = 4
"""How many times its processes a user may have where a group bounds them: until that is joined, and beside later places."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one start needs, and the descriptors that are open for it."""

    bwrap: Sequence[str]
    mounts: bytes
    """What bubblewrap reads as arguments, each with a NUL behind it; the first is one that takes `--perms`."""
    command: Sequence[str]
    env: Mapping[str, str]
    passed: Sequence[int]
    files: contextlib.ExitStack


class BubblewrapPlace:
    """See `sandbox.port.Place`."""

    def __init__(self, held: Held, profile: Profile, groups: Groups | None, together: int, *, root: bool) -> None:
        """`together`: how many processes all live places of this user may have; `root`: whether the runtime is root."""
        self._profile = profile
        self._groups = groups
        self._processes = together * (_HOLD if groups is not None else 1) + _OWN
        self._root = root
        self._env = held.env
        self._mounts = held.mounts
        self._theirs = held.files
        """Descriptors that bubblewrap inherits: ours are closed as soon as it has them."""
        self._ours = contextlib.ExitStack()
        self._giving = self._ours.enter_context(contextlib.ExitStack())
        arguments, self._arguments = self._pipe(self._giving)
        self._status, status = self._pipe(self._ours, to_us=True)
        # `--perms` waits for the first of the arguments: if there are none, since nobody is left to write them, it fails.
        words = [*held.bwrap, "--json-status-fd", str(status), "--perms", "0755", "--args", str(arguments)]
        if _has_terminal():
            # Out of reach of the terminal that the runtime was started from. Where there is none, a session would bring
            # nothing, and make the kernel schedule the process as a new group, late on a busy machine.
            words[1:1] = ["--new-session"]
        passed = [*held.passed, arguments, status]
        self._hold: int | None = None
        if not root:
            hold, self._hold = self._pipe(self._ours)
            words[1:1] = ["--block-fd", str(hold)]
            passed.append(hold)
        self._argv = (*words, "--", *held.command)
        self._passed = tuple(passed)
        self._pid = 0
        self._outer: int | None = None
        """A pidfd of bubblewrap."""
        self._inner: int | None = None
        """A pidfd of the first process of the pid namespace: all others die with it, and before it is gone."""
        self._let_go = False
        self._said = b""
        self._told = False
        self._first: int | None = None
        self._unbound = False
        self._group: Group | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._joining: asyncio.Future[bool] | None = None

    @property
    def argv(self) -> Sequence[str]:
        return self._argv

    @property
    def env(self) -> Mapping[str, str]:
        return self._env

    @property
    def cwd(self) -> str:
        return "/"

    @property
    def pass_fds(self) -> Sequence[int]:
        return self._passed

    def report(self) -> dict[str, Json]:
        return self._profile.told() | {"limits": "rlimit" if self._groups is None or self._unbound else "cgroup"}

    async def started(self, pid: int) -> None:
        """See `Place.started`. bubblewrap has done nothing yet: it waits for its arguments."""
        self._pid = pid
        try:
            self._outer = os.pidfd_open(pid)
        except OSError as error:
            raise SandboxUnavailable(f"bubblewrap cannot be watched: {error.strerror}") from error
        self._ours.callback(os.close, self._outer)
        self._theirs.close()
        if os.getpgid(pid) != pid:
            raise SandboxUnavailable(
                "a process of a sandbox was started in the process group of the runtime, and could signal it",
                mend="start it with process_group=0",
            )
        limit(pid, rlimits(self._profile.limits))
        if self._hold is None:
            # Root is not bounded by it; the user that the command becomes is.
            limit(pid, ((resource.RLIMIT_NPROC, self._processes),))
        self._give_arguments()
        if self._hold is not None:
            await self._let_go_of(self._hold)
        # What bubblewrap tells comes in pieces, and to be woken by each would cost more than all the rest.
        self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._settle)

    async def end(self) -> None:
        """Kill whatever is there still, wait until it is gone, and close all."""
        if self._timer is not None:
            self._timer.cancel()
        self._theirs.close()
        try:
            if self._outer is not None:
                await self._kill(self._outer)
        finally:
            self._ours.close()
            self._leave()

    def _give_arguments(self) -> None:
        """Let bubblewrap begin."""
        try:
            left = memoryview(self._mounts)
            while left:
                # A pipe takes 64 KiB at once, which is more than all mounts that can be declared in their usual length.
                left = left[os.write(self._arguments, left) :]
        except (BlockingIOError, BrokenPipeError) as error:
            raise SandboxUnavailable("bubblewrap did not take what it is to mount", mend="declare fewer mounts") from error
        self._let_go = True
        self._giving.close()

    async def _let_go_of(self, hold: int) -> None:
        """Bound how many processes there may be, once the user namespace is there, and let the program begin.

        Any earlier, the bound would count the processes of the runtime's own user as well.
        """
        child = await self._child()
        if child is None:
            raise SandboxUnavailable("bubblewrap could not make the namespaces", mend="see what it wrote to standard error")
        limit(child, ((resource.RLIMIT_NPROC, self._processes),))
        os.write(hold, b"1")

    async def _child(self) -> int | None:
        """Who the first process of the pid namespace is, once bubblewrap tells; None if it does not."""
        while not self._told and await readable(self._status, _BEGIN_S):
            self._read_status()
        return self._first

    def _read_status(self) -> None:
        """Read what bubblewrap says about itself, as far as it has: one line of JSON, in pieces."""
        if self._told:
            return
        try:
            piece = os.read(self._status, 4096)
        except BlockingIOError:
            return
        self._said += piece
        line, end, _ = self._said.partition(b"\n")
        if piece and not end:
            return
        self._told = True
        found = json.loads(line) if end else {}
        if "child-pid" not in found:
            return
        self._first = int(found["child-pid"])
        if self._ended_by_itself(self._first):
            return
        self._inner = child_of(self._first, int(found["pid-namespace"]))
        if self._inner is not None:
            self._ours.callback(os.close, self._inner)

    def _ended_by_itself(self, first: int) -> bool:
        """Whether the program has ended and left nobody. bubblewrap's own first process ends then too, which takes a while."""
        return b'"exit-code"' in self._said and childless(first)

    async def _kill(self, outer: int) -> None:
        try:
            # Killed between making its child and telling who that is, it could leave the child behind.
            if self._let_go:
                await self._child()
        finally:
            self._read_status()
            watched = [one for one in (self._inner, outer) if one is not None]
            for one in watched:
                kill(one)
        for one in watched:
            if one == self._inner and self._first is not None and childless(self._first):
                # It was killed, and nobody else is left: its namespaces need not be waited for.
                continue
            if not await readable(one, _DEATH_S):
                _log.error("a process of sandbox %s was killed and is not gone", self._profile.name)

    def _settle(self) -> None:
        """Learn who is to be killed in the end, and bound all processes together, beside the call."""
        self._read_status()
        if self._groups is None:
            return
        try:
            self._group = self._groups.make(self._profile.limits)
        except OSError as error:
            self._alone(error)
            return
        self._joining = asyncio.get_running_loop().run_in_executor(None, self._group.join, self._pid, self._alive)
        self._joining.add_done_callback(self._joined)

    def _alive(self) -> bool:
        return self._outer is not None and not over(self._outer)

    def _leave(self) -> None:
        """Take the control group away, once nobody is moving into it."""
        if self._group is None or self._groups is None:
            return
        if self._joining is None or self._joining.done():
            self._groups.remove(self._group)
        else:
            # That stops by itself, now that there is nobody to move.
            self._joining.add_done_callback(lambda _: self._leave())

    def _joined(self, joining: asyncio.Future[bool]) -> None:
        if joining.cancelled():
            return
        error = joining.exception()
        if isinstance(error, OSError):
            self._alone(error)
        elif error is not None:
            raise error
        elif not joining.result():
            _log.warning("a process of sandbox %s was killed: it multiplied faster than it could be bounded", self._profile.name)
            if self._inner is not None:
                kill(self._inner)

    def _alone(self, error: OSError) -> None:
        self._unbound = True
        _log.warning(
            "no control group for a process of sandbox %s, each is bounded alone: %s", self._profile.name, error.strerror
        )

    def _pipe(self, ours: contextlib.ExitStack, *, to_us: bool = False) -> tuple[int, int]:
        """A pipe, as reading and writing end; one of them is for bubblewrap."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        kept, given = (reader, writer) if to_us else (writer, reader)
        os.set_blocking(kept, False)
        self._theirs.callback(os.close, given)
        ours.callback(os.close, kept)
        return reader, writer


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, which its children would have too."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
