"""Replay: a session driven once more from its log, with a real harness, and with no model and no tool called.

The harness proposes as it did; every answer comes from the log. Each proposal must be the recorded one: the same call, tool and
arguments, the same closing words. What the harness proposes is folded in place of what was recorded of it, and the state that
is reached must be, byte for byte, the one that the log adds up to. The first event at which this fails is reported.

What people, other runtimes and policy did to the session meanwhile is taken from the log as it stands. Where calls were made at
once the order of the log counts: a call whose outcome stands behind the decision about another one waits until that is proposed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from agentos.abi import event as ev
from agentos.abi import rpc
from agentos.abi.canonical import Json, NotCanonical, canonical, digest_of
from agentos.abi.chain import Head, follow
from agentos.abi.decision import Verdict
from agentos.abi.errors import ChainBroken, Conflict, PayloadErased
from agentos.abi.event import Event
from agentos.abi.syscall import MODEL_CALL, NET_REQUEST
from agentos.kernel.port import Brief, HarnessSilent, Spawner
from agentos.kernel.serving import Leave, serve
from agentos.kernel.view import view
from agentos.projections import context
from agentos.projections.session import OPEN, SessionState, State, Step, fold, fold_all
from agentos.projections.state_document import digest_of_state

PROPOSALS: Final = frozenset({ev.SYSCALL_DECIDED, ev.SYSCALL_REFUSED, ev.SESSION_FINISHED})
"""Events that a harness's request led to; the others happen to the session."""

_BESIDE: Final = frozenset(
    {
        *(ev.POLICY_FAILED, ev.SYSCALL_RECONCILED, ev.DELEGATION_REFUSED),
        *(ev.SESSION_PAUSED, ev.SESSION_RESUMED, ev.SESSION_SIGNALLED),
    }
)
"""Events that can come between the view that a model was shown and the decision about showing it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first event at which a replay went another way."""

    seq: int
    recorded: str
    replayed: str

    def to_dict(self) -> dict[str, Json]:
        return {"seq": self.seq, "recorded": self.recorded, "replayed": self.replayed}


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to. `state` is the digest of the canonical state that it reached, `recorded` that of the log."""

    session: str
    events: int
    model_calls: int
    tool_calls: int
    harnesses: int
    state: str
    recorded: str
    difference: Difference | None

    @property
    def same(self) -> bool:
        """Whether the session is the one that was recorded."""
        return self.difference is None

    def to_dict(self) -> dict[str, Json]:
        """For programs."""
        return {
            "session": self.session,
            "same": self.same,
            "events": self.events,
            "model_calls": self.model_calls,
            "tool_calls": self.tool_calls,
            "harnesses": self.harnesses,
            "state": self.state,
            "recorded": self.recorded,
            "difference": self.difference.to_dict() if self.difference is not None else None,
        }


def read_history(session: str, stored: Iterable[bytes]) -> list[Event]:
    """The events of a session from their records. Raises ChainBroken where they are not one whole chain, PayloadErased."""
    head, events = Head.empty(), []
    for data in stored:
        head, body = follow(head, data, subject=session)
        events.append(_read(session, head, body))
    return events


def read_told(session: str, told: Iterable[dict[str, Json]]) -> list[Event]:
    """The events of a session as the runtime tells them, in their JSON form: the payload among the attributes, without its salt.

    So the chain of the headers is checked, and the payloads are taken as they are told. Raises as `read_history`.
    """
    head, events = Head.empty(), []
    for body in told:
        hashed = {name: value for name, value in body.items() if name != "data"} if "p" in body else body
        head, _ = follow(head, canonical(hashed), subject=session)
        events.append(_read(session, head, body))
    return events


def _read(session: str, head: Head, body: dict[str, Json]) -> Event:
    where = f"{session}#{head.seq}"
    try:
        event = Event.from_dict(body)
    except (LookupError, TypeError, ValueError) as error:
        raise ChainBroken(f"is no event that this version can read: {error!r}", where=where) from error
    if event.withheld:
        raise PayloadErased("the payload is withheld or erased: there is nothing to go through again", where=where)
    return event


async def replay(events: Sequence[Event], spawner: Spawner) -> Replayed:
    """Drive the session of `events` (from its first one, in order, at least one) again. Raises Unavailable without a harness."""
    again = _Again(events)
    harnesses = 0
    while again.goes_on():
        before = again.at
        again.begin()
        process = await spawner.spawn(Brief("", again.session))
        harnesses += 1
        try:
            problem = (await serve(process, again)).why
        except HarnessSilent as silent:
            problem = str(silent)
        finally:
            await process.stop()
        if again.at == before and again.difference is None:
            again.differs(f"the harness did nothing ({problem})")
    reached, recorded = digest_of_state(again.state), digest_of_state(fold_all(events[: again.at]))
    if reached != recorded and again.difference is None:
        again.difference = Difference(again.at, f"state {recorded}", f"state {reached}")
    inherited = fold_all(events[:1])  # of a fork: what it did not do itself
    models = again.state.model_calls - inherited.model_calls
    left = sum(call.tool == NET_REQUEST for call in again.state.calls.values()) - sum(
        call.tool == NET_REQUEST for call in inherited.calls.values()
    )
    tools = len(again.state.calls) - len(inherited.calls) - models - left
    return Replayed(again.session, again.at, models, tools, harnesses, reached, recorded, again.difference)


class _Again:
    """The kernel's side of the ABI, answering from the log. `at` is how many events are behind us."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self.session = events[0].subject
        self.state = SessionState()
        self.at = 0
        self.difference: Difference | None = None
        self.begin()

    def begin(self) -> None:
        """A fresh harness comes."""
        self._gone: Leave | None = None
        """With which words the harness before was told to go."""
        self._no_more = False
        self._moved = asyncio.Event()

    def goes_on(self) -> bool:
        """Take in what happened to the session; return whether a harness is needed for what comes then."""
        while self.difference is None and self.at < len(self._events):
            if not _proposes(self._events[self.at]):
                self._fold()
            elif self.state.state is State.RUNNING:
                return True
            else:
                self.differs(f"the session is {self.state.state}, and proposes nothing")
        return False

    def differs(self, replayed: str) -> None:
        """The next event is not what the replay came to."""
        self.difference = Difference(self._events[self.at].seq, _said(self._events[self.at]), replayed)

    async def handle(self, method: str, params: dict[str, Json]) -> dict[str, Json]:
        """Serve one request. Raises Leave when the log says that the harness went, or went another way."""
        match method:
            case "session.view":
                return view(self.state, messages=bool(params.get("messages")))
            case "model.call":
                return self._model_call()
            case "finish":
                return self._finish(params["result"])
            case _:
                raise Conflict(f"the kernel has no method {method[:64]!r}")

    def at_once(self, method: str, params: dict[str, Json]) -> Coroutine[Any, Any, dict[str, Json]] | None:
        """All calls of tools are served so, whichever they are: what was made at once the log knows."""
        if method != "tool.call":
            return None
        self._no_more = False
        if self._gone is None:
            try:
                self._propose(params["call"], params["tool"], params["args"])
            except Leave as leave:
                self._goes(leave)
        return self._told(params["call"])

    def rest(self) -> None:
        """Nobody else needs its process."""

    def rise(self, *, gone: bool) -> None:
        """Nothing to do."""

    def no_more(self) -> None:
        """Whatever the log has between a call and its outcome is proposed by now."""
        self._no_more = True
        self._moved.set()

    def _model_call(self) -> dict[str, Json]:
        waiting = context.pending(self.state)
        if waiting:
            raise Conflict(f"model.call: call {waiting[0]['call']} of the last reply has no result yet")
        while True:  # a call that fails in passing is made again without asking the harness
            event, words = self._next(), "a model call"
            data = event.data
            number = 1 + self.state.model_calls
            if event.type != ev.SYSCALL_DECIDED or data["tool"] != MODEL_CALL:
                raise self._left(words)
            if data["call"] != f"model-{number}" or data["turn"] != self.state.turn + 1:
                raise self._left(f"model call model-{number} in turn {self.state.turn + 1}")
            if data["args"]["input_digest"] not in self._shown():
                raise self._left("a model call that is shown the session as it stands")
            self._fold()
            self._settled(data["call"], waits=False)
            call = self.state.calls[data["call"]]
            if call.step is Step.FINISHED and call.result is not None:
                return {"content": call.result["data"]["content"], "stop_reason": call.result["data"]["stop_reason"]}

    def _propose(self, name: str, tool: str, args: dict[str, Json]) -> None:
        """Take in that a call is proposed, unless the session knows its outcome already."""
        known = self.state.calls.get(name)
        if known is not None and known.step not in OPEN:
            return
        event = self._next()
        data, words = event.data, f"call {name}: {tool} {_digest(args)}"
        if event.type == ev.SYSCALL_REFUSED:
            text = json.dumps(args, ensure_ascii=True, default=str)[:4096]
            if (data["call"], data["tool"], data["args_text"]) != (name, tool[:128], text):
                raise self._left(words)
            self._fold({"call": name, "tool": tool[:128], "args_text": text})
        elif event.type == ev.SYSCALL_DECIDED:
            digest = data.get("proposed", data["args_digest"])
            if (data["call"], data["tool"], digest, data["turn"]) != (name, tool, _digest(args), self.state.turn):
                raise self._left(words)
            # What was rewritten for an obligation is the kernel's doing, and is taken as recorded.
            self._fold({"call": name, "tool": tool, **({} if "proposed" in data else {"args": args, "args_digest": digest})})
        else:
            raise self._left(words)
        self._moved.set()

    async def _told(self, name: str) -> dict[str, Json]:
        """What the harness is told of a call that it has proposed."""
        while self._gone is None and not self._settled(name, waits=not self._no_more):
            self._moved.clear()
            await self._moved.wait()
        if self._gone is not None:
            raise self._gone
        text, is_error = context.outcome(self.state.calls[name])
        return {"call": name, "content": text, "is_error": is_error}

    def _finish(self, result: str) -> dict[str, Json]:
        event = self._next()
        if event.type != ev.SESSION_FINISHED or event.data["result"] != result:
            raise self._left(f"finished: {result}")
        self._fold({"result": result})
        raise Leave(rpc.ENDED, "the session is finished")

    def _next(self) -> Event:
        """The next event that a request led to, once everything before it is taken in."""
        while self.at < len(self._events):
            event = self._events[self.at]
            if _proposes(event):
                return event
            self._happens()
        raise self._goes(Leave(rpc.PARKED, "the log ends here"))

    def _settled(self, name: str, *, waits: bool) -> bool:
        """Take in what came of a decided call; return whether that is all. False, only if it `waits`: another one comes before.

        Raises Leave.
        """
        while True:
            call = self.state.calls[name]
            asked = call.step is Step.ASKED and self.state.state is not State.WAITING
            halted = call.decision is not None and call.decision["effect"] == Verdict.HALT
            if not (asked or halted or call.step is Step.ALLOWED):
                break
            if self.at == len(self._events):
                raise self._goes(Leave(rpc.PARKED, "the log ends here"))
            event = self._events[self.at]
            if _proposes(event):
                if event.data.get("call") == name:
                    # It waited, for a lock or for children, and its session gave its place up: a fresh harness proposed it again.
                    raise self._goes(Leave(rpc.PARKED, "the session had left its place"))
                if waits and self._may_come(event):
                    return False
                raise self._left(f"an outcome of call {name}")
            self._happens()
        if call.step is Step.ASKED:
            raise self._goes(Leave(rpc.PARKED, "the session waits for a person"))
        return True

    def _may_come(self, event: Event) -> bool:
        """Whether an event is of a call that the harness may propose before it has the answers to others."""
        return event.type != ev.SESSION_FINISHED and event.data["tool"] != MODEL_CALL

    def _happens(self) -> None:
        """Take in something that happened to the session. Raises Leave when its harness did not outlive that."""
        event = self._events[self.at]
        self._fold()
        self._moved.set()
        if self.state.over:
            raise self._goes(Leave(rpc.ENDED, f"the session is {self.state.state}"))
        if event.type == ev.SESSION_OWNED:
            raise self._goes(Leave(rpc.PARKED, "another runtime took the session over"))

    def _fold(self, replayed: dict[str, Json] | None = None) -> None:
        """Take in the next event, with what the harness said in place of what was recorded of that."""
        event = self._events[self.at]
        self.state = fold(self.state, replace(event, data={**event.data, **replayed}) if replayed else event)
        self.at += 1

    def _shown(self) -> set[str]:
        """Heads of the chain that a model that is called by the next event may have been shown."""
        heads, at = {self._events[self.at].prev}, self.at
        while at > 0 and self._events[at - 1].type in _BESIDE:
            at -= 1
            heads.add(self._events[at].prev)
        return heads

    def _left(self, replayed: str) -> Leave:
        self.differs(replayed)
        return self._goes(Leave(rpc.ENDED, "the replay went another way"))

    def _goes(self, leave: Leave) -> Leave:
        """The harness goes; so do all that wait."""
        self._gone = self._gone or leave
        self._moved.set()
        return leave


def _proposes(event: Event) -> bool:
    """Whether a harness led to it. Requests that left for a call are the doing of its driver, and are taken as recorded."""
    return event.type in PROPOSALS and event.data.get("tool") != NET_REQUEST


def _digest(args: Json) -> str:
    try:
        return digest_of(args)
    except NotCanonical:
        return "(arguments that cannot be recorded)"


def _said(event: Event) -> str:
    """An event in a few words."""
    data = event.data
    match event.type:
        case ev.SYSCALL_DECIDED:
            return f"call {data['call']}: {data['tool']} {data.get('proposed', data['args_digest'])}"
        case ev.SESSION_FINISHED:
            return f"finished: {data['result']}"
        case _:
            return f"{event.type} {data.get('call', '')}".rstrip()
