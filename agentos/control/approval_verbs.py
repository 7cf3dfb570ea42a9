"""The verbs about approvals. A standing yes makes a ToolGrant as well, through the same door as `registry.apply`.

Its order: may this person apply (the control policy, asked for `registry.apply`) → what grant, which plan, does admission policy
let it in → does this person's yes count → record the yes → store the revision and put it in force → wake the session, whose call
is then the first that the grant pays for. A crash between yes and revision leaves a call that is approved once and no grant: less
than was given, and visible, since the grant is missing from the registry. The other order could leave a permission that nobody's
recorded yes stands behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision
from agentos.abi.errors import AgentOSError, Denied, UsageError
from agentos.abi.ids import Clock
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.control.proposals import Proposals
from agentos.control.registry_verbs import told
from agentos.control.session_verbs import describe, take_session
from agentos.drivers.primitives import conditions
from agentos.kernel.approvals import (
    MAX_USES,
    MAX_VALID_MS,
    Scope,
    asked_call,
    left_open,
    require_closed,
    standing_grant,
    terms,
)
from agentos.kernel.port import Configuration
from agentos.kernel.sessions import Sessions
from agentos.registry.apply import Allow, Applier

_STANDING_ONLY: Final = ("until_ms", "dry_run", "expect", "allow_open")


class Reader(Protocol):
    """The read models, as these verbs need them; answers include everything that the log held when asked."""

    async def approvals(self, tenant: str, *, waiting_only: bool) -> list[dict[str, Json]]:
        """Approvals, oldest first."""


class May(Protocol):
    """The control policy."""

    async def __call__(self, caller: Caller, verb: str) -> Decision | None:
        """None if `caller` may perform `verb`, else the decision that says no."""


class ApprovalVerbs:
    """approval.list|approve|deny."""

    def __init__(
        self,
        sessions: Sessions,
        current: Callable[[str], Configuration],
        reader: Reader,
        applier: Applier,
        put_in_force: Callable[[], Awaitable[None]],
        may: May,
        clock: Clock,
        proposals: Proposals,
    ) -> None:
        """`put_in_force` makes the newest revision the one that sessions run under."""
        self._sessions = sessions
        self._current = current
        self._reader = reader
        self._applier = applier
        self._put_in_force = put_in_force
        self._may = may
        self._clock = clock
        self._proposals = proposals

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {"approval.list": self.list, "approval.approve": self.approve, "approval.deny": self.deny}

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """What waits for a person: {all?} → [row]. A proposed change of a file has a `diff` to the file as it is now."""
        take = Params(params)
        everything = take.flag("all")
        take.end()
        rows = await self._reader.approvals(caller.tenant, waiting_only=not everything)
        return await self._proposals.shown(caller.tenant, rows)

    async def approve(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Say yes to the call that a session waits for, as it was looked at: `digest` is of its arguments.

        `{session, reason, call, digest, scope?: once|session, valid_ms?, max_uses?}` → the session.
        `{…, scope: standing, allow_open?, dry_run?, until_ms?, expect?}` → `{session, grant, open, plan…, revision}`: as
        `registry.apply` answers; a dry run shows what the yes would make, `until_ms` and `expect` (the plan's digest) then ask
        for exactly that. Arguments that the grant would leave open are refused without `allow_open`.
        """
        take = Params(params)
        session, reason = take_session(take), take.text("reason")
        call, digest = _looked_at(take, params)
        scope = _scope(take.text_or_none("scope"))
        valid_ms = take.number("valid_ms", default=0, highest=MAX_VALID_MS) or None
        max_uses = take.number("max_uses", default=0, highest=MAX_USES) or None
        dry_run, until_ms = take.flag("dry_run"), take.number("until_ms", default=0, highest=2**53) or None
        expect, allow_open = take.text_or_none("expect"), take.flag("allow_open")
        take.end()
        words: dict[str, Json] = {
            "granted": True,
            "reason": reason,
            "actor": caller.actor,
            "roles": caller.roles,
            "call": call,
            "digest": digest,
            "scope": scope,
            "valid_ms": valid_ms,
            "max_uses": max_uses,
        }
        if scope is not Scope.STANDING:
            given = [name for name in _STANDING_ONLY if name in params]
            if given:
                raise UsageError(f"{', '.join(given)}: only a standing approval takes that")
            return describe(await self._sessions.answer(caller.tenant, session, **words))
        if until_ms is not None:
            words["valid_ms"] = max(until_ms - self._clock.now_ms(), 1)
        return await self._standing(
            caller, session, words, until_ms=until_ms, dry_run=dry_run, expect=expect, allow_open=allow_open
        )

    async def deny(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Say no to the call that a session waits for, as it was looked at: {session, call, digest, reason} → the session."""
        take = Params(params)
        session, reason = take_session(take), take.text("reason")
        call, digest = _looked_at(take, params)
        take.end()
        state = await self._sessions.answer(
            caller.tenant, session, granted=False, reason=reason, actor=caller.actor, roles=caller.roles, call=call, digest=digest
        )
        return describe(state)

    async def _standing(
        self,
        caller: Caller,
        session: str,
        words: Mapping[str, Json],
        *,
        until_ms: int | None,
        dry_run: bool,
        expect: str | None,
        allow_open: bool,
    ) -> Json:
        await self._require_apply(caller)
        configuration, now = self._current(caller.tenant), self._clock.now_ms()
        state = await self._sessions.state(caller.tenant, session)
        asked = asked_call(state, words["call"], words["digest"], now)
        yes = terms(configuration, asked, now, Scope.STANDING, words["valid_ms"], words["max_uses"])
        if until_ms is not None:
            yes = yes.ending(until_ms)
        manifest = standing_grant(state, asked, yes, by=caller.actor, reason=words["reason"])
        tool = configuration.tools.get(asked.tool)
        left = left_open(asked, tool.input_schema, without=conditions(tool.driver)) if tool is not None else ()
        require_closed(left, allow_open)
        proposal = await self._applier.propose(caller, [manifest])
        widen, reason = Allow(widen=True), f"standing approval of call {asked.call} of session {session}: {words['reason']}"
        applied = await self._applier.apply(caller, proposal, reason=reason, allow=widen, dry_run=True, expect=expect)

        async def grant() -> None:
            nonlocal applied
            try:
                applied = await self._applier.apply(caller, proposal, reason=reason, allow=widen)
            except AgentOSError as error:
                error.message = f"the call is approved once; the standing grant was not stored: {error.message}"
                raise
            await self._put_in_force()

        state = await self._sessions.answer(caller.tenant, session, **words, rehearse=dry_run, meanwhile=grant)
        return {
            "session": describe(state),
            "grant": manifest,
            "until_ms": yes.expires,
            "open": list(left),
            **told(caller, applied),
        }

    async def _require_apply(self, caller: Caller) -> None:
        refused = await self._may(caller, "registry.apply")
        if refused is not None:
            raise Denied(
                f"{caller.name} may approve this call, and may not make a standing grant of it",
                rules=refused.rules,
                reasons=refused.reasons,
                mend="approve it once or for the session, or ask somebody who may apply and approve",
            )


def _looked_at(take: Params, params: Mapping[str, Json]) -> tuple[str, str]:
    """The call that a person has looked at, and the digest of its arguments."""
    missing = [name for name in ("call", "digest") if params.get(name) is None]
    if missing:
        raise UsageError(
            f"an answer is for the call that was looked at: {' and '.join(missing)} not given",
            mend="look at it, and say which it was: agentos approvals list -o yaml",
        )
    return take.text("call"), take.text("digest")


def _scope(text: str | None) -> Scope:
    try:
        return Scope(text or Scope.ONCE)
    except ValueError as error:
        raise UsageError(f"scope: {text!r} is none", mend=f"scopes are {', '.join(Scope)}") from error
