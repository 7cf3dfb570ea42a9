"""One child process in a place, from its beginning to its end.

It is started without awaiting anything, so that there is no moment at which it runs and nobody knows of it. It has ended when the
program itself has: whatever it leaves behind is killed with its group (and by the place, when that is left), and a descendant
that holds its output open is not waited for. What stands in the pipes at the end is read all the same. Standard output is taken
up to a bound, and who writes more is killed; of standard error the end is kept.

    child = Child(place, stdin=b"some text")
    async with asyncio.timeout(30):
        ended = await child.run()
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from agentos.abi.errors import DriverError
from agentos.drivers.output import MAX_KEPT
from agentos.sandbox.port import Place

TAIL: Final = 64 * 1024
"""How many of the last bytes of standard error are kept."""

_CHUNK: Final = 256 * 1024
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended. `code` is 0 to 255; for one that a signal ended 128 and its number, as shells count."""

    code: int
    output: bytes
    complaints: bytes
    """The end of what it wrote to standard error."""
    flooded: bool
    """Whether it was killed because it wrote too much; `output` is the beginning then."""


class Child:
    """One process that is run once."""

    def __init__(self, place: Place, stdin: bytes | None = None, *, most: int = MAX_KEPT) -> None:
        """`stdin` is all that it can read; None: nothing. `most` is how many bytes of output are taken."""
        self.began = False
        """Whether the program may have begun."""
        self._place = place
        self._stdin = stdin
        self._most = most
        self._output = bytearray()
        self._complaints = bytearray()
        self._flooded = False

    @property
    def complaints(self) -> bytes:
        """The end of what it has written to standard error so far."""
        return bytes(self._complaints)

    async def run(self) -> Ended:
        """Start it, and wait for its end. Whoever cancels this leaves nothing of its group behind.

        Raises DriverError when it could not be started, and did not begin.
        """
        with contextlib.ExitStack() as files:
            out, err = _Pipe(files), _Pipe(files)
            process = self._spawn(files, out, err)
            end = _End(process)
            out.leave_to_child()
            err.leave_to_child()
            try:
                with out.reading(self._on_output, end.kill), err.reading(self._on_complaint, end.kill):
                    await self._started(process.pid)
                    await end.wait()
                # What it wrote before it ended is there by now; what others of its group would still write is not its own.
                out.drain(self._on_output)
                err.drain(self._on_complaint)
            finally:
                end.kill()
                await end.wait()
        code = process.returncode
        return Ended(code if code >= 0 else 128 - code, bytes(self._output), bytes(self._complaints), self._flooded)

    async def _started(self, pid: int) -> None:
        self.began = True
        try:
            await self._place.started(pid)
        except DriverError:
            self.began = False
            raise

    def _spawn(self, files: contextlib.ExitStack, out: _Pipe, err: _Pipe) -> subprocess.Popen[bytes]:
        place = self._place
        try:
            return subprocess.Popen(
                list(place.argv),
                env=dict(place.env),
                cwd=place.cwd,
                stdin=_readable(self._stdin, files),
                stdout=out.writer,
                stderr=err.writer,
                pass_fds=tuple(place.pass_fds),
                start_new_session=True,
            )
        except OSError as error:
            raise _not_started(str(error.strerror)) from error
        except ValueError as error:
            # A NUL in a word or a variable; the message of Python shows no value.
            raise _not_started(str(error)) from error

    def _on_output(self, data: bytes) -> bool:
        room = self._most - len(self._output)
        self._output += data[:room]
        self._flooded = self._flooded or len(data) > room
        return not self._flooded

    def _on_complaint(self, data: bytes) -> bool:
        self._complaints += data
        del self._complaints[:-TAIL]
        return True


class _End:
    """The end of a process: seen by the event loop, and reaped then, whoever still waits for it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            self._watched = os.pidfd_open(process.pid)
        except OSError as error:
            self.kill()
            process.wait()
            raise _not_started(str(error.strerror)) from error
        self._loop.add_reader(self._watched, self._ended)

    def kill(self) -> None:
        """Kill it and its group, unless it has ended."""
        # Until it is reaped, its number is of no other group.
        if not self._over.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> None:
        """Returns when it has ended and is reaped."""
        await self._over.wait()

    def _ended(self) -> None:
        self._loop.remove_reader(self._watched)
        os.close(self._watched)
        self.kill()
        self._process.wait()
        self._over.set()


class _Pipe:
    """A pipe that a child writes into and the event loop reads."""

    def __init__(self, files: contextlib.ExitStack) -> None:
        """Both ends are closed with `files`."""
        try:
            self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise _not_started(str(error.strerror)) from error
        files.callback(os.close, self._reader)
        self._ours = files.enter_context(contextlib.ExitStack())
        self._ours.callback(os.close, self.writer)
        os.set_blocking(self._reader, False)
        # A program under another user may open /dev/stdout, and that asks for the permissions of the pipe.
        os.fchmod(self.writer, 0o666)

    def leave_to_child(self) -> None:
        """Close our own writing end."""
        self._ours.close()

    @contextlib.contextmanager
    def reading(self, take: Callable[[bytes], bool], enough: Callable[[], None]) -> Iterator[None]:
        """Hand what comes to `take` while the block lasts; once that says no, read no more, and call `enough`."""
        loop = asyncio.get_running_loop()

        def ready() -> None:
            data = os.read(self._reader, _CHUNK)
            if data and take(data):
                return
            loop.remove_reader(self._reader)
            if data:
                enough()

        loop.add_reader(self._reader, ready)
        try:
            yield
        finally:
            loop.remove_reader(self._reader)

    def drain(self, take: Callable[[bytes], bool]) -> None:
        """Hand over what stands in the pipe now: never more, whoever goes on writing."""
        left = _waiting(self._reader)
        while left > 0 and (data := os.read(self._reader, min(left, _CHUNK))):
            left -= len(data)
            if not take(data):
                return


def _waiting(descriptor: int) -> int:
    """How many bytes can be read at once."""
    counted: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0]
    return counted


def _readable(data: bytes | None, files: contextlib.ExitStack) -> int:
    """A descriptor to read `data` from: sealed memory, which needs nobody to feed it and cannot be changed."""
    if data is None:
        return subprocess.DEVNULL
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    files.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as memory:
        memory.write(data)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _not_started(reason: str) -> DriverError:
    return DriverError(f"it could not be started: {reason}", mend="look at the command and the folder of the tool")
