"""The real clock, randomness and harness processes. Nothing below `boot` takes them from the operating system itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

from agentos.abi import rpc
from agentos.abi.errors import Unavailable
from agentos.kernel.port import Brief, HarnessSilent, Left, Misdeed

log = logging.getLogger(__name__)

GRACE: Final = 1.0
"""Seconds a harness gets to leave by itself before it is killed."""

SILENCE: Final = 300.0
"""Seconds that a harness may leave the kernel waiting for a frame, or with one that it does not read."""

_KILLED_BY_FILTER: Final = frozenset({-signal.SIGSYS, 128 + signal.SIGSYS})
"""Exit codes of who made a system call that harnesses are killed for: of a plain process, and through bubblewrap."""

_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The clock that also counts while the machine is suspended, where there is one: who slept must find that time has passed."""


def settle_heap() -> None:
    """Tell the garbage collector of a process that only serves: what is loaded by now stays; young garbage is swept less often.

    Every syscall makes hundreds of small values that reference counting frees; with the defaults the collector walks the modules
    and the schemas again and again, which was half of a syscall's time on the processor.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


class SystemTimer:
    """The operating system's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_us(self) -> int:
        return time.clock_gettime_ns(_STEADY) // 1_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemRandom:
    """The operating system's random source."""

    def token(self, size: int) -> bytes:
        return secrets.token_bytes(size)


LOOP: Final = (sys.executable, "-I", "-m", "agentos.harness")
"""The built-in loop's command."""


class LoopSpawner:
    """Starts harnesses, each a process of its own: no environment but PATH, no inherited descriptors."""

    def __init__(self, command: Sequence[str] = LOOP) -> None:
        self._command = tuple(command)

    async def spawn(self, brief: Brief) -> ProcessHarness:
        """See `kernel.port.Spawner`: the built-in loop, whatever the brief says."""
        session = brief.session
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
                limit=rpc.MAX_FRAME,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"no harness could be started for session {session}: {error.strerror}") from error
        return ProcessHarness(session, process)


class ProcessHarness:
    """A harness process and its pipe. `silence_s` is how long it may keep the kernel waiting for a frame."""

    def __init__(self, session: str, process: asyncio.subprocess.Process, *, silence_s: float = SILENCE) -> None:
        self._session = session
        self._process = process
        self._silence_s = silence_s
        self._complaints = asyncio.create_task(self._drain_stderr())

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._process.returncode is None

    def rest(self) -> asyncio.Future[None]:
        """Never done: it drives one session alone."""
        return asyncio.get_running_loop().create_future()

    def rise(self) -> None:
        """Nothing to do."""

    def hint(self, frame: bytes) -> None:
        """See `HarnessProcess.hint`: sent only if nothing else waits to be sent."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing() and not stdin.transport.get_write_buffer_size():
            stdin.write(frame)

    @property
    def misdeed(self) -> Misdeed | None:
        """What it was killed for, once that is known."""
        return Misdeed.NETWORK if self._process.returncode in _KILLED_BY_FILTER else None

    async def read_frame(self) -> bytes:
        stdout = self._process.stdout
        if stdout is None:
            return b""
        line = await self._line(stdout)
        # Frames that wait in the buffer are read without a pause: others must come to their turn as well.
        await asyncio.sleep(0)
        return line.rstrip(b"\n")

    async def _line(self, stdout: asyncio.StreamReader) -> bytes:
        until = asyncio.get_running_loop().time() + self._silence_s
        while asyncio.get_running_loop().time() < until:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(GRACE, self._silence_s)):
                    return await stdout.readline()
            if self._process.returncode is not None:
                return b""  # it has left; whoever still holds its end of the pipe is not the harness
        raise HarnessSilent(f"it said nothing for {self._silence_s:g} s")

    async def write_frame(self, frame: bytes) -> None:
        stdin = self._process.stdin
        if stdin is None:
            return
        try:
            async with asyncio.timeout(self._silence_s):
                stdin.write(frame)
                await stdin.drain()
        except TimeoutError as error:
            raise HarnessSilent(f"it did not read for {self._silence_s:g} s") from error
        except (BrokenPipeError, ConnectionResetError):
            log.debug("session %s: the harness has closed its end", self._session)

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        """See `HarnessProcess.stop`: the process ends, whatever `reuse` says."""
        del reuse
        if self._process.stdin is not None:
            self._process.stdin.close()
        more = False
        try:
            more = finished and await self._goes_on()
            await self._ended()
        finally:
            # Whatever the harness has started ends with it. Who has left its group may still hold the pipes: their end, for
            # which `Process.wait` and the reading of standard error would wait as well, is not waited for.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._ended()
            self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - else the pipes stay open here
            self._complaints.cancel()
            await asyncio.wait([self._complaints])
        return Left(self._process.returncode, self.misdeed or (Misdeed.AFTER_FINISH if more else None))

    async def _goes_on(self) -> bool:
        """Whether it says another word before it ends."""
        try:
            async with asyncio.timeout(GRACE):
                while rpc.is_left(frame := await self.read_frame()):
                    pass
                return frame != b""
        except ValueError:
            return True  # a word too long
        except (TimeoutError, HarnessSilent):
            return False

    async def _ended(self) -> None:
        """Wait for the end of the process, but no longer than the grace."""
        if self._process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self._process.wait()

    async def _drain_stderr(self) -> None:
        """Read what a harness writes on standard error: told by its size, and in its beginning for whoever debugs.

        It may hold words of the payload, which an erasure does not find in a log, and lines made to look like ours.
        """
        stderr = self._process.stderr
        if stderr is None:
            return
        size = 0
        while chunk := await stderr.read(4096):
            if size < 64 * 1024:
                log.debug("harness of %s: %r", self._session, chunk)
            size += len(chunk)
        if size:
            log.info("harness of %s wrote %d bytes to standard error", self._session, size)
