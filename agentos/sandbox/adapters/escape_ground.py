"""The ground that escapes are tried on: things of the host that are there to be got, and that tell when they are.

A home with a key and two workspaces, a process with a text in its environment and a file open, a descriptor that a child could
inherit, listeners of every kind. All of it is made for this, and gone afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.ids import Random

_Heard = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]
_SLEEPER: Final = "import signal, sys\nkept = open(sys.argv[1])\nprint(flush=True)\nsignal.pause()"
_FOLDERS: Final = ("/usr", "/usr/bin", "/etc", "/var", "/opt")
"""Folders of the system that nobody inside may write to."""


class HostGround:
    """Made by `ground`."""

    def __init__(self, base: Path, random: Random) -> None:
        self._base = base
        self._mark = f"agentos-escape-{random.token(8).hex()}"
        kinds = ("key of the runtime", "workspace of another tenant", "process of the host", "descriptor of the runtime")
        self._canaries = {what: f"canary-{random.token(12).hex()}" for what in kinds}
        self._key, self._other, self._process_secret, self._open_secret = self._canaries.values()
        self._seen: list[str] = []
        self._listeners: dict[str, Json] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._shadow = _shadow()

    @property
    def home(self) -> Path:
        """What stands for the runtime's home."""
        return self._base / "home"

    @property
    def workspace(self) -> Path:
        """The workspace that the attempts are made in."""
        return self.home / "workspaces" / "ours" / "s-1"

    @property
    def owner(self) -> str:
        """Whose it is."""
        return "ours/s-1"

    def facts(self) -> dict[str, Json]:
        """Where there is something to get."""
        pid = self._sleeper().pid
        first = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").split("-", 1)[0]
        disks = sorted(str(path) for pattern in ("sd?", "vd?", "xvd?", "nvme?n?") for path in Path("/dev").glob(pattern))
        return {
            "paths": [str(path) for path in self._files()],
            "pid": pid,
            "address": int(first, 16),
            "folders": list(_FOLDERS),
            "name": self._mark,
            "block": list(disks[:1]),
            **self._listeners,
        }

    def got(self, seen: str) -> list[str]:
        """What only the host knows, and `seen` shows."""
        found = [f"read a secret of the {what}" for what, canary in self._canaries.items() if canary in seen]
        return found if self._shadow is None or self._shadow not in seen else [*found, "read the passwords of the host"]

    def witnessed(self) -> list[str]:
        """What was seen from outside since the last time."""
        seen, self._seen = self._seen, []
        if self._process is not None and self._process.poll() is not None:
            seen.append("a process of the host was killed")
            self._sleeper()
        for folder in _FOLDERS:
            path = Path(folder) / self._mark
            if path.exists():
                path.unlink()
                seen.append(f"a file appeared in {folder}")
        return list(dict.fromkeys(seen))

    def _files(self) -> dict[Path, str]:
        """Files of others, and what is in them."""
        keys, others = self.home / "keys" / "signing.key", self.home / "workspaces" / "theirs" / "s-2" / "secret.txt"
        return {keys: self._key, others: self._other}

    def _sleeper(self) -> subprocess.Popen[bytes]:
        """The process that is there to be looked at, and killed; it is started again when it was."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            key = next(iter(self._files()))
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _SLEEPER, str(key)],
                env={"CANARY": self._process_secret},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
            if self._process.stdout is not None:
                # It says when it stands.
                self._process.stdout.readline()
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    @contextlib.contextmanager
    def laid(self) -> Iterator[None]:
        """Lay out the files, the open descriptor and the process, for as long as the block lasts."""
        self.workspace.mkdir(parents=True, mode=0o700)
        for path, text in self._files().items():
            path.parent.mkdir(parents=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o600)
        left_open = self._base / "descriptor"
        left_open.write_text(self._open_secret, encoding="utf-8")
        with left_open.open("rb") as file:
            os.set_inheritable(file.fileno(), True)
            self._sleeper()
            try:
                yield
            finally:
                self._end()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen on the loopback interface and on unix sockets, for as long as the block lasts."""
        async with contextlib.AsyncExitStack() as stack:
            tcp: list[Json] = []
            for host in ("127.0.0.1", "::1"):
                # A host may be without IPv6.
                with contextlib.suppress(OSError):
                    server = await stack.enter_async_context(await asyncio.start_server(self._heard(f"TCP {host}"), host, 0))
                    tcp.append([host, server.sockets[0].getsockname()[1]])
            loop = asyncio.get_running_loop()
            udp, _ = await loop.create_datagram_endpoint(lambda: _NameServer(self._seen_from), local_addr=("127.0.0.1", 0))
            stack.callback(udp.close)
            path = str(self._base / "host.sock")
            for name in (path, f"\0{self._mark}"):
                await stack.enter_async_context(await asyncio.start_unix_server(self._heard("a unix socket"), name))
            self._listeners = {"tcp": tcp, "udp": list(udp.get_extra_info("sockname")), "unix": path, "abstract": self._mark}
            yield

    def _heard(self, what: str) -> _Heard:
        def heard(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._seen_from(what)
            writer.close()

        return heard

    def _seen_from(self, what: str) -> None:
        self._seen.append(f"{what} was reached")


class _NameServer(asyncio.DatagramProtocol):
    """Answers whatever it is asked with the question."""

    def __init__(self, seen: Callable[[str], None]) -> None:
        self._seen = seen
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._seen("a name server")
        if self._transport is not None:
            self._transport.sendto(data, addr)


@contextlib.asynccontextmanager
async def ground(random: Random) -> AsyncIterator[HostGround]:
    """Lay out a ground, for as long as the block lasts. Raises OSError."""
    base = Path(tempfile.mkdtemp(prefix="agentos-escape-"))
    try:
        made = HostGround(base, random)
        with made.laid():
            async with made.listening():
                yield made
    finally:
        shutil.rmtree(base)


def _shadow() -> str | None:
    """The first line of the host's passwords, if whoever asks may read them."""
    try:
        return Path("/etc/shadow").read_text(encoding="utf-8").splitlines()[0] or None
    except (OSError, IndexError):
        return None
