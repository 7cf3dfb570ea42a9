"""Sessions that a client outside drives: proposals at a window, taken through the real gate, over the memory log."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from kernel_in_memory import ALLOW, TOOLS, Kernel, settled

from agentos.abi import event as ev
from agentos.abi import rpc
from agentos.abi.canonical import parse_strict
from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import Conflict
from agentos.abi.syscall import Result, Syscall
from agentos.kernel.admission import Admissions
from agentos.kernel.seat import Displaced, Seat
from agentos.kernel.served import MAX_WAITING, Proposal, Window, WindowHarness, Windows, left_over
from agentos.kernel.sessions import Sessions
from agentos.kernel.tools import digest_of_offer, offered, require_unchanged
from agentos.projections.session import SessionState

ORIGIN = {"served": {"by": "mcp", "client": {"name": "inspector", "version": "1"}}}
ASK = Decision(Verdict.ASK, ("grants.approval",), ("a person looks",))


def proposal(call: str, tool: str = "write", **more: Any) -> Proposal:
    return Proposal("tool.call", {"call": call, "tool": tool, "args": {"path": call}, **more})


async def begin(kernel: Kernel) -> tuple[Sessions, SessionState]:
    sessions = kernel.sessions()
    state = await sessions.create("default", "worker", "work", None, "principal/client", origin=ORIGIN)
    await settled(sessions)
    return sessions, state


async def put(sessions: Sessions, session: str, *proposals: Proposal) -> SessionState:
    """Have these at the window of the session until it rests again."""
    async with sessions.journal("default", session) as journal:
        for one in proposals:
            sessions.windows.of(journal.state).put(one)
        await sessions.attend(journal)
    await settled(sessions)
    return await sessions.state("default", session)


async def test_a_session_without_work_rests(kernel: Kernel) -> None:
    """It has no task, no harness and no place, and nobody takes it over for running nowhere."""
    sessions, state = await begin(kernel)
    assert (sessions.running(), kernel.spawner.spawned) == (0, 0)
    assert sessions.runs("default", state.id)
    assert await kernel.types(state.id) == ["session.created"]
    await kernel.published(state.id)
    state = await put(sessions, state.id, proposal("mcp-1"))
    assert (state.state, state.calls["mcp-1"].step, kernel.spawner.spawned) == ("running", "finished", 0)
    assert kernel.model.seen == []


async def test_an_answer_is_for_its_proposal(kernel: Kernel) -> None:
    """What was decided is answered, whatever came of it; what the kernel does not take is refused, and not tried again."""
    sessions, state = await begin(kernel)
    good, taken, odd = proposal("mcp-1"), proposal("mcp-1", "read"), proposal("my-call")
    state = await put(sessions, state.id, good, taken, odd)
    assert good.answered.result() is None
    with pytest.raises(Conflict, match="already another call"):
        taken.answered.result()
    with pytest.raises(Conflict, match="no reply has named a call my-call"):
        odd.answered.result()
    assert list(state.calls) == ["mcp-1"]
    assert not sessions.windows.busy("default", state.id)


async def test_a_client_knows_the_tools_of_its_agent_and_no_other(kernel: Kernel) -> None:
    """A tool that is declared and not named by the agent is refused as one that is not there, and recorded so."""
    kernel.tools = {name: tool for name, tool in TOOLS.items() if name != "send"}
    sessions, state = await begin(kernel)
    whole = kernel.current

    def current(tenant: str) -> Any:
        configuration = whole(tenant)
        return replace(configuration, tools=TOOLS, checks=configuration.checks | {"send": lambda _: None})

    kernel.current = current  # type: ignore[method-assign]
    state = await put(sessions, state.id, proposal("mcp-1", "send"), proposal("mcp-2", "sond"))
    told = [call.error["message"] for call in state.calls.values() if call.error]
    assert told == ["no tool of this session is called 'send'", "no tool of this session is called 'sond'"]
    assert kernel.driver.calls == []
    assert kernel.policy.asked == []


async def test_what_a_client_read_of_a_tool_binds_its_call(kernel: Kernel) -> None:
    """Another description, schema or output schema is another digest; one that is not offered has none to be wrong about."""
    _, state = await begin(kernel)
    configuration = kernel.current("default")
    write = configuration.tools["write"]
    assert [tool.name for tool in offered(state, configuration)] == list(TOOLS)
    digest = digest_of_offer(write)
    others = [
        replace(write, description="More."),
        replace(write, name="other"),
        replace(write, input_schema={"type": "object"}),
        replace(write, output_schema={"type": "object"}),
    ]
    assert digest not in {digest_of_offer(one) for one in others}
    assert digest == digest_of_offer(replace(write, timeout_ms=1, sandbox="other"))
    for seen, name in ((None, "write"), (digest, "write"), ("sha256:0", "nothing")):
        require_unchanged(state, configuration, Syscall("mcp-1", name, {}), seen)
    with pytest.raises(Conflict, match="has changed"):
        require_unchanged(state, configuration, Syscall("mcp-1", "write", {}), "sha256:0")
    sessions = kernel.sessions()
    stale = proposal("mcp-1", digest="sha256:0")
    assert (await put(sessions, state.id, stale)).calls.get("mcp-1") is None
    with pytest.raises(Conflict, match="has changed"):
        stale.answered.result()


async def test_a_call_that_was_acting_when_the_runtime_died_is_not_made_again(kernel: Kernel) -> None:
    """Whoever asks first takes the session over, which says of a call that is not repeatable that its outcome is unknown."""
    sessions, state = await begin(kernel)
    never = asyncio.Event()

    async def hang() -> Result:
        await never.wait()
        return Result("sent")

    kernel.driver.answers["send"] = hang
    async with sessions.journal("default", state.id) as journal:
        sessions.windows.of(journal.state).put(proposal("mcp-1", "send"))
        await sessions.attend(journal)
    while not kernel.driver.calls:
        await asyncio.sleep(0)
    # The runtime is gone: nothing of it is heard any more, and what it would say is refused.
    kernel.driver.answers["send"] = Result("sent")
    again = kernel.sessions()
    state = await put(again, state.id, proposal("mcp-2", "send"))
    assert [(call.call, str(call.step)) for call in state.calls.values()] == [("mcp-1", "unknown"), ("mcp-2", "finished")]
    assert [args["path"] for _, args in kernel.driver.calls] == ["mcp-1", "mcp-2"]
    assert (await kernel.types(state.id)).count("session.owned") == 1
    await sessions.close()


async def test_an_approved_call_is_made_without_its_client(kernel: Kernel) -> None:
    """The yes wakes the session: from the window, and after a restart from the log."""
    for restarted in (False, True):
        kernel.policy.decide = lambda _: ASK
        sessions, state = await begin(kernel)
        state = await put(sessions, state.id, proposal("mcp-1"))
        assert (state.state, state.waiting_for) == ("waiting", "mcp-1")
        if restarted:
            await sessions.close()
            sessions = kernel.sessions()
        kernel.policy.decide = lambda _: ALLOW
        await sessions.answer("default", state.id, granted=True, reason="fine", actor="principal/ann")
        await settled(sessions)
        state = await sessions.state("default", state.id)
        assert (state.calls["mcp-1"].step, state.state) == ("finished", "running")


async def test_a_session_is_finished_behind_what_was_begun(kernel: Kernel) -> None:
    """The end waits its turn at the window; nothing comes in behind it, and whoever still waits is told that it is over."""
    sessions, state = await begin(kernel)
    end = Proposal("finish", {"result": "thanks"})
    state = await put(sessions, state.id, proposal("mcp-1"), end)
    assert (state.state, state.result, state.calls["mcp-1"].step) == ("finished", "thanks", "finished")
    assert end.answered.result() is None
    assert not sessions.runs("default", state.id)


async def test_calls_that_go_on_asking_fail_the_session(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for what it may not fills no log: after so many refusals the session fails."""
    monkeypatch.setattr("agentos.kernel.turn.MAX_REFUSED", 3)
    sessions, state = await begin(kernel)
    asked = [proposal(f"mcp-{number}", "nothing") for number in range(1, 6)]
    state = await put(sessions, state.id, *asked)
    assert (state.state, state.error["code"] if state.error else "", len(state.calls)) == ("failed", "refused", 3)
    for one in asked[3:]:
        with pytest.raises(Conflict, match="is over"):
            one.answered.result()


async def test_a_window_is_bounded_and_closes(kernel: Kernel) -> None:
    """So many proposals at once, and none behind the end; one that was not taken can be had back."""
    window = Window()
    for number in range(MAX_WAITING):
        window.put(proposal(f"mcp-{number}"))
    with pytest.raises(Conflict, match="are under way"):
        window.put(proposal("mcp-99"))
    assert window.withdraw("mcp-7") is True
    assert window.withdraw("mcp-7") is False
    window.put(Proposal("finish", {"result": ""}))
    with pytest.raises(Conflict, match="being closed"):
        window.put(proposal("mcp-99"))


async def test_frames_of_a_window_are_those_of_a_harness() -> None:
    """It greets, carries proposals in order, and hands back what has no answer once it was told to leave."""
    window = Window()
    one, two = window.put(proposal("mcp-1")), window.put(proposal("mcp-2"))
    harness = WindowHarness("s-1", window, Windows().idle)
    await harness.write_frame(rpc.request(0, "initialize", {"abi": rpc.ABI}))
    assert parse_strict(await harness.read_frame())["result"] == {"abi": rpc.ABI, "name": "gateway"}
    frames = [parse_strict(await harness.read_frame()) for _ in range(2)]
    assert [(frame["id"], frame["params"]["call"]) for frame in frames] == [(1, "mcp-1"), (2, "mcp-2")]
    await harness.write_frame(rpc.response(2, {"call": "mcp-2", "content": "", "is_error": False}))
    await harness.write_frame(rpc.error(1, rpc.PARKED, "the session waits for a person"))
    assert await harness.read_frame() == b""
    assert (one.answered.done(), two.answered.done()) == (False, True)
    await harness.stop()
    assert list(window.queue) == [one]
    assert window.taken == {}


async def test_who_gives_its_place_up_asks_for_one_again(kernel: Kernel) -> None:
    """A session that was told to give its place up while it lingered has no claim on it, whatever has come meanwhile."""
    seat = Seat("s-1", Admissions(kernel.timer), lambda: None)
    windows, served = Windows(), SessionState(id="s-1", tenant="default", served=ORIGIN["served"])
    waited = asyncio.create_task(seat.idle_until(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    assert not windows.gave_way(served, seat)
    seat.evict()
    with pytest.raises(Displaced):
        await waited
    assert not windows.gave_way(replace(served, served=None), seat)
    assert windows.gave_way(served, seat)
    assert seat.elsewhere is None


async def test_only_what_the_log_can_tell_is_made_from_it(kernel: Kernel) -> None:
    """Arguments that policy has rewritten are not those that were proposed; calls that are done or asked about are none."""
    journal = await kernel.journal(**ORIGIN)
    gate = kernel.gate()
    await kernel.perform(gate, journal, "mcp-1", "write", path="a")
    kernel.policy.decide = lambda _: ASK
    await kernel.perform(gate, journal, "mcp-2", "write", path="b")
    assert [one.call for one in left_over(journal.state, Window())] == []
    asked = journal.state.calls["mcp-2"]
    answer = {"call": "mcp-2", "args_digest": asked.args_digest, "decided": asked.decided, "reason": "fine", "expires": 2**50}
    yes = {
        **answer,
        "policy_digest": kernel.policy_digest,
        "scope": "once",
        "max_uses": 1,
        "roles": [],
        "decision": ALLOW.to_dict(),
    }
    await journal.record(ev.APPROVAL_GRANTED, yes, actor="principal/ann", revision=1, policy=kernel.policy_digest)
    assert [one.params for one in left_over(journal.state, Window())] == [
        {"call": "mcp-2", "tool": "write", "args": {"path": "b"}}
    ]
    refused = Window()
    refused.refused.add("mcp-2")
    assert list(left_over(journal.state, refused)) == []
    rewritten = replace(journal.state, calls=journal.state.calls.put("mcp-2", replace(asked, step="approved", proposed="other")))
    assert list(left_over(rewritten, Window())) == []
    assert list(left_over(replace(journal.state, served=None), Window())) == []
