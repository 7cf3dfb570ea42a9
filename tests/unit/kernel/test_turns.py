"""Turns: which revision a syscall is taken under, and what a harness cannot leave open."""

from __future__ import annotations

from kernel_in_memory import ALLOW, Kernel, calls, settled, text
from test_hostile_harness import hostile, run

from agentos.abi import event as ev
from agentos.abi.decision import deny
from agentos.abi.syscall import Result
from agentos.projections.session import Step


async def test_a_new_revision_counts_from_the_next_syscall(kernel: Kernel) -> None:
    """Within one turn: the call under way keeps its revision, the next one has the new policy, and the log says so before it."""

    async def change() -> Result:
        kernel.revision = 2
        kernel.policy_digest = "sha256:" + "b" * 64
        kernel.policy.decide = lambda document: deny("closed.no", "closed") if document["syscall"]["tool"] == "send" else ALLOW
        return Result("ok")

    kernel.driver.answers["write"] = change
    kernel.model.replies = [calls(("c1", "write", {"path": "a"}), ("c2", "send", {"path": "b"})), text("done")]
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    events = await kernel.published(session)
    c1, c2 = (next(n for n, event in enumerate(events) if event.data.get("call") == call) for call in ("c1", "c2"))
    assert [event.type for event in events[c1:c2]] == [ev.SYSCALL_DECIDED, ev.SYSCALL_FINISHED, ev.SESSION_REVISED]
    assert [event.config_revision for event in events] == [1] * (c2 - 1) + [2] * (len(events) - c2 + 1)
    assert events[c2 - 1].data == {"from": 1, "to": 2}
    assert events[c2].policy_digest == "sha256:" + "b" * 64
    asked = [document for document in kernel.policy.asked if document["syscall"]["tool"] in {"write", "send"}]
    assert [(document["config_revision"], document["policy_digest"][7:9]) for document in asked] == [(1, "aa"), (2, "bb")]
    assert (await sessions.state("default", session)).calls["c2"].step is Step.DENIED


async def test_the_model_waits_for_the_results_of_its_calls(kernel: Kernel) -> None:
    """A harness that asks it again before is told which call is missing."""
    kernel.model.replies = [calls(("c1", "write", {"path": "a"})), text("done")]
    code = """
ask("model.call")
early = ask("model.call")
ask("tool.call", call="c1", tool="write", args={"path": "a"})
late = ask("model.call")
ask("finish", result=json.dumps([early["error"]["message"], "result" in late]))
"""
    state = await run(kernel, code)
    assert state.result == '["model.call: call c1 of the last reply has no result yet", true]'


async def test_a_harness_cannot_end_a_session_with_a_call_left_open(kernel: Kernel) -> None:
    """A call that was allowed before a crash and is not asked for again is unknown, and the log says so before the end."""
    journal = await kernel.journal()
    await kernel.perform(kernel.gate(), journal, "c1", "write", path="a")
    decided = (await kernel.events("s-1"))[1].data
    copy = await kernel.journal("s-2")
    await copy.record(ev.SYSCALL_DECIDED, decided, actor="agent/worker", revision=1, policy=kernel.policy_digest)
    kernel.spawner = hostile('ask("finish", result="fine")')
    sessions = kernel.sessions()
    await sessions.resume("default", "s-2")
    await settled(sessions)
    assert (await kernel.types("s-2"))[-2:] == ["syscall.unknown", "session.finished"]
