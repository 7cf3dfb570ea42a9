"""The runtime, put together: server, registry, tenants, kernel, control service; started in that order, stopped in the other.

Starting: own the home → start the server with the runtime's own users → read principals and desired state from the log → put
accounts and principals in force → open each tenant → serve the control verbs → announce the URL → resume what was running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from nats.errors import Error as NatsError

from agentos import __version__
from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, EngineUnavailable
from agentos.abi.ids import DEFAULT_TENANT, FLEET
from agentos.audit.keyring import KeyRing
from agentos.boot.backend import Backend, Embedded, External, Remote
from agentos.boot.backup import Backups
from agentos.boot.checkpoints import Checkpoints
from agentos.boot.claim import make_claim
from agentos.boot.configuration import tenants_of
from agentos.boot.daemons import schedule
from agentos.boot.desired import Desired, validate
from agentos.boot.doors import Listen
from agentos.boot.engines import Engines, RemotePolicy, make_engines
from agentos.boot.erasures import Erasures
from agentos.boot.expiry import Expiry
from agentos.boot.gateway import Idle
from agentos.boot.home import Home
from agentos.boot.litestream import Litestream
from agentos.boot.log_terms import log_terms, require_terms
from agentos.boot.parts import Parts
from agentos.boot.scheduling import arbitrate
from agentos.boot.status import status_of
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.boot.verbs import Opened, verbs
from agentos.boot.walls import walls_of
from agentos.boot.watch import keep_alive
from agentos.control.adapters.nats_service import ControlService
from agentos.control.authorize import Authorize
from agentos.control.backup_verbs import BackupVerbs
from agentos.control.identity import Identity
from agentos.control.params import Params
from agentos.control.principal import Caller
from agentos.control.rate import Knocks
from agentos.eventlog.adapters.credentials import create_seed
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.subject import REGISTRY_STREAM
from agentos.kernel.gate import SYSTEM
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.decide import ControlDecider, Decider
from agentos.policy.port import Place
from agentos.registry.apply import Applier
from agentos.registry.principal import Principals
from agentos.registry.store import Registry

log = logging.getLogger(__name__)

FIRST_OPERATOR: Final = "operator"
FIRST_ROLES: Final = ("operator", "approver", "auditor", "compliance")
"""The first principal may do everything; give others less, then revoke it if you want hands apart."""

KEEP_UP_S: Final = 1.0
"""Seconds until putting a revision in force is tried again."""


class Runtime(Parts):
    """A runtime that serves. Made by `open_runtime`."""

    def __init__(self, home: Home, backend: Backend, engines: Engines) -> None:
        super().__init__(home, backend, engines)
        self.listen: Listen | None = None
        self._stop = asyncio.Event()
        self._changing = asyncio.Lock()
        self._created: str | None = None
        self.facts: dict[str, str | bool] = {}
        self._control: ControlService | None = None
        self.checkpoints: Checkpoints | None = None
        self.litestream: Litestream | None = None
        self.started_ms = self.timer.now_ms()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.backend.url

    def greeting(self) -> Sequence[str]:
        """What `agentos up` says when it is ready."""
        lines = [
            f"agentos {__version__} on {self.home.root}",
            f"log: {self.facts['server']}, sync {self.facts['sync']}",
            f"policy: {self.factory.version}",
            f"listening on {self.url}",
        ]
        if self.doors.url:
            lines.append(f"webhooks: {self.doors.url}/hooks/<tenant>/<path>")
        if self._created is not None:
            lines.append(f"created the first principal, {FIRST_OPERATOR}: {self._created}")
        return lines

    async def run_until(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, or the runtime is asked to shut down; the server is started again when it dies."""
        waits: list[asyncio.Task[object]] = [asyncio.create_task(stop.wait()), asyncio.create_task(self._stop.wait())]
        if isinstance(self.backend, Embedded):
            waits.append(asyncio.create_task(keep_alive(self.backend, self.timer, self.home.nats)))
        if self.claim is not None:
            waits.append(asyncio.create_task(self.claim.lost(self.timer)))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in waits:
                task.cancel()
            await asyncio.wait(waits)

    async def open(self, stack: AsyncExitStack) -> None:
        """Start everything, pushing what undoes it onto `stack`."""
        registry_client = await self.backend.connect(FLEET)
        stack.push_async_callback(registry_client.close)
        door = await self.backend.connect_door(FLEET)
        stack.push_async_callback(door.close)
        if not isinstance(self.backend, Embedded):
            self.claim = await make_claim(registry_client, self.random)
        await ensure_streams(registry_client, (REGISTRY_STREAM,))
        registry_log = JetStreamLog(registry_client)
        registry = Registry(registry_log, self.timer, self.random)
        principals = Principals(registry_log, self.timer, self.random)
        await self._first_operator(principals)
        state = await registry.state()
        names = tenants_of(state.resources())
        # Nobody comes in before the runtime has its place at every door: who took all of them would keep it out.
        await self.backend.update(names, (), walls_of(state.resources()))
        self.facts = await self.backend.facts()
        await require_terms(self.backend, state.resources())
        await self.configurations.refresh(state)
        arbitrate(self.admissions, self.configurations)
        stack.push_async_callback(self.tenants.close)
        stack.push_async_callback(self.snapshots.close)
        ring = KeyRing.open(self.home.keys / "evidence.pem", self.random)
        checkpoints = self.checkpoints = Checkpoints(self.home.read, ring, self.timer, self.random)
        stack.push_async_callback(checkpoints.close)
        self.close_after(stack)
        erasures = self.erasures = Erasures(
            self.tenants, checkpoints, registry, self.sessions, self.workspaces, self.hands, self.timer, self.random
        )
        await checkpoints.open(FLEET, registry_client, registry_log)
        for name in sorted(names):
            terms = log_terms(state.resources(), name)
            await self.tenants.open(name, terms)
            await checkpoints.open(name, self.tenants.get(name).client, self.tenants.get(name).streams, replicas=terms.replicas)
            await erasures.open(name)
        await self.freezing.open(names)
        await self.backend.update(names, await principals.list())

        policy = await self._control_policy()
        stack.callback(policy.close)
        desired = Desired(self.backend, self.engines, self.configurations)
        applier = Applier(registry, validate=validate, check=desired.check, admit=desired.admit)

        async def principals_changed() -> None:
            async with self._changing:
                # A tenant that was deleted is served until the runtime stops, so its account stays.
                served = self.configurations.tenants | {tenant.name for tenant in self.tenants.all()}
                await self.backend.update(served, await principals.list())

        async def revision_changed() -> None:
            async with self._changing:
                await self._take_over(registry, principals)

        async def keep_up() -> None:
            while True:
                try:
                    await revision_changed()
                    async for _ in registry.follow():
                        await revision_changed()
                except (AgentOSError, OSError, NatsError) as error:
                    log.warning("the newest revision is not in force yet, trying again: %s", error)
                    await self.timer.sleep(KEEP_UP_S)

        maker = Backups(self.home, self.backend, self.tenants, checkpoints, self.timer, self.random)
        backups = BackupVerbs(maker, self.timer, self.random)
        stack.push_async_callback(backups.close)
        may = Authorize(policy)
        opened = Opened(
            registry=registry,
            registry_log=registry_log,
            principals=principals,
            applier=applier,
            checkpoints=checkpoints,
            erasures=erasures,
            backups=backups,
            may=may,
            principals_changed=principals_changed,
            revision_changed=revision_changed,
        )
        handlers = verbs(self, opened) | {"runtime.status": self._status, "runtime.shutdown": self._shutdown}
        knocks = Knocks(self.timer.monotonic_us, self.configurations.requests_per_second)
        self._control = ControlService(handlers, principals, may, knocks)
        stack.push_async_callback(self._control.close)
        await self._control.serve(door, FLEET)
        if isinstance(self.backend, Embedded):
            for tenant in self.tenants.all():
                await self._control.serve(tenant.door, tenant.name)
        for tenant in self.tenants.all():
            await self.standing.take_over(tenant)
            await self.deliveries.open(tenant)
        schedule(self, checkpoints, erasures)
        for work, name in (
            (self.standing.run(), "take over what runs nowhere"),
            (self.supervision.run(), "keep standing agents alive"),
            (self.triggers.run(), "fire what is due"),
            (keep_up(), "keep up with the registry"),
            (Expiry(self.sessions, self.tenants, self.timer).run(), "end what nobody answers"),
            (Idle(self.sessions, self.tenants, self.configurations, self.timer).run(), "end what no client uses any more"),
        ):
            stack.push_async_callback(_cancel, asyncio.create_task(work, name=name))
        await self.doors.open(stack, principals, self.listen)
        self.home.announce(self.url)
        stack.callback(self.home.withdraw)

    async def _control_policy(self) -> ControlDecider:
        """Who may ask for what. Without an engine the runtime stands, and denies every command and says why."""
        try:
            # Who may knock is decided in the process, whatever decides the syscalls: it belongs to no tenant.
            return await ControlDecider.load(EmbeddedFactory())
        except EngineUnavailable as error:
            log.critical("there is no policy engine, so everything is denied: %s", error)
            return ControlDecider(Decider.denying(error))

    async def _take_over(self, registry: Registry, principals: Principals) -> None:
        """Put the newest revision in force: tenants first, then what they run."""
        state = await registry.state()
        if state.revision == self.configurations.revision:
            return
        served = {tenant.name for tenant in self.tenants.all()}
        names = tenants_of(state.resources()) | served
        at_home = [one for one in await principals.list() if one.tenant in served | {FLEET}]
        await self.backend.update(names, at_home, walls_of(state.resources()))
        await self.tenants.declare({name: log_terms(state.resources(), name) for name in served})
        fresh = []
        for name in sorted(names - served):
            terms = log_terms(state.resources(), name)
            opened = await self.tenants.open(name, terms)
            if opened is not None:
                fresh.append(opened)
                if self.checkpoints is not None:
                    await self.checkpoints.open(name, opened.client, opened.streams, replicas=terms.replicas)
                if self.erasures is not None:
                    await self.erasures.open(name)
                    await self.freezing.open((name,))
                if self._control is not None and isinstance(self.backend, Embedded):
                    await self._control.serve(opened.door, name)
        await self.backend.update(names, await principals.list())
        await self.configurations.refresh(state)
        arbitrate(self.admissions, self.configurations)
        self.freezing.stir()
        for tenant in fresh:
            await self.standing.take_over(tenant)
            await self.deliveries.open(tenant)
        self.supervision.stir()
        self.triggers.changed()

    async def _first_operator(self, principals: Principals) -> None:
        if await principals.list():
            return
        path = self.home.identities / f"{FIRST_OPERATOR}.json"
        key = create_seed(self.random)
        # The file first: a principal whose key nobody holds could never be used or replaced.
        path.unlink(missing_ok=True)
        Identity(FIRST_OPERATOR, FLEET, key.seed).save(path)
        made = await principals.create(FIRST_OPERATOR, tenant=FLEET, roles=FIRST_ROLES, public_key=key.public_key, actor=SYSTEM)
        self._created = str(path)
        stanza = self.backend.user_stanza(made)
        if stanza is not None:
            log.warning("add this user to the account on the NATS server: %s", stanza)

    async def _status(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{}` → what the runtime is and what its guarantees rest on."""
        Params(params).end()
        self.facts = await self.backend.facts()
        return await status_of(self, caller)

    async def _shutdown(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{}` → stops the runtime once the answer is sent."""
        Params(params).end()
        log.warning("shut down by %s", caller.actor)
        asyncio.get_running_loop().call_later(0.05, self._stop.set)
        return {"stopping": True}


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def open_runtime(
    home: Home,
    *,
    port: int = 0,
    external: External | None = None,
    policy: Place = Place.EMBEDDED,
    remote_policy: RemotePolicy | None = None,
    litestream: Path | None = None,
    webhooks: Listen | None = None,
) -> AsyncIterator[Runtime]:
    """Start a runtime on `home`; it serves while the block runs and is stopped, in order, after it.

    Raises Conflict when another runtime owns the home, Unavailable when the server does not come up, AgentOSError for a disk or
    rights that forbid it.
    """
    home.prepare()
    with home.own():
        async with AsyncExitStack() as stack:
            replication = Litestream(litestream, home, SystemTimer()) if litestream is not None else None
            random = SystemRandom()
            backend: Backend = Embedded(home.nats, home.keys, random, port)
            if external is not None:
                backend = Remote(external, home.keys, random)
            stack.push_async_callback(backend.stop)
            await backend.start((DEFAULT_TENANT,))
            engines = await make_engines(policy, remote=remote_policy, bundles=home.bundles)
            stack.callback(engines.close)
            runtime = Runtime(home, backend, engines)
            runtime.listen = webhooks
            if replication is not None:
                # Ended only after the read models were closed: what they wrote last is still sent.
                stack.push_async_callback(replication.stop)
            await runtime.open(stack)
            if replication is not None:
                runtime.litestream = replication
                await replication.start()
            yield runtime
