"""An OPA server that somebody else runs, for tests of remote engines: real, on a free port of the loopback."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agentos.policy.adapters.opa_bundle import Bundle, archive
from agentos.policy.adapters.remote import RemoteFactory, RemoteSettings

OPA = Path(sys.executable).with_name("opa")
TOKEN = "of-the-operator"


class OperatorsServer:
    """`opa run --server` for one bundle after the other; `publish` does what an operator's pipeline may: start it anew."""

    def __init__(self, folder: Path, *, arguments: Sequence[str] = (), scheme: str = "http") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = _free_port()
        self.url = f"{scheme}://localhost:{self.port}"
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self.token_file = folder / "token"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(TOKEN + "\n")

    def factory(self) -> RemoteFactory:
        """Engines on this server, known by the token, each load restarting it with the bundle."""
        return RemoteFactory(RemoteSettings(self.url, token_file=self.token_file, load_seconds=20), publish=self.publish)

    async def publish(self, tenant: str, bundle: Bundle) -> None:
        """Serve `bundle`."""
        self.stop()
        (self.folder / f"{tenant}.tar.gz").write_bytes(bundle.content)
        may_ask = f'package system.authz\n\ndefault allow := false\n\nallow if input.identity == "{TOKEN}"\n'
        manifest = b'{"revision":"operator","roots":["system"],"rego_version":1}'
        (self.folder / "operator.tar.gz").write_bytes(archive({".manifest": manifest, "authz.rego": may_ask.encode()}))
        self.run("--authentication", "token", "--authorization", "basic", "--bundle", f"{tenant}.tar.gz", "operator.tar.gz")
        await self.listening()

    def run(self, *arguments: str) -> None:
        """Start it with these arguments."""
        command = [OPA, "run", "--server", "--addr", f"localhost:{self.port}", "--skip-version-check", "--log-level", "error"]
        with (self.folder / "opa.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def listening(self) -> None:
        """Return when its port accepts."""
        async with asyncio.timeout(20):
            while True:
                assert self._process is not None
                assert self._process.poll() is None, (self.folder / "opa.log").read_text()
                try:
                    _, writer = await asyncio.open_connection("localhost", self.port)
                except OSError:
                    await asyncio.sleep(0.005)
                    continue
                writer.close()
                await writer.wait_closed()
                return

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def digest(bundle: bytes) -> str:
    """The SHA-256 of what a server was given."""
    return f"sha256:{hashlib.sha256(bundle).hexdigest()}"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
