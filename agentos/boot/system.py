"""The real clock, randomness and harness processes. Nothing below `boot` takes them from the operating system itself."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import time
from typing import Final

from agentos.abi import rpc
from agentos.abi.errors import Unavailable

log = logging.getLogger(__name__)

GRACE: Final = 1.0
"""Seconds a harness gets to leave by itself before it is killed."""


class SystemTimer:
    """The operating system's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemRandom:
    """The operating system's random source."""

    def token(self, size: int) -> bytes:
        return secrets.token_bytes(size)


class LoopSpawner:
    """Starts the built-in loop as a process of its own: no environment but PATH, no inherited descriptors."""

    async def spawn(self, session: str) -> ProcessHarness:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-m",
                "agentos.harness",
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
    """A harness process and its pipe."""

    def __init__(self, session: str, process: asyncio.subprocess.Process) -> None:
        self._session = session
        self._process = process
        self._complaints = asyncio.create_task(self._drain_stderr())

    async def read_frame(self) -> bytes:
        stdout = self._process.stdout
        if stdout is None:
            return b""
        line = await stdout.readline()
        return line.rstrip(b"\n")

    async def write_frame(self, frame: bytes) -> None:
        stdin = self._process.stdin
        if stdin is None:
            return
        try:
            stdin.write(frame)
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            log.debug("session %s: the harness has closed its end", self._session)

    async def stop(self) -> int | None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), GRACE)
        except TimeoutError:
            self._kill()
        finally:
            if self._process.returncode is None:
                self._kill()
                await self._process.wait()
            await self._complaints
        return self._process.returncode

    def _kill(self) -> None:
        try:
            self._process.kill()
        except ProcessLookupError:
            return

    async def _drain_stderr(self) -> None:
        """What a harness writes on standard error goes to the runtime's log, line by line and bounded."""
        stderr = self._process.stderr
        if stderr is None:
            return
        kept = 0
        while chunk := await stderr.read(4096):
            if kept < 64 * 1024:
                log.info("harness of %s: %s", self._session, chunk.decode("utf-8", "replace").rstrip())
                kept += len(chunk)
