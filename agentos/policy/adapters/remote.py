"""Policy decided by OPA servers that somebody else runs: a sidecar, a fleet behind a balancer.

Rego packages have fixed names, so a server holds the policies of one tenant at one revision. It gets them the way OPA servers
get policies: as a bundle, which `publish` writes where the server polls. Nothing is pushed through its API, so that it can be
closed to changes. An answer counts only when it comes from the bundle of this engine's revision; a server that is behind,
ahead, or somebody else's denies.

    settings = RemoteSettings("https://opa-{tenant}.internal:8181", token_file=Path("token"))
    factory = RemoteFactory(settings, publish=to_folder(Path("bundles")))
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from agentos.abi.canonical import Json
from agentos.abi.errors import EngineUnavailable
from agentos.eventlog.adapters.private_file import read_private
from agentos.policy.adapters import opa
from agentos.policy.adapters.opa_bundle import Bundle, build_bundle
from agentos.policy.adapters.server import Address, Connection, ServerEngine
from agentos.policy.port import Module

Publish = Callable[[str, Bundle], Awaitable[None]]
"""Puts the bundle of a tenant where its server will find it."""

_POLL: Final = 0.05


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Which server, and how it knows us."""

    url: str
    """`https://host:port`, or `http://` on a loopback address only; `{tenant}` in it stands for the tenant's name."""

    token_file: Path | None = None
    """A file of mode 0600 that holds the bearer token; read at each load."""

    certificate: Path | None = None
    """Our certificate (PEM) where the server asks for one; with `key`."""

    key: Path | None = None
    """The key of `certificate` (PEM, mode 0600)."""

    authority: Path | None = None
    """Who signs the server's certificate (PEM); None: the authorities of this system."""

    questions: int = 16
    """Questions to a server at the same time; more wait for their turn."""

    queue_seconds: float = 5.0
    """How long a question may wait for its turn."""

    load_seconds: float = 60.0
    """How long the server may take to have a revision that was published: longer than it polls."""


class RemoteFactory:
    """Makes engines that ask somebody else's OPA servers."""

    def __init__(self, settings: RemoteSettings, *, publish: Publish | None = None) -> None:
        """`publish` None: somebody else brings the bundles (`build_bundle`) to the server.

        Raises EngineUnavailable for a url that is none, or that would carry decisions in the clear to another machine.
        """
        self._settings = settings
        self._publish = publish
        _parts(settings.url.replace("{tenant}", "default"))

    @property
    def version(self) -> str:
        """`opa (remote, https://…)`: the servers' own version stands in their answers, and is not ours to choose."""
        return f"opa (remote, {self._settings.url})"

    async def load(self, modules: Sequence[Module], data: Mapping[str, Json]) -> ServerEngine:
        """Publish the bundle of `modules` and `data`; return when the server has it.

        Raises PolicyError with `where` as file:line for what cannot be read, EngineUnavailable for a server that does not
        answer, refuses us, or does not have the revision after `load_seconds`.
        """
        opa.refuse_unsteady(modules)
        bundle = await asyncio.to_thread(build_bundle, modules, data)
        tenant = str(data.get("agentos", {}).get("tenant", {}).get("name", "default"))
        address = await asyncio.to_thread(self._address, tenant)
        if self._publish is not None:
            await self._publish(tenant, bundle)
        connection = Connection(address, connections=self._settings.questions)
        engine = ServerEngine(connection, bundle, questions=self._settings.questions, queue_seconds=self._settings.queue_seconds)
        try:
            await connection.open()
            await self._has_it(engine, address)
        except BaseException:
            engine.close()
            raise
        return engine

    async def _has_it(self, engine: ServerEngine, address: Address) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._settings.load_seconds
        while True:
            try:
                await engine.confirm(within=max(0.1, give_up - loop.time()))
            except EngineUnavailable as error:
                if loop.time() >= give_up:
                    raise EngineUnavailable(error.message, where=str(address), mend=error.mend) from error
            else:
                return
            await asyncio.sleep(_POLL)

    def _address(self, tenant: str) -> Address:
        host, port, secure = _parts(self._settings.url.replace("{tenant}", tenant))
        token = read_private(self._settings.token_file).strip() if self._settings.token_file is not None else None
        return Address(host, port, tls=self._tls() if secure else None, token=token)

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._settings.authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._settings.certificate is not None:
                if self._settings.key is not None:
                    read_private(self._settings.key)
                context.load_cert_chain(self._settings.certificate, self._settings.key)
        except OSError as error:
            raise EngineUnavailable(
                f"the certificates for the policy server cannot be used: {error}",
                where=str(self._settings.certificate or self._settings.authority),
            ) from error
        return context


def to_folder(folder: Path) -> Publish:
    """Publishes as `folder/<tenant>.tar.gz`, replaced in one step: for servers that poll a file, or a web server over it."""

    def write(tenant: str, bundle: Bundle) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".{tenant}.tar.gz.new"
        fresh.write_bytes(bundle.content)
        fresh.replace(folder / f"{tenant}.tar.gz")

    async def publish(tenant: str, bundle: Bundle) -> None:
        await asyncio.to_thread(write, tenant, bundle)

    return publish


def _parts(url: str) -> tuple[str, int, bool]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    try:
        port = parts.port or (443 if secure else 80)
    except ValueError:
        port = 0
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not host or not port or parts.path not in {"", "/"}:
        raise EngineUnavailable("this is not the url of a policy server", where=url, mend="write https://host:port")
    if not secure and not re.fullmatch(r"localhost|127(?:\.\d+){3}|::1", host):
        raise EngineUnavailable("a policy server on another machine needs TLS", where=url, mend="write https://…")
    return (f"[{host}]" if ":" in host else host), port, secure
