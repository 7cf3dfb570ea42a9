"""The one gate. Every syscall of every session passes through `Gate.perform`; no other path to an effect exists.

Order: find what the log already says of this call → validate the arguments → decide by policy, again for as long as it rewrites
them (`ruling`) → see that its obligations can be met (`obligations`), charge the call (`charges`) and reserve what it may use
(`budgets`) → record the decision (for an `allow`, that record is the durable intent) → act through a driver → record the outcome,
without what is to be withheld of it. A denial, a question to people and a halt are recorded in the same way and act on nothing.
Model calls pass as the tool `model-call`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json, NotCanonical, canonical, digest, digest_of
from agentos.abi.decision import Decision, Verdict, parse_decision
from agentos.abi.errors import (
    DriverError,
    Frozen,
    LogUnavailable,
    OutcomeUnknown,
    SequenceConflict,
    TooLarge,
    Unavailable,
)
from agentos.abi.syscall import MODEL_CALL, NET_REQUEST, PSEUDO, Result, Syscall, ToolEffect
from agentos.drivers.batching import Batching
from agentos.drivers.port import Driver, ModelProvider, ToolSpec
from agentos.drivers.signals import consumed_by
from agentos.kernel import consent, failures, hands, obligations
from agentos.kernel.acts import STILL_US, Acts, Still
from agentos.kernel.admission import Ticket
from agentos.kernel.allowance import want_of_tool
from agentos.kernel.budgets import Budgets, no_history
from agentos.kernel.charges import Charges
from agentos.kernel.deciding import Deal, Deciding, Halts, Request, allowance_of, departing, told
from agentos.kernel.departures import Go
from agentos.kernel.freeze import Freezes, not_begun
from agentos.kernel.hands import NO_HANDS
from agentos.kernel.journal import Heard, Journal
from agentos.kernel.line import Place
from agentos.kernel.port import Configuration, Tenure, Timer
from agentos.kernel.provenance import labels_field
from agentos.kernel.reconcile import Reconciler
from agentos.kernel.repeated import same, taken
from agentos.kernel.reply import MODEL_IDS, UNREADABLE
from agentos.kernel.ruling import Ruling
from agentos.kernel.seat import Displaced
from agentos.kernel.tenure import Alone
from agentos.kernel.tools import callable_tool, repeatable, unknown_tool
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import Call, SessionState, State, Step

SYSTEM: Final = "system/kernel"

MAX_ARGS: Final = 1024 * 1024
"""Largest arguments of one call in canonical bytes; more is refused before policy sees it."""

MAX_OUTCOME: Final = 2 * 1024 * 1024
"""Largest result of one call, and largest reply of a model, in canonical bytes: it must fit an event of the log, and a frame of
the ABI, whose escapes may make three bytes of one."""


class Gate:
    """Performs syscalls of sessions. What it knows of a session is its journal, and of charges what the log says of them."""

    def __init__(
        self,
        drivers: Driver,
        models: ModelProvider,
        workspaces: Workspaces,
        timer: Timer,
        charges: Charges,
        tenure: Tenure | None = None,
        budgets: Budgets | None = None,
        batches: Batching | None = None,
        freezes: Freezes | None = None,
    ) -> None:
        """`budgets` None: the past of budgets cannot be read here, so whoever declares one has every call refused.

        `batches` None: every model call is asked by itself.
        """
        self._acts = Acts(drivers, models, workspaces, timer.monotonic_us, batches)
        self.batches = batches
        self.freezes = freezes or Freezes()
        self._reconciler = Reconciler(drivers, workspaces)
        self._timer = timer
        self.budgets = budgets or Budgets(no_history)
        self.hear: Heard = self.budgets.hear
        self._deciding = Deciding(charges, self.budgets)
        self.tenure: Tenure = tenure or Alone()
        """Whether this runtime serves; by itself it is alone."""

    async def perform(self, journal: Journal, configuration: Configuration, syscall: Syscall, place: Place | None = None) -> Call:
        """Take one tool call through the gate; return where it stands then.

        `place` is that of a call which may act beside others of its session, and is told when it begins to.
        `Step.ASKED` means that the session now waits for a person; a `halt` has ended the session.
        Raises Conflict if the id is taken by a different call, LogUnavailable if an event could not be made durable
        (nothing has been acted on without a durable intent).
        """
        known = journal.state.calls.get(syscall.call)
        if known is not None and known.step not in {Step.APPROVED, Step.ALLOWED}:
            return same(known, syscall)
        if known is not None and known.tool != syscall.tool:
            raise taken(known)
        if UNREADABLE in syscall.args:
            unreadable = "the arguments cannot be recorded: whole numbers beyond 2^53 are to be written as text"
            return await self._refuse(journal, configuration, syscall, unreadable)
        tool = callable_tool(journal.state, configuration, syscall.tool)
        if tool is None:
            return await self._refuse(journal, configuration, syscall, unknown_tool(journal.state, syscall.tool, configuration))
        try:
            arguments = canonical(syscall.args)
        except NotCanonical as error:
            return await self._refuse(journal, configuration, syscall, f"arguments: {error}")
        args_digest = digest(arguments)
        if known is not None and known.proposed != args_digest:
            raise taken(known)
        # The size first: what checking costs grows with it.
        fits = configuration.checks[tool.name]
        problem = _too_large(len(arguments)) or fits(syscall.args)
        if problem is not None:
            return await self._refuse(journal, configuration, syscall, problem)
        halts: Halts = []
        net = partial(self._perform_net, journal, configuration, halts)
        request = Request(
            syscall,
            tool.effect,
            args_digest,
            once=not repeatable(tool),
            check=lambda args: _too_large(len(canonical(args))) or fits(args),
            act=self._acts.of_tool(journal, configuration, tool, syscall.call, net),
            want=lambda ruling: want_of_tool(tool, ruling.args),
            spec=tool,
            declassifies=tool.driver.get("builtin", {}).get("primitive") == "declassify",
            place=place,
            halts=halts,
        )
        return await self._decide_and_act(journal, configuration, request)

    async def perform_model(
        self, journal: Journal, configuration: Configuration, model: str | None = None, ticket: Ticket | None = None
    ) -> Call:
        """Take the next model call of the session through the gate; its result's `data` is the reply.

        `model` is which of the declared ones is asked (None: the agent's own), `ticket` what its endpoint has admitted it with.
        """
        model = model or configuration.agents[journal.state.agent].model
        batched = ticket is not None and ticket.batched
        number = journal.state.model_calls + 1
        # The view is a pure function of the log, so the head of the chain names the whole input of the model.
        args: dict[str, Json] = {"model": model, "input_digest": journal.head.hash}
        if journal.state.signals:
            # How many of them the view shows: others may come before the decision is recorded.
            args["signals"] = len(journal.state.signals)
        syscall = Syscall(f"{MODEL_IDS}{number}", MODEL_CALL, args)
        act, want = self._acts.of_model(journal, configuration, model, ticket)
        request = Request(
            syscall,
            ToolEffect.EXTERNAL,
            digest_of(args),
            once=False,
            check=lambda _: "a model call is made as it is, or not at all",
            admitted=ticket.told() if ticket is not None else None,
            act=act,
            want=lambda _: want(),
            batched=batched,
        )
        return await self._decide_and_act(journal, configuration, request)

    async def _perform_net(
        self, journal: Journal, configuration: Configuration, halts: Halts, call: str, args: dict[str, Json], go: Go
    ) -> Call:
        """Take a request that leaves for another call through the gate; see `departures.Perform` and `Request.halts`."""
        known = await self._decide_and_act(journal, configuration, departing(call, args, go))
        if known.decision is not None and known.decision["effect"] == Verdict.HALT:
            halts.append(known.decision)
        return known

    async def settle(self, journal: Journal, configuration: Configuration) -> None:
        """After a crash: finish what a decision began.

        An allowed call without an outcome stays open if it is repeatable, and is performed again when the harness asks; of any
        other the outcome is unknown, and is recorded as that. A question that was decided and not asked is asked, and a halt that
        was decided halts. People who were to be told of a decision and were not are told now.
        """
        self.budgets.agree(journal)
        for call in tuple(journal.state.calls.values()):
            await self._notify(journal, configuration, call.call)
            if call.decision is not None and call.decision["effect"] == Verdict.HALT:
                await self.abandon(journal, configuration)
                await self._halt(journal, configuration, call.decision)
                return
            if call.step is Step.ASKED and call.decision is not None and journal.state.state is State.RUNNING:
                await self._ask(journal, configuration, call.call, parse_decision(call.decision), call.decided_ms)
            if call.step is not Step.ALLOWED or call.call in journal.state.held:
                continue
            tool = configuration.tools.get(call.tool)
            if call.tool in PSEUDO or tool is None or not repeatable(tool):
                await self._lose(journal, configuration, call, tool)

    async def reconcile(self, journal: Journal, configuration: Configuration) -> None:
        """Ask the tools of calls whose outcome is unknown what came of them, where they can tell."""
        await self._reconciler.settle(journal, configuration)

    async def abandon(self, journal: Journal, configuration: Configuration) -> None:
        """Before a session ends: of every allowed call without an outcome, say that it is unknown."""
        for call in tuple(journal.state.calls.values()):
            if call.step is Step.ALLOWED:
                await self._lose(journal, configuration, call, configuration.tools.get(call.tool))

    async def _lose(self, journal: Journal, configuration: Configuration, call: Call, tool: ToolSpec | None) -> None:
        if call.call in journal.state.held:
            await self._record(journal, configuration, ev.SYSCALL_FAILED, not_begun(call.call, call.tool))
            return
        lost = {"call": call.call, "tool": call.tool, **labels_field(tool, call.args, journal.state.labelled)}
        await self._record(journal, configuration, ev.SYSCALL_UNKNOWN, lost)

    async def _notify(self, journal: Journal, configuration: Configuration, call: str) -> None:
        """Tell of the last decision about a call to whom it is to be told and is not yet."""
        known = journal.state.calls.get(call)
        for notice in obligations.notices(known) if known is not None else ():
            await self._record(journal, configuration, ev.POLICY_NOTIFIED, notice)

    async def _decide_and_act(self, journal: Journal, configuration: Configuration, request: Request) -> Call:
        await self.tenure.hold(journal.tenant)
        self.freezes.check(journal.state, configuration)
        call, tool, state = request.syscall.call, request.syscall.tool, journal.state
        now = self._timer.now_ms()
        agent = configuration.agents.get(state.agent)
        data: dict[str, Json] = {
            "call": call,
            "tool": tool,
            "effect": str(request.effect),
            # With these two the question to policy can be made again from the log alone.
            "agent": {"name": state.agent, "labels": dict(agent.labels) if agent is not None else {}},
            "now": now,
            "turn": state.turn + (tool == MODEL_CALL),
            **({"admitted": request.admitted} if request.admitted is not None else {}),
        }

        deal = await self._deciding.decide(journal, configuration, request, data)
        ruling = deal.ruling
        if ruling.policy.failed and _allowed(state, call):
            # What it has begun goes on: nobody says that it may not. The session comes back and asks again.
            raise Unavailable(f"policy says nothing of call {call}, which is under way: {ruling.policy.reasons[0]}")
        data |= told(journal, configuration, request, deal, now)
        if ruling.policy.failed:
            failure = {"call": call, "tool": tool, "reason": ruling.policy.reasons[0], "engine": configuration.decider.engine}
            await self._record(journal, configuration, ev.POLICY_FAILED, failure)
        repeats = _allowed(state, call) and call not in state.held
        still = partial(self._still_ours, journal, configuration, self._timer.monotonic_us())
        try:
            await self._record_decided(journal, configuration, data, deal)
            await self._notify(journal, configuration, call)
            if ruling.decision.effect is Verdict.ALLOW:
                await still()
        except asyncio.CancelledError:
            if not journal.stale:
                await self._notify(journal, configuration, call)
            # Of a call that an earlier runtime allowed as well, nobody knows whether it had begun.
            if _allowed(journal.state, call) and not repeats and not journal.stale:
                error = {"code": "cancelled", "message": "stopped before it had begun"}
                outcome = {"call": call, "tool": tool, "duration_us": 0, "error": error}
                await self._record(journal, configuration, ev.SYSCALL_FAILED, outcome)
            raise
        except Frozen:
            return await self._hold_back(journal, configuration, request, repeats=repeats)
        if request.place is not None and ruling.decision.effect in {Verdict.ASK, Verdict.HALT}:
            # A session waits, or is over, once what it had begun has its outcome.
            await request.place.others_ended()
        match ruling.decision.effect:
            case Verdict.ALLOW:
                try:
                    await self._act(journal, configuration, request, deal, still)
                except Frozen:
                    return await self._hold_back(journal, configuration, request, repeats=repeats)
                for decision in request.halts[:1]:
                    await self.abandon(journal, configuration)
                    await self._halt(journal, configuration, decision)
            case Verdict.ASK:
                await self._ask(journal, configuration, call, ruling.decision, now)
            case Verdict.HALT if tool != NET_REQUEST:
                await self._halt(journal, configuration, data["decision"])
            case _:
                pass  # nothing of it is done; a request that halts its session does so behind the call that it is made for
        return journal.state.calls[call]

    async def _record_decided(self, journal: Journal, configuration: Configuration, data: dict[str, Json], deal: Deal) -> None:
        before = journal.head.seq
        try:
            with self.freezes.intent(journal.state, configuration):
                await self._record(journal, configuration, ev.SYSCALL_DECIDED, data, actor=f"agent/{journal.state.agent}")
        except SequenceConflict:
            self._deciding.take_back(deal)
            raise
        except BaseException:
            # What the log may hold after all stays charged and reserved; it is the same when the call comes again.
            if not journal.stale:
                known = journal.state.calls.get(data["call"])
                self._deciding.take_back(deal, recorded=known is not None and known.decided > before)
            raise

    async def _hold_back(self, journal: Journal, configuration: Configuration, request: Request, *, repeats: bool) -> Call:
        """A freeze came before the call acted, or before it was decided. Raises Frozen, but of a call of the model that was
        decided: that one has failed, and another is made when the session goes on."""
        call = request.syscall.call
        known = journal.state.calls.get(call)
        if known is not None and known.step is Step.ALLOWED and not repeats:
            if request.syscall.tool in PSEUDO:
                await self._record(journal, configuration, ev.SYSCALL_FAILED, not_begun(call, request.syscall.tool))
                return journal.state.calls[call]
            self.freezes.hold_back(journal, call)
        self.freezes.check(journal.state, configuration)
        raise Frozen(f"call {call} was held back")

    async def _still_ours(self, journal: Journal, configuration: Configuration, sent: int) -> None:
        """Return if nobody can have taken the session over since `sent`, when the intent went out, and nothing holds it.

        Raises SequenceConflict, Frozen.

        Between the disk and the act this process may have been stopped for a minute, and another runtime may have found the
        intent, said that its outcome is unknown, and gone on. So whoever was slow looks once more, and acts only on a fresh look.
        What remains: to be stopped between here and the call of the operating system with which the driver acts. Only the other
        end could refuse that; a call that must not be made twice is by then recorded as unknown, and nobody repeats it.
        """
        while self._timer.monotonic_us() - sent > STILL_US:
            sent = self._timer.monotonic_us()
            await journal.confirm()
        self.freezes.check(journal.state, configuration)

    async def _ask(self, journal: Journal, configuration: Configuration, call: str, decision: Decision, now: int) -> None:
        """Park the session with its question to people."""
        asked = journal.state.calls[call]
        given = consent.counting(journal.state, call, asked.tool, asked.args_digest, configuration.policy_digest, now)
        data = {
            "call": call,
            "args_digest": asked.args_digest,
            "expires": now + configuration.approval_timeout_ms,
            "needed": consent.needed(decision),
            "given": len({one["by"] for one in given}),
        }
        await self._record(journal, configuration, ev.SESSION_WAITING, data)

    async def _act(self, journal: Journal, configuration: Configuration, request: Request, deal: Deal, still: Still) -> None:
        ruling, allowance = deal.ruling, allowance_of(configuration, request, deal)
        call, tool = request.syscall.call, request.syscall.tool
        started, labels = self._timer.monotonic_us(), labels_field(request.spec, ruling.args, journal.state.labelled)

        def outcome(**fields: Json) -> dict[str, Json]:
            return {"call": call, "tool": tool, **allowance.told(started, self._timer.monotonic_us()), **fields}

        async def failed(error: dict[str, Json], acted: Mapping[str, Json] = NO_HANDS) -> None:
            await self._record(journal, configuration, ev.SYSCALL_FAILED, outcome(error=error, **labels, **acted))

        async def lost(error: dict[str, Json], acted: Mapping[str, Json] = NO_HANDS) -> None:
            allowance.lost = True
            if request.once:
                told = {**allowance.spent(self._timer.monotonic_us() - started), **labels, **acted}
                await self._record(journal, configuration, ev.SYSCALL_UNKNOWN, {"call": call, "tool": tool, **told})
            else:
                await failed(error, acted)

        request.begins(labels.get("labels", ()))
        try:
            result = await request.act(ruling, still, allowance)
            carried = tuple(dict.fromkeys((*result.labels, *labels.get("labels", ()))))
            data = outcome(**_kept(replace(result, labels=carried), request, ruling))
            size = len(canonical({"data": data}))  # as deep as it will stand in the event
        except asyncio.CancelledError:
            # Who only waits goes on with that when the same call is made again; so do the children of a delegation.
            if not allowance.timeless or tool in PSEUDO:
                await lost({"code": "cancelled", "message": "stopped before it had finished"})
            raise
        except (Displaced, Frozen, LogUnavailable, SequenceConflict):
            raise  # it was still being prepared, and did not go out: the session is not ours any more, or nobody can tell
        except OutcomeUnknown as error:
            await lost(failures.told(error, ruling.in_result), hands.acted(error.acted))
            await self.reconcile(journal, configuration)
        except (DriverError, NotCanonical) as error:
            await failed(failures.told(error, ruling.in_result), hands.acted(getattr(error, "acted", NO_HANDS)))
        except Exception:
            # A driver that breaks its contract: what it did is as unknown as after a crash. The session fails of it, visibly.
            await lost({"code": "internal", "message": "the driver failed in an unexpected way"})
            if ruling.in_result:
                # Its traceback would tell what the result may not.
                raise DriverError(f"the driver failed in an unexpected way: {obligations.withheld(ruling.in_result)}") from None
            raise
        else:
            if size > MAX_OUTCOME:
                await failed(failures.unfit(f"it is {size} bytes, at most {MAX_OUTCOME} are kept"))
                return
            try:
                await self._record(journal, configuration, ev.SYSCALL_FINISHED, data)
            except TooLarge as error:
                await failed(failures.unfit(error.message))

    async def _halt(self, journal: Journal, configuration: Configuration, decision: Mapping[str, Json]) -> None:
        data = {"rules": decision["rules"], "reasons": decision["reasons"]}
        await self._record(journal, configuration, ev.SESSION_HALTED, data)

    async def _refuse(self, journal: Journal, configuration: Configuration, syscall: Syscall, message: str) -> Call:
        text = json.dumps(syscall.args, ensure_ascii=True, default=str)[:4096]
        error = {"code": "refused", "message": message}
        data: dict[str, Json] = {"call": syscall.call, "tool": syscall.tool[:128], "args_text": text, "error": error}
        await self._record(journal, configuration, ev.SYSCALL_REFUSED, data, actor=f"agent/{journal.state.agent}")
        return journal.state.calls[syscall.call]

    async def _record(
        self,
        journal: Journal,
        configuration: Configuration,
        kind: str,
        data: dict[str, Json],
        actor: str = SYSTEM,
    ) -> None:
        journal.heard = self.hear
        await journal.record(kind, data, actor=actor, revision=configuration.revision, policy=configuration.policy_digest)


def _kept(result: Result, request: Request, ruling: Ruling) -> dict[str, Json]:
    """What a `finished` event says of a result. Raises NotCanonical for one that cannot be told."""
    kept, redacted = obligations.withhold(result, ruling.in_result)
    body: dict[str, Json] = {"result": kept.to_dict(), **hands.acted(result.acted)}
    if redacted:
        body["redacted"] = redacted
    if (signal := consumed_by(request.spec, result)) is not None:
        body["consumed"] = signal
    if request.declassifies and not result.is_error:
        body["declassified"] = list(ruling.args["labels"])
    return body


def _allowed(state: SessionState, call: str) -> bool:
    return (known := state.calls.get(call)) is not None and known.step is Step.ALLOWED


def _too_large(size: int) -> str | None:
    return f"arguments are {size} bytes, at most {MAX_ARGS} are taken" if size > MAX_ARGS else None
