"""Principals: who may knock at all. Created, given another key, and revoked as events of one chain, `reg.principal`.

A name and a key are unique for ever: one that was in use is never given out again, so an actor in the log is one person or
program. At least one operator of the whole fleet always remains.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken, Conflict, NotFound, SequenceConflict, UsageError
from agentos.abi.event import PRINCIPAL_CREATED, PRINCIPAL_REVOKED, PRINCIPAL_ROTATED, Event, rfc3339
from agentos.abi.ids import FLEET, Clock, Random, is_name
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import PRINCIPALS
from agentos.registry.journal import Journal, Tip

CHAIN: Final = "principals"
"""The subject inside the events of the chain of principals."""

PUBLISHER: Final = "publisher"
"""Sends events that triggers wait for, to `evt.<its name>.>`, and may ask for nothing."""

ROLES: Final = ("operator", "compliance", "auditor", "approver", "worker", "agent", PUBLISHER)
"""What a principal may be; the policy `agentos.control` says what each may do."""

_PUBLIC_KEY: Final = re.compile(r"U[A-Z2-7]{55}", re.ASCII)
"""A user's NKey: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth."""

_TRIES: Final = 5
"""How often a command is decided anew when others write principals at the same time."""


@dataclass(frozen=True, slots=True)
class Principal:
    """One principal. `tenant` is `*` for one that acts on the whole fleet; the `revoked_…` fields are None while it is valid.

    `public_key` is the key it has now, `past_keys` those it had before, oldest first, with the time when each was replaced (ms).
    """

    name: str
    tenant: str
    roles: tuple[str, ...]
    public_key: str
    created_ms: int
    created_by: str
    revoked_ms: int | None = None
    revoked_by: str | None = None
    revoked_reason: str | None = None
    past_keys: tuple[tuple[str, int], ...] = ()

    @property
    def fleet(self) -> bool:
        """Whether it acts on every tenant."""
        return self.tenant == FLEET

    @property
    def valid(self) -> bool:
        """Whether it has not been revoked."""
        return self.revoked_ms is None

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape that `agentos principal list -o json` prints.

        `revoked` is null while it is valid, `rotated` (when its key was last replaced) while it has its first one.
        """
        revoked = None
        if self.revoked_ms is not None:
            revoked = {"time": rfc3339(self.revoked_ms), "by": self.revoked_by, "reason": self.revoked_reason}
        return {
            "name": self.name,
            "tenant": self.tenant,
            "roles": list(self.roles),
            "public_key": self.public_key,
            "created": {"time": rfc3339(self.created_ms), "by": self.created_by},
            "revoked": revoked,
            "rotated": rfc3339(self.past_keys[-1][1]) if self.past_keys else None,
            "past_keys": [key for key, _ in self.past_keys],
        }


_Check: TypeAlias = Callable[[], dict[str, Json]]
"""Decides on what is known by now whether a command may be recorded, and gives the event's payload."""


class Principals:
    """The principals of a fleet, kept in memory and brought up to date from the log before every answer."""

    def __init__(self, log: EventLog, clock: Clock, random: Random) -> None:
        self._journal = Journal(log, PRINCIPALS, CHAIN)
        self._clock = clock
        self._random = random
        self._tip = Tip.start()
        self._known: Mapping[str, Principal] = {}
        self._lock = asyncio.Lock()

    @staticmethod
    def fold(known: Mapping[str, Principal], event: Event) -> dict[str, Principal]:
        """`known` by name, after `event`. Raises ChainBroken for an event that cannot follow."""
        where, data = f"{CHAIN}#{event.seq}", event.data
        try:
            if event.type == PRINCIPAL_CREATED and data["name"] not in known:
                made = Principal(
                    name=data["name"],
                    tenant=data["tenant"],
                    roles=tuple(data["roles"]),
                    public_key=data["public_key"],
                    created_ms=event.time_ms,
                    created_by=event.actor,
                )
                return {**known, made.name: made}
            if event.type == PRINCIPAL_REVOKED and known[data["name"]].valid:
                gone = replace(
                    known[data["name"]],
                    revoked_ms=event.time_ms,
                    revoked_by=event.actor,
                    revoked_reason=data["reason"],
                )
                return {**known, gone.name: gone}
            if event.type == PRINCIPAL_ROTATED and known[data["name"]].valid:
                before = known[data["name"]]
                past = (*before.past_keys, (before.public_key, event.time_ms))
                return {**known, before.name: replace(before, public_key=data["public_key"], past_keys=past)}
        except (KeyError, TypeError) as error:
            raise ChainBroken(f"is no event of a principal: {error}", where=where) from error
        raise ChainBroken(f"the event {event.type} cannot follow", where=where)

    async def list(self) -> tuple[Principal, ...]:
        """All principals by name, the revoked ones too. Raises ChainBroken, LogUnavailable."""
        async with self._lock:
            await self._refresh()
            return tuple(self._known[name] for name in sorted(self._known))

    async def get(self, name: str) -> Principal:
        """The principal `name`, revoked or not. Raises NotFound."""
        async with self._lock:
            await self._refresh()
            return self._get(name)

    async def by_key(self, public_key: str) -> Principal | None:
        """The valid principal that holds `public_key`, None if there is none."""
        for principal in await self.list():
            if principal.public_key == public_key and principal.valid:
                return principal
        return None

    async def create(self, name: str, *, tenant: str, roles: Sequence[str], public_key: str, actor: str) -> Principal:
        """Add a principal. Raises UsageError for odd words, Conflict for a name or key that was ever in use."""
        if not is_name(name):
            raise UsageError(f"{name!r} is no name", mend="lower-case letters, digits and dashes, a letter first, 63 at most")
        if tenant != FLEET and not is_name(tenant):
            raise UsageError(f"{tenant!r} is no tenant", mend=f"give a tenant's name, or {FLEET} for the whole fleet")
        odd = [role for role in roles if role not in ROLES]
        if odd or not roles:
            raise UsageError(f"unknown role {odd[0]!r}" if odd else "no role", mend=f"roles are {', '.join(ROLES)}")
        if PUBLISHER in roles and tenant == FLEET:
            raise UsageError("a publisher belongs to a tenant: its events do", mend="give the tenant's name")
        _require_key(public_key)

        def check() -> dict[str, Json]:
            if name in self._known:
                state = "exists" if self._known[name].valid else "was revoked, and names are never given out again"
                raise Conflict(f"principal {name} {state}", mend="choose another name")
            self._require_unused(public_key)
            listed = [role for role in ROLES if role in roles]
            return {"name": name, "tenant": tenant, "roles": listed, "public_key": public_key}

        return await self._append(name, PRINCIPAL_CREATED, check, actor)

    async def revoke(self, name: str, *, reason: str, actor: str) -> Principal:
        """Take a principal's rights for ever. Raises NotFound, Conflict if it already is, or is the fleet's last operator."""

        def check() -> dict[str, Json]:
            gone = self._get(name)
            if not gone.valid:
                raise Conflict(f"principal {name} was already revoked by {gone.revoked_by}")
            operators = [one for one in self._known.values() if one.valid and one.fleet and "operator" in one.roles]
            if operators == [gone]:
                raise Conflict(
                    f"principal {name} is the last operator of the fleet, nobody could create another",
                    mend="create another operator for the whole fleet first",
                )
            return {"name": name, "reason": reason}

        return await self._append(name, PRINCIPAL_REVOKED, check, actor)

    async def rotate(self, name: str, *, public_key: str, reason: str, actor: str) -> Principal:
        """Give a principal another key; the one before is nobody's from then on.

        Raises NotFound, UsageError for what is no key, Conflict for a key that was ever in use or a principal that is revoked.
        """
        _require_key(public_key)

        def check() -> dict[str, Json]:
            one = self._get(name)
            if not one.valid:
                raise Conflict(f"principal {name} was revoked by {one.revoked_by}", mend="create another one, under another name")
            self._require_unused(public_key)
            return {"name": name, "public_key": public_key, "reason": reason}

        return await self._append(name, PRINCIPAL_ROTATED, check, actor)

    async def _append(self, name: str, type_: str, check: _Check, actor: str) -> Principal:
        async with self._lock:
            for _ in range(_TRIES):
                await self._refresh()
                data = check()
                try:
                    tip, event = await self._journal.append(
                        self._tip, type_, data, actor=actor, revision=0, clock=self._clock, random=self._random
                    )
                except SequenceConflict:
                    # Somebody wrote another principal meanwhile: whether ours still fits is decided anew.
                    continue
                self._known, self._tip = self.fold(self._known, event), tip
                return self._known[name]
        raise Conflict("others keep writing principals at the same time", mend="try again")

    async def _refresh(self) -> None:
        tip, events = await self._journal.news(self._tip)
        known: Mapping[str, Principal] = self._known
        for event in events:
            known = self.fold(known, event)
        self._known, self._tip = known, tip

    def _require_unused(self, public_key: str) -> None:
        """Whether nobody has, or ever had, this key. Raises Conflict."""
        for known in self._known.values():
            if public_key == known.public_key or any(public_key == past for past, _ in known.past_keys):
                raise Conflict("this key belongs to another principal, or did", mend="make a new key")

    def _get(self, name: str) -> Principal:
        if name not in self._known:
            raise NotFound(f"there is no principal {name}", mend="agentos principal list shows them")
        return self._known[name]


def _require_key(public_key: str) -> None:
    if not _PUBLIC_KEY.fullmatch(public_key):
        raise UsageError("the public key is no NKey of a user", mend="it starts with U and has 56 characters")
