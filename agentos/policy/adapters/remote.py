"""Policy decided by OPA servers that somebody else runs: a sidecar, a fleet behind a balancer.

Rego packages have fixed names, so a server holds the policies of one tenant at one revision. It gets them the way OPA servers
get policies: as a bundle, which `publish` writes where the server polls. Nothing is pushed through its API, so that it can be
closed to changes. An answer counts only when it comes from the bundle of this engine's revision; a server that is behind,
ahead, or somebody else's denies.

A server that is away when a revision is loaded is no reason to give up: the engine stands, denies, and decides from the
first answer of its revision on.

    settings = RemoteSettings("https://opa-{tenant}.internal:8181", token_file=Path("token"))
    factory = RemoteFactory(settings, publish=to_folder(Path("bundles")))
    engine = await factory.load(modules, data)             # published, and the server has it or will
    await factory.checking.load(modules, data)             # would it? nothing is published
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from agentos.abi.canonical import Json
from agentos.abi.errors import EngineUnavailable, IdentityError
from agentos.abi.ids import DEFAULT_TENANT
from agentos.eventlog.adapters.private_file import read_private
from agentos.policy.adapters import opa
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.adapters.opa_bundle import Bundle, build_bundle
from agentos.policy.adapters.opa_since import refuse_newer
from agentos.policy.adapters.server import Address, ServerEngine
from agentos.policy.port import Module, PolicyEngine

log = logging.getLogger(__name__)

Publish = Callable[[str, Bundle], Awaitable[None]]
"""Puts the bundle of a tenant where its server will find it."""

TENANT: Final = "{tenant}"
"""What stands in a url for the name of the tenant."""

_POLL: Final = 0.05


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Which server, and how it knows us."""

    url: str
    """`https://host:port`, or `http://` on a loopback address only; `{tenant}` in it stands for the tenant's name."""

    token_file: Path | None = None
    """A file of mode 0600 that holds the bearer token; read at each load, and again when the server refuses the token."""

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

    load_seconds: float = 20.0
    """How long a load waits for the server to have a revision that was published: longer than it polls."""

    reach_seconds: float = 3.0
    """How long a load waits for a server that does not answer at all."""


class RemoteFactory:
    """Makes engines that ask somebody else's OPA servers."""

    def __init__(self, settings: RemoteSettings, *, publish: Publish | None = None) -> None:
        """`publish` None: somebody else brings the bundles (`build_bundle`) to the server.

        Raises EngineUnavailable for a url that is none, or that would carry decisions in the clear to another machine.
        """
        self.settings = settings
        self._publish = publish
        self._engines: weakref.WeakValueDictionary[str, RemoteEngine] = weakref.WeakValueDictionary()
        _parts(settings.url.replace(TENANT, DEFAULT_TENANT))

    @property
    def version(self) -> str:
        """`opa 1.20.2 (remote, https://…)`: what the servers' last answers said."""
        versions = sorted({engine.server_version for engine in self._engines.values() if engine.server_version is not None})
        return f"opa {', '.join(versions) or 'of unknown version'} (remote, {self.settings.url})"

    @property
    def checking(self) -> Checking:
        """Makes engines that only tell whether a server would take them."""
        return Checking(self)

    def troubles(self) -> list[str]:
        """Why tenants get no decision now, a sentence each."""
        found = sorted((tenant, engine.trouble) for tenant, engine in self._engines.items() if engine.trouble is not None)
        return [f"tenant {tenant}: {trouble}; every syscall is denied" for tenant, trouble in found]

    def close(self) -> None:
        """Hang up everywhere; nothing is decided afterwards."""
        for engine in tuple(self._engines.values()):
            engine.close()

    def usable(self) -> None:
        """Read the token and the certificates once. Raises IdentityError or EngineUnavailable for what cannot be used."""
        self.address(DEFAULT_TENANT)

    async def load(self, modules: Sequence[Module], data: Mapping[str, Json]) -> RemoteEngine:
        """Publish the bundle of `modules` and `data`; return when the server has it, or did not get it in time.

        Raises PolicyError with `where` as file:line for what cannot be read, here or there; EngineUnavailable for
        certificates that cannot be used, IdentityError for a token that cannot.
        """
        opa.refuse_unsteady(modules)
        bundle = await asyncio.to_thread(build_bundle, modules, data)
        tenant = tenant_of(data)
        address = await asyncio.to_thread(self.address, tenant)
        engine = RemoteEngine(address, bundle, self.settings)
        try:
            await engine.open()
            if await engine.probe(self.settings.reach_seconds) is not None:
                refuse_newer(modules, engine.server_version or "")
            if self._publish is not None:
                await self._publish(tenant, bundle)
            await self._has_it(engine, address)
        except BaseException:
            engine.close()
            raise
        self._engines[tenant] = engine
        return engine

    async def _has_it(self, engine: RemoteEngine, address: Address) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            left = began + self.settings.load_seconds - loop.time()
            try:
                await engine.confirm(within=max(0.1, left))
            except EngineUnavailable as error:
                waited = loop.time() - began
                away = engine.server_version is None and waited >= self.settings.reach_seconds
                if away or waited >= self.settings.load_seconds:
                    log.warning("%s: %s: all is denied until it has %s", address, error.message, engine.revision)
                    return
            else:
                return
            await asyncio.sleep(_POLL)

    def address(self, tenant: str) -> Address:
        """Where the server of `tenant` is, and how it knows us. Raises IdentityError, EngineUnavailable."""
        host, port, secure = _parts(self.settings.url.replace(TENANT, tenant))
        return Address(host, port, tls=self._tls() if secure else None, token=_token(self.settings.token_file))

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.settings.authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.settings.certificate is not None:
                if self.settings.key is not None:
                    read_private(self.settings.key)
                context.load_cert_chain(self.settings.certificate, self.settings.key)
        except OSError as error:
            raise EngineUnavailable(
                f"the certificates for the policy server cannot be used: {error}",
                where=str(self.settings.certificate or self.settings.authority),
            ) from error
        return context


class RemoteEngine(ServerEngine):
    """An engine on somebody else's server; see the port for what it promises."""

    def __init__(self, address: Address, bundle: Bundle, settings: RemoteSettings) -> None:
        super().__init__(
            address,
            bundle,
            connections=settings.questions,
            questions=settings.questions,
            queue_seconds=settings.queue_seconds,
        )
        self._settings = settings

    @property
    def version(self) -> str:
        """`opa 1.20.2 (remote, https://…)`."""
        return f"opa {self.server_version or 'of unknown version'} (remote, {self._settings.url})"

    async def open(self) -> None:
        """Make the session; nothing is connected yet."""
        await self._connection.open()

    async def probe(self, within: float) -> str | None:
        """The version of OPA that answers there, whatever it decides with; None when none does."""
        try:
            await self.confirm(within=within)
        except EngineUnavailable:
            return self.server_version
        return self.server_version

    async def _answer(self, path: str, body: bytes) -> tuple[int, Mapping[str, Json]]:
        status, answer = await super()._answer(path, body)
        if status == 401 and await self._fresh_token():
            status, answer = await super()._answer(path, body)
        return status, answer

    async def _fresh_token(self) -> bool:
        """Whether the file holds another token by now, which is then used: tokens are renewed while we run."""
        try:
            token = await asyncio.to_thread(_token, self._settings.token_file)
        except IdentityError as error:
            raise EngineUnavailable(f"the token for the policy server cannot be read: {error.message}") from error
        return self._connection.use_token(token)


class Checking:
    """Whether a server would take a revision: compiled by the OPA in this process, for the version that answers there.

    Nothing is published, so that what is only asked about (a plan, a dry run, a change that admission refuses) changes nothing.
    """

    def __init__(self, factory: RemoteFactory) -> None:
        self._factory = factory

    @property
    def version(self) -> str:
        """Of the servers that are asked."""
        return self._factory.version

    async def load(self, modules: Sequence[Module], data: Mapping[str, Json]) -> PolicyEngine:
        """An engine in this process. Raises PolicyError with `where` as file:line, EngineUnavailable without OPA here."""
        bundle = await asyncio.to_thread(build_bundle, modules, data)
        address = await asyncio.to_thread(self._factory.address, tenant_of(data))
        asked = RemoteEngine(address, bundle, self._factory.settings)
        try:
            await asked.open()
            version = await asked.probe(self._factory.settings.reach_seconds)
        finally:
            asked.close()
        # Without an answer nothing is decided there, and so nothing is applied: the admission policy denies.
        refuse_newer(modules, version or "")
        return await EmbeddedFactory().load(modules, data)


def to_folder(folder: Path) -> Publish:
    """Publishes as `folder/<tenant>.tar.gz`, replaced in one step: for servers that poll a file, or a web server over it."""

    def write(tenant: str, bundle: Bundle) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = folder / f".{tenant}.tar.gz.new"
            fresh.write_bytes(bundle.content)
            fresh.replace(folder / f"{tenant}.tar.gz")
        except OSError as error:
            raise EngineUnavailable(
                f"the bundle of tenant {tenant} cannot be written: {error.strerror}", where=str(folder)
            ) from error

    async def publish(tenant: str, bundle: Bundle) -> None:
        await asyncio.to_thread(write, tenant, bundle)

    return publish


def tenant_of(data: Mapping[str, Json]) -> str:
    """The tenant that a root document is about."""
    return str(data.get("agentos", {}).get("tenant", {}).get("name", DEFAULT_TENANT))


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return read_private(file).strip()
    except IdentityError as error:
        raise IdentityError(
            f"token for the policy server: {error.message}", where=error.where, mend=f"chmod 600 {file}, or name another file"
        ) from error


def _parts(url: str) -> tuple[str, int, bool]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    try:
        port = parts.port or (443 if secure else 80)
    except ValueError:
        port = 0
    host = parts.hostname or ""
    if parts.username is not None or parts.password is not None:
        # The url is shown to people; a secret in it would be, too.
        raise EngineUnavailable("the url of a policy server carries no name or password", mend="use --policy-token-file")
    if parts.scheme not in {"http", "https"} or not host or not port or parts.path not in {"", "/"} or parts.query:
        raise EngineUnavailable("this is not the url of a policy server", where=url, mend="write https://host:port")
    if not secure and not re.fullmatch(r"localhost|127(?:\.\d+){3}|::1", host):
        raise EngineUnavailable("a policy server on another machine needs TLS", where=url, mend="write https://…")
    return (f"[{host}]" if ":" in host else host), port, secure
