"""Planted bugs: each takes one guarantee out of the kernel, so that it is known that the simulation would see it missing.

with BUGS["act-before-durable"]():
    simulate(seed).violations
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from agentos.abi import event as ev
from agentos.abi.chain import Head
from agentos.abi.errors import LogUnavailable, SequenceConflict
from agentos.abi.event import Event
from agentos.drivers.port import CallContext
from agentos.kernel import charges, deciding, gate, snapshot, tenure, turn
from agentos.kernel.adrift import Adrift
from agentos.kernel.gate import Gate
from agentos.kernel.journal import Journal
from agentos.kernel.line import Line, Place
from agentos.kernel.places import Places
from agentos.kernel.seat import Seat
from agentos.kernel.sessions import Sessions
from agentos.kernel.snapshot import Standing
from agentos.projections import question
from agentos.projections.grown import Grown
from agentos.projections.session import SessionState, State, Step, fold

Bug = Callable[[], AbstractContextManager[None]]


@contextmanager
def _act_before_durable() -> Iterator[None]:
    """The tool acts while the record of the intent is still on its way."""
    real = Gate._record_decided

    async def record(self: Gate, at: Journal, configuration: Any, data: dict[str, Any], receipt: Any) -> None:
        if data["decision"]["effect"] == "allow" and data["tool"] in configuration.tools:
            acts = self._acts
            context = CallContext(at.tenant, at.session, data["call"], acts._workspaces.path(at.tenant, at.session))
            await acts._drivers.call(configuration.tools[data["tool"]], data["args"], context)
        await real(self, at, configuration, data, receipt)

    with mock.patch.object(Gate, "_record_decided", record):
        yield


@contextmanager
def _retry_once_tool() -> Iterator[None]:
    """After a crash every tool is taken for one that may act twice."""
    with mock.patch.object(gate, "repeatable", return_value=True):
        yield


@contextmanager
def _ignore_conflict() -> Iterator[None]:
    """A sequence conflict is answered by writing behind whatever is there."""
    real = Journal._record

    async def record(self: Journal, *args: Any) -> SessionState:
        while True:
            try:
                return await real(self, *args)
            except SequenceConflict:
                last = await self._log.last(self._subject)
                self._position = last.position if last else 0

    with mock.patch.object(Journal, "_record", record):
        yield


@contextmanager
def _fold_unacknowledged() -> Iterator[None]:
    """An event that got no answer is believed to be stored."""
    real = Journal._record

    async def record(self: Journal, kind: str, data: dict[str, Any], actor: str, *rest: Any) -> SessionState:
        try:
            return await real(self, kind, data, actor, *rest)
        except LogUnavailable:
            revision, policy, _ = rest
            seq, prev, now = self.head.seq + 1, self.head.hash, self._clock.now_ms()
            event = Event("0" * 32, kind, self.tenant, self.session, seq, prev, now, actor, revision, policy, data)
            self.stale = False
            self.head = Head(event.seq, "sha256:" + "0" * 64)
            self.state = fold(self.state, event)
            return self.state

    with mock.patch.object(Journal, "_record", record):
        yield


@contextmanager
def _append_twice() -> Iterator[None]:
    """A lost answer is taken for a lost event: the same thing is told again as another event, behind whatever is there."""
    real = Journal._record

    async def record(self: Journal, *args: Any) -> SessionState:
        try:
            return await real(self, *args)
        except LogUnavailable:
            last = await self._log.last(self._subject)
            self._position = last.position if last else 0
            self.stale = False
            return await real(self, *args)

    with mock.patch.object(Journal, "_record", record):
        yield


@contextmanager
def _stale_approval() -> Iterator[None]:
    """A yes counts for ever, and under every policy."""
    real = question._approval

    def approval(one: Mapping[str, Any]) -> dict[str, Any]:
        return {**real(one), "expires": 2**50}

    with mock.patch.object(question, "_approval", approval):
        yield


@contextmanager
def _other_policy() -> Iterator[None]:
    """A yes that was given under one policy counts under another."""
    real = question.question

    def asked(state: SessionState, **known: Any) -> dict[str, Any]:
        document = real(state, **known)
        document["approvals"] = [{**one, "policy_digest": document["policy_digest"]} for one in document["approvals"]]
        return document

    with mock.patch.object(deciding, "question", asked):
        yield


@contextmanager
def _drop_charges() -> Iterator[None]:
    """A new runtime knows nothing of what was charged before."""

    async def load(self: charges.Charges, book: Any, tenant: str) -> None:
        del self, tenant
        book.loaded = True

    with mock.patch.object(charges.Charges, "_load", load):
        yield


@contextmanager
def _no_settle() -> Iterator[None]:
    """After a crash a session is run on as if nothing had been under way."""

    async def settle(self: Gate, at: Journal, configuration: Any) -> None:
        del self, at, configuration

    with mock.patch.object(Gate, "settle", settle):
        yield


@contextmanager
def _no_takeover() -> Iterator[None]:
    """A session is run on without a word that it has changed hands, by whoever comes."""

    async def take_over(self: Sessions, at: Journal) -> None:
        if at.state.state is State.RUNNING:
            await self._gate.settle(at, self._source.current(at.tenant))
            if at.state.state is State.RUNNING:
                self._start(at)

    # The claim to the tenant is a second lock on the same door; it is left open here.
    with mock.patch.object(Sessions, "_take_over", take_over), _serve_for_ever():
        yield


@contextmanager
def _forget_outcome() -> Iterator[None]:
    """A call that has an outcome is performed again when it is proposed again."""
    with mock.patch.object(gate, "same", lambda known, syscall: (_ for _ in ()).throw(_Again(known, syscall))):
        real = Gate.perform

        async def perform(self: Gate, at: Journal, configuration: Any, syscall: Any, place: Any = None) -> Any:
            try:
                return await real(self, at, configuration, syscall, place)
            except _Again:
                at.state = gate.replace(
                    at.state, calls={key: call for key, call in at.state.calls.items() if key != syscall.call}
                )
                return await real(self, at, configuration, syscall, place)

        with mock.patch.object(Gate, "perform", perform):
            yield


class _Again(Exception):
    pass


@contextmanager
def _grow_when_over() -> Iterator[None]:
    """A session that is over may be written to: the log of a cancelled one grows."""
    real = Journal._record

    async def record(self: Journal, *args: Any) -> SessionState:
        state = await real(self, *args)
        if state.over:
            self.state = gate.replace(state, state=State.RUNNING)
            return await real(self, ev.SESSION_OWNED, {"epoch": state.epoch + 1}, *args[2:])
        return state

    with mock.patch.object(Journal, "_record", record):
        yield


@contextmanager
def _never_come_back() -> Iterator[None]:
    """A session that lost the log once, or came about when nobody looked, is left alone."""
    real = Sessions.resume

    async def resume(self: Sessions, tenant: str, session: str) -> None:
        asked: set[str] = self.__dict__.setdefault("asked", set())
        if session not in asked:
            asked.add(session)
            await real(self, tenant, session)

    with mock.patch.object(Sessions, "_later", return_value=None), mock.patch.object(Sessions, "resume", resume):
        yield


@contextmanager
def _forget_the_end() -> Iterator[None]:
    """A session that ends says nothing of a call that may have acted."""

    async def abandon(self: Gate, at: Journal, configuration: Any) -> None:
        del self, at, configuration

    with mock.patch.object(Gate, "abandon", abandon):
        yield


@contextmanager
def _act_after_standing_still() -> Iterator[None]:
    """Whoever was stopped between the intent and the act goes on as if nothing had happened meanwhile."""

    async def still(self: Gate, at: Journal, configuration: Any, sent: int) -> None:
        del self, at, configuration, sent

    with mock.patch.object(Gate, "_still_ours", still):
        yield


@contextmanager
def _serve_for_ever() -> Iterator[None]:
    """A runtime never asks whether a newer one serves."""

    async def hold(self: tenure.Watched, tenant: str) -> None:
        del self, tenant

    with mock.patch.object(tenure.Watched, "hold", hold):
        yield


@contextmanager
def _forgetful_snapshot() -> Iterator[None]:
    """What was allowed is not in a snapshot: whoever resumes from it takes the call for a new one."""
    real = snapshot.read_state_lines

    def read(lines: Iterable[bytes]) -> SessionState:
        state = real(lines)
        return replace(state, calls=Grown({name: call for name, call in state.calls.items() if call.step is not Step.ALLOWED}))

    with mock.patch.object(snapshot, "read_state_lines", read):
        yield


@contextmanager
def _snapshot_without_tail() -> Iterator[None]:
    """A resume believes that nothing came behind the snapshot."""

    async def go_on(self: Journal, standing: Standing) -> None:
        last = await self._log.last(self._subject)
        self.head, self.state, self.inherited = standing.head, standing.state, standing.inherited
        self._of_session, self.kept = standing.of_session, standing.head.seq
        self._position = last.position if last else 0

    with mock.patch.object(Journal, "_go_on", go_on):
        yield


@contextmanager
def _no_barrier() -> Iterator[None]:
    """Whatever is proposed is decided while reads still act."""
    with mock.patch.object(turn, "commutes", lambda tool: tool is not None):
        yield


@contextmanager
def _blind_to_labels() -> Iterator[None]:
    """A read is decided though another one that acts will bring a label which the session does not carry yet."""
    real = Line.free

    def free(self: Line, *, together: bool, call: str, carried: Collection[str]) -> bool:
        every = set().union(carried, *self._acting.values())
        return real(self, together=together, call=call, carried=every)

    with mock.patch.object(Line, "free", free):
        yield


@contextmanager
def _wait_with_calls_open() -> Iterator[None]:
    """A session waits for a person, or is halted, while calls of it still act."""

    async def others_ended(self: Place) -> None:
        del self

    with mock.patch.object(Place, "others_ended", others_ended):
        yield


@contextmanager
def _forget_what_is_adrift() -> Iterator[None]:
    """A session goes on with a fresh harness while calls of the one before are still under way."""

    async def ashore(self: Places, seat: Seat, adrift: Adrift) -> None:
        del self, adrift
        seat.adrift = None

    with mock.patch.object(Places, "_ashore", ashore):
        yield


BUGS: Mapping[str, Bug] = {
    "act-after-standing-still": _act_after_standing_still,
    "act-before-durable": _act_before_durable,
    "append-twice": _append_twice,
    "blind-to-labels": _blind_to_labels,
    "drop-charges": _drop_charges,
    "fold-unacknowledged": _fold_unacknowledged,
    "forget-outcome": _forget_outcome,
    "forget-the-end": _forget_the_end,
    "forget-what-is-adrift": _forget_what_is_adrift,
    "forgetful-snapshot": _forgetful_snapshot,
    "grow-when-over": _grow_when_over,
    "ignore-conflict": _ignore_conflict,
    "never-come-back": _never_come_back,
    "no-barrier": _no_barrier,
    "no-settle": _no_settle,
    "no-takeover": _no_takeover,
    "other-policy": _other_policy,
    "retry-once-tool": _retry_once_tool,
    "serve-for-ever": _serve_for_ever,
    "snapshot-without-tail": _snapshot_without_tail,
    "stale-approval": _stale_approval,
    "wait-with-calls-open": _wait_with_calls_open,
}
