"""One harness as a process: its pipe, and what can be seen of it from outside while it runs.

In a sandbox the program is a descendant of what was started, so whoever it is is looked for each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos.abi import rpc
from agentos.conformance.frames import Failed
from agentos.sandbox.piped import start_piped
from agentos.sandbox.port import Launch, Sandboxes
from agentos.sandbox.profile import Isolation

MAX_COMPLAINTS: Final = 64 * 1024
"""Bytes that a harness may write to standard error in a session."""

_DEATH_S: Final = 2.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KILLED_BY_FILTER: Final = 128 + signal.SIGSYS
"""Exit code of bubblewrap when its program made a system call that it is killed for."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How harnesses are started, and what is watched around them."""

    sandboxes: Sandboxes
    launch: Launch
    patience: float
    """How many seconds it may take for anything that it is waited for."""
    opened: Sequence[str] | None = None
    """What was opened where homes are so far, which grows; None: nobody watches."""


class Harness:
    """A started harness."""

    def __init__(self, process: asyncio.subprocess.Process, surroundings: Surroundings) -> None:
        self.patience = surroundings.patience
        self.isolated = surroundings.launch.profile.isolation is not Isolation.UNSAFE_NONE
        self.opened = surroundings.opened
        self.closed = False
        """Whether its input was closed."""
        self.complaints = 0
        """Bytes that it has written to standard error."""
        self.last_words = b""
        self._process = process
        self._reading = asyncio.create_task(self._drain())

    async def line(self, patience: float | None = None) -> bytes | None:
        """Its next line without the newline; None when it has left. Raises Failed, TimeoutError."""
        stdout = self._process.stdout
        if stdout is None:
            return None
        async with asyncio.timeout(self.patience if patience is None else patience):
            try:
                line = await stdout.readline()
            except ValueError:
                raise Failed(f"it wrote a frame of more than {rpc.MAX_FRAME} bytes") from None
        if line and not line.endswith(b"\n"):
            raise Failed("it left in the middle of a frame")
        if not line and self.isolated and await self._code() == _KILLED_BY_FILTER:
            raise Failed("it made a socket, and was killed for it")
        return line[:-1] if line else None

    async def _code(self) -> int | None:
        """How it has ended; None: it is there still, or whoever holds its pipes is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DEATH_S):
                await self._process.wait()
        return self._process.returncode

    async def write(self, data: bytes) -> None:
        """Send bytes; one who has left is no error here. Raises Failed when it does not read."""
        stdin = self._process.stdin
        if stdin is None or self.closed:
            return
        try:
            async with asyncio.timeout(self.patience):
                stdin.write(data)
                await stdin.drain()
        except TimeoutError:
            raise Failed(f"it did not read for {self.patience:g} s") from None
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True

    def close(self) -> None:
        """Close its input."""
        self.closed = True
        if self._process.stdin is not None:
            self._process.stdin.close()

    def deafen(self) -> None:
        """Close the end that reads its output."""
        self._output().close()

    @contextlib.contextmanager
    def unread(self) -> Iterator[None]:
        """While the block lasts its output stays in the pipe."""
        output = self._output()
        output.pause_reading()
        try:
            yield
        finally:
            output.resume_reading()

    def _output(self) -> asyncio.ReadTransport:
        transport = self._process._transport  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way to it
        pipe: asyncio.ReadTransport = transport.get_pipe_transport(1)
        return pipe

    async def left(self) -> int:
        """Its exit code, once it has left. Raises Failed when it stays."""
        try:
            async with asyncio.timeout(self.patience):
                return await self._process.wait()
        except TimeoutError:
            raise Failed(f"it is still there after {self.patience:g} s") from None

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def stop(self) -> None:
        """Kill whatever is there still."""
        self.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # The end of the pipes, which a grandchild may hold, would be waited for as well.
        await self._code()
        self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - else the pipes stay open here
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def _drain(self) -> None:
        stderr = self._process.stderr
        while stderr is not None and (chunk := await stderr.read(4096)):
            self.complaints += len(chunk)
            self.last_words = (self.last_words + chunk)[-2048:]

    def program(self) -> int | None:
        """The number that the host knows the program by: the first below what was started that is not bubblewrap itself."""
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and (parent := _parent(folder)) is not None:
                children.setdefault(parent, []).append(int(folder.name))
        found, wrapped = self._process.pid, _name(self._process.pid) == "bwrap"
        while wrapped and children.get(found):
            found = min(children[found])
            wrapped = _name(found) == "bwrap"
        return None if wrapped else found

    def terminate(self) -> bool:
        """Send SIGTERM to the program; whether that could be done."""
        found = self.program()
        if found is None:
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(found, signal.SIGTERM)
            return True
        return False

    def cpu_seconds(self) -> float | None:
        """Processor time of the program so far; None: it cannot be seen."""
        fields = _stat(Path(f"/proc/{self.program()}"))
        return None if fields is None else (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_bytes(self) -> int | None:
        """Memory that the program holds; None: it cannot be seen."""
        with contextlib.suppress(OSError):
            found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{self.program()}/status").read_text(), re.MULTILINE)
            return int(found[1]) * 1024 if found else None
        return None


@asynccontextmanager
async def started(surroundings: Surroundings) -> AsyncIterator[Harness]:
    """A harness, until the block is left: then it is dead. Raises SandboxUnavailable, DriverError, OSError."""
    async with surroundings.sandboxes.place(surroundings.launch) as place:
        process = await start_piped(place, rpc.MAX_FRAME)
        harness = Harness(process, surroundings)
        try:
            await place.started(process.pid)
            yield harness
        finally:
            await harness.stop()


def _stat(folder: Path) -> list[str] | None:
    """The fields of `stat` behind the name, the state first; None for a process that is gone."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _parent(folder: Path) -> int | None:
    fields = _stat(folder)
    return int(fields[1]) if fields else None


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
