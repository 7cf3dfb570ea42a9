"""Who looks on and says what went wrong: it sees every stored event and every effect, and believes no runtime.

Safety, checked as it happens: chains hold; a session that is over never grows; a call with an outcome is never decided again; an
effect needs an earlier durable allow of this very call; an effect that must not happen twice does not; who was relieved of a
session writes nothing to it and begins nothing for it; approvals, rates and uses hold. At the end: nothing acknowledged is
missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sim_play import APPROVERS, TOOLS

from agentos.abi import event as ev
from agentos.abi.canonical import digest_of
from agentos.abi.chain import Head, follow
from agentos.abi.errors import ChainBroken
from agentos.abi.event import Event
from agentos.abi.syscall import MODEL_CALL
from agentos.eventlog.port import Message
from agentos.kernel.tools import repeatable
from agentos.projections.session import SessionState, State, Step, fold

if TYPE_CHECKING:
    from sim_runtime import Runtime
    from sim_world import World


class Violation(AssertionError):
    """Something happened that must never happen."""


@dataclass(slots=True)
class Seen:
    """One session as the log has it."""

    name: str
    state: SessionState
    head: Head = field(default_factory=Head.empty)
    hashes: list[str] = field(default_factory=list)
    owner: int = 0
    """The runtime that created it or took it over last."""
    newest: int = 0
    """The newest of those that ever did."""
    since: int = 0
    """The event by which its owner got it."""
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Effect:
    """One line of the ledger."""

    session: str
    call: str
    tool: str
    runtime: int


class Observer:
    """Follows the log and the ledger of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.sessions: dict[str, Seen] = {}
        self.ledger: list[Effect] = []
        self.stored: set[str] = set()
        self.acked: dict[str, None] = {}
        self.violations: list[str] = []
        self.out_of_turn = 0
        self.together = 0
        """Decisions about a call while another one of its session acted."""
        self._begun: defaultdict[tuple[str, str], int] = defaultdict(int)

    def wrong(self, text: str) -> None:
        """Note a violation; the world ends with the first."""
        self._world.say(f"VIOLATION {text}")
        self.violations.append(text)
        self._world.wake()

    def _out_of_turn(self, runtime: Runtime, text: str) -> None:
        """A runtime that stood still goes on as if it were alone. Known of the kernel; a failure where the plan says so."""
        if self._world.plan.frozen or not runtime.stood_still:
            self.wrong(text)
        else:
            self._world.say(f"out of turn: {text}")
            self.out_of_turn += 1

    def _overspent(self, text: str) -> None:
        """Two runtimes that serve at once count for themselves: what they overspend together is a part of being out of turn."""
        if self.out_of_turn and not self._world.plan.frozen:
            self._world.say(f"out of turn: {text}")
        else:
            self.wrong(text)

    def acknowledged(self, messages: Sequence[Message]) -> None:
        self.acked.update((message.id, None) for message in messages)

    def event(self, runtime: Runtime, subject: str, message: Message) -> None:
        """One message was stored."""
        self.stored.add(message.id)
        session = subject.rpartition(".")[2]
        seen = self.sessions.setdefault(session, Seen(f"s{len(self.sessions)}", SessionState(id=session, tenant="default")))
        try:
            seen.head, body = follow(seen.head, message.data, subject=session)
        except ChainBroken as error:
            self.wrong(f"{seen.name}: the chain is broken: {error}")
            return
        event = Event.from_dict(body)
        before = seen.state
        self._world.say(
            f"{seen.name}#{event.seq} {event.type.removeprefix('agentos.')} {_gist(event)} by runtime {runtime.number}"
        )
        if before.over:
            self.wrong(f"{seen.name} is over and grows")
        if event.type in {ev.SESSION_CREATED, ev.SESSION_OWNED}:
            if event.type == ev.SESSION_OWNED and event.data["epoch"] != before.epoch + 1:
                self.wrong(f"{seen.name}: epoch {event.data['epoch']} follows {before.epoch}")
            if runtime.number < seen.newest:
                self._out_of_turn(runtime, f"{seen.name}: runtime {runtime.number} takes it back from runtime {seen.newest}")
            seen.owner, seen.newest = runtime.number, max(seen.newest, runtime.number)
            seen.since = event.seq
        elif runtime.number < seen.owner:
            self.wrong(f"{seen.name}: runtime {runtime.number} writes to what runtime {seen.owner} has taken over")
        self._check(seen, before, event)
        seen.state = fold(before, event)
        seen.hashes.append(seen.head.hash)
        seen.events.append(event)

    def _check(self, seen: Seen, before: SessionState, event: Event) -> None:
        data = event.data
        self._check_together(seen, before, event)
        match event.type:
            case ev.SYSCALL_DECIDED:
                known = before.calls.get(data["call"])
                settled = known is not None and known.step not in {Step.APPROVED, Step.ALLOWED}
                if settled:
                    self.wrong(f"{seen.name}: call {data['call']} was {known.step} and is decided again")
                if known is not None and known.step is Step.ALLOWED and not _again(data["tool"]):
                    self.wrong(f"{seen.name}: call {data['call']} may have acted and is decided again")
                if data["decision"]["effect"] == "allow":
                    self._check_consent(seen, event)
                    self._check_charges(seen, event)
            case ev.SYSCALL_FINISHED | ev.SYSCALL_FAILED | ev.SYSCALL_UNKNOWN:
                known = before.calls.get(data["call"])
                if known is None or known.step is not Step.ALLOWED:
                    self.wrong(f"{seen.name}: an outcome of call {data['call']}, which nobody allowed or which has one")
            case ev.SESSION_FINISHED | ev.SESSION_FAILED | ev.SESSION_CANCELLED | ev.SESSION_HALTED:
                open_calls = [call.call for call in before.calls.values() if call.step is Step.ALLOWED]
                if open_calls:
                    self.wrong(f"{seen.name} ends with {open_calls} allowed and without an outcome")

    def _check_together(self, seen: Seen, before: SessionState, event: Event) -> None:
        """Beside calls that act only what commutes is decided, and not before a label that they will bring is there."""
        if event.type not in {ev.SYSCALL_DECIDED, ev.SYSCALL_REFUSED, ev.SESSION_WAITING, ev.SESSION_HALTED}:
            return
        acting = [
            one
            for one in before.calls.values()
            if one.step is Step.ALLOWED and one.decided > seen.since and one.call != event.data.get("call")
        ]
        if not acting:
            return
        tool = TOOLS.get(event.data.get("tool", ""))
        if tool is None or not tool.commutes:
            self.wrong(f"{seen.name}: {event.type} {event.data.get('call', '')} while {acting[0].call} acts")
        self.together += 1
        if any(not set(TOOLS[one.tool].labels) <= before.labels for one in acting):
            self.wrong(f"{seen.name}: {event.data['call']} is decided while a label that it does not know of is on its way")

    def _check_consent(self, seen: Seen, event: Event) -> None:
        """An allowed call that people had to approve was approved, by the raw events alone."""
        data = event.data
        tool, now = data["tool"], data["now"]
        n = data["args"].get("n", 0)
        if tool not in APPROVERS or (tool == "send" and n % 3) or (tool == "read" and n % 8 != 1):
            return
        people = set()
        for yes in (one for one in seen.events if one.type == ev.APPROVAL_GRANTED):
            asked = seen.state.calls[yes.data["call"]]
            own = yes.data["call"] == data["call"]
            covers = asked.args_digest == data["args_digest"] and own if yes.data["scope"] == "once" else asked.tool == tool
            used = sum(
                1
                for one in seen.events
                if one.type == ev.SYSCALL_DECIDED
                and one.data["call"] != data["call"]  # a call that may be made again is the same use
                and any(it["call"] == yes.data["call"] and it["by"] == yes.actor for it in one.data.get("approvals", ()))
            )
            left = used < yes.data.get("max_uses", 1)
            in_force = yes.data["policy_digest"] == event.policy_digest and yes.data["expires"] > now
            if covers and left and in_force and yes.actor != seen.state.actor:
                people.add(yes.actor)
        if len(people) < APPROVERS[tool]:
            self.wrong(f"{seen.name}: call {data['call']} of {tool} is allowed by {sorted(people)} alone")

    def _check_charges(self, seen: Seen, event: Event) -> None:
        """As many calls as a rate or a grant lets through, and no more, over all sessions."""
        this = (seen.state.id, event.data["call"])
        bound = event.data["decision"].get("obligations", ())
        for rate in (one for one in bound if one["kind"] == "rate"):
            since = event.data["now"] - rate["seconds"] * 1000
            others = set()
            for other in self.sessions.values():
                if rate["per"] == "session" and other is not seen:
                    continue
                latest = {}
                for one in other.events:
                    if _allows(one) and any(
                        b["kind"] == "rate" and (b["name"], b["per"]) == (rate["name"], rate["per"])
                        for b in one.data["decision"].get("obligations", ())
                    ):
                        latest[other.state.id, one.data["call"]] = one.data["now"]
                others |= {call for call, at in latest.items() if since < at <= event.data["now"] and call != this}
            if len(others) >= rate["limit"]:
                self._overspent(f"{seen.name}: call {this[1]} goes over the rate {rate['name']} ({len(others)} others)")
        for uses in (one for one in bound if one["kind"] == "uses"):
            paid = {
                (other.state.id, one.data["call"])
                for other in self.sessions.values()
                for one in other.events
                if _allows(one) and any(b["kind"] == "uses" for b in one.data["decision"].get("obligations", ()))
            }
            total = 3
            if len(paid | {this}) > total:
                self._overspent(f"{seen.name}: call {this[1]} is one gift too many ({uses['grants']})")

    def begun(self, runtime: Runtime, session: str, call: str, tool: str, args: Mapping[str, Any]) -> None:
        """A driver was called."""
        seen = self.sessions[session]
        known = seen.state.calls.get(call)
        self._world.say(f"{seen.name} {call} {tool} begins by runtime {runtime.number}")
        if runtime.number < seen.newest and runtime.number != seen.owner:
            self._out_of_turn(
                runtime, f"{seen.name}: runtime {runtime.number} acts for what runtime {seen.newest} has taken over"
            )
        elif known is None or known.step is not Step.ALLOWED:
            self.wrong(f"{seen.name}: {tool} acts without a durable allow of call {call} ({known.step if known else 'unknown'})")
        elif known.args_digest != digest_of(dict(args)) or known.tool != tool:
            self.wrong(f"{seen.name}: {tool} acts with other arguments than call {call} was allowed with")
        self._begun[session, call] += 1
        if self._begun[session, call] > 1 and not repeatable(TOOLS[tool]):
            self.wrong(f"{seen.name}: call {call} of {tool} is begun twice")

    def effect(self, runtime: Runtime, session: str, call: str, tool: str, args: Mapping[str, Any]) -> None:
        """The world was changed."""
        seen = self.sessions[session]
        self._world.say(f"{seen.name} {call} {tool} takes effect n={args.get('n')}")
        if not repeatable(TOOLS[tool]) and any((one.session, one.call) == (session, call) for one in self.ledger):
            self.wrong(f"{seen.name}: call {call} of {tool} takes effect twice")
        self.ledger.append(Effect(session, call, tool, runtime.number))

    def compare(self, runtime: Runtime) -> None:
        """What a runtime believes of its sessions is what the log says of them."""
        for (_, session), journal in list(runtime.sessions._journals.items()):
            seen = self.sessions.get(session)
            if journal.stale or not journal.head.seq:
                continue
            if seen is None or journal.head.seq > len(seen.hashes) or seen.hashes[journal.head.seq - 1] != journal.head.hash:
                self.wrong(f"runtime {runtime.number} believes in events that are not in the log ({self._world.short(session)})")
            elif journal.head.seq == seen.head.seq and journal.state != seen.state:
                self.wrong(f"{seen.name}: the state of runtime {runtime.number} is not the fold of the log")

    def at_the_end(self) -> None:
        """What can only be told at the end."""
        lost = [one for one in self.acked if one not in self.stored]
        if lost:
            self.wrong(f"{len(lost)} acknowledged events are not in the log")
        for seen in self.sessions.values():
            for one in self.ledger:
                if one.session != seen.state.id:
                    continue
                if not any(_allows(it) and it.data["call"] == one.call for it in seen.events):
                    self.wrong(f"{seen.name}: {one.tool} took effect without an allow of call {one.call}")
            for call in seen.state.calls.values():
                done = any((one.session, one.call) == (seen.state.id, call.call) for one in self.ledger)
                if call.step is Step.FINISHED and call.tool != MODEL_CALL and not done:
                    self.wrong(f"{seen.name}: call {call.call} is told to be finished and has no effect")

    def resting(self) -> bool:
        """Whether every session is over."""
        return all(seen.state.over for seen in self.sessions.values())

    def unfinished(self) -> list[str]:
        return [f"{seen.name} is {seen.state.state}" for seen in self.sessions.values() if not seen.state.over]


def waiting(seen: Seen) -> bool:
    return seen.state.state is State.WAITING


def _again(tool: str) -> bool:
    """Whether acting twice does no harm."""
    return tool in TOOLS and repeatable(TOOLS[tool])


def _allows(event: Event) -> bool:
    return event.type == ev.SYSCALL_DECIDED and event.data["decision"]["effect"] == "allow"


def _gist(event: Event) -> str:
    data = event.data
    decision = data["decision"]["effect"] if "decision" in data and event.type == ev.SYSCALL_DECIDED else ""
    words = (data.get("call"), data.get("tool"), decision, event.actor if "approval" in event.type else "", data.get("epoch"))
    return " ".join(str(word) for word in words if word) + f" [{event.id[:6]}]"
