"""Model calls that go into batches: which do, and what a session does while it waits for hours."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from kernel_in_memory import Kernel, calls, text

from agentos.abi import event as ev
from agentos.abi.errors import DriverError
from agentos.boot.budgets import budgeted_events
from agentos.boot.charges import charged_events
from agentos.drivers.batching import BatchCall
from agentos.drivers.port import ModelReply, ModelUnavailable
from agentos.kernel.admission import PLACES
from agentos.kernel.budgets import Budgets
from agentos.kernel.charges import Charges
from agentos.kernel.gate import Gate
from agentos.kernel.life import Life
from agentos.kernel.port import AgentSpec, Configuration
from agentos.kernel.sessions import Sessions
from agentos.kernel.turn import MODEL_TRIES
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import State
from agentos.scheduler.arbiter import Limits
from agentos.scheduler.declared import Arbitration, Batch, Budget, Endpoint, Price


@dataclass
class Asked:
    """Batches whose calls are answered by hand."""

    calls: list[BatchCall] = field(default_factory=list)
    answers: list[asyncio.Future[ModelReply]] = field(default_factory=list)
    settlements: list[str] = field(default_factory=list)

    async def ask(self, call: BatchCall) -> ModelReply:
        self.calls.append(call)
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]

    def settled(self, tenant: str, session: str) -> None:
        del tenant
        self.settlements.append(session)


class Nightly(Kernel):
    """A kernel whose model takes batches; `nightly` is of the class batch, `worker` of the standard one."""

    def __init__(self, workspaces: Workspaces) -> None:
        super().__init__(workspaces)
        self.batches = Asked()
        self.endpoint = Endpoint(
            ("default", "m"), Limits(1), Price(2_000_000, 10_000_000), max_output=500, batch=Batch(1000, 5, 3_600_000, 50)
        )
        self.budget: dict[str, Budget] = {}

    def current(self, tenant: str) -> Configuration:
        agents = {
            name: AgentSpec(name, "m", "You work.", tuple(self.tools), {}, priority=priority)
            for name, priority in (("worker", "standard"), ("nightly", "batch"))
        }
        arbitration = Arbitration(endpoints={"m": self.endpoint}, per_session=self.budget)
        return replace(super().current(tenant), agents=agents, arbitration=arbitration)

    def gate(self) -> Gate:
        charges = Charges(charged_events(lambda _tenant: self.log))
        budgets = Budgets(budgeted_events(lambda _tenant: self.log))
        driver: Any = self.driver
        return Gate(driver, self.model, self.workspaces, self.timer, charges, budgets=budgets, batches=self.batches)

    async def asked(self, number: int) -> BatchCall:
        """The call of that number, once it has come."""
        await until(lambda: len(self.batches.calls) >= number)
        return self.batches.calls[number - 1]

    def answer(self, reply: ModelReply | DriverError) -> None:
        """Answer the newest call."""
        if isinstance(reply, DriverError):
            self.batches.answers[-1].set_exception(reply)
        else:
            self.batches.answers[-1].set_result(reply)


@pytest.fixture
def nightly(kernel: Kernel) -> Nightly:
    return Nightly(kernel.workspaces)


async def until(met: Any) -> None:
    async with asyncio.timeout(20):
        while not met():
            await asyncio.sleep(0.002)


async def started(sessions: Sessions, agent: str = "nightly", **more: Any) -> str:
    return (await sessions.create("default", agent, "work", None, "principal/op", **more)).id


def places(sessions: Sessions) -> int:
    """How many places are taken."""
    pools = sessions._places._admissions.pools()
    return next((len(pool.tickets) for pool in pools if pool.key == PLACES), 0)


async def test_a_session_has_no_place_while_it_waits(nightly: Nightly) -> None:
    """It takes no slot of the endpoint either; each answer brings a fresh harness, which goes on where the session stands."""
    sessions = nightly.sessions()
    session = await started(sessions)
    call = await nightly.asked(1)
    assert (call.window_ms, call.most, call.session) == (1000, 5, session)
    await until(lambda: places(sessions) == 0)
    other = await started(sessions, "worker")
    await until(lambda: not sessions.runs("default", other))
    assert (await sessions.state("default", other)).state is State.FINISHED
    nightly.answer(calls(("c1", "write", {"path": "a"})))
    await nightly.asked(2)
    await until(lambda: places(sessions) == 0)
    nightly.answer(text("done"))
    await until(lambda: not sessions.runs("default", session))
    state = await sessions.state("default", session)
    assert (state.state, state.result) == (State.FINISHED, "done")
    assert nightly.driver.calls == [("write", {"path": "a"})]
    assert nightly.spawner.spawned == 4
    assert nightly.batches.settlements == [session, session]
    assert [one.identity for one in nightly.batches.calls] == list({one.identity: None for one in nightly.batches.calls})
    decided = [event for event in await nightly.published(session) if event.type == ev.SYSCALL_DECIDED]
    assert [one.data["admitted"]["endpoint"] for one in decided if "admitted" in one.data] == ["batch/default/m"] * 2


async def test_who_is_urgent_is_asked_by_itself(nightly: Nightly) -> None:
    """A class that ages; a run of such a class; one that is due before a batch has ended; one that somebody urgent waits for."""
    sessions = nightly.sessions()
    for agent, more in (("worker", {}), ("nightly", {"priority": "interactive"}), ("nightly", {"due_in_ms": 3_000_000})):
        session = await started(sessions, agent, **more)
        await until(lambda session=session: not sessions.runs("default", session))
        assert (await sessions.state("default", session)).state is State.FINISHED
    assert nightly.batches.calls == []
    late = await started(sessions, due_in_ms=7_200_000)
    await nightly.asked(1)
    sessions._places._admissions.boost(late, "interactive")
    nightly.answer(calls(("c1", "write", {"path": "a"})))
    await until(lambda: not sessions.runs("default", late))
    assert len(nightly.batches.calls) == 1


async def test_a_model_that_takes_no_batches(nightly: Nightly) -> None:
    nightly.endpoint = replace(nightly.endpoint, batch=None)
    sessions = nightly.sessions()
    session = await started(sessions)
    await until(lambda: not sessions.runs("default", session))
    assert nightly.batches.calls == []


async def test_a_failure_that_may_pass_is_tried_again_a_few_times(nightly: Nightly) -> None:
    """As the same call, through one harness after the other; then the session fails."""
    sessions = nightly.sessions()
    session = await started(sessions)
    for number in range(1, MODEL_TRIES + 1):
        await nightly.asked(number)
        nightly.answer(ModelUnavailable("expired"))
    await until(lambda: not sessions.runs("default", session))
    state = await sessions.state("default", session)
    assert state.state is State.FAILED
    assert state.error is not None
    assert state.error["code"] == ModelUnavailable.code
    assert len({call.identity for call in nightly.batches.calls}) == 1
    assert len(nightly.batches.calls) == MODEL_TRIES


async def test_a_session_that_is_cancelled_waits_no_longer(nightly: Nightly) -> None:
    """Its call is given up, and is in the log as that."""
    sessions = nightly.sessions()
    session = await started(sessions)
    await nightly.asked(1)
    await until(lambda: places(sessions) == 0)
    await sessions.cancel("default", session, reason="no", actor="principal/op")
    assert nightly.batches.answers[0].cancelled()
    assert await nightly.types(session) == ["session.created", "syscall.decided", "syscall.failed", "session.cancelled"]


async def test_a_session_that_is_paused_takes_its_answer(nightly: Nightly) -> None:
    """A call that is under way is finished first; the session goes on from it when it is resumed."""
    sessions = nightly.sessions()
    life = Life(sessions, nightly, sessions._gate)
    session = await started(sessions)
    await nightly.asked(1)
    await life.pause("default", session, reason="wait", actor="principal/op")
    nightly.answer(text("done"))
    await until(lambda: not sessions.runs("default", session))
    assert (await sessions.state("default", session)).state is State.PAUSED
    await life.resume("default", session, reason="go", actor="principal/op")
    await until(lambda: not sessions.runs("default", session))
    assert (await sessions.state("default", session)).result == "done"
    assert len(nightly.batches.calls) == 1


async def test_after_a_restart_the_same_call_is_asked_for(nightly: Nightly) -> None:
    """By the same identity, though it has a new id; of another session it is another."""
    first = nightly.sessions()
    session = await started(first)
    await nightly.asked(1)
    await until(lambda: places(first) == 0)
    await first.close()
    second = nightly.sessions()
    await second.resume("default", session)
    await nightly.asked(2)
    other = await started(second)
    await nightly.asked(3)
    identities = [call.identity for call in nightly.batches.calls]
    assert identities[0] == identities[1] != identities[2]
    assert [call.session for call in nightly.batches.calls] == [session, session, other]
    await second.close()


async def test_a_batch_costs_what_it_costs_and_no_time(nightly: Nightly) -> None:
    """Half the price is reserved and spent, of a budget of seconds nothing, however long it takes."""
    nightly.budget = {"nightly": Budget(tokens=10_000, microdollars=10_000, milliseconds=1000)}
    sessions = nightly.sessions()
    session = await started(sessions)
    call = await nightly.asked(1)
    assert call.request.max_output == 500
    nightly.timer.ms += 36_000_000
    nightly.answer(text("done"))
    await until(lambda: not sessions.runs("default", session))
    assert (await sessions.state("default", session)).state is State.FINISHED
    events = await nightly.published(session)
    decided, finished = (
        next(event for event in events if event.type == kind) for kind in (ev.SYSCALL_DECIDED, ev.SYSCALL_FINISHED)
    )
    reserved = decided.data["reserved"]
    assert reserved["microdollars"] == reserved["tokens"] - 500 + 2500
    assert "milliseconds" not in reserved
    assert finished.data["spent"] == {"tokens": 15, "microdollars": 10 + 25}
