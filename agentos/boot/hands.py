"""The hands, put together: sandboxes, the way out of them, credentials, and versions of files.

Nothing is started here: a driver is imported at its first call, a sandbox placed for each process, a proxy opened for each
process whose sandbox has a network. So a brain never waits for hands that it has not asked for.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

from agentos.abi.errors import DriverError
from agentos.abi.ids import Clock, Random
from agentos.boot.home import Home
from agentos.credentials.adapters.sources import all_sources
from agentos.credentials.broker import Broker
from agentos.credentials.reference import Credential
from agentos.drivers.cleaned import Cleaned
from agentos.drivers.dispatch import Hands
from agentos.drivers.doors import Now
from agentos.drivers.port import CallContext
from agentos.drivers.tracked import Tracking
from agentos.egress.outbound import HeaderCredential
from agentos.files.adapters.versions_sqlite import SqliteVersions
from agentos.files.quota import Quotas
from agentos.files.versions import Mask, Place
from agentos.kernel.port import Configuration
from agentos.sandbox.adapters.chooser import HostSandboxes
from agentos.sandbox.port import Door
from agentos.sandbox.profile import Profile


class ProxyDoors:
    """`drivers.doors.Doors`: a proxy of its own for each process, in a folder that only this runtime can enter."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._folder: Path | None = None
        self._numbers = count(1)

    @asynccontextmanager
    async def open(
        self, context: CallContext, profile: Profile, credentials: Sequence[Credential], now: Now | None = None
    ) -> AsyncIterator[Door]:
        """See `Doors.open`."""
        # Imported when the first process has a way out, and beside the loop: TLS and certificates take their time.
        proxy = await asyncio.to_thread(importlib.import_module, "agentos.egress.adapters.proxy")
        network = profile.network
        if network is None:
            raise DriverError("it has no network", where=f"sandbox {profile.name}")
        headers = tuple(_header(one, context) for one in credentials if one.header)
        async with AsyncExitStack() as stack:
            try:
                folder = self._new_folder()
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                opening = proxy.Proxies(self._clock).open(
                    gatekeeper=now or (lambda: context.net), network=network, folder=folder, credentials=headers
                )
                way = await stack.enter_async_context(opening)
            except OSError as error:
                raise DriverError(f"the way out cannot be opened: {error.strerror}", where=f"sandbox {profile.name}") from error
            yield Door(way.socket, way.authority)

    def _new_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="agentos-"))
        return self._folder / str(next(self._numbers))

    def close(self) -> None:
        """Remove the folder; every door is shut by now."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _header(credential: Credential, context: CallContext) -> HeaderCredential:
    def value() -> str:
        if context.leases is None:
            raise DriverError("the call has no credentials")
        return credential.render(context.leases.value(credential.secret))

    ref = context.secrets.get(credential.secret)
    return HeaderCredential(credential.header, value, ref.hosts if ref is not None else ())


class HandsOf:
    """What the drivers of a runtime work with."""

    def __init__(
        self, home: Home, clock: Clock, random: Random, environ: Mapping[str, str], quotas: Quotas | None = None
    ) -> None:
        self.broker = Broker(all_sources(environ), clock, random)
        self.versions = SqliteVersions(home.versions, clock, masks=self._mask, quotas=quotas)
        self.tracked = Tracking(self.versions)
        self._doors = ProxyDoors(clock)
        self.sandboxes = HostSandboxes(home.root, environ)
        self.given = Hands(self.sandboxes, Cleaned(self.broker, self.versions.keep), self._doors)

    def _mask(self, place: Place) -> Mask | None:
        masker = self.broker.masker(place.tenant, place.name) if place.kind == "session" else None
        return None if masker is None or masker.empty else masker.bytes

    def configured(self, configuration: Configuration) -> None:
        """Another configuration is in force: leases of secrets that it declares no more, or otherwise, are over."""
        self.broker.declared(configuration.tenant, configuration.secrets)

    def ended(self, tenant: str, session: str) -> None:
        """A session is over: its leases are, and nothing of its files is held open."""
        self.broker.ended(tenant, session)
        self.versions.release(Place(tenant, "session", session))

    def destroy(self, tenant: str, session: str) -> None:
        """Destroy what was kept of the files of a session. Raises VersionsUnavailable if something stays."""
        self.versions.destroy(Place(tenant, "session", session))

    async def close(self) -> None:
        """Let go of everything; no driver works any more."""
        await self.broker.close()
        self._doors.close()
        self.versions.close()
