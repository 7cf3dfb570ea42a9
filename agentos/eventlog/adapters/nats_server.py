"""A nats-server of our own: found, configured, started, watched, reloaded, and stopped with the runtime.

    server = NatsServer(home / "nats", ServerConfig((account,)), random=random)
    await server.start()                     # ready to be connected to when this returns
    log = JetStreamLog(await connect(server.url, key, name="runtime", reconnect=True))
    ...
    await server.stop()

Everything it writes stays in `home` (mode 0700). A runtime that is killed takes its server along (`tether`); should one
survive nevertheless, the next start on this home ends it first. Two runtimes on one home: the second is refused.
The seed of the system account lives in memory only, for as long as this object does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nats.errors import Error as NatsError

from agentos.abi.errors import Unavailable
from agentos.abi.ids import Random
from agentos.eventlog.adapters import tether
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import create_seed
from agentos.eventlog.adapters.private_file import private_folder, write_private
from agentos.eventlog.adapters.server_binary import find_server
from agentos.eventlog.adapters.server_config import ServerConfig, render

START_DEADLINE: Final = 30.0
"""Seconds until a start is given up: recovery of large streams counts, an empty server takes a twentieth of a second."""

STOP_DEADLINE: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""

ANY_PORT: Final = -1

_POLL = 0.003
_ASK = 5.0
_TAIL = 6
_ENVIRONMENT = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR")  # no keys of model providers


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a running server says of itself. `sync_always`: an acknowledged message is on disk. `max_payload` in bytes."""

    version: str
    sync_always: bool
    store_dir: str
    port: int
    max_payload: int


class NatsServer:
    """One nats-server child. Not bound to an event loop: it may be started in one and stopped in another."""

    def __init__(self, home: Path, config: ServerConfig, *, random: Random, port: int = ANY_PORT) -> None:
        """`home` is made if missing. `port` is a fixed port of 127.0.0.1, or ANY_PORT: a free one, kept over restarts."""
        self.home = home.absolute()
        self.config = config
        self._port = port
        self._system = create_seed(random)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._changing = asyncio.Lock()

    @property
    def url(self) -> str:
        """`nats://127.0.0.1:<port>`. Raises RuntimeError before the first start when the port was left open."""
        if self._port == ANY_PORT:
            raise RuntimeError("the server has no port before its first start")
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id of the running server, None when there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def config_file(self) -> Path:
        return self.home / "nats.conf"

    @property
    def log_file(self) -> Path:
        return self.home / "nats.log"

    async def start(self) -> None:
        """Start the server, again after it died, and return when it accepts connections. Does nothing if it runs.

        Raises Unavailable: no usable nats-server, the home in use by another runtime, the port taken, or it does not come up.
        """
        if self.pid is not None:
            return
        binary = find_server()
        try:
            private_folder(self.home)
            self._take_home()
            await self._end_orphan()
            for stale in self.home.glob("nats-server_*.ports"):
                stale.unlink(missing_ok=True)
            self._write_config(self.config)
            logged = self.log_file.stat().st_size if self.log_file.exists() else 0
            self._spawn(binary)
            await self._ready(logged)
            self._write_config(self.config)  # with the port it got, which a restart is to keep
        except OSError as error:
            await self.stop()
            raise Unavailable(f"the event log cannot use its folder: {error}", where=str(self.home)) from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server (SIGTERM, then SIGKILL after STOP_DEADLINE) and leave the home to others. Does nothing if it rests."""
        process = self._process
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                if not await _ended(process.pid, STOP_DEADLINE):
                    process.kill()
            process.wait()
            self._process = None
            self._pid_file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def wait(self) -> int:
        """Wait until the server has ended, by itself or by `stop`; its exit status, negative for a signal."""
        process = self._process
        if process is None:
            raise RuntimeError("the server was not started")
        if process.poll() is None:
            await _ended(process.pid, None)
        return process.wait()

    async def reload(self, config: ServerConfig) -> None:
        """Put `config` in force while connections stay. The server confirms; if it refuses, the old file is put back.

        Raises Unavailable when the server refuses or does not answer, ValueError for what `render` does not write.
        """
        async with self._changing:
            self._write_config(config)
            in_force = False
            try:
                facts = await self._ask("PING.VARZ")
                answer = await self._ask(f"{facts['server']['id']}.RELOAD")
                in_force = "error" not in answer
            finally:
                if in_force:
                    self.config = config
                else:
                    self._write_config(self.config)
        if not in_force:
            reason = str(answer["error"].get("description", "")).strip()
            raise Unavailable(f"the nats-server refuses its new configuration: {reason}", where=str(self.config_file))

    async def varz(self) -> dict[str, Any]:
        """The server's own account of itself (`$SYS.REQ.SERVER.PING.VARZ`, the `data` of its answer)."""
        answer = await self._ask("PING.VARZ")
        data: dict[str, Any] = answer["data"]
        return data

    async def server_facts(self) -> ServerFacts:
        """The facts that the runtime relies on and `agentos doctor` prints. Raises Unavailable."""
        data = await self.varz()
        store = data.get("jetstream", {}).get("config", {})
        return ServerFacts(
            version=str(data["version"]),
            sync_always=store.get("sync_always") is True,
            store_dir=str(store.get("store_dir", "")),
            port=int(data["port"]),
            max_payload=int(data["max_payload"]),
        )

    @property
    def _pid_file(self) -> Path:
        return self.home / "nats.pid"

    async def _ask(self, what: str) -> dict[str, Any]:
        client = await connect(self.url, self._system, name="system")
        try:
            answer = await client.request(f"$SYS.REQ.SERVER.{what}", b"{}", timeout=_ASK)
        except NatsError as error:
            raise Unavailable(f"the nats-server does not answer {what}: {error}", where=self.url) from error
        finally:
            await client.close()
        body: dict[str, Any] = json.loads(answer.data)
        return body

    def _write_config(self, config: ServerConfig) -> None:
        text = render(config, home=self.home, port=self._port, system_key=self._system.public_key)
        write_private(self.config_file, text)

    def _take_home(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise Unavailable(
                "another runtime uses this home",
                where=str(self.home),
                mend="stop it with `agentos down`, or choose another AGENTOS_HOME",
            ) from error
        self._lock = lock

    async def _end_orphan(self) -> None:
        """End a server that outlived its runtime: the pid file names it, and it was started with our configuration file."""
        pid = _running(self._pid_file, os.fsencode(self.config_file))
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            if not await _ended(pid, STOP_DEADLINE):
                os.kill(pid, signal.SIGKILL)
                await _ended(pid, None)

    def _spawn(self, binary: Path) -> None:
        command = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(binary), "-c", str(self.config_file)]
        with os.fdopen(os.open(self.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                start_new_session=True,  # Ctrl-C in a terminal is for the runtime, which then stops its server in order
            )
        write_private(self._pid_file, f"{self._process.pid}\n")

    async def _ready(self, logged: int) -> None:
        process = self._process
        assert process is not None  # noqa: S101 - _spawn has just set it
        ports = self.home / f"nats-server_{process.pid}.ports"
        loop = asyncio.get_running_loop()
        give_up = loop.time() + START_DEADLINE
        while True:
            if process.poll() is not None:
                raise self._did_not_start(f"the nats-server ended at once (status {process.returncode})", logged)
            if loop.time() > give_up:
                raise self._did_not_start(f"the nats-server was not ready after {START_DEADLINE:.0f} s", logged)
            port = _read_port(ports)
            if port is not None and await _accepts(port):
                self._port = port
                return
            await asyncio.sleep(_POLL)

    def _did_not_start(self, what: str, logged: int) -> Unavailable:
        with self.log_file.open("rb") as log:
            log.seek(logged)
            lines = log.read().decode("utf-8", "replace").splitlines()
        if any("address already in use" in line for line in lines):
            return Unavailable(
                f"port {self._port} is taken",
                where=f"127.0.0.1:{self._port}",
                mend="choose another port, or none to get a free one",
            )
        tail = "; ".join(line.strip() for line in lines[-_TAIL:])
        return Unavailable(f"{what}: {tail or 'it said nothing'}", where=str(self.log_file))


def _running(pid_file: Path, word: bytes) -> int | None:
    """The process that `pid_file` names, if it runs with `word` on its command line; a reused pid is somebody else."""
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if word in words else None


def _read_port(ports: Path) -> int | None:
    """The port in a ports file `{"nats": ["nats://127.0.0.1:4222"]}`, None while it is missing or half written."""
    try:
        urls = json.loads(ports.read_text(encoding="utf-8"))["nats"]
        return int(urls[0].rsplit(":", 1)[1])
    except (OSError, ValueError, LookupError):
        return None


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def _ended(pid: int, seconds: float | None) -> bool:
    """Wait until process `pid`, ours or not, has ended; False if `seconds` pass before."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(watched, over.set)
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(watched)
        os.close(watched)
    return True
