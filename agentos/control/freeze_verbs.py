"""The verbs of the kill switch: freeze.set, freeze.lift, freeze.list.

A principal of a tenant freezes what is of its tenant; the fleet is frozen, and goes on, by principals of the fleet alone.
"""

from __future__ import annotations

from typing import Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import Denied, NotFound, UsageError
from agentos.abi.event import rfc3339
from agentos.abi.freeze import Freeze, FreezeScope, ScopeKind, read_scope
from agentos.abi.ids import FLEET
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.kernel.port import Timer

MAX_REASON = 2000


class Freezing(Protocol):
    """Freezes that last."""

    async def freeze(self, scope: FreezeScope, tenant: str, *, reason: str, actor: str, since_us: int) -> dict[str, Json]:
        """Freeze a scope; see `boot.freezing`."""

    async def thaw(self, freeze: str, *, reason: str, actor: str) -> Freeze:
        """Take a freeze back. Raises NotFound, Conflict, LogUnavailable."""

    def holding(self, tenant: str, *, fleet: bool) -> list[Freeze]:
        """The freezes in force on something of a tenant; `fleet`: on anything."""


class FreezeVerbs:
    """The verbs; see `handlers`."""

    def __init__(self, freezing: Freezing, timer: Timer) -> None:
        self._freezing = freezing
        self._timer = timer

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {"freeze.set": self.set, "freeze.lift": self.lift, "freeze.list": self.list}

    async def set(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Freeze: {scope: {kind, name?}, reason} → {freeze, scope, in_force_us, quiet_us, durable_us}.

        The latencies count from when the verb was called. Once the answer is sent no decision of the scope comes any more.
        """
        since_us = self._timer.monotonic_us()
        take = Params(params)
        body, reason = take.mapping("scope", most=2), take.text("reason", longest=MAX_REASON)
        take.end()
        try:
            scope = read_scope(body)
        except (ValueError, KeyError, TypeError) as error:
            known = "fleet, tenant, or program or agent with its name"
            raise UsageError(f"parameter scope: expected one of {known}") from error
        if scope.kind is ScopeKind.FLEET:
            _require_fleet(caller)
        return await self._freezing.freeze(scope, caller.tenant, reason=reason, actor=caller.actor, since_us=since_us)

    async def lift(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Take back one freeze, or all that hold something of the tenant: {freeze | all, reason} → [row].

        `all` leaves those of the fleet to principals of the fleet.
        """
        take = Params(params)
        name, every = take.text_or_none("freeze", longest=128), take.flag("all")
        reason = take.text("reason", longest=MAX_REASON)
        take.end()
        if (name is None) != every:
            raise UsageError("name one freeze, or say all")
        held = self._freezing.holding(caller.tenant, fleet=False)
        if name is not None:
            wanted = [one for one in held if one.id == name]
            if not wanted:
                raise NotFound(f"no freeze {name} is in force in tenant {caller.tenant}", mend="list them: agentos freeze list")
            if wanted[0].tenant == FLEET:
                _require_fleet(caller)
        else:
            wanted = [one for one in held if caller.fleet or one.tenant != FLEET]
        return [_row(await self._freezing.thaw(one.id, reason=reason, actor=caller.actor)) for one in wanted]

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{} → [{freeze, scope, tenant, reason, by, since}]: what holds something of the tenant, oldest first."""
        Params(params).end()
        return [_row(one) for one in self._freezing.holding(caller.tenant, fleet=False)]


def _row(freeze: Freeze) -> dict[str, Json]:
    return {
        "freeze": freeze.id,
        "scope": freeze.scope.to_dict(),
        "tenant": freeze.tenant,
        "reason": freeze.reason,
        "by": freeze.actor,
        "since": rfc3339(freeze.time_ms),
    }


def _require_fleet(caller: Caller) -> None:
    if not caller.fleet:
        raise Denied(
            f"principal {caller.name} belongs to tenant {caller.tenant}: the fleet is not its to freeze",
            rules=("tenant.fleet",),
            reasons=("freezing the fleet takes a principal of the fleet",),
        )
