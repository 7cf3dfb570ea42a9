"""The end of processes that somebody else reaps: seen and brought about through pidfds, which never mean another process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from pathlib import Path


def over(pidfd: int) -> bool:
    """Whether it has ended, reaped or not."""
    return _readable(pidfd, 0)


def kill(pidfd: int) -> None:
    """Kill it, if it has not ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def watched(pid: int) -> int | None:
    """A pidfd of a child of this process; None: it has ended and was reaped."""
    try:
        found = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if reaped(found):
        # The number is another process's already.
        os.close(found)
        return None
    return found


def reaped(pidfd: int) -> bool:
    """Whether a child of this process was reaped (or it never was one)."""
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


async def readable(descriptor: int, seconds: float) -> bool:
    """Wait until there is something to read, or its end, for at most `seconds`; False: nothing has come.

    Whoever is cancelled here has waited all the same, up to a tenth of a second: what is killed is over in less than that.
    """
    if _readable(descriptor, 0):
        return True
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(descriptor, came.set)
    try:
        async with asyncio.timeout(seconds):
            await came.wait()
    except TimeoutError:
        return False
    except asyncio.CancelledError:
        _readable(descriptor, 100)
        raise
    finally:
        loop.remove_reader(descriptor)
    return True


def _readable(descriptor: int, milliseconds: int) -> bool:
    asked = select.poll()
    asked.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(asked.poll(milliseconds))


def child_of(pid: int, namespace: int) -> int | None:
    """A pidfd of the process `pid`, if it is in the pid namespace `namespace` (an inode); None: it has ended."""
    try:
        found = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, found)
        # Its number may be another process's by now.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/ns/pid").stat().st_ino == namespace and not over(found):
                stack.pop_all()
                return found
    return None


def childless(pid: int) -> bool:
    """Whether `pid` has no children, living or unreaped. Of the first process of a pid namespace: whether it is alone in there.

    The kernel answers this for one moment. It says no where it was built without an answer.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return not Path(f"/proc/{pid}").exists()
    try:
        return not os.read(descriptor, 64)
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
