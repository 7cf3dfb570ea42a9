"""Erasure and retention of every served tenant, put together: its log, its keys, its workspaces, its read models, its notary.

A tenant's audit chain is carried out again before anything of the tenant runs: what was erased or retired, and perhaps not to its
end, is gone when its first session resumes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, LogUnavailable, NotFound, Unavailable
from agentos.abi.ids import Clock, Random
from agentos.abi.resource import Key
from agentos.abi.retention import days_kept
from agentos.audit.audit_chain import AuditChain
from agentos.audit.erasure import Erasure
from agentos.audit.retirement import Retirement
from agentos.boot.checkpoints import Checkpoints, Notary
from agentos.boot.tenants import Tenant, Tenants
from agentos.eventlog.adapters.streams import drop_stream
from agentos.eventlog.port import EventLog
from agentos.kernel.sessions import Sessions
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
        workspaces: Path,
        clock: Clock,
        random: Random,
    ) -> None:
        self._tenants = tenants
        self._checkpoints = checkpoints
        self._registry = registry
        self._sessions = sessions
        self._workspaces = workspaces
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
        around = _Around(tenant, self._registry, self._sessions, self._workspaces / name)
        chain = AuditChain(tenant.log, name, self._clock, self._random)
        erasure = Erasure(name, tenant.log, chain, tenant.keys, around, self._clock, self._random)
        notary = _Notary(self._checkpoints.get(name))
        retirement = Retirement(erasure, _Streams(tenant), notary, self._clock)
        self._open[name] = erasure, retirement
        try:
            there = await erasure.finish()
            await retirement.finish()
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

    def __init__(self, tenant: Tenant, registry: Registry, sessions: Sessions, workspaces: Path) -> None:
        self._tenant = tenant
        self._registry = registry
        self._sessions = sessions
        self._workspaces = workspaces
        self._then: dict[tuple[str, int], dict[str, Json] | None] = {}

    async def governance(self, agent: str, revision: int) -> Sequence[dict[str, Json]]:
        """See `Around.governance`."""
        key = Key("Agent", self._tenant.name, agent)
        if (agent, revision) not in self._then:
            was = (await self._registry.state(revision)).get(key)
            self._then[agent, revision] = None if was is None else was.spec.get("governance", {})
        now = (await self._registry.state()).get(key)
        declared = [None if now is None else now.spec.get("governance", {}), self._then[agent, revision]]
        return [one for one in declared if one is not None]

    async def longest_retention(self) -> int:
        """See `Around.longest_retention`."""
        agents = (await self._registry.state()).resources(kind="Agent", tenant=self._tenant.name)
        return max((days_kept(agent.spec.get("governance", {})) for agent in agents), default=0)

    def live(self) -> frozenset[str]:
        """See `Around.live`."""
        return self._sessions.live(self._tenant.name)

    def workspaces(self) -> frozenset[str]:
        """See `Around.workspaces`."""
        try:
            return frozenset(path.name for path in self._workspaces.iterdir())
        except FileNotFoundError:
            return frozenset()

    def remove_workspace(self, session: str) -> None:
        """See `Around.remove_workspace`."""
        folder = self._workspaces / session
        try:
            _let_in(folder)
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise AgentOSError(
                f"the workspace of session {session} cannot be removed: {error.strerror}",
                where=str(folder),
                mend="see whose files are in it, remove it by hand, and erase it again",
            ) from error

    async def forgotten(self) -> None:
        """See `Around.forgotten`."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._caught_up()
        except TimeoutError as error:
            raise Unavailable(
                "the keys are destroyed, but the read models have not dropped all they took from the payload yet",
                mend="agentos status says how far behind they are; agentos audit rebuild builds them anew",
            ) from error

    async def _caught_up(self) -> None:
        """The rows are those of the streams that there are, up to their ends."""
        for projector in (self._tenant.projector, self._tenant.wordsmith):
            while True:
                await projector.caught_up()
                followed, there = (await projector.status()).positions, await self._tenant.streams.streams()
                if followed.keys() <= set(there):
                    break
                await asyncio.sleep(LOOK_S)


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

    def __init__(self, notary: Notary) -> None:
        self._notary = notary

    async def retire(self, streams: Sequence[str], packs: Sequence[str]) -> Sequence[dict[str, Json]]:
        """See `audit.retirement.Notary.retire`."""
        await self._notary.now()
        return [await self._notary.prover.retire(stream, packs) for stream in streams]

    async def sign(self) -> None:
        """See `audit.retirement.Notary.sign`."""
        await self._notary.now()


def _let_in(folder: Path) -> None:
    """Give the owner the right to empty the folders below `folder`: a tool may have taken it. Follows no link."""
    for where, folders, _ in os.walk(folder, topdown=True, followlinks=False):
        for path in (Path(where), *(Path(where, name) for name in folders)):
            if not path.is_symlink():
                path.chmod(stat.S_IRWXU)
