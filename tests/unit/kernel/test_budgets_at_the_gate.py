"""Budgets at the gate: what is reserved and spent stands in the log, calls keep within it, a denial says whose budget it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from kernel_in_memory import Kernel, calls, settled, text

from agentos.abi import event as ev
from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import DriverError, LogUnavailable, OutcomeUnknown
from agentos.abi.event import Event
from agentos.abi.obligation import Obligation
from agentos.abi.syscall import Result
from agentos.audit.finding import Unseen
from agentos.audit.findings import Roster, check_session
from agentos.boot.budgets import budgeted_events
from agentos.boot.charges import charged_events
from agentos.drivers.port import ModelReply, ModelUnavailable, ReplyBroken
from agentos.kernel.admission import Admissions
from agentos.kernel.admission import Request as AdmissionRequest
from agentos.kernel.allowance import Allowance
from agentos.kernel.booked import Payer, day_of
from agentos.kernel.budgets import Budgets, Held, Row
from agentos.kernel.charges import Charges
from agentos.kernel.failures import Preempted
from agentos.kernel.gate import Gate
from agentos.kernel.port import Configuration
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import Step
from agentos.scheduler.declared import Arbitration, Budget, Endpoint, Price


@dataclass
class Budgeted(Kernel):
    """A kernel whose tenant has budgets."""

    arbitration: Arbitration = field(default_factory=Arbitration)
    budgets: Budgets | None = None

    def current(self, tenant: str) -> Configuration:
        return replace(super().current(tenant), arbitration=self.arbitration)

    def gate(self) -> Gate:
        self.budgets = Budgets(budgeted_events(lambda _tenant: self.log))
        charges = Charges(charged_events(lambda _tenant: self.log))
        return Gate(self.driver, self.model, self.workspaces, self.timer, charges, budgets=self.budgets)

    async def sums(self, *, anew: bool = False) -> list[Row]:
        """The accounts now, as kept or as the log says."""
        budgets = Budgets(budgeted_events(lambda _tenant: self.log)) if anew else self.budgets
        assert budgets is not None
        return await budgets.rows("default", self.arbitration, self.timer.now_ms(), days=31, sessions={"s-1": "worker"})


@pytest.fixture
def budgeted(tmp_path: Any) -> Budgeted:
    endpoint = Endpoint(("default", "m"), price=Price(1_000_000, 5_000_000), max_output=500)
    return Budgeted(Workspaces(tmp_path / "workspaces"), arbitration=Arbitration(endpoints={"m": endpoint}))


def tenant(**limits: int) -> Mapping[tuple[str, str], Budget]:
    return {("tenant", ""): Budget(**limits)}


def told(event: Any, name: str) -> dict[str, Any]:
    """An amount of the header; the payload says the same."""
    found: dict[str, Any] = json.loads(event.attributes[name])
    assert event.data[name] == found
    return found


async def run(kernel: Budgeted) -> str:
    """Run one session to its end."""
    sessions: Sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    return session


async def test_a_session_is_accounted_for_from_its_first_call_to_its_last(budgeted: Budgeted) -> None:
    """Reserved before, spent after, in the log and in the books alike."""
    budgeted.arbitration = replace(budgeted.arbitration, per_day=tenant(tokens=5000, microdollars=9000), in_all=tenant(calls=9))
    budgeted.model.replies = [calls(("c1", "write", {"path": "a"})), text("done")]
    session = await run(budgeted)
    events = await budgeted.published(session)
    asked, written, _ = [event for event in events if event.type == ev.SYSCALL_DECIDED]
    reserved = told(asked, "reserved")
    assert (reserved["program"], reserved["day"]) == ("default", day_of(asked.time_ms))
    assert reserved["tokens"] > 500
    assert reserved["microdollars"] == reserved["tokens"] - 500 + 2500
    assert told(written, "reserved")["bytes"] == len(b'{"path":"a"}')
    outcomes = [told(event, "spent") for event in events if event.type == ev.SYSCALL_FINISHED]
    assert [one.get("tokens") for one in outcomes] == [15, None, 15]
    assert [one.get("microdollars") for one in outcomes] == [35, None, 35]
    assert outcomes[1]["calls"] == 1
    assert budgeted.model.seen[0].max_output == 500
    kept = await budgeted.sums()
    assert kept == await budgeted.sums(anew=True)
    found = {(row.day is not None, row.unit): (row.used, row.reserved, row.left) for row in kept if row.kind == "tenant"}
    assert found[True, "tokens"] == (30, 0, 4970)
    assert found[True, "microdollars"] == (70, 0, 8930)
    assert found[False, "calls"] == (1, 0, 8)


async def test_what_a_budget_refuses_is_denied_by_name(budgeted: Budgeted) -> None:
    """The denial is the runtime's, beside what policy had said; nothing was acted on, charged or reserved."""
    budgeted.arbitration = replace(budgeted.arbitration, in_all=tenant(calls=1))
    gate, journal = budgeted.gate(), await budgeted.journal()
    assert (await budgeted.perform(gate, journal, "c1", "read", path="a")).step is Step.FINISHED
    denied = await budgeted.perform(gate, journal, "c2", "read", path="a")
    assert (denied.step, len(budgeted.driver.calls)) == (Step.DENIED, 1)
    last = (await budgeted.published())[-1]
    assert last.data["decision"]["rules"] == ["kernel.budget"]
    assert "spec.budget.total.calls of Tenant default" in last.data["decision"]["reasons"][0]
    assert last.data["overruled"]["effect"] == "allow"
    assert "reserved" not in last.attributes
    roles = {"name": "op", "tenant": "*", "roles": ["operator"], "public_key": "U"}
    made = Event("e1", ev.PRINCIPAL_CREATED, "*", "principals", 1, "", 1, "system/kernel", 0, None, roles)
    assert list(check_session(await budgeted.events("s-1"), "default", {1}, Roster.of([made]), Unseen())) == []


async def test_without_a_budget_only_money_is_told(budgeted: Budgeted) -> None:
    """A price alone is enough that what was paid is known later; without one, the log is as it was."""
    session = await run(budgeted)
    events = await budgeted.published(session)
    assert [event.attributes.get("reserved") for event in events] == [None] * len(events)
    spent = [told(event, "spent") for event in events if event.type == ev.SYSCALL_FINISHED]
    assert [(one["tokens"], one["microdollars"]) for one in spent] == [(15, 35)]
    budgeted.arbitration = Arbitration()
    events = await budgeted.events(await run(budgeted))
    assert not any("spent" in event.attributes for event in events)


async def test_a_budget_declared_later_knows_what_was_before(budgeted: Budgeted) -> None:
    """Also of calls under way: what they used comes out the same as when the log is read."""
    gate, journal = budgeted.gate(), await budgeted.journal()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> Result:
        begun.set()
        await go_on.wait()
        return Result("done")

    budgeted.driver.answers["read"] = slow
    task = asyncio.create_task(budgeted.perform(gate, journal, "c1", "read", path="a"))
    await begun.wait()
    budgeted.arbitration = replace(budgeted.arbitration, per_day=tenant(calls=2))
    other = await budgeted.journal("s-2")
    budgeted.driver.answers.clear()
    assert (await budgeted.perform(gate, other, "c1", "read", path="a")).step is Step.FINISHED
    assert (await budgeted.perform(gate, other, "c2", "read", path="a")).step is Step.DENIED
    go_on.set()
    await task
    assert await budgeted.sums() == await budgeted.sums(anew=True)


@pytest.mark.parametrize(
    ("answer", "spent"),
    [
        (DriverError("no such folder"), {"calls": 1, "bytes": 12}),
        (OutcomeUnknown("the connection was lost"), {"calls": 1, "bytes": 12}),
        (ValueError("a driver that breaks its contract"), {"calls": 1, "bytes": 12}),
        (Result("x" * 3_000_000), {"calls": 1, "bytes": 12}),
    ],
)
async def test_a_call_that_fails_is_settled_too(budgeted: Budgeted, answer: Any, spent: dict[str, int]) -> None:
    """Whatever came of it, its reservation comes back, and what it may have used is counted."""
    budgeted.arbitration = replace(budgeted.arbitration, per_day=tenant(calls=2))
    budgeted.driver.answers["write"] = answer
    gate, journal = budgeted.gate(), await budgeted.journal()
    try:
        await budgeted.perform(gate, journal, "c1", "write", path="a")
    except ValueError:
        assert isinstance(answer, ValueError)
    found = told((await budgeted.published())[-1], "spent")
    found.pop("milliseconds")
    assert found == spent
    kept = await budgeted.sums()
    assert not any(row.reserved for row in kept)
    assert kept == await budgeted.sums(anew=True)


async def test_a_call_keeps_within_the_time_that_is_left(budgeted: Budgeted) -> None:
    """A model that does not answer in it is given up, and all that it may have used is counted."""
    budgeted.arbitration = replace(budgeted.arbitration, per_session={"worker": Budget(milliseconds=1000, tokens=100_000)})

    class Silent:
        async def complete(self, *_: Any) -> ModelReply:
            await asyncio.Event().wait()
            raise AssertionError

    budgeted.model = Silent()  # type: ignore[assignment]
    gate, journal = budgeted.gate(), await budgeted.journal()
    call = await gate.perform_model(journal, budgeted.current("default"))
    assert (call.step, call.error and call.error["code"]) == (Step.FAILED, "driver")
    decided, failed = (await budgeted.published())[-2:]
    assert told(failed, "spent")["tokens"] == told(decided, "reserved")["tokens"]


@pytest.mark.parametrize("stored", [True, False])
async def test_an_append_of_which_nobody_knows_changes_no_sum(budgeted: Budgeted, stored: bool) -> None:
    """When the session is read again, the books agree with the log, whichever way it went."""
    budgeted.arbitration = replace(budgeted.arbitration, per_day=tenant(calls=3))
    gate, journal = budgeted.gate(), await budgeted.journal()
    await budgeted.perform(gate, journal, "c1", "read", path="a")
    log, append = budgeted.log, budgeted.log.append

    async def unanswered(*args: Any, **more: Any) -> int:
        if stored:
            await append(*args, **more)
        raise LogUnavailable("the event log does not answer")

    log.append = unanswered  # type: ignore[method-assign]
    with pytest.raises(LogUnavailable):
        await budgeted.perform(gate, journal, "c2", "read", path="a")
    log.append = append  # type: ignore[method-assign]
    assert sum(row.reserved for row in await budgeted.sums() if row.kind == "tenant" and row.unit == "calls" and row.day) == 1
    again = await type(journal).load(log, "default", "s-1", budgeted.timer, journal._random)
    await gate.settle(again, budgeted.current("default"))
    assert await budgeted.sums() == await budgeted.sums(anew=True)
    reserved = sum(row.reserved for row in await budgeted.sums() if row.kind == "tenant" and row.unit == "calls" and row.day)
    assert reserved == int(stored)


async def test_a_charge_comes_back_when_a_budget_refuses(budgeted: Budgeted) -> None:
    """Who is refused by one counter costs the other nothing."""
    rate = Obligation("rate", "r.rate", {"name": "reads", "limit": 1, "seconds": 3600, "per": "tenant"})
    budgeted.policy.decide = lambda _: Decision(Verdict.ALLOW, ("r",), (), obligations=(rate,))
    budgeted.arbitration = replace(budgeted.arbitration, in_all=tenant(calls=0))
    gate, journal = budgeted.gate(), await budgeted.journal()
    assert (await budgeted.perform(gate, journal, "c1", "read", path="a")).step is Step.DENIED
    budgeted.arbitration = replace(budgeted.arbitration, in_all=tenant(calls=1))
    assert (await budgeted.perform(gate, journal, "c2", "read", path="a")).step is Step.FINISHED


async def test_a_model_is_asked_again_once_others_have_given_back_what_they_held(budgeted: Budgeted) -> None:
    """What calls under way hold is no reason to fail a session, as long as it may come back."""
    budgeted.arbitration = replace(budgeted.arbitration, in_all=tenant(tokens=1000))
    gate, journal = budgeted.gate(), await budgeted.journal()
    begun, go_on = asyncio.Event(), asyncio.Event()
    answer = budgeted.model.complete

    async def slow(*args: Any) -> ModelReply:
        if not begun.is_set():
            begun.set()
            await go_on.wait()
        return await answer(*args)

    budgeted.model.complete = slow  # type: ignore[method-assign, assignment]
    first = asyncio.create_task(gate.perform_model(journal, budgeted.current("default")))
    await begun.wait()
    asked: list[str] = []
    for number in range(2, 6):
        other = await budgeted.journal(f"s-{number}")
        call = await gate.perform_model(other, budgeted.current("default"))
        asked += call.decision["rules"] if call.decision is not None else []
    assert asked[-1] == "kernel.budget-held"
    go_on.set()
    await first
    assert (await gate.perform_model(other, budgeted.current("default"))).step is Step.FINISHED


class Answers:
    """A model that says or raises one thing."""

    def __init__(self, answer: ModelReply | Exception) -> None:
        self.answer = answer

    async def complete(self, *_: Any) -> ModelReply:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("counts", [(2**60, 5), (10, -5), (10, 2**53)])
async def test_counts_that_no_reply_has_cost_all_that_was_reserved(budgeted: Budgeted, counts: tuple[int, int]) -> None:
    """An endpoint that counts nonsense breaks neither the session nor its log, and is not used for nothing."""
    budgeted.arbitration = replace(budgeted.arbitration, per_session={"worker": Budget(tokens=100_000)})
    budgeted.model = Answers(ModelReply(({"type": "text", "text": "hi"},), "end_turn", *counts))  # type: ignore[assignment]
    gate, journal = budgeted.gate(), await budgeted.journal()
    call = await gate.perform_model(journal, budgeted.current("default"))
    assert (call.step, call.error and call.error["code"]) == (Step.FAILED, "driver")
    decided, failed = (await budgeted.published())[-2:]
    assert told(failed, "spent")["tokens"] == told(decided, "reserved")["tokens"]


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (ModelUnavailable("refused"), False),
        (ModelUnavailable("broke off"), True),
        (ReplyBroken("no JSON"), True),
        (Preempted("stopped", partial="half"), True),
    ],
)
async def test_a_reply_that_breaks_off_costs_all_that_was_reserved(budgeted: Budgeted, error: DriverError, counted: bool) -> None:
    """What a model had said by then is to be paid for, and nobody knows how much it is; of a refusal there is nothing."""
    budgeted.arbitration = replace(budgeted.arbitration, per_session={"worker": Budget(tokens=100_000)})
    if error.message == "broke off":
        error.answered = True
    budgeted.model = Answers(error)  # type: ignore[assignment]
    gate, journal = budgeted.gate(), await budgeted.journal()
    assert (await gate.perform_model(journal, budgeted.current("default"))).step is Step.FAILED
    decided, failed = (await budgeted.published())[-2:]
    assert told(failed, "spent").get("tokens", 0) == (told(decided, "reserved")["tokens"] if counted else 0)


def delegated(parent: str = "boss-1", agent: str = "worker", **given: int) -> dict[str, Any]:
    """What the first event of a session says that `parent`, a session of `agent`, has delegated to."""
    delegator: dict[str, Any] = {"session": parent, "agent": agent, "labels": {}, "tool": "delegate", "tools": None}
    body = {"parent": parent, "call": "d1", "index": 0, "decided": 3, "tool": "delegate", "tools": None}
    return {**body, "lineage": [parent], "delegators": [delegator], "budget": given or None}


async def test_a_call_of_a_child_is_paid_by_its_parent(budgeted: Budgeted) -> None:
    """The log names it, so the parent's sum is the same after a restart; and what is used up above is refused below."""
    budgeted.arbitration = replace(budgeted.arbitration, per_session={"worker": Budget(calls=2)})
    gate = budgeted.gate()
    journals = [await budgeted.journal(f"s-{number}", delegated=delegated()) for number in range(2, 5)]
    calls = [await budgeted.perform(gate, journal, "c1", "read", path="a") for journal in journals]
    assert [call.step for call in calls] == [Step.FINISHED, Step.FINISHED, Step.DENIED]
    asked = [event for event in await budgeted.published("s-2") if event.type == ev.SYSCALL_DECIDED]
    assert told(asked[0], "reserved")["lineage"] == "boss-1"
    for budgets in (budgeted.budgets, Budgets(budgeted_events(lambda _tenant: budgeted.log))):
        assert budgets is not None
        rows = await budgets.rows("default", budgeted.arbitration, budgeted.timer.now_ms(), sessions={"boss-1": "worker"})
        assert [(row.used, row.left) for row in rows if row.kind == "session" and row.unit == "calls"] == [(2, 0)]


async def test_what_a_child_was_given_bounds_it_where_nothing_else_does(budgeted: Budgeted) -> None:
    """Also where its tenant declares no budget at all."""
    gate, journal = budgeted.gate(), await budgeted.journal(delegated=delegated(calls=1))
    assert (await budgeted.perform(gate, journal, "c1", "read", path="a")).step is Step.FINISHED
    denied = await budgeted.perform(gate, journal, "c2", "read", path="a")
    assert denied.decision is not None
    assert denied.decision["rules"] == ["kernel.budget"]
    assert "so much was given with the task" in denied.decision["reasons"][0]


async def test_an_agent_above_that_is_not_declared_any_more_pays_for_nothing(budgeted: Budgeted) -> None:
    """Nobody knows what it may use, so nothing is let through: the model neither."""
    budgeted.arbitration = replace(budgeted.arbitration, per_session={"worker": Budget(calls=9)})
    gate, journal = budgeted.gate(), await budgeted.journal(delegated=delegated(agent="gone"))
    denied = await gate.perform_model(journal, budgeted.current("default"))
    assert denied.decision is not None
    assert denied.decision["rules"] == ["kernel.budget"]
    assert "agent gone of session boss-1" in denied.decision["reasons"][0]


async def test_who_waits_for_others_has_no_time_charged(budgeted: Budgeted) -> None:
    """A parent would else hold the seconds that its children need; its call is as long as its Tool says."""
    budgeted.arbitration = replace(budgeted.arbitration, per_session={"worker": Budget(milliseconds=5000)})
    budgeted.tools = {
        "hire": replace(budgeted.tools["send"], name="hire", driver={"builtin": {"primitive": "wait"}}, timeout_ms=3_600_000)
    }
    gate, journal = budgeted.gate(), await budgeted.journal()
    assert (await budgeted.perform(gate, journal, "c1", "hire", path="a")).step is Step.FINISHED
    decided, finished = (await budgeted.published())[-2:]
    assert "milliseconds" not in told(decided, "reserved")
    assert told(finished, "spent") == {"calls": 1}
    hire = budgeted.tools["hire"]
    assert Allowance(Held("t", ("s", "c"), Payer("s", "a", "p", ""), {}, 0, 0), timeless=True).bounded(hire) is hire


async def test_a_request_that_was_counted_is_not_reserved_by_its_bytes_again(budgeted: Budgeted) -> None:
    """The second call holds what the provider has counted and a token for each byte that has come since."""
    budgeted.arbitration = replace(budgeted.arbitration, per_session={"worker": Budget(tokens=10**9)})
    budgeted.model.replies = [calls(("c1", "read", {"path": "a"})), text("done")]
    sessions = budgeted.sessions()
    session = (await sessions.create("default", "worker", "work " * 1000, None, "principal/op")).id
    await settled(sessions)
    held = [told(event, "reserved") for event in await budgeted.published(session) if event.type == ev.SYSCALL_DECIDED]
    first, second = (one["tokens"] for one in held if "tokens" in one)
    assert first > 5000 + 500
    assert 10 + 500 < second < 500 + 500


@pytest.mark.parametrize(
    ("answer", "billed", "lost"),
    [
        (ModelReply(({"type": "text", "text": "hi"},), "end_turn", 10, 5), (10, 5), False),
        (ModelReply(({"type": "tool_use", "id": "model-1", "name": "read", "input": {}},), "tool_use", 10, 5), (10, 5), False),
        (ModelReply(({"type": "text", "text": "hi"},), "end_turn", 10, -5), None, True),
        (ReplyBroken("no JSON"), None, True),
        (ModelUnavailable("refused"), None, False),
    ],
)
async def test_what_is_billed_is_told_to_whoever_let_it_in(
    budgeted: Budgeted, answer: Any, billed: tuple[int, int] | None, lost: bool
) -> None:
    """Also of a reply that cannot be kept: the share of who asked pays for it."""
    budgeted.model = Answers(answer)  # type: ignore[assignment]
    gate, journal, admissions = budgeted.gate(), await budgeted.journal(), Admissions(budgeted.timer)
    admissions.declare("default", budgeted.arbitration)
    with await admissions.admit(AdmissionRequest("default", "s-1", "c", "worker", "standard", (("default", "m"),))) as ticket:
        await gate.perform_model(journal, budgeted.current("default"), "m", ticket)
        assert (ticket.billed, ticket.lost) == (billed, lost)
