"""The verbs about principals: who may act at all, and in which roles."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.abi.ids import FLEET, is_name
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.registry.principal import Principal, Principals

ROLES = ("operator", "compliance", "auditor", "approver", "agent", "publisher")


class PrincipalVerbs:
    """principal.create|list|rotate|revoke. `changed` makes the NATS server know the new set before the verb answers.

    `stanza` gives what must be added to a NATS server that is not ours.
    """

    def __init__(
        self,
        principals: Principals,
        tenants: Callable[[], frozenset[str]],
        changed: Callable[[], Awaitable[None]],
        stanza: Callable[[Principal], str | None],
    ) -> None:
        self._principals = principals
        self._tenants = tenants
        self._changed = changed
        self._stanza = stanza

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "principal.create": self.create,
            "principal.list": self.list,
            "principal.revoke": self.revoke,
            "principal.rotate": self.rotate,
        }

    async def create(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Make a principal known: {name, roles, tenant, public_key} → the principal. The secret never leaves the client."""
        take = Params(params)
        name, roles, tenant = take.text("name"), take.texts("roles"), take.text("tenant")
        public_key = take.text("public_key")
        take.end()
        if not is_name(name):
            raise UsageError(f"{name!r} is no name", mend="lower-case letters, digits and dashes, at most 63")
        unknown = sorted(set(roles) - set(ROLES))
        if unknown or not roles:
            raise UsageError(f"unknown roles: {', '.join(unknown) or 'none given'}", mend=f"roles are {', '.join(ROLES)}")
        if tenant != FLEET and tenant not in self._tenants():
            raise UsageError(f"no tenant {tenant}", mend=f"declared: {', '.join(sorted(self._tenants()))}, or * for all")
        principal = await self._principals.create(
            name, tenant=tenant, roles=tuple(sorted(set(roles))), public_key=public_key, actor=caller.actor
        )
        await self._changed()
        return {**principal.to_dict(), "user": self._stanza(principal)}

    async def list(self, _caller: Caller, params: dict[str, Json]) -> Json:
        """Every principal there ever was: {} → [principal]."""
        Params(params).end()
        return [principal.to_dict() for principal in await self._principals.list()]

    async def revoke(self, caller: Caller, params: dict[str, Json]) -> Json:
        """End a principal for good: {name, reason} → the principal."""
        take = Params(params)
        name, reason = take.text("name"), take.text("reason")
        take.end()
        principal = await self._principals.revoke(name, reason=reason, actor=caller.actor)
        await self._changed()
        return principal.to_dict()

    async def rotate(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Give a principal another key: {name, public_key, reason} → the principal. The key before opens nothing any more.

        Connections that were opened with it are cut before this answers; who rotates himself may get no answer, and asks again
        with his new key.
        """
        take = Params(params)
        name, public_key, reason = take.text("name"), take.text("public_key"), take.text("reason")
        take.end()
        principal = await self._principals.rotate(name, public_key=public_key, reason=reason, actor=caller.actor)
        await self._changed()
        return {**principal.to_dict(), "user": self._stanza(principal)}
