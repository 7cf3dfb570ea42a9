"""Freezes that last: thrown in memory first, then recorded in the audit chain of every tenant that they hold.

    answer = await freezing.freeze(scope, tenant, reason=…, actor=…, since_us=timer.monotonic_us())

When the answer is there, the freeze is durable, and no decision of its scope is stored after it. A chain that cannot take it in
now gets it as soon as it can; until then it holds all the same. At start every chain is read before any session goes on. A freeze
of the fleet stands in the chain of each tenant: one that a crash left in some is recorded in the others, and so is its end.

Whoever cannot tell what is frozen stands still: a tenant whose audit chain cannot be read is frozen until it can.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, LogUnavailable, NotFound
from agentos.abi.freeze import Freeze, FreezeScope, ScopeKind
from agentos.abi.ids import FLEET, Random, new_id
from agentos.audit.audit_chain import AuditChain, AuditRecord, Entry, frozen_entry, thawed_entry
from agentos.kernel.freeze import Freezes
from agentos.kernel.port import Configuration, Timer

log = logging.getLogger(__name__)

AGAIN_S: Final = 1.0
"""Seconds until a chain that could not take something in is asked again."""

LONGEST_PAUSE_S: Final = 60.0

SYSTEM: Final = "system/kernel"

UNREADABLE: Final = "unreadable"
"""The id of what holds a tenant whose audit chain cannot be read, behind it the tenant's name."""


class Freezing:
    """Freezes of every served tenant. `chains` gives a tenant's audit chain, `current` its configuration."""

    def __init__(
        self,
        freezes: Freezes,
        chains: Callable[[str], AuditChain],
        current: Callable[[str], Configuration],
        timer: Timer,
        random: Random,
    ) -> None:
        self._freezes = freezes
        self._chains = chains
        self._current = current
        self._timer = timer
        self._random = random
        self._served: set[str] = set()
        self._taken = dict[str, int]()
        """By freeze: after how many µs it was in force, as its event is to say."""
        self.thawed: list[Callable[[], None]] = []
        """Told after each thaw: what was put off may be tried again."""
        self._recording: set[asyncio.Task[None]] = set()
        self._pending: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        """One freeze or thaw is recorded at a time; what holds in memory waits for nobody."""

    async def open(self, names: Collection[str]) -> None:
        """Serve tenants, which are open; put in force what their chains say. Raises LogUnavailable."""
        async with self._turn:
            records: dict[str, AuditRecord] = {}
            for name in sorted(names):
                self._served.add(name)
                try:
                    records[name] = await self._chains(name).record()
                except LogUnavailable:
                    raise
                except AgentOSError as error:
                    log.critical("the audit chain of tenant %s cannot be read, so the tenant is frozen: %s", name, error)
                    self._freezes.impose(self._unreadable(name, error))
                    continue
                for freeze in records[name].frozen.values():
                    self._freezes.impose(freeze)
            await self._agree(records)

    async def freeze(self, scope: FreezeScope, tenant: str, *, reason: str, actor: str, since_us: int) -> dict[str, Json]:
        """Freeze a scope: `{freeze, scope, in_force_us, quiet_us, durable_us}`, all counted from `since_us`.

        In force is when every gate sees it, quiet when no decision is on its way any more. Raises NotFound for an agent or a
        program that is not declared, LogUnavailable: then it holds, and is recorded as soon as that can be.
        """
        self._require(scope, tenant)
        where = FLEET if scope.kind is ScopeKind.FLEET else tenant
        name = new_id("f", self._timer, self._random)
        freeze = Freeze(name, where, scope, reason, actor, self._timer.now_ms())
        self._freezes.impose(freeze, recorded=False)
        in_force_us = self._taken[name] = self._timer.monotonic_us() - since_us
        log.warning("%s is frozen by %s (%s)", scope, actor, name)
        # At once, and to its end also where whoever asked is gone, or the runtime is told to stop: it is forgotten otherwise.
        recording = asyncio.create_task(self._record(freeze), name=f"record freeze {name}")
        self._recording.add(recording)
        recording.add_done_callback(self._recording.discard)
        await self._freezes.quiet(freeze)
        quiet_us = self._timer.monotonic_us() - since_us
        try:
            await asyncio.shield(recording)
        except AgentOSError as error:
            raise LogUnavailable(
                f"{scope} is frozen by {name}, and the log has not taken that in yet: {error.message}",
                mend="it holds, and is recorded as soon as the log is there; a restart before that would forget it",
            ) from error
        durable_us = self._timer.monotonic_us() - since_us
        told: dict[str, Json] = {"freeze": name, "scope": scope.to_dict(), "in_force_us": in_force_us}
        return {**told, "quiet_us": quiet_us, "durable_us": durable_us}

    async def thaw(self, freeze: str, *, reason: str, actor: str) -> Freeze:
        """Take a freeze back, durably first. Raises NotFound, Conflict for one that cannot be, LogUnavailable: it holds on."""
        async with self._turn:
            found = self._freezes.get(freeze)
            if found is None:
                raise NotFound(f"no freeze {freeze} is in force", mend="list them: agentos freeze list")
            if freeze.startswith(UNREADABLE):
                raise Conflict(found.reason, mend="mend the log, then start the runtime again; see docs/signals.md")
            await self._record_freeze(found)
            await self._record_thaw(found, reason, actor)
            self._freezes.lift(freeze)
            self._taken.pop(freeze, None)
            log.warning("%s is not frozen by %s any more, says %s", found.scope, freeze, actor)
        for tell in self.thawed:
            tell()
        return found

    def holding(self, tenant: str, *, fleet: bool) -> list[Freeze]:
        """The freezes in force on something of a tenant; `fleet`: on anything."""
        return [one for one in self._freezes.all() if fleet or one.tenant in {tenant, FLEET}]

    def stir(self) -> None:
        """What is declared has changed: an agent may be in another program now."""
        self._freezes.stir()

    async def close(self) -> None:
        """See that what is being recorded is; try nothing again."""
        if self._recording:
            await asyncio.wait(self._recording)
        for task in self._pending:
            task.cancel()
        if self._pending:
            await asyncio.wait(self._pending)

    async def _agree(self, records: dict[str, AuditRecord]) -> None:
        """Have every chain say what one of them says of the fleet: a crash may have come in between."""
        ended = {name: record.thawed[name] for record in records.values() for name in record.thawed}
        for freeze in self._freezes.all():
            if freeze.scope.kind is not ScopeKind.FLEET:
                continue
            try:
                if freeze.id in ended:
                    await self._record_thaw(freeze, "its end was recorded for others of the fleet", SYSTEM)
                    self._freezes.lift(freeze.id)
                else:
                    await self._record_freeze(freeze)
            except AgentOSError as error:
                # It holds; who takes it back records it first.
                log.warning("freeze %s is not in every audit chain yet: %s", freeze.id, error)
                self._later(freeze)

    def _require(self, scope: FreezeScope, tenant: str) -> None:
        if scope.kind is ScopeKind.FLEET:
            return
        agents = self._current(tenant).agents
        known = {ScopeKind.AGENT: set(agents), ScopeKind.PROGRAM: {one.program for one in agents.values()}}.get(scope.kind)
        if known is not None and scope.name not in known:
            raise NotFound(
                f"no {scope.kind} {scope.name} in tenant {tenant}", mend=f"one of: {', '.join(sorted(known)) or 'none'}"
            )

    async def _record(self, freeze: Freeze) -> None:
        """Record a new freeze; once that can be, if it cannot be now. Raises LogUnavailable, ChainBroken."""
        try:
            async with self._turn:
                if self._freezes.get(freeze.id) is not None:
                    await self._record_freeze(freeze)
        except AgentOSError:
            self._later(freeze)
            raise

    async def _record_freeze(self, freeze: Freeze) -> None:
        """Record a freeze in each chain that does not have it. Raises LogUnavailable, ChainBroken."""

        async def entry(record: AuditRecord) -> Sequence[Entry]:
            if freeze.id in record.frozen or freeze.id in record.thawed:
                return ()
            return (frozen_entry(freeze.id, freeze.scope, freeze.reason, self._taken.get(freeze.id, 0)),)

        await self._append(freeze, entry, freeze.actor, hasty=True)
        self._freezes.recorded(freeze.id)

    async def _record_thaw(self, freeze: Freeze, reason: str, actor: str) -> None:
        async def entry(record: AuditRecord) -> Sequence[Entry]:
            return (thawed_entry(freeze.id, reason),) if freeze.id in record.frozen else ()

        await self._append(freeze, entry, actor)

    async def _append(
        self,
        freeze: Freeze,
        entry: Callable[[AuditRecord], Awaitable[Sequence[Entry]]],
        actor: str,
        *,
        hasty: bool = False,
    ) -> None:
        """Append to the chain of each tenant that is held. Raises the first error once all have been tried."""
        names = [freeze.tenant] if freeze.tenant != FLEET else [one for one in sorted(self._served) if self._readable(one)]

        async def append(name: str) -> None:
            await self._chains(name).append(entry, actor=actor, revision=self._revision(name), hasty=hasty)

        done = await asyncio.gather(*map(append, names), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error

    def _readable(self, tenant: str) -> bool:
        return self._freezes.get(f"{UNREADABLE}-{tenant}") is None

    def _revision(self, tenant: str) -> int:
        try:
            return self._current(tenant).revision
        except NotFound:
            # A tenant that was deleted is served until the runtime stops.
            return 0

    def _later(self, freeze: Freeze) -> None:
        """Record a freeze once its chains can take it in."""

        async def again() -> None:
            pause_s = AGAIN_S
            while self._freezes.get(freeze.id) is not None:
                await self._timer.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                try:
                    async with self._turn:
                        if self._freezes.get(freeze.id) is not None:
                            await self._record_freeze(freeze)
                except AgentOSError as error:
                    log.warning("freeze %s is not in the log yet: %s", freeze.id, error)
                else:
                    return

        task = asyncio.create_task(again(), name=f"record freeze {freeze.id}")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    def _unreadable(self, tenant: str, error: AgentOSError) -> Freeze:
        reason = f"the audit chain cannot be read, so nobody knows what is frozen: {error.message}"
        scope = FreezeScope(ScopeKind.TENANT)
        return Freeze(f"{UNREADABLE}-{tenant}", tenant, scope, reason, SYSTEM, self._timer.now_ms())
