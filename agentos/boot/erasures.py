"""Erasure and retention of every served tenant, put together: its log, its keys, its workspaces, its read models, its notary.

A tenant's audit chain is carried out again before anything of the tenant runs: what was erased or retired, and perhaps not to its
end, is gone when its first session resumes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, LogUnavailable, NotFound, Unavailable
from agentos.abi.ids import Clock, Random
from agentos.abi.resource import Key
from agentos.abi.retention import days_kept
from agentos.audit.audit_chain import AuditChain
from agentos.audit.erasure import Erasure
from agentos.audit.retired import Retired, vouched
from agentos.audit.retirement import Retirement
from agentos.boot.budgets import spent_in
from agentos.boot.checkpoints import Checkpoints, Notary
from agentos.boot.hands import HandsOf
from agentos.boot.tenants import Tenant, Tenants
from agentos.eventlog.adapters.streams import drop_stream
from agentos.eventlog.port import EventLog
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import Workspaces
from agentos.registry.state import State
from agentos.registry.store import Registry

log = logging.getLogger(__name__)

PATIENCE_S: Final = 60.0
"""Seconds that an erasure waits for the read models to have taken it in."""

LOOK_S: Final = 0.05
"""Seconds between two looks whether a read model has noticed that a stream is gone."""


class Erasures:
    """The erasures of the runtime, by tenant."""

    def __init__(
        self,
        tenants: Tenants,
        checkpoints: Checkpoints,
        registry: Registry,
        sessions: Sessions,
        workspaces: Workspaces,
        hands: HandsOf,
        clock: Clock,
        random: Random,
    ) -> None:
        self._tenants = tenants
        self._checkpoints = checkpoints
        self._registry = registry
        self._sessions = sessions
        self._workspaces = workspaces
        self._hands = hands
        self._clock = clock
        self._random = random
        self._open: dict[str, tuple[Erasure, Retirement]] = {}
        self._problems: dict[str, str] = {}

    async def open(self, name: str) -> None:
        """Serve a tenant, which is open and under checkpoints; carry out what its audit chain says.

        Raises LogUnavailable. What else goes wrong (a chain that was changed, a workspace that cannot be removed) is told by
        `warnings`: nothing can be erased then, or something still is there.
        """
        tenant = self._tenants.get(name)
        around = _Around(tenant, self._registry, self._sessions, self._workspaces, self._hands)
        chain = AuditChain(tenant.log, name, self._clock, self._random)
        erasure = Erasure(name, tenant.log, chain, tenant.keys, around, self._clock, self._random)
        notary = _Notary(self._checkpoints.get(name), tenant.streams)
        retirement = Retirement(erasure, _Streams(tenant), notary, self._clock)
        self._open[name] = erasure, retirement
        try:
            there = await erasure.finish()
            await retirement.finish()
            await around.sweep()
        except LogUnavailable:
            raise
        except AgentOSError as error:
            log.error("what was erased or retired in tenant %s is not all gone: %s", name, error)  # noqa: TRY400 - it says what to do
            self._problems[name] = str(error)
        else:
            if there:
                log.warning("%d payload keys of tenant %s that had been destroyed were there again: destroyed", there, name)

    def get(self, tenant: str) -> tuple[Erasure, Retirement]:
        """See `control.erasure_verbs.Erasures`."""
        if tenant not in self._open:
            raise NotFound(f"there is no tenant {tenant}", mend="declare it: kind Tenant; agentos get tenant lists them")
        return self._open[tenant]

    def chain(self, tenant: str) -> AuditChain:
        """The audit chain of `tenant`. Raises NotFound."""
        return self.get(tenant)[0].chain

    async def assign(self, tenant: str, session: str, subject: str) -> None:
        """Let a session that is just being created share the key of a data subject."""
        await self.get(tenant)[0].assign(session, subject)

    async def join(self, tenant: str, session: str, other: str) -> None:
        """Let a fork that is just being created share the key of the session that it repeats."""
        await self.get(tenant)[0].join(session, other)

    async def warnings(self, tenant: str) -> list[str]:
        """What `status` has to say about a tenant."""
        lines = [f"erasure: {self._problems[tenant]}"] if tenant in self._problems else []
        try:
            periods = await self.get(tenant)[1].overdue()
        except AgentOSError as error:
            return [*lines, f"retention: {error.message}"]
        return [*lines, *(f"retention: {one} need not be kept any more: agentos audit retire {one} --to DIR" for one in periods)]


class _Around:
    """`audit.erasure.Around`."""

    def __init__(self, tenant: Tenant, registry: Registry, sessions: Sessions, workspaces: Workspaces, hands: HandsOf) -> None:
        self._tenant = tenant
        self._hands = hands
        self._registry = registry
        self._sessions = sessions
        self._workspaces = workspaces
        self._then: dict[tuple[str, int], dict[str, Json] | None] = {}

    async def declared(self) -> _Declared:
        """See `Around.declared`."""
        return _Declared(self._registry, self._tenant.name, await self._registry.state(), self._then)

    async def longest_retention(self) -> int:
        """See `Around.longest_retention`."""
        agents = (await self._registry.state()).resources(kind="Agent", tenant=self._tenant.name)
        return max((days_kept(agent.spec.get("governance", {})) for agent in agents), default=0)

    def live(self) -> frozenset[str]:
        """See `Around.live`."""
        return self._sessions.live(self._tenant.name)

    async def cancel(self, session: str, *, reason: str, actor: str) -> None:
        """See `Around.cancel`."""
        try:
            await self._sessions.cancel(self._tenant.name, session, reason=reason, actor=actor)
        except Conflict:
            if not (await self._sessions.state(self._tenant.name, session)).over:
                raise

    def workspaces(self) -> frozenset[str]:
        """See `Around.workspaces`."""
        return self._workspaces.sessions(self._tenant.name)

    def remove_workspace(self, session: str) -> None:
        """See `Around.remove_workspace`."""
        self._workspaces.destroy(self._tenant.name, session)
        self._hands.destroy(self._tenant.name, session)

    async def forgotten(self) -> None:
        """See `Around.forgotten`."""
        await self.sweep()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._caught_up()
        except TimeoutError as error:
            raise Unavailable(
                "the keys are destroyed, but the read models have not dropped all they took from the payload yet",
                mend="agentos status says how far behind they are; agentos audit rebuild builds them anew",
            ) from error

    async def sweep(self) -> None:
        """Delete the snapshots of sessions that are erased, which nobody can read any more, or retired. Raises LogUnavailable."""
        await self._tenant.snapshots.sweep(await self._tenant.streams.streams())

    async def _caught_up(self) -> None:
        """The rows are those of the streams that there are, up to their ends."""
        for projector in (self._tenant.projector, self._tenant.wordsmith):
            while True:
                await projector.caught_up()
                followed, there = (await projector.status()).positions, await self._tenant.streams.streams()
                if followed.keys() <= set(there):
                    break
                await asyncio.sleep(LOOK_S)


class _Declared:
    """`audit.erasure.Declared`: `now` is the newest state when it was made; `then` remembers what was declared by revision."""

    def __init__(self, registry: Registry, tenant: str, now: State, then: dict[tuple[str, int], dict[str, Json] | None]) -> None:
        self._registry = registry
        self._tenant = tenant
        self._now = now
        self._then = then

    async def governance(self, agent: str, revision: int) -> Sequence[dict[str, Json]]:
        """See `Declared.governance`."""
        if (agent, revision) not in self._then:
            self._then[agent, revision] = self._of(await self._registry.state(revision), agent)
        declared = [self._of(self._now, agent), self._then[agent, revision]]
        return [one for one in declared if one is not None]

    async def require_current(self) -> None:
        """See `Declared.require_current`."""
        head = await self._registry.head()
        if head is not None and head.number != self._now.revision:
            raise Conflict(f"revision {head.number} was applied meanwhile, which may declare another retention", mend="ask again")

    def _of(self, state: State, agent: str) -> dict[str, Json] | None:
        found = state.get(Key("Agent", self._tenant, agent))
        return None if found is None else found.spec.get("governance", {})


class _Streams:
    """`audit.retirement.Streams`."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant

    @property
    def log(self) -> EventLog:
        """See `Streams.log`."""
        return self._tenant.streams

    async def drop(self, names: Sequence[str]) -> None:
        """See `Streams.drop`."""
        self._tenant.streams.forbid(names)
        for name in names:
            await drop_stream(self._tenant.client, name)
        # Who looked while they were there tells nobody of them any more.
        self._tenant.streams.forbid(names)


class _Notary:
    """`audit.retirement.Notary`."""

    def __init__(self, notary: Notary, streams: EventLog) -> None:
        self._notary = notary
        self._streams = streams

    async def retire(self, streams: Sequence[str], packs: Sequence[str]) -> Sequence[dict[str, Json]]:
        """See `audit.retirement.Notary.retire`."""
        await self._notary.now()
        signed = [await self._notary.prover.retire(stream, packs) for stream in streams]
        # Budgets for all time go on counting what is dropped with the log of it.
        return [{**one, "spent": await spent_in(self._streams, str(one["stream"]))} for one in signed]

    async def vouched(self) -> Mapping[str, Retired]:
        """See `audit.retirement.Notary.vouched`."""
        prover = self._notary.prover
        return await vouched(self._streams, prover.origin, prover.ring.trusted)

    async def sign(self) -> None:
        """See `audit.retirement.Notary.sign`."""
        await self._notary.now()
