"""Between a yes and the act: the call is decided again by real policy, and whatever has changed since then counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kernel_in_memory import ALLOW, Kernel

from agentos.abi import event as ev
from agentos.abi.canonical import digest_of
from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import Conflict
from agentos.abi.obligation import Obligation
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.kernel.gate import Gate
from agentos.kernel.journal import Journal
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.bundle import axioms
from agentos.policy.decide import Decider
from agentos.policy.port import Module
from agentos.projections.session import Call, State, Step

TWO = """# METADATA
# title: two
# description: two people approve what leaves
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.two

# METADATA
# title: two
# description: two people
results contains {"rule": "two.two", "effect": "ask", "reason": "two people look", "obligations": [two]} if {
	input.syscall.tool == "send"
}

two := {"kind": "approvers", "count": 2}
"""


async def put_in_force(kernel: Kernel, *, approval: bool = True, granted: bool = True, rego: str | None = None) -> None:
    """Real policy: a grant for `send` that asks for approval (or does not, or is gone), and perhaps a rule of the tenant."""
    grant = {"name": "g", "args": {}, "approval": approval, "by": "principal/op", "digest": "sha256:g"}
    modules = axioms("syscall") + ((Module("two.rego", rego),) if rego else ())
    facts: dict[str, Any] = {
        "agents": {"worker": {"model": "m", "tools": ["send"], "budget": {"calls": 99, "tokens": 9999}}},
        "tools": {"send": {"effect": "external", "labels": []}},
        "grants": {"worker": {"send": [grant]}} if granted else {},
        "policies": {},
    }
    decider = await Decider.load(EmbeddedFactory(), modules, {"agentos": facts})
    kernel.policy = decider  # type: ignore[assignment]
    kernel.policy_digest = decider.digest


async def say_yes(kernel: Kernel, journal: Journal, call: str = "c1", by: str = "principal/ann", **terms: Any) -> None:
    asked = journal.state.calls[call]
    data = {
        "call": call,
        "args_digest": asked.args_digest,
        "reason": "I looked",
        "decided": asked.decided,
        "policy_digest": asked.policy_digest,
        "expires": kernel.timer.ms + 60_000,
        "scope": "once",
        "max_uses": 1,
        "roles": ["approver"],
        "decision": {"effect": "allow", "rules": [], "reasons": []},
        **terms,
    }
    await journal.record(ev.APPROVAL_GRANTED, data, actor=by, revision=1, policy=kernel.policy_digest)


async def send(kernel: Kernel, gate: Gate, journal: Journal, call: str = "c1", path: str = "x") -> Call:
    return await kernel.perform(gate, journal, call, "send", path=path)


async def last(kernel: Kernel, kind: str) -> dict[str, Any]:
    return [event.data for event in await kernel.published() if event.type == f"agentos.{kind}"][-1]


async def test_an_approved_call_is_made_and_names_its_approval(kernel: Kernel) -> None:
    """Asked with what is needed and until when; made once; the record of intent names the yes that it rests on."""
    await put_in_force(kernel)
    gate, journal = kernel.gate(), await kernel.journal()
    assert (await send(kernel, gate, journal)).step is Step.ASKED
    asked, waiting = journal.state.calls["c1"], await last(kernel, "session.waiting")
    assert (waiting["args_digest"], waiting["needed"], waiting["given"]) == (asked.args_digest, 1, 0)
    assert waiting["expires"] == (await last(kernel, "syscall.decided"))["now"] + 86_400_000
    await say_yes(kernel, journal)
    assert (await send(kernel, gate, journal)).step is Step.FINISHED
    decided = await last(kernel, "syscall.decided")
    assert decided["decision"]["rules"] == ["grants.approval", "syscall.approved"]
    assert decided["approvals"] == [{"call": "c1", "by": "principal/ann", "reason": "I looked", "scope": "once"}]
    assert len(kernel.driver.calls) == 1


async def expired(kernel: Kernel) -> None:
    kernel.timer.ms += 60_000


async def another_policy(kernel: Kernel) -> None:
    await put_in_force(kernel, rego=TWO)


async def no_grant(kernel: Kernel) -> None:
    await put_in_force(kernel, granted=False)


@pytest.mark.parametrize(
    ("change", "step"),
    [(expired, Step.ASKED), (another_policy, Step.ASKED), (no_grant, Step.DENIED)],
)
async def test_what_changed_since_the_yes_counts(kernel: Kernel, change: Callable[[Kernel], Awaitable[None]], step: Step) -> None:
    """A yes that has run out, another policy, a grant that is gone: asked again or denied, and nothing is done."""
    await put_in_force(kernel)
    gate, journal = kernel.gate(), await kernel.journal()
    await send(kernel, gate, journal)
    await say_yes(kernel, journal)
    await change(kernel)
    assert (await send(kernel, gate, journal)).step is step
    assert kernel.driver.calls == []
    if step is Step.ASKED:
        assert (await last(kernel, "session.waiting"))["given"] == 0
        await say_yes(kernel, journal)
        if change is expired:
            assert (await send(kernel, gate, journal)).step is Step.FINISHED


async def test_a_yes_is_for_these_arguments(kernel: Kernel) -> None:
    """The same id with other arguments is refused, another call is asked about anew."""
    await put_in_force(kernel)
    gate, journal = kernel.gate(), await kernel.journal()
    await send(kernel, gate, journal)
    await say_yes(kernel, journal)
    with pytest.raises(Conflict):
        await send(kernel, gate, journal, path="y")
    assert (await send(kernel, gate, journal, call="c2")).step is Step.ASKED
    assert kernel.driver.calls == []


async def test_a_cancelled_session_acts_no_more(kernel: Kernel) -> None:
    """However good the yes was."""
    await put_in_force(kernel)
    gate, journal = kernel.gate(), await kernel.journal()
    await send(kernel, gate, journal)
    await say_yes(kernel, journal)
    await journal.record(ev.SESSION_CANCELLED, {"reason": "stop"}, actor="principal/op", revision=1, policy=None)
    with pytest.raises(Conflict):
        await send(kernel, gate, journal)
    assert kernel.driver.calls == []


async def test_two_people_are_two(kernel: Kernel) -> None:
    """After the first yes it is asked again and says so; the same person counts once; the record names both."""
    await put_in_force(kernel, rego=TWO)
    gate, journal = kernel.gate(), await kernel.journal()
    counts = []
    for who in ("ann", "ann", "bo"):
        assert (await send(kernel, gate, journal)).step is Step.ASKED
        waiting = await last(kernel, "session.waiting")
        counts.append((waiting["needed"], waiting["given"]))
        await say_yes(kernel, journal, by=f"principal/{who}")
    assert counts == [(2, 0), (2, 1), (2, 1)]
    assert (await send(kernel, gate, journal)).step is Step.FINISHED
    named = (await last(kernel, "syscall.decided"))["approvals"]
    assert [one["by"] for one in named] == ["principal/ann", "principal/bo"]


async def test_a_yes_for_the_session_is_used_up(kernel: Kernel) -> None:
    """It covers so many calls, each of which names it; then people are asked again."""
    await put_in_force(kernel)
    gate, journal = kernel.gate(), await kernel.journal()
    await send(kernel, gate, journal)
    await say_yes(kernel, journal, scope="session", max_uses=3)
    steps = [(await send(kernel, gate, journal, call=f"c{number}")).step for number in range(1, 5)]
    assert steps == [Step.FINISHED] * 3 + [Step.ASKED]
    relied = [event.data.get("approvals") for event in await kernel.published() if event.type == "agentos.syscall.decided"]
    assert [[one["call"] for one in each] if each else None for each in relied] == [None, ["c1"], ["c1"], ["c1"], None]
    assert journal.state.approvals[0]["used"] == 3


async def test_a_yes_binds_what_the_arguments_become(kernel: Kernel) -> None:
    """Rewritten before the question, and in the same way after it; rewritten otherwise, people are asked again."""
    redact = Obligation("redact", "x.r", {"in": "args", "path": "/path"})
    mask = Obligation("mask", "x.m", {"in": "args", "path": "/path", "keep": 1})
    rewrites = [redact]

    def decide(document: Any) -> Decision:
        digest = document["syscall"]["args_digest"]
        yes = any(one["args_digest"] == digest for one in document["approvals"])
        return Decision(Verdict.ALLOW if yes else Verdict.ASK, ("x.ask",), ("why",), (), tuple(rewrites))

    kernel.policy.decide = decide
    gate, journal = kernel.gate(), await kernel.journal()
    assert (await send(kernel, gate, journal, path="secret")).step is Step.ASKED
    final = digest_of({"path": "[redacted]"})
    assert (await last(kernel, "session.waiting"))["args_digest"] == journal.state.calls["c1"].args_digest == final
    await say_yes(kernel, journal)
    rewrites[0] = mask
    assert (await send(kernel, gate, journal, path="secret")).step is Step.ASKED
    assert kernel.driver.calls == []
    await say_yes(kernel, journal)
    rewrites[0] = redact
    assert (await send(kernel, gate, journal, path="secret")).step is Step.FINISHED
    assert kernel.driver.calls == [("send", {"path": "[redacted]"})]


class Held(MemoryLog):
    """Holds the append of a decision until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self.go = asyncio.Event(), asyncio.Event()

    async def append(self, subject: str, messages: Any, *, after: int) -> int:
        if b'"type":"agentos.syscall.decided"' in messages[0].data:
            self.arrived.set()
            await self.go.wait()
        return await super().append(subject, messages, after=after)


async def test_cancelled_between_the_record_and_the_act(kernel: Kernel) -> None:
    """The intent is stored and nothing was done: the log says that it had not begun."""
    kernel.log = log = Held()
    gate, journal = kernel.gate(), await kernel.journal()
    task = asyncio.create_task(send(kernel, gate, journal))
    await log.arrived.wait()
    task.cancel()
    await asyncio.sleep(0)
    log.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kernel.driver.calls == []
    failed = await last(kernel, "syscall.failed")
    assert failed["error"] == {"code": "cancelled", "message": "stopped before it had begun"}
    assert journal.state.calls["c1"].step is Step.FAILED


async def test_a_question_that_was_not_asked_is_asked_after_a_crash(kernel: Kernel) -> None:
    """With the time that it would have had, and what it needs."""
    await put_in_force(kernel, rego=TWO)
    gate, journal = kernel.gate(), await kernel.journal()
    await send(kernel, gate, journal)
    decided, waiting = await last(kernel, "syscall.decided"), await last(kernel, "session.waiting")
    copy = await kernel.journal("s-2")
    await copy.record(ev.SYSCALL_DECIDED, decided, actor="agent/worker", revision=1, policy=kernel.policy_digest)
    assert copy.state.state is State.RUNNING
    kernel.timer.ms += 5000
    await gate.settle(copy, kernel.current("default"))
    again = (await kernel.published("s-2"))[-1].data
    difference = again["expires"] - waiting["expires"]
    assert ({**again, "expires": 0}, 0 <= difference < 100) == ({**waiting, "expires": 0}, True)


async def test_what_has_no_outcome_is_unknown_before_the_end(kernel: Kernel) -> None:
    """`abandon` leaves no allowed call without a word."""
    kernel.policy.decide = lambda _: ALLOW
    gate, journal = kernel.gate(), await kernel.journal()
    await send(kernel, gate, journal)
    decided = await last(kernel, "syscall.decided")
    copy = await kernel.journal("s-2")
    await copy.record(ev.SYSCALL_DECIDED, decided, actor="agent/worker", revision=1, policy=kernel.policy_digest)
    await gate.abandon(copy, kernel.current("default"))
    assert copy.state.calls["c1"].step is Step.UNKNOWN
