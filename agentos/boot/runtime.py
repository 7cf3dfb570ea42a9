"""The runtime, put together: server, registry, tenants, kernel, control service; started in that order, stopped in the other.

Starting: own the home → start the server with the runtime's own users → read principals and desired state from the log → put
accounts and principals in force → open each tenant → serve the control verbs → announce the URL → resume what was running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from nats.errors import Error as NatsError

from agentos import __version__
from agentos.abi.canonical import Json
from agentos.abi.decision import Decision
from agentos.abi.errors import AgentOSError, EngineUnavailable, ManifestError, Unavailable
from agentos.abi.ids import DEFAULT_TENANT, FLEET
from agentos.abi.resource import Resource
from agentos.audit.keyring import KeyRing
from agentos.boot.backend import Backend, Embedded, External, Remote
from agentos.boot.charges import charged_events
from agentos.boot.checkpoints import Checkpoints
from agentos.boot.configuration import Configurations, load_decider, tenants_of
from agentos.boot.engines import Engines, RemotePolicy, make_engines
from agentos.boot.expiry import Expiry
from agentos.boot.home import Home
from agentos.boot.system import LoopSpawner, SystemRandom, SystemTimer
from agentos.boot.tenants import Tenant, Tenants
from agentos.control import audit_verbs, registry_verbs
from agentos.control.adapters.nats_service import ControlService
from agentos.control.approval_verbs import ApprovalVerbs
from agentos.control.authorize import Authorize
from agentos.control.identity import Identity
from agentos.control.policy_verbs import PolicyVerbs
from agentos.control.principal import Caller, Handler
from agentos.control.principal_verbs import PrincipalVerbs
from agentos.control.session_life_verbs import SessionLifeVerbs
from agentos.control.session_verbs import SessionVerbs
from agentos.drivers.adapters.play import check_play
from agentos.drivers.dispatch import Drivers, Providers
from agentos.eventlog.adapters.credentials import create_seed
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.subject import REGISTRY_STREAM
from agentos.kernel.charges import Charges
from agentos.kernel.gate import SYSTEM, Gate
from agentos.kernel.life import Life
from agentos.kernel.sessions import Sessions
from agentos.kernel.turn import Runner
from agentos.kernel.workspace import Workspaces
from agentos.manifests import check_references, validate_resource
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.bundle import policy_modules
from agentos.policy.decide import CacheStats, ControlDecider, Decider
from agentos.policy.lint_apart import Linter
from agentos.policy.port import Place
from agentos.projections.projector import Projector
from agentos.registry.apply import Applier
from agentos.registry.principal import Principals
from agentos.registry.store import Registry

log = logging.getLogger(__name__)

FIRST_OPERATOR: Final = "operator"
FIRST_ROLES: Final = ("operator", "approver", "auditor", "compliance")
"""The first principal may do everything; give others less, then revoke it if you want hands apart."""

RESTARTS: Final = 5
"""How often a server that dies is started again before the runtime gives up."""

KEEP_UP_S: Final = 1.0
"""Seconds until putting a revision in force is tried again."""

CHANGING: Final = frozenset({"registry.apply", "registry.delete", "registry.rollback"})
"""Verbs after which another revision may be in force."""


class Runtime:
    """A runtime that serves. Made by `open_runtime`."""

    def __init__(self, home: Home, backend: Backend, engines: Engines) -> None:
        self.home = home
        self.backend = backend
        self.timer = SystemTimer()
        self.random = SystemRandom()
        self.engines = engines
        self.linter = Linter()
        self.factory = engines.deciding
        self.configurations = Configurations(self.factory)
        self.tenants = Tenants(backend, home)
        self.drivers = Drivers()
        self.models = Providers()
        self.workspaces = Workspaces(home.workspaces)
        charges = Charges(charged_events(self.tenants.log))
        gate = Gate(self.drivers, self.models, self.workspaces, self.timer, charges)
        self.sessions = Sessions(
            logs=self.tenants.log,
            source=self.configurations,
            gate=gate,
            runner=Runner(gate, self.configurations, LoopSpawner(), self.timer),
            drivers=self.drivers,
            workspaces=self.workspaces,
            timer=self.timer,
            random=self.random,
        )
        self.life = Life(self.sessions, self.configurations, gate)
        self._stop = asyncio.Event()
        self._changing = asyncio.Lock()
        self._created: str | None = None
        self._facts: dict[str, str | bool] = {}
        self._control: ControlService | None = None
        self.checkpoints: Checkpoints | None = None
        self._started_ms = self.timer.now_ms()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.backend.url

    def greeting(self) -> Sequence[str]:
        """What `agentos up` says when it is ready."""
        lines = [
            f"agentos {__version__} on {self.home.root}",
            f"log: {self._facts['server']}, sync {self._facts['sync']}",
            f"policy: {self.factory.version}",
            f"listening on {self.url}",
        ]
        if self._created is not None:
            lines.append(f"created the first principal, {FIRST_OPERATOR}: {self._created}")
        return lines

    async def run_until(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, or the runtime is asked to shut down; the server is started again when it dies."""
        waits: list[asyncio.Task[object]] = [asyncio.create_task(stop.wait()), asyncio.create_task(self._stop.wait())]
        if isinstance(self.backend, Embedded):
            waits.append(asyncio.create_task(self._watch(self.backend)))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in waits:
                task.cancel()
            await asyncio.wait(waits)

    async def _watch(self, backend: Embedded) -> None:
        for number in range(1, RESTARTS + 1):
            how = await backend.died()
            log.error("the nats-server has died (%s): starting it again (%d of %d)", how, number, RESTARTS)
            await backend.restart()
            log.warning("the nats-server is back on %s", backend.url)
        raise Unavailable(f"the nats-server has died {RESTARTS + 1} times", mend=f"see {self.home.nats}/nats.log")

    async def open(self, stack: AsyncExitStack) -> None:
        """Start everything, pushing what undoes it onto `stack`."""
        registry_client = await self.backend.connect(FLEET)
        stack.push_async_callback(registry_client.close)
        await ensure_streams(registry_client, (REGISTRY_STREAM,))
        registry_log = JetStreamLog(registry_client)
        registry = Registry(registry_log, self.timer, self.random)
        principals = Principals(registry_log, self.timer, self.random)
        await self._first_operator(principals)
        state = await registry.state()
        names = tenants_of(state.resources())
        await self.backend.update(names, await principals.list())
        self._facts = await self.backend.facts()
        await self.configurations.refresh(state)
        stack.push_async_callback(self.tenants.close)
        ring = KeyRing.open(self.home.keys / "evidence.pem", self.random)
        checkpoints = self.checkpoints = Checkpoints(self.home.read, ring, self.timer, self.random)
        stack.push_async_callback(checkpoints.close)
        stack.push_async_callback(self.models.close)
        stack.push_async_callback(self.drivers.close)
        stack.push_async_callback(self.sessions.close)
        await checkpoints.open(FLEET, registry_client, registry_log)
        for name in sorted(names):
            await self.tenants.open(name)
            await checkpoints.open(name, self.tenants.get(name).client, self.tenants.log(name))

        policy = await self._control_policy()
        stack.callback(policy.close)
        applier = Applier(registry, validate=_validate, check=self._check, admit=self._admit)

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

        handlers: dict[str, Handler] = {
            **SessionVerbs(self.sessions, self.tenants.log, self.tenants, self.workspaces, self.timer, self.random).handlers(),
            **SessionLifeVerbs(self.life).handlers(),
            **PrincipalVerbs(
                principals, lambda: self.configurations.tenants, principals_changed, self.backend.user_stanza
            ).handlers(),
            **audit_verbs.handlers(
                projectors=self._projector,
                logs=self.tenants.log,
                registry=registry_log,
                notaries=checkpoints,
                clock=self.timer,
                random=self.random,
            ),
            **PolicyVerbs(registry, self.tenants.log, lambda: self.factory.version, self._policy_in_force, principals).handlers(),
            "runtime.status": self._status,
            "runtime.shutdown": self._shutdown,
        }
        may = Authorize(policy)
        handlers |= ApprovalVerbs(
            self.sessions, self.configurations.current, self.tenants, applier, revision_changed, may, self.timer
        ).handlers()
        for verb, handler in registry_verbs.handlers(applier).items():
            handlers[verb] = _then(handler, revision_changed) if verb in CHANGING else handler

        self._control = ControlService(handlers, principals, may)
        stack.push_async_callback(self._control.close)
        await self._control.serve(registry_client, FLEET)
        if isinstance(self.backend, Embedded):
            for tenant in self.tenants.all():
                await self._control.serve(tenant.client, tenant.name)
        for tenant in self.tenants.all():
            await self._resume(tenant)
        following = asyncio.create_task(keep_up(), name="keep up with the registry")
        stack.push_async_callback(_cancel, following)
        expiry = asyncio.create_task(Expiry(self.sessions, self.tenants, self.timer).run(), name="end what nobody answers")
        stack.push_async_callback(_cancel, expiry)
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
        await self.backend.update(names, await principals.list())
        fresh = []
        for name in sorted(names - served):
            opened = await self.tenants.open(name)
            if opened is not None:
                fresh.append(opened)
                if self.checkpoints is not None:
                    await self.checkpoints.open(name, opened.client, opened.log)
                if self._control is not None and isinstance(self.backend, Embedded):
                    await self._control.serve(opened.client, name)
        await self.configurations.refresh(state)
        for tenant in fresh:
            await self._resume(tenant)

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

    async def _resume(self, tenant: Tenant) -> None:
        """Take over the sessions that a runtime before us left running. One that cannot be read holds up no other."""
        await tenant.projector.caught_up()
        for row in await self.tenants.sessions(tenant.name, live_only=True, limit=10_000):
            if row["state"] in {"waiting", "paused"}:
                self.sessions.adopt(tenant.name, row["id"])
                continue
            log.info("resuming session %s", row["id"])
            try:
                await self.sessions.resume(tenant.name, row["id"])
            except AgentOSError as error:
                log.warning("session %s of tenant %s cannot be resumed: %s", row["id"], tenant.name, error)

    async def _check(self, resources: Sequence[Resource], tenants: Sequence[str]) -> None:
        """Whether a desired state holds together: references, then that the policies of the tenants concerned load."""
        self.backend.require(tenants_of(resources))
        self.engines.require(tenants_of(resources))
        await asyncio.to_thread(check_references, resources)
        for tenant in tenants:
            if tenant != FLEET:
                await _lint(self.linter, resources, tenant)
                decider = await load_decider(self.engines.checking, resources, tenant, {})
                decider.close()

    async def _admit(self, tenant: str, document: dict[str, Json]) -> Decision:
        """The admission policy in force: the tenant's own, or the default tenant's for what has no tenant yet."""
        decider = self.configurations.decider(tenant) or self.configurations.decider(DEFAULT_TENANT)
        if decider is None:
            raise Unavailable("no admission policy is loaded")
        return await decider.admit(document)

    def _policy_in_force(self, tenant: str) -> tuple[int, str, CacheStats]:
        configuration, decider = self.configurations.current(tenant), self.configurations.decider(tenant)
        if decider is None:
            raise Unavailable(f"no policy is loaded for tenant {tenant}")
        return configuration.revision, decider.digest, decider.stats()

    async def _projector(self, tenant: str) -> Projector:
        return self.tenants.get(tenant).projector

    async def _status(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{}` → what the runtime is and what its guarantees rest on."""
        del params
        self._facts = await self.backend.facts()
        served = self.tenants.get(caller.tenant)
        projected = await served.projector.status()
        behind = await served.projector.behind()
        warnings = [] if self._facts["sync_always"] else [f"sync: {self._facts['sync']}"]
        if projected.faults:
            warnings.append(f"{projected.faults} events of tenant {caller.tenant} could not be read: agentos audit rebuild")
        if projected.problem is not None:
            warnings.append(f"read model: {projected.problem}")
        if self.checkpoints is not None:
            warnings += self.checkpoints.warnings(caller.tenant)
        if self.factory.version.startswith("none"):
            warnings.append(f"policy: {self.factory.version}; every syscall is denied")
        warnings += [f"policy: {trouble}" for trouble in self.engines.troubles()]
        return {
            "version": __version__,
            "home": str(self.home.root),
            "url": self.url,
            "log": self._facts["server"],
            "sync": self._facts["sync"],
            "policy": self.factory.version,
            "tenant": caller.tenant,
            "tenants": sorted(self.configurations.tenants) if caller.fleet else [caller.tenant],
            "revision": self.configurations.current(caller.tenant).revision,
            "principal": caller.name,
            "roles": list(caller.roles),
            "sessions_running": self.sessions.running(),
            "read_model_behind": sum(behind.values()),
            "uptime_s": (self.timer.now_ms() - self._started_ms) // 1000,
            "warnings": warnings,
        }

    async def _shutdown(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{}` → stops the runtime once the answer is sent."""
        del params
        log.warning("shut down by %s", caller.actor)
        asyncio.get_running_loop().call_later(0.05, self._stop.set)
        return {"stopping": True}


def _then(handler: Handler, after: Callable[[], Awaitable[None]]) -> Handler:
    """`handler`, and `after` when it made a revision; the answer comes when the revision is in force."""

    async def both(caller: Caller, params: dict[str, Json]) -> Json:
        answer = await handler(caller, params)
        if isinstance(answer, dict) and answer.get("revision") is not None:
            try:
                await after()
            except AgentOSError as error:
                raise Unavailable(
                    f"the revision is stored, but could not be put in force yet: {error.message}",
                    mend="the runtime goes on trying; agentos status shows which revision is in force",
                ) from error
        return answer

    return both


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _lint(linter: Linter, resources: Sequence[Resource], tenant: str) -> None:
    """The checks of a tenant's Rego that compiling it does not make. Raises ManifestError with every finding."""
    policies: dict[str, list[Resource]] = {}
    for one in resources:
        if one.key.kind == "Policy":
            policies.setdefault(one.spec["target"], []).append(one)
    found = await linter.lint({target: policy_modules(of_target, tenant) for target, of_target in policies.items()})
    if found:
        faults = [{"text": f"{one.path}:{one.line}:{one.column}: {one.message}; {one.mend}"} for one in found]
        raise ManifestError(f"the policies of tenant {tenant} are wrong; nothing was changed", faults=faults)


def _validate(manifest: Json) -> Resource:
    """One manifest by itself, defaults filled in. Raises ManifestError; references are checked later, together."""
    resource, faults = validate_resource(manifest, check_play=check_play)
    if resource is None:
        raise ManifestError("a declaration is wrong", faults=[{**one.to_dict(), "text": str(one)} for one in faults])
    return resource


@asynccontextmanager
async def open_runtime(
    home: Home,
    *,
    port: int = 0,
    external: External | None = None,
    policy: Place = Place.EMBEDDED,
    remote_policy: RemotePolicy | None = None,
) -> AsyncIterator[Runtime]:
    """Start a runtime on `home`; it serves while the block runs and is stopped, in order, after it.

    Raises Conflict when another runtime owns the home, Unavailable when the server does not come up, AgentOSError for a disk or
    rights that forbid it.
    """
    home.prepare()
    with home.own():
        async with AsyncExitStack() as stack:
            backend: Backend = Remote(external) if external else Embedded(home.nats, home.keys, SystemRandom(), port)
            stack.push_async_callback(backend.stop)
            await backend.start((DEFAULT_TENANT,))
            engines = await make_engines(policy, remote=remote_policy, bundles=home.bundles)
            stack.callback(engines.close)
            runtime = Runtime(home, backend, engines)
            await runtime.open(stack)
            yield runtime
