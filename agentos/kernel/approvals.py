"""What a person's yes is worth: how long, how often, for what; and the grant that a standing one becomes.

A yes of scope `once` covers the very call that was asked about, `session` later calls of the tool that the same rules ask for,
`standing` this call once and, as a ToolGrant of its own, calls with the same arguments from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from agentos.abi.canonical import Json, digest_of
from agentos.abi.decision import Verdict
from agentos.abi.errors import Conflict, Denied, UsageError
from agentos.abi.event import rfc3339
from agentos.abi.resource import API_VERSION
from agentos.kernel.port import Configuration
from agentos.policy.granting import settled_by_own_grant
from agentos.projections.approval_question import approval_question
from agentos.projections.session import Call, SessionState, State, Step

SESSION_USES: Final = 10
"""Calls that a yes for the session covers, unless the approver says otherwise."""

STANDING_USES: Final = 10
"""Uses of the grant that a standing yes becomes."""

STANDING_MS: Final = 30 * 86_400_000
"""How long that grant holds."""

MAX_USES: Final = 1_000_000
MAX_VALID_MS: Final = 366 * 86_400_000
LONGEST_TEXT: Final = 65_536
"""Most characters of an argument that a standing grant can demand word for word."""

ONE_BY_ONE: Final = frozenset({"declassify.approval", "propose.approval"})
"""The rules whose calls are looked at one by one: a yes to one says nothing of the labels, or the change, of the next."""


class Scope(StrEnum):
    """What a yes covers."""

    ONCE = "once"
    SESSION = "session"
    STANDING = "standing"


UNNAMED: Final = "any that its schema does not name"
"""Stands for the arguments that a tool takes beyond those of its schema."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How far a yes goes: `expires` in milliseconds since the epoch (of a standing one: when its grant ends)."""

    scope: Scope
    expires: int
    max_uses: int

    def ending(self, expires: int) -> Terms:
        """These terms with another end."""
        return replace(self, expires=expires)


def terms(
    configuration: Configuration, asked: Call, now_ms: int, scope: Scope, valid_ms: int | None, max_uses: int | None
) -> Terms:
    """The terms of a yes to `asked` given now; None takes the default. Raises UsageError for more than the tenant, or the rule
    that asks, allows."""
    alone = ONE_BY_ONE.intersection((asked.decision or {}).get("rules", ()))
    if scope is not Scope.ONCE and alone:
        raise UsageError(
            f"{min(alone)} asks about each call of {asked.tool} by itself: an approval of scope {scope} would cover them all",
            mend="approve this call alone: --for once",
        )
    if scope is Scope.STANDING:
        return Terms(scope, now_ms + (valid_ms or STANDING_MS), max_uses or STANDING_USES)
    longest = configuration.approval_valid_ms
    if valid_ms is not None and valid_ms > longest:
        raise UsageError(
            f"an approval counts for at most {longest // 1000} s in tenant {configuration.tenant}",
            mend="say less, or raise spec.approvals.validSeconds of the tenant",
        )
    if scope is Scope.ONCE and max_uses not in (None, 1):
        raise UsageError(
            "an approval of this call alone is used once", mend="leave out the number of uses, or approve for the session"
        )
    return Terms(scope, now_ms + (valid_ms or longest), 1 if scope is Scope.ONCE else max_uses or SESSION_USES)


def asked_call(state: SessionState, call: str | None, digest: str | None, now_ms: int) -> Call:
    """The call that waits for an answer. Raises Conflict if there is none, it is another one, or its time is over."""
    asked = state.calls.get(state.waiting_for or "")
    if state.state is not State.WAITING or asked is None or asked.step is not Step.ASKED:
        raise Conflict(f"session {state.id} does not wait for an approval: it is {state.state}")
    if call is not None and call != asked.call:
        raise Conflict(f"session {state.id} waits for call {asked.call}, not for {call}")
    if digest is not None and digest != asked.args_digest:
        raise Conflict(
            f"the call waits with other arguments ({asked.args_digest}) than those that were looked at",
            mend="look again: agentos approvals list -o yaml",
        )
    if now_ms >= question_ends(state):
        raise Conflict(f"the question has expired ({rfc3339(question_ends(state))}): nobody answered in time, which is a no")
    return asked


def answer_to(asked: Call) -> dict[str, Json]:
    """What the record of any answer says of the question."""
    return {"call": asked.call, "args_digest": asked.args_digest, "decided": asked.decided}


def question_ends(state: SessionState) -> int:
    """When the question that the session waits with ends, in milliseconds since the epoch."""
    return int(state.waiting["expires"]) if state.waiting is not None else 0


async def granted_yes(
    configuration: Configuration,
    state: SessionState,
    asked: Call,
    yes: Terms,
    by: str,
    roles: Sequence[str],
    reason: str,
    now_ms: int,
) -> dict[str, Json]:
    """What an approval records of a yes that counts. Raises Denied when policy says that it does not."""
    agent = configuration.agents.get(state.agent)
    decision = await configuration.decider.approve(
        approval_question(
            state,
            asked,
            agent={"name": state.agent, "labels": dict(agent.labels) if agent is not None else {}},
            approval={
                "by": by,
                "roles": list(roles),
                "reason": reason,
                "scope": str(yes.scope),
                "expires": yes.expires,
                "max_uses": yes.max_uses,
            },
            now_ms=now_ms,
        )
    )
    if decision.effect is not Verdict.ALLOW:
        raise Denied(
            f"{by} may not approve this call; it waits on",
            rules=decision.rules,
            reasons=decision.reasons,
            mend="ask somebody else to approve it: agentos principal list",
        )
    standing = yes.scope is Scope.STANDING
    return {
        "policy_digest": asked.policy_digest or "",
        "expires": now_ms + configuration.approval_valid_ms if standing else yes.expires,
        "scope": str(Scope.ONCE if standing else yes.scope),
        "max_uses": 1 if standing else yes.max_uses,
        "roles": list(roles),
        "decision": decision.to_dict(),
    }


def standing_grant(state: SessionState, call: Call, yes: Terms, *, by: str, reason: str) -> dict[str, Json]:
    """The manifest of the ToolGrant that a standing yes to `call` becomes: this agent, this tool, these arguments.

    Its name is made of the session and the call, so that the same yes always makes the same grant. Raises UsageError where a
    grant could not stand in for the approval: another rule than the grants' asks, or an argument cannot be held to its value.
    """
    decision = call.decision or {}
    others = [rule for rule in decision.get("rules", ()) if not settled_by_own_grant(str(rule))]
    if others:
        raise UsageError(
            f"a standing grant would not do: {', '.join(others)} stands in the way too, whatever is granted",
            mend="approve this call, or for the session",
        )
    seed = digest_of({"session": state.id, "call": call.call, "args_digest": call.args_digest})
    return {
        "apiVersion": API_VERSION,
        "kind": "ToolGrant",
        "metadata": {
            "name": f"standing-{seed.removeprefix('sha256:')[:16]}",
            "tenant": state.tenant,
            "labels": {"agentos/standing": "approval"},
            "annotations": {
                "agentos/approved-by": by,
                "agentos/session": state.id,
                "agentos/call": call.call,
                "agentos/decision": f"{state.id}#{call.decided}",
            },
        },
        "spec": {
            "agents": [state.agent],
            "tools": [call.tool],
            "args": {name: _held(name, value) for name, value in sorted(call.args.items())},
            "approval": "none",
            "until": rfc3339(yes.expires),
            "maxUses": yes.max_uses,
            "reason": reason[:2000],
        },
    }


def left_open(call: Call, schema: Mapping[str, Json], without: Collection[str] = ()) -> tuple[str, ...]:
    """Arguments that the tool takes and the call did not give: a grant cannot forbid them.

    Last, in words, those that its schema takes without naming them. `without` are those that change nothing of what is done.
    """
    named = sorted(set(schema.get("properties", {})) - set(call.args) - set(without))
    unnamed = schema.get("additionalProperties", True) is not False or "patternProperties" in schema
    return (*named, UNNAMED) if unnamed else tuple(named)


def require_closed(left: Sequence[str], allow_open: bool) -> None:
    """Raise UsageError where a grant would leave arguments open, unless the approver has said that it may."""
    if left and not allow_open:
        raise UsageError(
            f"a standing grant would be wider than this call: it leaves open {', '.join(left)}",
            mend="approve this call, or for the session, or allow it: --allow-open",
        )


def _held(name: str, value: Json) -> dict[str, Json]:
    """The constraint of a grant that `value` alone meets."""
    if isinstance(value, bool | int) or (isinstance(value, str) and len(value) <= LONGEST_TEXT):
        return {"equals": value}
    raise UsageError(
        f"a standing grant would not do: the argument {name!r} is no whole number, no truth value and no text of at most "
        f"{LONGEST_TEXT} characters, and no grant can hold it to its value",
        mend="approve this call, or for the session, or apply a ToolGrant of your own",
    )
