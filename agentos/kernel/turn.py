"""What a harness is answered: it proposes over the ABI, the gate decides and acts, until the session ends or must wait.

Calls of one reply whose tools commute are made at once: `kernel.line` says what is decided when.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Final

from agentos.abi import event as ev
from agentos.abi import rpc
from agentos.abi.canonical import Json, canonical
from agentos.abi.decision import FAILED
from agentos.abi.errors import Conflict, Frozen
from agentos.abi.syscall import Syscall
from agentos.drivers.port import ModelUnavailable
from agentos.kernel.admission import PoolKey, Request, Ticket
from agentos.kernel.asking import PREEMPTED, asking_as, endpoint_of, plan, used_by
from agentos.kernel.batched import Carried, batches_of, in_batch
from agentos.kernel.budgets import RULE_HELD
from agentos.kernel.gate import MAX_OUTCOME, SYSTEM, Gate
from agentos.kernel.journal import Journal
from agentos.kernel.line import Closed, Line, Place
from agentos.kernel.methods import METHODS, called
from agentos.kernel.port import Configuration, ConfigurationSource, Left, Timer
from agentos.kernel.reply import is_call_id, is_counted
from agentos.kernel.seat import Displaced, Seat
from agentos.kernel.serving import Leave
from agentos.kernel.tools import commutes, require_unchanged
from agentos.kernel.view import view
from agentos.projections import context
from agentos.projections.session import Call, Step
from agentos.scheduler.estimate import Expected

log = logging.getLogger(__name__)

MODEL_TRIES: Final = 4
"""How often a model call is tried when its failure may pass (each try is a syscall of its own in the log)."""

MAX_PAUSE_S: Final = 60.0
"""Longest pause between two tries, whatever the provider asks for."""

MAX_REFUSED: Final = 1000
"""Calls of one session that are refused or denied, after which it fails: they cost no budget, and each is an event in the log."""


class Turns:
    """The kernel's side of the ABI for one session and one harness process."""

    def __init__(self, gate: Gate, source: ConfigurationSource, timer: Timer, journal: Journal, seat: Seat) -> None:
        self._gate = gate
        self._source = source
        self._timer = timer
        self._seat = seat
        self.journal = journal
        self.displaced = False
        """Whether the harness was told to go because its place was needed."""
        self.frozen = False
        """Whether it was told to go because of a freeze, which may be over by now."""
        self.seen = frozenset(journal.state.labels)
        """All labels that the session had while its harness had it, those that were taken off meanwhile among them."""
        self._configuration: Configuration | None = None
        self._line = Line(seat.acts)

    @property
    def session(self) -> str:
        return self.journal.session

    async def handle(self, method: str, params: dict[str, Json]) -> dict[str, Json]:
        """Serve one request. Raises Leave when the harness must go, Conflict for a request that is off."""
        self.seen |= self.journal.state.labels
        if method in METHODS:
            configuration = self._source.current(self.journal.tenant)
            params = called(method, params, configuration.agents.get(self.journal.state.agent), configuration.tools)
            method = "tool.call"
        match method:
            case "session.view":
                return self._view(params)
            case "model.call":
                try:
                    return await self._model_call()
                except Frozen:
                    raise self._leave_frozen() from None
            case "tool.call":
                return await self._tool_call(params, self._line.join())
            case "finish":
                return await self._finish(params)
            case _:
                raise Conflict(f"the kernel has no method {method[:64]!r}")

    def at_once(self, method: str, params: dict[str, Json]) -> Coroutine[Any, Any, dict[str, Json]] | None:
        """The same for a call of a tool that commutes."""
        name = params.get("tool")
        if method != "tool.call" or not isinstance(name, str):
            return None
        tool = self._source.current(self.journal.tenant).tools.get(name)
        return self._tool_call(params, self._line.join()) if commutes(tool) else None

    def no_more(self) -> None:
        """Nothing to do: what was begun ends by itself."""

    def rest(self) -> asyncio.Future[None]:
        """See `serving.Answers`."""
        return self._seat.rest()

    def rise(self, *, gone: bool) -> None:
        """See `serving.Answers`."""
        self._seat.rise(gone=gone)

    async def stopped(self, left: Left) -> None:
        """Record the misdeed of the harness, if there is one, and end the session unless it is over."""
        if left.misdeed is None:
            return
        words = left.misdeed.words
        log.warning("session %s: its harness was stopped: %s", self.session, words)
        await self._line.quiet()
        data: dict[str, Json] = {"reason": str(left.misdeed), "message": words}
        if left.code is not None:
            data["code"] = left.code
        if self.journal.state.over:
            data["after"] = str(self.journal.state.state)
        await self._record(ev.HARNESS_STOPPED, data)
        if not self.journal.state.over:
            await self.fail("harness", f"the harness was stopped: {words}")

    async def fail(self, code: str, message: str) -> None:
        """End the session with an error, once nothing acts for it any more."""
        await self._line.quiet()
        await self._gate.abandon(self.journal, self._latest())
        await self._record(ev.SESSION_FAILED, {"error": {"code": code, "message": message}})

    def _view(self, params: dict[str, Json]) -> dict[str, Json]:
        return view(self.journal.state, messages=bool(params.get("messages")))

    async def _model_call(self) -> dict[str, Json]:
        waiting = context.pending(self.journal.state)
        if waiting:
            raise Conflict(f"model.call: call {waiting[0]['call']} of the last reply has no result yet")
        attempt, asked = 1, frozenset[str]()
        carried, self._seat.carried = self._seat.carried, None
        if carried is not None and carried.work.result()[1].step is not Step.FINISHED:
            # What came of it is this call's: its harness had to go. Of one that was answered the view has told.
            attempt, asked = carried.attempt, carried.asked
        else:
            carried = None
        while True:
            model, call = carried.work.result() if carried is not None else await self._ask_one(asked, attempt)
            carried = None
            if call.step is Step.FINISHED and call.result is not None:
                content = call.result["data"]["content"]
                return {"content": content, "stop_reason": call.result["data"]["stop_reason"]}
            self._leave_if_stopped(call)
            error = call.error or {"code": "denied", "message": _denial(call), "retryable": _undecided(call)}
            if error["code"] in {PREEMPTED, Frozen.code}:
                continue
            if error["code"] == ModelUnavailable.code and self._another(asked | {model}):
                asked |= {model}
                continue
            if not error.get("retryable") or attempt == MODEL_TRIES:
                await self.fail(str(error["code"]), f"the model could not be called: {error['message']}")
                raise Leave(rpc.ENDED, "the session failed")
            pause = error.get("retry_after_ms", 0) / 1000
            await self._timer.sleep(min(max(pause, 0.25 * 2**attempt), MAX_PAUSE_S))
            attempt, asked = attempt + 1, frozenset()

    async def _ask_one(self, asked: frozenset[str], attempt: int) -> tuple[str, Call]:
        """Ask one endpoint once it lets the session in, none of those `asked` already if there is another; return which.

        Raises Leave when that takes longer than the session may keep its place.
        """
        state = self.journal.state
        while True:
            configuration = await self._in_force()
            wanted = plan(state, configuration)
            models = [name for name in wanted.models if name not in asked] or list(wanted.models)
            if not models:
                await self.fail("route", f"no route of model class {configuration.agents[state.agent].model} takes the call")
                raise Leave(rpc.ENDED, "the session failed")
            keys: dict[PoolKey, str] = {endpoint_of(name, configuration).key: name for name in models}
            call, now = f"model-{state.model_calls + 1}", self._timer.now_ms()
            request = asking_as(state, configuration, call, tuple(keys), now, wanted.expected.total)
            first = endpoint_of(models[0], configuration)
            if self._gate.batches is not None and in_batch(request, first, self._seat.admissions, now):
                work = asyncio.ensure_future(self._ask_in_batch(configuration, models[0], request, wanted.expected))
                self._seat.carried, self.displaced = Carried(work, attempt, asked), True
                raise Leave(rpc.PARKED, "the session waits for a batch")
            with await self._admitted(request) as ticket:
                # It may have waited for long: what is declared, and whether it may go on, is looked at once more.
                configuration, model = await self._in_force(), keys[ticket.key]
                if model not in plan(state, configuration).models:
                    continue
                done = await self._gate.perform_model(self.journal, configuration, model, ticket)
                if done.step is Step.FINISHED:
                    ticket.succeeded(used_by(done, wanted.expected, ticket))
                elif done.error is not None and done.error["code"] == ModelUnavailable.code:
                    ticket.failed(done.error.get("retry_after_ms"), used_by(done, wanted.expected, ticket))
                else:
                    ticket.release(used_by(done, wanted.expected, ticket))
                return model, done

    async def _ask_in_batch(
        self, configuration: Configuration, model: str, request: Request, expected: Expected
    ) -> tuple[str, Call]:
        """Ask a model together with others, which takes hours; the call takes no slot of the endpoint, and pays its share."""
        endpoint, admissions = endpoint_of(model, configuration), self._seat.admissions
        with await admissions.admit(replace(request, candidates=(batches_of(endpoint),))) as ticket:
            done = await self._gate.perform_model(self.journal, configuration, model, ticket)
            used = used_by(done, expected, ticket)
            ticket.release(used)
            admissions.charge(endpoint.key, request, used)
        if self._gate.batches is not None:
            self._gate.batches.settled(self.journal.tenant, self.journal.session)
        return model, done

    def _another(self, asked: frozenset[str]) -> bool:
        """Whether the call may go to a model that is not among those `asked` and whose endpoint is in order."""
        configuration = self._latest()
        return any(
            name not in asked and self._seat.admissions.open(endpoint_of(name, configuration).key)
            for name in plan(self.journal.state, configuration).models
        )

    async def _admitted(self, request: Request) -> Ticket:
        """Wait to be let in. Raises Leave when the place of the session is needed meanwhile."""
        try:
            return await self._seat.admit(request)
        except Displaced:
            self.displaced = True
            raise Leave(rpc.PARKED, "the session waits for an endpoint, and its place is needed") from None

    async def _tool_call(self, params: dict[str, Json], place: Place) -> dict[str, Json]:
        try:
            async with place:
                return await self._call_in(place, params)
        except Closed:
            raise Leave(rpc.PARKED, "the session stops: this call was not decided") from None
        except Frozen:
            raise self._leave_frozen() from None
        except Displaced:
            self.displaced = True
            what = "its children" if params.get("call") in self.journal.state.delegations else "a lock or a signal"
            raise Leave(rpc.PARKED, f"the session waits for {what}, without a place") from None

    async def _call_in(self, place: Place, params: dict[str, Json]) -> dict[str, Json]:
        call_id, name, args = params.get("call"), params.get("tool"), params.get("args")
        if not is_call_id(call_id):
            raise Conflict("tool.call: `call` is 1 to 64 letters, digits, `_` and `-`, and does not begin with `model-`")
        if not isinstance(name, str) or not isinstance(args, dict):
            raise Conflict("tool.call: `tool` is a name and `args` an object")
        if not is_counted(call_id) and not self._named(call_id):
            raise Conflict(f"tool.call: no reply has named a call {call_id}; number calls of your own, as in `step-1`")
        syscall = Syscall(call_id, name, args)
        await place.until(lambda: self._has_room(syscall))
        configuration, known = await self._in_force(), self.journal.state.calls.get(call_id)
        if name in configuration.arbitration.tool_limits and (known is None or known.step in {Step.APPROVED, Step.ALLOWED}):
            key, now = ("tool", self.journal.tenant, name), self._timer.now_ms()
            request = asking_as(self.journal.state, configuration, call_id, (key,), now)
            with await self._admitted(request) as ticket:
                call = await self._perform(place, syscall, params.get("digest"))
                ticket.release(1)
        else:
            call = await self._perform(place, syscall, params.get("digest"))
        self._leave_if_stopped(call)
        if call.step in {Step.REFUSED, Step.DENIED}:
            await self._bound()
        text, is_error = context.outcome(call)
        return {"call": call_id, "content": text, "is_error": is_error}

    async def _perform(self, place: Place, syscall: Syscall, seen: Json) -> Call:
        """Take a call through the gate once others leave room for it under what is in force then. `seen`: see `tools`."""
        configuration = await self._in_force()
        while not self._has_room(syscall):
            await place.until(lambda: self._has_room(syscall))
            configuration = await self._in_force()
        require_unchanged(self.journal.state, configuration, syscall, seen)
        together = place if commutes(configuration.tools.get(syscall.tool)) else None
        return await self._gate.perform(self.journal, configuration, syscall, together)

    def _has_room(self, syscall: Syscall) -> bool:
        """Whether a call may be decided beside those that act now."""
        together = commutes(self._source.current(self.journal.tenant).tools.get(syscall.tool))
        return self._line.free(together=together, call=syscall.call, carried=self.journal.state.labels)

    def _named(self, call: str) -> bool:
        """Whether the model, or the harness before, has named a call so: an id is in a header, and no place for words."""
        return call in self.journal.state.calls or any(one["call"] == call for one in context.pending(self.journal.state))

    async def _finish(self, params: dict[str, Json]) -> dict[str, Json]:
        result = params.get("result")
        if not isinstance(result, str):
            raise Conflict("finish: `result` is text")
        self._leave_if_paused()
        if len(canonical(result)) > MAX_OUTCOME:
            raise Conflict(f"finish: `result` has more than {MAX_OUTCOME} bytes")
        await self._gate.abandon(self.journal, self._latest())
        await self._record(ev.SESSION_FINISHED, {"result": result})
        raise Leave(rpc.ENDED, "the session is finished")

    async def _in_force(self) -> Configuration:
        """The configuration for the coming syscall; the log says when it is another than before."""
        self._leave_if_paused()
        newest = self._source.current(self.journal.tenant)
        state = self.journal.state
        if newest.revision != state.config_revision:
            data = {"from": state.config_revision, "to": newest.revision}
            await self.journal.record(
                ev.SESSION_REVISED, data, actor=SYSTEM, revision=newest.revision, policy=newest.policy_digest
            )
        self._seat.admissions.declare(self.journal.tenant, newest.arbitration)
        agent = newest.agents.get(state.agent)
        if agent is None or not (agent.model in newest.models or agent.model in newest.arbitration.model_classes):
            self._configuration = newest
            await self.fail("agent-gone", f"agent {state.agent} is not declared in revision {newest.revision}")
            raise Leave(rpc.ENDED, "the agent is not declared any more")
        self._configuration = newest
        return newest

    async def _bound(self) -> None:
        """Fail a session that goes on asking for what it may not."""
        refused = self.journal.state.barred
        if refused >= MAX_REFUSED:
            await self.fail("refused", f"{refused} calls of the session were refused or denied")
            raise Leave(rpc.ENDED, "the session failed")

    def _leave_if_paused(self) -> None:
        if self.journal.state.paused is not None:
            raise Leave(rpc.PARKED, "a person has paused the session")
        if self._gate.freezes.of(self.journal.state, self._source.current(self.journal.tenant)) is not None:
            raise self._leave_frozen()

    def _leave_frozen(self) -> Leave:
        self.frozen = True
        return Leave(rpc.PARKED, "the session is frozen")

    def _leave_if_stopped(self, call: Call) -> None:
        if self.journal.state.over:
            raise Leave(rpc.ENDED, "policy has halted the session")
        if call.step is Step.ASKED:
            raise Leave(rpc.PARKED, "the session waits for a person")

    def _latest(self) -> Configuration:
        """The configuration of the last syscall."""
        return self._configuration or self._source.current(self.journal.tenant)

    async def _record(self, kind: str, data: dict[str, Json]) -> None:
        configuration = self._latest()
        await self.journal.record(kind, data, actor=SYSTEM, revision=configuration.revision, policy=configuration.policy_digest)


def _undecided(call: Call) -> bool:
    """Whether policy gave no decision, as while its server is down, or a budget is held by others: asking later can help."""
    return call.decision is not None and call.decision["rules"] in ([FAILED], [RULE_HELD])


def _denial(call: Call) -> str:
    return "; ".join(call.decision["reasons"]) if call.decision else str(call.step)
