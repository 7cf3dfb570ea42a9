"""The parts of a runtime: everything that runs sessions and begins them, put together once, before anything is started.

What is here is made without a server and without a log; each part finds its tenant's when it is first asked. `boot.runtime`
starts them, in order, and brings `erasures` and `claim`, which can only be made then.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

from agentos.abi.errors import Unavailable
from agentos.audit.audit_chain import AuditChain
from agentos.boot.backend import Backend, Embedded
from agentos.boot.batches import BatchEndpoints, make_batches
from agentos.boot.budgets import budgeted_events
from agentos.boot.charges import charged_events
from agentos.boot.claim import Claim
from agentos.boot.configuration import Configurations
from agentos.boot.delegations import make_deliveries
from agentos.boot.doors import Doors
from agentos.boot.engines import Engines
from agentos.boot.erasures import Erasures
from agentos.boot.failpoints import Failpoints
from agentos.boot.freezing import Freezing
from agentos.boot.hands import HandsOf
from agentos.boot.harness_place import PlacedSpawner
from agentos.boot.harness_pool import HarnessPool
from agentos.boot.home import Home
from agentos.boot.standing import Standing
from agentos.boot.supervision import Supervision
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.boot.tenants import Tenants
from agentos.boot.triggers import make_triggers
from agentos.drivers.adapters.builtin import BuiltinDriver
from agentos.drivers.adapters.delegate import DelegateDriver
from agentos.drivers.adapters.locks_nats import NatsLocks
from agentos.drivers.adapters.space_labels import SqliteSpaceLabels
from agentos.drivers.dispatch import Drivers, Providers
from agentos.drivers.spaces import Spaces
from agentos.files.measure import Roots, measure
from agentos.files.quota import Amount, Quotas
from agentos.kernel.admission import Admissions
from agentos.kernel.budgets import Budgets
from agentos.kernel.charges import Charges
from agentos.kernel.delegation import Delegator
from agentos.kernel.fork import Forks
from agentos.kernel.gate import Gate
from agentos.kernel.life import Life
from agentos.kernel.locks import LockKeeper
from agentos.kernel.runner import Runner
from agentos.kernel.sessions import Sessions
from agentos.kernel.signals import SignalDesk
from agentos.kernel.snapshot import Snapshots
from agentos.kernel.stopping import Stopping
from agentos.kernel.tenure import Alone, Watched
from agentos.kernel.waits import Waits
from agentos.kernel.workspace import Workspaces


class Parts:
    """See the module."""

    def __init__(self, home: Home, backend: Backend, engines: Engines) -> None:
        self.home = home
        self.backend = backend
        self.erasures: Erasures | None = None
        """Made once the log is there: whose audit chains are read, and who shares a key."""
        self.claim: Claim | None = None
        """On a server of somebody else's: which runtime is the newest."""
        self.timer = SystemTimer()
        self.random = SystemRandom()
        self.engines = engines
        self.factory = engines.deciding
        roots = Roots(home.workspaces, home.spaces, home.versions)
        self.quotas = Quotas(self._storage, lambda tenant: measure(roots, tenant))
        self.hands = HandsOf(home, self.timer, self.random, os.environ, self.quotas)
        self.configurations = Configurations(self.factory, self.hands.configured)
        self.tenants = Tenants(backend, home, self.random)
        self.models = Providers()
        self.workspaces = Workspaces(home.workspaces, self.quotas)
        self.admissions = Admissions(self.timer)
        self.waits = Waits(self.admissions)
        self.locks = LockKeeper(self._lock_store, self.configurations, self.timer, self.waits)
        self.space_labels = SqliteSpaceLabels(home.spaces)
        self.spaces = Spaces(home.spaces, self.space_labels, self.timer, self.hands.versions)
        self.delegator = Delegator(self.configurations, self.tenants.log, self.workspaces, self.timer, self.waits)
        builtin = BuiltinDriver(self.locks, self.spaces, self.hands.versions)
        self.drivers = Drivers(
            builtin=builtin,
            delegate=DelegateDriver(self.delegator),
            hands=self.hands.given,
            broker=self.hands.broker,
            tracked=self.hands.tracked,
        )
        charges = Charges(charged_events(lambda tenant: self.tenants.get(tenant).streams))
        self.budgets = Budgets(budgeted_events(lambda tenant: self.tenants.get(tenant).streams))
        points = Failpoints.of_environment(os.environ)
        drivers, models = (points.drivers(self.drivers), points.models(self.models)) if points else (self.drivers, self.models)
        # A home of our own is locked; on a server of somebody else's another home may lead into the same account.
        tenure = Alone() if isinstance(backend, Embedded) else Watched(self._serves, self.timer)
        self.batch_endpoints = BatchEndpoints()
        self.batches = make_batches(self.tenants, self.batch_endpoints, self.timer, self.random)
        self.stopping = Stopping(drivers)
        gate = Gate(self.stopping, models, self.workspaces, self.timer, charges, tenure, self.budgets, self.batches)
        self.spawner = PlacedSpawner(self.hands.sandboxes)
        self.harnesses = HarnessPool(self.spawner.start)
        self.snapshots = Snapshots(lambda tenant: self.tenants.get(tenant).snapshots)
        self.sessions = Sessions(
            logs=(lambda tenant: points.log(self.tenants.log(tenant))) if points else self.tenants.log,
            source=self.configurations,
            gate=gate,
            runner=Runner(gate, self.configurations, self.harnesses, self.timer, self.admissions),
            drivers=self.drivers,
            workspaces=self.workspaces,
            timer=self.timer,
            random=self.random,
            snapshots=self.snapshots,
            waits=self.waits,
        )
        self.sessions.at_end(self.locks.ended)
        self.sessions.at_end(self.batches.ended)
        self.sessions.at_end(self.hands.ended)
        self.delegator.attach(self.sessions)
        gate.hear = self.delegator.besides(gate.hear)
        self.signals = builtin.signals = SignalDesk(self.sessions, self.configurations, self.timer, self.tenants.live_of)
        self.signals.idle = self.locks.idle = self.sessions.idle
        self.sessions.at_end(self.signals.ended)
        self.freezes = gate.freezes
        self.deliveries = make_deliveries(self, self.audit_chain, self._join)
        self.freezing = Freezing(gate.freezes, self.audit_chain, self.configurations.current, self.timer, self.random)
        self.standing = Standing(self.sessions, self.tenants, self.timer, self.locks, self.batches, self.delegator.cascade)
        chain, held = self.audit_chain, gate.freezes.of_agent
        self.supervision = Supervision(self.sessions, self.tenants, self.configurations, self.timer, chain, held)
        self.sessions.at_end(self.supervision.ended)
        self.triggers = make_triggers(
            self.tenants, self.configurations, self.sessions, self.audit_chain, tenure, self.timer, self.random, points
        )
        self.signals.triggers = self.triggers
        self.freezing.thawed += (self.triggers.changed, self.supervision.stir)
        self.doors = Doors(self.triggers, self.tenants, backend, self.spaces, self.space_labels, self.timer, self.random)
        self.life = Life(self.sessions, self.configurations, gate)
        self.forks = Forks(self.sessions, self.configurations, self.tenants.log, self.workspaces, self.timer, self._join)

    def close_after(self, stack: AsyncExitStack) -> None:
        """Have everything closed that runs sessions, those who begin them first."""
        stack.push_async_callback(self.models.close)
        stack.push_async_callback(self.batch_endpoints.close)
        stack.push_async_callback(self.batches.close)
        stack.push_async_callback(self.hands.close)
        stack.push_async_callback(self.drivers.close)
        stack.callback(self.spaces.close)
        stack.push_async_callback(self.locks.close)
        stack.push_async_callback(self.admissions.close)
        stack.push_async_callback(self.delegator.close)
        stack.push_async_callback(self.signals.close)
        stack.push_async_callback(self.harnesses.close)
        stack.push_async_callback(self.sessions.close)
        stack.push_async_callback(self.deliveries.close)
        stack.push_async_callback(self.freezing.close)

    def audit_chain(self, tenant: str) -> AuditChain:
        """Where is recorded what is done to a tenant. Raises Unavailable until the log is there."""
        if self.erasures is None:
            raise Unavailable("the runtime is not ready yet", mend="ask again in a moment")
        return self.erasures.chain(tenant)

    def _storage(self, tenant: str) -> Amount:
        return self.configurations.storage(tenant)

    def _lock_store(self, tenant: str) -> NatsLocks:
        served = self.tenants.get(tenant)
        return NatsLocks(served.client, self.timer, self.random, lambda: served.streams.replicas)

    async def _join(self, tenant: str, session: str, other: str) -> None:
        """Let a fork share the key of the session that it repeats."""
        if self.erasures is None:
            # A fork with a key of its own would outlive the erasure of what it repeats.
            raise Unavailable("the runtime is not ready yet", mend="ask again in a moment")
        await self.erasures.join(tenant, session, other)

    async def _serves(self, tenant: str) -> bool:
        """Whether this runtime's claim is the newest. There is one tenant where there is a claim."""
        del tenant
        return self.claim is not None and await self.claim.newest()
