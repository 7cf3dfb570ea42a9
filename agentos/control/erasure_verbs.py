"""The verbs of erasure and retention: audit.erasure, audit.erase, audit.hold, audit.release, audit.holds, audit.retirement,
audit.retire.

Erasing and retiring are two steps each: one shows what would happen and why it may not (`erasure`, `retirement`), the other does
it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.abi.event import rfc3339
from agentos.abi.ids import is_name
from agentos.audit.audit_chain import Hold
from agentos.audit.erasure import Erasure, Wanted
from agentos.audit.retirement import Pack, Retirement
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.control.session_verbs import MAX_SUBJECT

MAX_SESSIONS: Final = 1000
"""Most sessions that one erasure may name."""

MAX_PACKS: Final = 10_000

_PACK: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class Erasures(Protocol):
    """The erasures of the runtime."""

    def get(self, tenant: str) -> tuple[Erasure, Retirement]:
        """Those of `tenant`. Raises NotFound."""


class ErasureVerbs:
    """The verbs; see `handlers`. `revision` is the one in force for a tenant."""

    def __init__(self, erasures: Erasures, revision: Callable[[str], int]) -> None:
        self._erasures = erasures
        self._revision = revision

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {
            "audit.erase": self.erase,
            "audit.erasure": self.erasure,
            "audit.hold": self.hold,
            "audit.holds": self.holds,
            "audit.release": self.release,
            "audit.retire": self.retire,
            "audit.retirement": self.retirement,
        }

    async def erasure(self, caller: Caller, params: dict[str, Json]) -> Json:
        """What an erasure would do: {sessions: [id] or subject, overrule?, cancel?} → {sessions, events, agents, already, …}.

        `refused` in it is what `erase` would say with the same `overrule` and `cancel`.
        """
        take = Params(params)
        wanted, overrule, cancel = _wanted(take), take.flag("overrule"), take.flag("cancel")
        take.end()
        erasure, _ = self._erasures.get(caller.tenant)
        return (await erasure.plan(wanted)).to_dict(overrule=overrule, cancel=cancel)

    async def erase(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{sessions or subject, basis, seen?: [id], overrule?, cancel?} → the same of what was erased; nothing of it can be read.

        `cancel` has what is not over cancelled first, in the caller's name; by this verb alone whoever may erase may do that.
        """
        take = Params(params)
        wanted, basis, overrule, cancel = _wanted(take), take.text("basis"), take.flag("overrule"), take.flag("cancel")
        seen = take.texts("seen") if params.get("seen") is not None else None
        take.end()
        erasure, _ = self._erasures.get(caller.tenant)
        words = {"basis": basis, "actor": caller.actor}
        done = await erasure.erase(
            wanted, **words, overrule=overrule, cancel=cancel, revision=self._revision(caller.tenant), seen=seen
        )
        return done.to_dict()

    async def hold(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Keep one thing whatever else is asked: {session or agent or period, reason} → the hold."""
        take = Params(params)
        named = {kind: take.text_or_none(kind, longest=64) for kind in ("session", "agent", "period")}
        reason = take.text("reason")
        take.end()
        target = {kind: name for kind, name in named.items() if name is not None}
        if len(target) != 1:
            raise UsageError("a hold is on one of: a session, an agent, a period")
        name = next(iter(target.values()))
        if "period" not in target and not is_name(name):
            raise UsageError(f"{name!r} is no name")
        erasure, _ = self._erasures.get(caller.tenant)
        return _hold(await erasure.hold(target, reason=reason, actor=caller.actor, revision=self._revision(caller.tenant)))

    async def release(self, caller: Caller, params: dict[str, Json]) -> Json:
        """End a hold: {hold, reason} → the hold that it was."""
        take = Params(params)
        hold, reason = take.text("hold", longest=64), take.text("reason")
        take.end()
        erasure, _ = self._erasures.get(caller.tenant)
        return _hold(await erasure.release(hold, reason=reason, actor=caller.actor, revision=self._revision(caller.tenant)))

    async def holds(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{} → [{hold, session | agent | period, reason, by, since}]: the holds in force, oldest first."""
        Params(params).end()
        erasure, _ = self._erasures.get(caller.tenant)
        return [_hold(hold) for hold in (await erasure.chain.record()).holds.values()]

    async def retirement(self, caller: Caller, params: dict[str, Json]) -> Json:
        """What retiring a period would drop: {period} → {period, streams, sessions, events, bytes, agents, refused, …}."""
        take = Params(params)
        period = take.text("period", longest=16)
        take.end()
        _, retirement = self._erasures.get(caller.tenant)
        return (await retirement.plan(period)).to_dict()

    async def retire(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{period, basis, packs: [{digest, sessions}], overrule?} → the same of what was dropped.

        `packs` are evidence packs that the caller had exported here and keeps: their digests and the sessions in each. The audit
        chain says of each that it was made here and what was in it; that it is kept is the caller's word.
        """
        packs = _packs(params.get("packs"))
        take = Params({key: value for key, value in params.items() if key != "packs"})
        period, basis, overrule = take.text("period", longest=16), take.text("basis"), take.flag("overrule")
        take.end()
        _, retirement = self._erasures.get(caller.tenant)
        done = await retirement.retire(
            period, packs, basis=basis, overrule=overrule, actor=caller.actor, revision=self._revision(caller.tenant)
        )
        return done.to_dict()


def _wanted(take: Params) -> Wanted:
    subject, sessions = take.text_or_none("subject", longest=MAX_SUBJECT), take.names("sessions", most=MAX_SESSIONS)
    if bool(sessions) == (subject is not None):
        raise UsageError("an erasure is of sessions, or of one data subject", mend="give sessions, or subject")
    return Wanted(tuple(dict.fromkeys(sessions)), subject)


def _packs(value: Json) -> tuple[Pack, ...]:
    wrong = UsageError("parameter packs: expected a list of {digest, sessions}")
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_PACKS:
        raise wrong
    found = []
    for one in value:
        if not isinstance(one, dict) or one.keys() != {"digest", "sessions"} or not isinstance(one["sessions"], list):
            raise wrong
        digest, sessions = one["digest"], one["sessions"]
        if not isinstance(digest, str) or _PACK.fullmatch(digest) is None:
            raise wrong
        if not all(isinstance(name, str) and is_name(name) for name in sessions):
            raise wrong
        found.append(Pack(digest, tuple(sessions)))
    return tuple(found)


def _hold(hold: Hold) -> dict[str, Json]:
    return {"hold": hold.id, **hold.target(), "reason": hold.reason, "by": hold.actor, "since": rfc3339(hold.time_ms)}
