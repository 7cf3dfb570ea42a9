"""The verbs about locks: lock.list, lock.break.

Breaking one is recorded in the tenant's audit chain before it is done, by the person who does it. There the resource stands as a
digest: its name may be a model's words, and what that chain says can never be erased.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from agentos.abi.canonical import Json, digest
from agentos.abi.event import rfc3339
from agentos.abi.ids import Clock
from agentos.audit.audit_chain import AuditChain, AuditRecord, Entry, unlocked_entry
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.drivers.locks import LONGEST_NAME, Lock
from agentos.kernel.locks import LockKeeper, Standing
from agentos.scheduler.waits import Wait

MAX_REASON: Final = 2000


PERSON: Final = "a person"
"""Who a session waits for that waits for an approval."""


class Reader(Protocol):
    """The read models, as these verbs need them; answers include everything that the log held when asked."""

    async def approvals(self, tenant: str, *, waiting_only: bool) -> list[dict[str, Json]]:
        """Approvals, oldest first."""


class LockVerbs:
    """The verbs; see `handlers`. `chains` gives a tenant's audit chain, `revision` the one in force for it."""

    def __init__(
        self,
        locks: LockKeeper,
        reader: Reader,
        chains: Callable[[str], AuditChain],
        revision: Callable[[str], int],
        clock: Clock,
        waits: Callable[[str], Sequence[Wait]],
    ) -> None:
        """`waits` tells of a tenant which sessions wait for which others."""
        self._waits = waits
        self._locks = locks
        self._reader = reader
        self._chains = chains
        self._revision = revision
        self._clock = clock

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {"lock.list": self.list, "lock.break": self.break_open}

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{} → {locks: [{resource, session, agent, call, token, since, expires, expired, waiters: [{session, agent}]}],
        waits: [{waiter, holder, reason}]}: what is held or waited for, by resource, and who waits for whom: for locks, for
        people, and to begin.
        """
        Params(params).end()
        standing = await self._locks.standing(caller.tenant)
        waits = self._waits(caller.tenant)
        concerned = {one.lock.holder.session for one in standing if one.lock.holder is not None} | {one.holder for one in waits}
        rows = await self._reader.approvals(caller.tenant, waiting_only=True) if concerned else []
        asked = [(str(row["session"]), str(row["call"])) for row in rows if row["session"] in concerned]
        people = [Wait(session, PERSON, f"approval of {call}") for session, call in asked]
        now = self._clock.now_ms()
        return {
            "locks": [_row(one, now) for one in standing],
            "waits": [{"waiter": one.waiter, "holder": one.holder, "reason": one.reason} for one in _sorted([*waits, *people])],
        }

    async def break_open(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Take a lock from whoever holds it: {resource, reason} → {resource, session?, agent?, token?}, as it was held."""
        take = Params(params)
        resource, reason = take.text("resource", longest=LONGEST_NAME), take.text("reason", longest=MAX_REASON)
        take.end()
        chain, revision = self._chains(caller.tenant), self._revision(caller.tenant)

        async def record(lock: Lock) -> None:
            session = None if lock.holder is None else lock.holder.session

            async def entry(_: AuditRecord) -> tuple[Entry, ...]:
                return (unlocked_entry(digest(resource.encode("utf-8")), session, lock.token, reason),)

            await chain.append(entry, actor=caller.actor, revision=revision)

        lock = await self._locks.break_open(caller.tenant, resource, record)
        if lock.holder is None:
            return {"resource": resource}
        return {"resource": resource, "session": lock.holder.session, "agent": lock.holder.agent, "token": lock.token}


def _sorted(waits: Sequence[Wait]) -> list[Wait]:
    return sorted(waits, key=lambda wait: (wait.waiter, wait.holder, wait.reason))


def _row(one: Standing, now_ms: int) -> dict[str, Json]:
    lock, holder = one.lock, one.lock.holder
    held: dict[str, Json] = {}
    if holder is not None:
        held = {
            "session": holder.session,
            "agent": holder.agent,
            "call": holder.call,
            "token": lock.token,
            "since": rfc3339(holder.since_ms),
            "expires": rfc3339(holder.expires_ms),
            "expired": holder.expires_ms <= now_ms,
        }
    waiters: list[Json] = [{"session": session, "agent": agent} for session, agent in one.waiters]
    return {"resource": lock.resource, **held, "waiters": waiters}
