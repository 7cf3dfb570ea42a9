"""Deciding a call: what policy rules, what the call is charged, what is reserved for it, and how the log is told.

Nothing here acts, and nothing is recorded here: the gate does both, and takes back what was charged and reserved if the decision
was surely not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from agentos.abi.canonical import Json, digest_of
from agentos.abi.decision import Decision, Verdict, deny
from agentos.abi.ids import derived_id
from agentos.abi.syscall import NET_REQUEST, PSEUDO, Result, Syscall, ToolEffect
from agentos.drivers.delegating import Terms, delegates
from agentos.drivers.port import ToolSpec
from agentos.kernel import booked, consent, hands, obligations
from agentos.kernel.acts import Act, Still
from agentos.kernel.allowance import Allowance, is_timeless
from agentos.kernel.batched import price_in_batch
from agentos.kernel.budgets import FREE, RULE, Budgets, Held, Refused, Want, is_budgeted
from agentos.kernel.charges import CHARGED, NOTHING, Charges, Payer, Receipt
from agentos.kernel.departures import REQUEST, Go
from agentos.kernel.journal import Journal
from agentos.kernel.line import Place
from agentos.kernel.lineage import paying_with
from agentos.kernel.port import Configuration
from agentos.kernel.ruling import Check, Ruling, rule
from agentos.projections.question import question

Halts = list[Mapping[str, Json]]
"""Decisions that halt a session."""


@dataclass(frozen=True, slots=True)
class Request:
    """A validated call on its way to policy."""

    syscall: Syscall
    effect: ToolEffect
    args_digest: str
    once: bool
    """Whether acting twice could do harm: then a lost outcome is reported as unknown, never retried."""
    check: Check
    """What rewritten arguments still have to fit."""
    act: Act
    want: Callable[[Ruling], Want]
    """What it may use at most; asked only where there is a budget."""
    spec: ToolSpec | None = None
    """The tool; None for a call of the model."""
    admitted: Mapping[str, Json] | None = None
    """Where and as what it was let in (`kernel.admission`); None where nothing is arbitrated."""
    declassifies: bool = False
    batched: bool = False
    """Whether it is a call of the model that goes into a batch."""
    place: Place | None = None
    """Of a call that may act beside others of its session: to be told when it begins to."""
    halts: Halts = field(default_factory=list)
    """Decisions about requests that left for it which halt the session: it is over once the call has its outcome."""

    def begins(self, labels: Collection[str]) -> None:
        """It acts from now on; `labels` are those that its outcome will carry."""
        if self.place is not None:
            self.place.begins(self.syscall.call, labels)


def departing(call: str, args: dict[str, Json], go: Go) -> Request:
    """A request that leaves, on its way to policy (`kernel.departures`)."""

    async def act(_ruling: Ruling, _still: Still, _allowance: Allowance) -> Result:
        return await go()

    return Request(
        Syscall(call, NET_REQUEST, args),
        ToolEffect.EXTERNAL,
        digest_of(args),
        once=False,
        check=lambda _: "a request is made as it is, or not at all",
        act=act,
        want=lambda _: Want(),
        spec=REQUEST,
    )


@dataclass(frozen=True, slots=True)
class Deal:
    """What holds for a call, what it was charged, and what is held for it (None: its tenant declares no budget)."""

    ruling: Ruling
    receipt: Receipt = NOTHING
    held: Held | None = None


class Deciding:
    """Decides calls."""

    def __init__(self, charges: Charges, budgets: Budgets) -> None:
        self._charges = charges
        self._budgets = budgets

    async def decide(self, journal: Journal, configuration: Configuration, request: Request, data: dict[str, Json]) -> Deal:
        """What holds for the call. `data` gets arguments and spent grants of the last question."""
        ruling, receipt = await self._rule(journal, configuration, request, data)
        if ruling.decision.effect is not Verdict.ALLOW:
            return Deal(ruling)
        try:
            held = await self._reserve(journal, configuration, request, ruling, data["now"])
        except BaseException:
            self._charges.refund(receipt)
            raise
        if isinstance(held, Refused):
            self._charges.refund(receipt)
            denied = ruling.denied("budget", held.reason)
            return Deal(replace(denied, decision=replace(denied.decision, rules=(held.rule,))))
        return Deal(ruling, receipt, held)

    def take_back(self, deal: Deal, *, recorded: bool = False) -> None:
        """Give back what was charged and reserved for a call that was surely not let through.

        `recorded`: the session has grown meanwhile, perhaps by the decision; then only the books know, which hear of each event.
        """
        if not recorded:
            self._charges.refund(deal.receipt)
        self._budgets.release(deal.held)

    async def _rule(
        self, journal: Journal, configuration: Configuration, request: Request, data: dict[str, Json]
    ) -> tuple[Ruling, Receipt]:
        """What holds for the call, and what it was charged. `data` gets arguments and spent grants of the last question."""
        state, now = journal.state, data["now"]
        spent: list[str] = []

        async def decide(args: dict[str, Json], args_digest: str) -> Decision:
            if state.agent not in configuration.agents:
                return deny("kernel.agent-gone", f"agent {state.agent} is not declared in revision {configuration.revision}")
            data["args"], data["args_digest"] = args, args_digest
            asked = question(
                state,
                agent=data["agent"],
                call=data,
                revision=configuration.revision,
                policy_digest=configuration.policy_digest,
                now_ms=now,
                spent=spent,
            )
            return await configuration.decider.decide_syscall(asked)

        while True:
            ruling = await rule(decide, request.syscall.args, request.args_digest, request.check)
            if data["tool"] in PSEUDO and ruling.decision.effect is Verdict.ASK:
                ruling = obligations.unasked(ruling, data["tool"])
            if ruling.obliged("sandbox", "redact", "mask") and ruling.decision.effect in {Verdict.ALLOW, Verdict.ASK}:
                ruling = obligations.feasible(ruling, data["tool"], _boxes(request, configuration))
            if ruling.decision.effect in {Verdict.ALLOW, Verdict.ASK}:
                ruling = hands.settled(ruling, request.spec, state.agent, configuration)
            receipt = NOTHING
            if ruling.decision.effect is Verdict.ALLOW and ruling.obliged(*CHARGED):
                payer = Payer(journal.tenant, journal.session, state.agent, data["call"])
                charged = await self._charges.charge(payer, ruling.obliged(*CHARGED), now)
                if isinstance(charged, Receipt):
                    receipt = charged
                elif fresh := [digest for digest in charged.spent if digest not in spent]:
                    # Without the grants that are used up another one may cover the call, or ask a person.
                    spent += fresh
                    continue
                else:
                    ruling = ruling.denied(charged.kind, charged.reason)
            if spent:
                data["spent"] = spent
            return ruling, receipt

    async def _reserve(
        self, journal: Journal, configuration: Configuration, request: Request, ruling: Ruling, now: int
    ) -> Held | Refused | None:
        arbitration, state = configuration.arbitration, journal.state
        paying = paying_with(state)
        if not is_budgeted(arbitration, paying):
            return None
        for session, name in paying.agents.items():
            if name not in configuration.agents:
                gone = f"agent {name} of session {session}, which pays for the call, is not declared any more: it has no budget"
                return Refused(RULE, gone)
        agent = configuration.agents.get(state.agent)
        program = agent.program if agent is not None else booked.DEFAULT_PROGRAM
        payer = booked.Payer(journal.session, state.agent, program, booked.day_of(now), paying.lineage)
        want, call = request.want(ruling), request.syscall.call
        first, shares = not state.calls, state.children > 0
        return await self._budgets.reserve(
            journal.tenant, call, payer, want, arbitration, now, paying=paying, first=first, shares=shares
        )


def told(journal: Journal, configuration: Configuration, request: Request, deal: Deal, now: int) -> dict[str, Json]:
    """What a `decided` event says of a ruling, its charge and its reservation."""
    ruling = deal.ruling
    body: dict[str, Json] = {
        "args": ruling.args,
        "args_digest": ruling.args_digest,
        "decision": ruling.decision.to_dict(),
        "policy": {"engine": configuration.decider.engine, "data": configuration.decider.data_digest},
    }
    if ruling.rewritten:
        body["proposed"] = request.args_digest
        body["rewritten"] = [change.to_dict() for change in ruling.rewritten]
    if ruling.carried:
        body["carried"] = [one.to_dict() for one in ruling.carried]
    if ruling.decision is not ruling.policy:
        body["overruled"] = ruling.policy.to_dict()
    if deal.receipt.charged:
        body["charged"] = [dict(entry) for entry in deal.receipt.charged]
    if deal.held is not None:
        body["reserved"] = deal.held.told()
    if ruling.decision.effect is Verdict.ALLOW:
        body |= hands.told(ruling, request.spec, journal.state.agent, configuration)
    if delegates(request.spec) and ruling.decision.effect is Verdict.ALLOW:
        body["children"] = _children(journal, request, ruling, now)
    if ruling.decision.effect is Verdict.ALLOW and consent.APPROVED in ruling.decision.rules:
        syscall, policy = request.syscall, configuration.policy_digest
        given = consent.counting(journal.state, syscall.call, syscall.tool, ruling.args_digest, policy, now)
        body["approvals"] = consent.relied_on(given, ruling.decision)
    return body


def allowance_of(configuration: Configuration, request: Request, deal: Deal) -> Allowance:
    """What a call that was let through may use."""
    if request.spec is not None:
        return Allowance(deal.held, timeless=is_timeless(request.spec))
    endpoint = configuration.arbitration.endpoints.get(deal.ruling.args["model"])
    if endpoint is None:
        return Allowance(deal.held, FREE, timeless=request.batched)
    return Allowance(deal.held, price_in_batch(endpoint) if request.batched else endpoint.price, timeless=request.batched)


def _boxes(request: Request, configuration: Configuration) -> Collection[str]:
    """The sandboxes that the call can be made in. A request that leaves is made from the one that its call works in; a model is
    asked over its endpoint, which no sandbox of ours is around."""
    if request.syscall.tool == NET_REQUEST:
        return {str(request.syscall.args.get("sandbox", ""))}
    return hands.able(request.spec, configuration)


def _children(journal: Journal, request: Request, ruling: Ruling, now: int) -> list[str]:
    """The ids of the sessions that a delegation begins: the same ones when a call is decided again with the same arguments."""
    call, state = request.syscall.call, journal.state
    number = Terms.of(request.spec).children(ruling.args) if request.spec is not None else 0
    known, named = state.calls.get(call), state.delegations.get(call, [])
    if known is not None and known.args_digest == ruling.args_digest and len(named) == number:
        return list(named)
    parts = (journal.tenant, journal.session, call, journal.head.hash)
    return [derived_id("s", now, *parts, str(index)) for index in range(number)]
