"""Whether people stood behind each call that was allowed because people approved it: read from the events of one session. Pure.

A call that rests on approvals needs, before it: enough yeses of different people, each of whom was an approver at that moment and
not the one who started the session; each yes to exactly what was asked, under the policy that allows, not expired, and of one for
the session no more uses than it gave. A question ends without an answer only when its time is over.

Of an event whose payload is withheld the header tells who answered which question of which decision, for how long, and on whose
yes a call relies; what it does not tell (arguments, policies, uses) is not compared, and the event is put among `unseen`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi import event as ev
from agentos.abi.attributes import names_of
from agentos.abi.canonical import Json
from agentos.abi.event import Event
from agentos.audit.finding import Unseen

APPROVER_ROLES: Final = frozenset({"approver"})
"""Roles whose holder may answer for a call, as `policies/agentos/control/rules/roles` has it."""

APPROVED: Final = "syscall.approved"
"""The rule that says that people let a call through (`policies/agentos/syscall/main.rego`)."""

LATE_MS: Final = 1000
"""The runtime looks at the clock, asks the approval policy, and then writes: an answer may be recorded so long after the end."""

Roles = Callable[[str, str, int], frozenset[str] | None]
"""The roles that an actor held in a tenant at a time; None for nobody."""


@dataclass(slots=True)
class Yes:
    """One approval. `used` counts the calls that rested on it. None: withheld."""

    call: str
    tool: str
    args_digest: str | None
    by: str
    at: int
    expires: int
    policy_digest: str | None
    scope: str
    rules: frozenset[str]
    max_uses: int | None
    used: int = 0


@dataclass(slots=True)
class Call:
    """One call of a session so far: the last decision about it, and what people said to it. None: withheld."""

    name: str
    tool: str
    args_digest: str | None
    proposed: str | None
    effect: str
    seq: int
    policy_digest: str | None
    rules: frozenset[str]
    open: bool
    """Whether it was allowed and has no outcome yet."""
    waits: bool
    """Whether people are asked and have not answered."""
    asked: bool
    """Whether people were ever asked."""
    ends: int | None = None
    """When the question that it waits with ends."""
    answered: bool = False
    """Whether the last answer was a yes, and it was not asked again since."""
    yeses: list[Yes] = field(default_factory=list)

    @classmethod
    def decided_by(cls, event: Event, before: Call | None) -> Call:
        """The call after a decision. Raises KeyError, TypeError or AttributeError for one of another shape."""
        data, said = event.data, said_of(event)
        effect = said["decision"] if event.withheld else data["decision"]["effect"]
        asks = effect == "ask"
        args_digest = None if event.withheld else data["args_digest"]
        return cls(
            name=said["call"],
            tool=said["tool"],
            args_digest=args_digest,
            proposed=args_digest if event.withheld or "proposed" not in data else data["proposed"],
            effect=effect,
            seq=event.seq,
            policy_digest=event.policy_digest,
            rules=frozenset(names_of(event.attributes, "rules") if event.withheld else data["decision"]["rules"]),
            open=effect == "allow",
            waits=asks,
            asked=asks or (before is not None and before.asked),
            answered=before is not None and before.answered and not asks,
            yeses=before.yeses if before is not None else [],
        )


class Consent:
    """What people said in one session. Each method gives a sentence for everything that is not in order."""

    def __init__(self, roles: Roles, tenant: str, unseen: Unseen) -> None:
        self._roles = roles
        self._tenant = tenant
        self._unseen = unseen
        self._session: list[Yes] = []
        self.actor = ""
        """Who started the session."""

    def waits(self, event: Event, call: Call | None) -> None:
        """The session waits with a question."""
        if call is not None:
            call.ends = _whole(said_of(event)["expires"])

    def answered(self, event: Event, call: Call | None) -> Iterator[str]:
        """A yes, a no, or the end of a question's time."""
        said = said_of(event)
        name = said["call"]
        expired = event.type == ev.APPROVAL_EXPIRED
        if expired and event.actor != "system/kernel":
            yield f"call {name} was ended by {event.actor}, and only the runtime ends a question"
        if not expired:
            yield from self._by_an_approver(event)
        if call is None or not call.waits:
            yield f"call {name} was answered, and nobody had been asked"
            return
        if said["decided"] != call.seq or self._differ(event, args_digest_of(event), call.args_digest):
            yield f"call {name} was answered for another question than the one that was asked"
        if expired and (call.ends is None or event.time_ms < call.ends):
            yield f"call {name} was ended before the time of its question was over"
        if not expired and call.ends is not None and event.time_ms > call.ends + LATE_MS:
            yield f"call {name} was answered after the time of its question was over"
        call.waits, call.answered = False, event.type == ev.APPROVAL_GRANTED
        if event.type == ev.APPROVAL_GRANTED:
            yield from self._granted(event, call)

    def _by_an_approver(self, event: Event) -> Iterator[str]:
        roles = self._roles(event.actor, self._tenant, event.time_ms)
        if not event.actor.startswith("principal/") or roles is None or not roles & APPROVER_ROLES:
            held = "no principal then" if roles is None else f"held only {', '.join(sorted(roles)) or 'no role'}"
            yield f"call {said_of(event)['call']} was answered by {event.actor}, who was no approver: {held}"

    def _granted(self, event: Event, call: Call) -> Iterator[str]:
        data, said = event.data, said_of(event)
        yes = Yes(
            call=call.name,
            tool=call.tool,
            args_digest=args_digest_of(event),
            by=event.actor,
            at=event.time_ms,
            expires=_whole(said["expires"]),
            policy_digest=None if event.withheld else data["policy_digest"],
            scope=said["scope"],
            rules=call.rules,
            max_uses=None if event.withheld else _whole(data["max_uses"]),
        )
        if yes.by == self.actor:
            yield f"call {call.name} was approved by {yes.by}, who started the session"
        if not event.withheld and data["decision"]["effect"] != "allow":
            yield f"call {call.name} was approved by {yes.by}, and policy said that this does not count"
        if self._differ(event, yes.policy_digest, call.policy_digest or ""):
            yield f"call {call.name} was approved under another policy than the one that asked"
        own = [one for one in call.yeses if one.by == yes.by and yes.at < one.expires]
        if any(not self._differ(event, one.policy_digest, yes.policy_digest, unknown=True) for one in own):
            yield f"call {call.name} was approved twice by {yes.by}"
        call.yeses.append(yes)
        if yes.scope == "session":
            self._session.append(yes)

    def allowed(self, event: Event, call: Call) -> Iterator[str]:
        """A call was allowed: does what it rests on bear it?"""
        if event.withheld:
            claims: list[Json] = [{"by": name} for name in names_of(event.attributes, "approvals")]
        else:
            claims = event.data.get("approvals", [])
        if call.asked and not call.answered:
            yield f"call {call.name} was allowed without an approval that precedes it"
        rests = APPROVED in call.rules
        if rests and not claims:
            yield f"call {call.name} was approved by people, and names none"
        if claims and not rests:
            yield f"call {call.name} names approvals that it does not rest on"
        people = set()
        for claim in claims:
            meant = self._named(claim, call, event)
            if not meant:
                yield f"call {call.name} names an approval by {claim['by']}, which was not given"
                continue
            if event.withheld:
                self._unseen.add(("approvals", event.seq))
            if len(meant) > 1:
                # Which of them was used is not told; how many uses each has left is then not known either.
                for one in meant:
                    one.max_uses = None
                continue
            (yes,) = meant
            problems = list(self._unfit(yes, call, event))
            yield from problems
            yes.used += 1
            if not problems:
                people.add(yes.by)
        needed = 0 if event.withheld else _needed(event.data["decision"])
        if claims and len(people) < needed:
            yield f"call {call.name} needed {needed} approvers and rests on {len(people)}"

    def _named(self, claim: Mapping[str, Json], call: Call, event: Event) -> list[Yes]:
        """The last yes that a claim can mean: to this call, or to another one for the whole session.

        Who has said yes under two policies is named once: what counts is the yes under the policy that allows, also where that
        one is in force again. A claim of which only the name is told can mean several, the last of each call.
        """
        if "call" not in claim:
            by_call = {(one.call, one.scope): one for one in [*self._session, *call.yeses] if one.by == claim["by"]}
            return list(by_call.values())
        own = call.yeses if claim["call"] == call.name else self._session
        fitting = [one for one in own if (one.call, one.by, one.scope) == (claim["call"], claim["by"], claim["scope"])]
        # Of a yes that is withheld it is not told under which policy it was given: it may be this one.
        under = [one for one in fitting if one.policy_digest in {None, event.policy_digest or ""}]
        return (under or fitting)[-1:]

    def _unfit(self, yes: Yes, call: Call, event: Event) -> Iterator[str]:
        told = f"call {call.name} rests on an approval by {yes.by} that"
        other = yes.scope == "once" and self._differ(event, yes.args_digest, call.args_digest)
        if yes.tool != call.tool or other:
            yield f"{told} was for another call"
        if not event.withheld and _whole(event.data["now"]) >= yes.expires:
            yield f"{told} had expired"
        if self._differ(event, yes.policy_digest, event.policy_digest or ""):
            yield f"{told} was given under another policy"
        if yes.scope == "session" and yes.max_uses is None:
            self._unseen.add(("approvals", event.seq))
        if yes.scope == "session" and yes.max_uses is not None and yes.used >= yes.max_uses:
            yield f"{told} was used up"
        if yes.scope == "session" and yes.rules.isdisjoint(call.rules):
            yield f"{told} was for other rules"

    def _differ(self, event: Event, one: str | None, two: str | None, *, unknown: bool = False) -> bool:
        """Whether two values differ, and `unknown` where one of them is withheld: then `event` is among `unseen`."""
        if one is None or two is None:
            self._unseen.add(("approvals", event.seq))
            return unknown
        return one != two


def said_of(event: Event) -> Mapping[str, Json]:
    """What an event says: its payload, or of a withheld one the header, where texts and numbers have the same names."""
    return event.attributes if event.withheld else event.data


def args_digest_of(event: Event) -> str | None:
    """The digest of the arguments that an event names. None: withheld. Raises KeyError."""
    return None if event.withheld else event.data["args_digest"]


def _needed(decision: Mapping[str, Json]) -> int:
    counts = [_whole(one["count"]) for one in decision.get("obligations", ()) if one["kind"] == "approvers"]
    return max([1, *counts])


def _whole(value: Json) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no whole number")
    return value
