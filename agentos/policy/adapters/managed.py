"""Policy decided by OPA servers of our own: one child process per engine, started, watched, restarted and stopped here.

    factory = ManagedFactory()
    engine = await factory.load(modules, data)      # a new `opa run --server`, ready to be asked
    ...
    engine.close()                                  # the process is gone when this returns

One process per engine (tenant and revision) because a server holds one set of packages: a new revision is a new process,
the old one ends when nobody holds its engine any more, and no answer is ever of a mixture. It also makes an evaluation that
never ends something that can be ended: its process is killed and another takes its place.

A server listens on a unix socket in a folder that only its owner can enter (no port at all), and answers only to a token that
is made for each start. It gets no environment, may load nothing later, cannot be changed through its API, has a ceiling of
memory, and dies with this process (`tether`). While it is down every question is answered with EngineUnavailable: denied.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentos.abi.canonical import Json
from agentos.abi.errors import EngineUnavailable
from agentos.eventlog.adapters import tether
from agentos.policy.adapters import opa
from agentos.policy.adapters.opa_bundle import ROOT_OF_THE_SERVER, Bundle, archive, build_bundle
from agentos.policy.adapters.opa_program import VERSION, find_opa
from agentos.policy.adapters.server import Address, ServerEngine
from agentos.policy.port import Module

if TYPE_CHECKING:
    from agentos.policy.adapters.server_connection import Connection

_PREFIX: Final = "agentos-opa-"
_POLL: Final = 0.003
_TAIL: Final = 2000

_MAY_ASK: Final = """package system.authz

default allow := false

allow if {{
	crypto.sha256(input.identity) == "{digest}"
	input.method == "POST"
	input.path[0] == "v1"
	input.path[1] == "data"
}}
"""
"""Who may ask the server, and that asking is all. It holds the digest of the token: the token itself rests nowhere on disk."""


@dataclass(frozen=True, slots=True)
class ManagedSettings:
    """How managed servers are run."""

    program: Path | None = None
    """The `opa` to run; None: the one beside Python, else on PATH. It must be of the pinned version."""

    questions: int = 4
    """Questions to one server at the same time; more wait for their turn."""

    queue_seconds: float = 5.0
    """How long a question may wait for its turn."""

    load_seconds: float = 10.0
    """How long a server may take to start."""

    grace_seconds: float = 0.5
    """How long after its deadline an evaluation may go on, in case the machine was slow, until its process is killed."""

    memory_bytes: int = 1 << 30
    """The most that a server may allocate: a policy that builds a huge value ends its own process, not this one."""

    restart_seconds: float = 0.05
    """The wait before the second start in a row; it doubles up to 5 s while a server keeps ending at once."""


class ManagedFactory:
    """Makes engines that are OPA servers of our own."""

    def __init__(self, settings: ManagedSettings | None = None) -> None:
        self._settings = settings or ManagedSettings()
        self._swept = False
        self._engines: weakref.WeakSet[ManagedEngine] = weakref.WeakSet()

    @property
    def version(self) -> str:
        """`opa 1.20.2 (managed server)`; without the program, a sentence that says so."""
        try:
            find_opa(self._settings.program)
        except EngineUnavailable as error:
            return f"none: {error.message}"
        return f"opa {VERSION} (managed server)"

    @property
    def available(self) -> bool:
        """Whether the pinned program is at hand."""
        return not self.version.startswith("none")

    async def load(self, modules: Sequence[Module], data: Mapping[str, Json]) -> ManagedEngine:
        """Start a server that holds `modules` and `data`.

        Raises PolicyError with `where` as file:line; EngineUnavailable without the program or when the server does not come up.
        """
        if not self._swept:
            self._swept = True
            await asyncio.to_thread(_sweep)
        program = await asyncio.to_thread(find_opa, self._settings.program)
        # Its imports take a while, and an engine that moves here because of one policy must not stop the loop for the others.
        await asyncio.to_thread(import_module, "agentos.policy.adapters.server_connection")
        opa.refuse_unsteady(modules)
        bundle = await asyncio.to_thread(build_bundle, modules, data)
        engine = ManagedEngine(_Server(program, bundle, self._settings), bundle, self._settings)
        self._engines.add(engine)
        try:
            await engine.start()
        except BaseException:
            engine.close()
            raise
        return engine

    def close(self) -> None:
        """End every server that was started here, whoever still holds its engine."""
        for engine in tuple(self._engines):
            engine.close()


class _Server:
    """One `opa run --server` in a folder of its own: the process and what it needs on disk."""

    def __init__(self, program: Path, bundle: Bundle, settings: ManagedSettings) -> None:
        self._program = program
        self._bundle = bundle
        self._settings = settings
        self._token = secrets.token_urlsafe(32)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._log = self._folder / "opa.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> Address:
        return Address(socket=str(self._folder / "opa.sock"), token=self._token)

    def write(self) -> None:
        """Put the bundle on disk."""
        may_ask = _MAY_ASK.format(digest=hashlib.sha256(self._token.encode()).hexdigest())
        manifest = b'{"revision":"authorization","roots":["%s"],"rego_version":1}' % ROOT_OF_THE_SERVER.encode()
        (self._folder / "engine.tar.gz").write_bytes(self._bundle.content)
        (self._folder / "authorization.tar.gz").write_bytes(archive({".manifest": manifest, "authz.rego": may_ask.encode()}))

    def spawn(self) -> None:
        """Start the process. It is tied to the thread that calls this."""
        (self._folder / "opa.sock").unlink(missing_ok=True)
        command = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(self._program), "run", "--server"]
        command += ["--addr", f"unix://{self._folder}/opa.sock", "--unix-socket-perm", "600"]
        command += ["--authentication", "token", "--authorization", "basic"]
        command += ["--skip-version-check", "--log-level", "error", "--shutdown-grace-period", "1"]
        command += ["--bundle", "engine.tar.gz", "authorization.tar.gz"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={"HOME": str(self._folder), "GOGC": "400"},  # what is in ours, keys of models among it, is not for policies
                start_new_session=True,
            )
        limit = self._settings.memory_bytes
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self.process.pid, resource.RLIMIT_DATA, (limit, limit))

    async def ready(self, connection: Connection) -> None:
        """Return when it answers. Raises PolicyError for what it does not load, EngineUnavailable when it does not come up."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._settings.load_seconds
        while True:
            assert self.process is not None  # noqa: S101 - `spawn` came before
            if self.process.poll() is not None:
                raise self._why()
            if loop.time() > give_up:
                raise EngineUnavailable(f"the policy server was not ready after {self._settings.load_seconds:g} s")
            if (self._folder / "opa.sock").exists():
                try:
                    status, _ = await connection.post(ROOT_OF_THE_SERVER, b"{}")
                except EngineUnavailable:
                    status = 0
                if status == 200:
                    return
            await asyncio.sleep(_POLL)

    def _why(self) -> Exception:
        assert self.process is not None  # noqa: S101 - the caller has just polled it
        said = self._bundle.names.restore(self._log.read_text("utf-8", errors="replace")).strip()
        _, marker, told = said.partition("load error: " if "load error: " in said else "initialization error: ")
        if marker:
            return opa.policy_error(Exception(told), self._bundle.names.paths)
        return EngineUnavailable(
            f"the policy server ended (status {self.process.returncode}): {said[-_TAIL:] or 'it said nothing'}"
        )

    def remove(self) -> None:
        """Kill the process, wait for its end, and remove its folder."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class ManagedEngine(ServerEngine):
    """An engine that is a process; see the port for what it promises."""

    def __init__(self, server: _Server, bundle: Bundle, settings: ManagedSettings) -> None:
        super().__init__(
            server.address,
            bundle,
            connections=settings.questions + 1,
            questions=settings.questions,
            queue_seconds=settings.queue_seconds,
        )
        self._server = server
        self._settings = settings
        self._up = False
        self._watched: int | None = None
        self._started = 0.0
        self._quick_ends = 0
        self._again: asyncio.Task[None] | None = None
        self.starts = 0
        """How often the process was started."""

    @property
    def version(self) -> str:
        """`opa 1.20.2 (managed server)`."""
        return f"opa {self.server_version or VERSION} (managed server)"

    @property
    def answering(self) -> bool:
        return self._up and super().answering

    @property
    def pid(self) -> int | None:
        """The process id of the server, None while there is none that answers."""
        return self._server.process.pid if self._up and self._server.process is not None else None

    async def start(self) -> None:
        """Start the server and return when it answers; from then on it is watched."""
        await self._connection.open()
        await asyncio.to_thread(self._server.write)
        await self._spawn()

    async def wait_until_up(self) -> None:
        """Return when the server answers (again). Raises EngineUnavailable when the engine is closed."""
        if self._up and self._server.process is not None and self._server.process.poll() is not None:
            self._ended()
        while not self._up:
            if self._closed or self._again is None:
                raise EngineUnavailable("the policy engine has been closed")
            await asyncio.shield(self._again)

    def close(self) -> None:
        """Free the engine and end its process: it is gone when this returns."""
        if self._closed:
            return
        self._up = False
        super().close()
        if self._loop.is_closed():
            self._forget()
        else:
            try:
                inside = asyncio.get_running_loop() is self._loop
            except RuntimeError:
                inside = False
            if inside:
                self._forget()
            else:
                self._loop.call_soon_threadsafe(self._forget)
        self._server.remove()

    def _refuse_if_unusable(self) -> None:
        super()._refuse_if_unusable()
        if not self._up:
            raise EngineUnavailable("the policy server is down; it is being started again")

    def _on_late(self, task: asyncio.Task[Json]) -> None:
        # Hanging up would make OPA cancel, unless it is inside of a builtin that does not look; the end of a process is certain.
        self._loop.call_later(self._settings.grace_seconds, self._end_if_hung, task, self.starts)

    def _end_if_hung(self, task: asyncio.Task[Json], start: int) -> None:
        if not task.done() and not self._closed and start == self.starts and self._server.process is not None:
            self._server.process.kill()

    async def _spawn(self) -> None:
        self.starts += 1
        self._started = time.monotonic()
        self._server.spawn()
        await self._server.ready(self._connection)
        assert self._server.process is not None  # noqa: S101 - it has just answered
        try:
            self._watched = os.pidfd_open(self._server.process.pid)
        except ProcessLookupError as error:
            raise EngineUnavailable("the policy server ended as soon as it was ready") from error
        self._up = True
        self._loop.add_reader(self._watched, self._ended)

    def _ended(self) -> None:
        """The process is gone, by its own fault, somebody's signal, or because an evaluation hung in it."""
        self._up = False
        self._forget()
        if self._server.process is not None:
            self._server.process.wait()
        if not self._closed:
            self._quick_ends = self._quick_ends + 1 if time.monotonic() - self._started < 5 else 0
            self._again = self._loop.create_task(self._restart())

    async def _restart(self) -> None:
        while not self._closed:
            if self._quick_ends:
                await asyncio.sleep(min(self._settings.restart_seconds * 2 ** min(self._quick_ends - 1, 10), 5.0))
            try:
                await self._spawn()
            except EngineUnavailable:
                self._quick_ends += 1
            else:
                return

    def _forget(self) -> None:
        if self._again is not None and self._closed:
            self._again.cancel()
        if self._watched is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None


def _sweep() -> None:
    """Remove the folders of servers whose runtime is gone (it was killed; its servers died with it)."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)
