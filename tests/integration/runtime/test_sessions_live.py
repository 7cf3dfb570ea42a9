"""Sessions on a whole runtime: run, wait, approve, restart, resume, move to a new revision."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from house import WORKER, Door, House, documents, policy

from agentos.abi.errors import Conflict, NotFound
from agentos.audit.verify import verify_pack
from agentos.boot.harness_pool import HarnessPool, Pooled
from agentos.drivers.port import ToolSpec
from agentos.eventlog.port import Message
from agentos.kernel.port import Brief, HarnessProcess, Left


def asking(text: str = WORKER) -> list[dict[str, Any]]:
    """The worker, whose second file a person must approve."""
    manifests = documents(text)
    manifests[-1]["spec"]["args"] = {"path": {"oneOf": ["n0.txt", "n2.txt"]}}
    spec = {"agents": ["worker"], "tools": ["write"], "args": {"path": {"equals": "n1.txt"}}, "approval": "required"}
    return [*manifests, {"apiVersion": "agentos/v1", "kind": "ToolGrant", "metadata": {"name": "asks"}, "spec": spec}]


async def workspace(door: Door, session: str) -> dict[str, str]:
    folder = Path((await door("session.workspace", session=session))["path"])
    return {file.name: file.read_text() for file in folder.iterdir()}


async def test_apply_run_approve_finish(door: Door) -> None:
    """The whole way: declared, run, asked, approved by a named person, finished, each step in one chain."""
    await door.apply(*asking())
    session = await door.run(goal="the goal")
    waiting = await door.until(session)
    assert (waiting["state"], waiting["waiting_for"]["args"]["path"]) == ("waiting", "n1.txt")
    assert await workspace(door, session) == {"n0.txt": "the goal"}
    [asked] = await door("approval.list")
    assert (asked["session"], asked["state"]) == (session, "waiting")
    await door.approve(session, call=waiting["waiting_for"]["call"], reason="I looked")
    ended = await door.until(session)
    assert (ended["state"], ended["result"], ended["calls"]) == ("finished", "3 of 3", 3)
    assert await workspace(door, session) == dict.fromkeys(("n0.txt", "n1.txt", "n2.txt"), "the goal")
    assert await door("approval.list") == []
    types = await door.types(session)
    assert types[0] == "session.created"
    assert types[-1] == "session.finished"
    assert types.count("approval.granted") == types.count("session.waiting") == 1
    events = await door.events(session)
    granted = next(event for event in events if event["type"] == "agentos.approval.granted")
    assert (granted["actor"][:14], granted["data"]["reason"]) == ("principal/ann-", "I looked")
    allowed = [event["data"] for event in events if event["type"] == "agentos.syscall.decided"]
    assert [one["by"] for data in allowed for one in data.get("approvals", [])] == [granted["actor"]]


async def test_a_person_who_says_no_is_told_to_the_model(door: Door) -> None:
    """The call is not made, the session goes on, and a second answer is a conflict."""
    await door.apply(*asking())
    session = await door.run()
    await door.until(session, "waiting")
    await door("approval.deny", **await door.looked(session), reason="not this one")
    assert (await door.until(session))["result"] == "2 of 3"
    assert sorted(await workspace(door, session)) == ["n0.txt", "n2.txt"]
    with pytest.raises(Conflict):
        await door.approve(session, reason="late")


async def test_a_waiting_session_is_approved_after_a_restart(house: House) -> None:
    """Nothing of it is held in memory: another runtime on the same home takes the answer and finishes it."""
    async with house.open() as door:
        await door.apply(*asking())
        session = await door.run()
        await door.until(session, "waiting")
        before = await door.events(session)
    async with house.open() as door:
        assert (await door("session.get", session=session))["state"] == "waiting"
        assert await door.events(session) == before
        [asked] = await door("approval.list")
        await door.approve(asked["session"], reason="I looked again")
        assert (await door.until(session))["result"] == "3 of 3"
        finished = [event["data"]["call"] for event in await door.events(session) if event["type"].endswith("syscall.finished")]
        assert len(finished) == len(set(finished))


async def test_a_running_session_is_resumed_after_a_restart(house: House) -> None:
    """Stopped in the middle of a call, it goes on by itself; what was completed is not repeated."""
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        gate = door.hold(lambda _tool, args: args["path"] == "n1.txt")
        session = await door.run()
        await gate.begun.acquire()
    async with house.open() as door:
        ended = await door.until(session)
        assert ended["state"] == "finished"
        events = await door.events(session)
        assert [event["data"]["epoch"] for event in events if event["type"] == "agentos.session.owned"] == [1]
        finished = [event["data"]["call"] for event in events if event["type"] == "agentos.syscall.finished"]
        assert len(finished) == len(set(finished))
        assert "n2.txt" in await workspace(door, session)


async def test_a_harness_that_is_killed_is_replaced(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL of the brain in the middle of a call: the call completes once, a fresh brain goes on from the log."""
    spawned: list[int] = []
    start = door.runtime.harnesses._start

    async def watched(*what: Any) -> Any:
        process: Any = await start(*what)
        spawned.append(process._process.pid)
        return process

    monkeypatch.setattr(door.runtime.harnesses, "_start", watched)
    await door.apply(*documents(WORKER))
    gate = door.hold(lambda _tool, args: args["path"] == "n1.txt")
    session = await door.run()
    await gate.begun.acquire()
    os.kill(spawned[0], signal.SIGKILL)
    gate.go.release()
    ended = await door.until(session)
    assert (ended["state"], ended["result"], ended["calls"]) == ("finished", "3 of 3", 3)
    assert len(spawned) == 2
    finished = [event["data"]["call"] for event in await door.events(session) if event["type"] == "agentos.syscall.finished"]
    assert len(finished) == len(set(finished))


async def test_an_answer_while_the_brain_is_leaving_wakes_the_session_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """However quick the person is: one brain at a time, and the approved call is made once."""
    spawned: list[str] = []
    performed: list[str] = []
    leaving, leave = asyncio.Event(), asyncio.Event()
    spawn, stop = HarnessPool.spawn, Pooled.stop

    async def watched(self: HarnessPool, brief: Brief) -> HarnessProcess:
        spawned.append(brief.session)
        return await spawn(self, brief)

    async def slow(self: Pooled, **how: Any) -> Left:
        leaving.set()
        await leave.wait()
        return await stop(self, **how)

    def seen(_tool: ToolSpec, args: Mapping[str, Any]) -> bool:
        performed.append(args["path"])
        return False

    monkeypatch.setattr(HarnessPool, "spawn", watched)
    monkeypatch.setattr(Pooled, "stop", slow)
    await door.apply(*asking())
    door.hold(seen)
    session = await door.run()
    await door.until(session, "waiting")
    await leaving.wait()
    answer = asyncio.create_task(door.approve(session, reason="quickly"))
    position, types = 0, [""]
    while "agentos.approval.granted" not in types:
        more = await door("session.events", session=session, position=position, seq=len(types), wait_ms=10_000)
        position, types = more["position"], types + [event["type"] for event in more["events"]]
    leave.set()
    await answer
    assert (await door.until(session))["result"] == "3 of 3"
    assert performed == ["n0.txt", "n1.txt", "n2.txt"]
    assert len(spawned) == 2


async def test_an_answer_under_way_while_the_session_is_put_away(door: Door) -> None:
    """The yes is on its way to the log when the parked session is let go of: it runs on, and who follows it sees it grow."""
    await door.apply(*asking())
    drivers, log = door.runtime.drivers, door.runtime.tenants.log("default")
    released, answered = asyncio.Event(), asyncio.Event()
    leaving, answering = asyncio.Event(), asyncio.Event()
    release, append = drivers.release, log.append

    async def late_release(session: str) -> None:
        leaving.set()
        await released.wait()
        await release(session)

    async def late_append(subject: str, messages: Sequence[Message], *, after: int) -> int:
        if b"agentos.approval.granted" in messages[0].data:
            answering.set()
            await answered.wait()
        return await append(subject, messages, after=after)

    drivers.release, log.append = late_release, late_append  # type: ignore[method-assign]
    gate = door.hold(lambda _tool, args: args["path"] == "n1.txt")
    session = await door.run()
    await leaving.wait()
    parked = door.runtime.sessions._tasks["default", session]
    answer = asyncio.create_task(door.approve(session, reason="just then"))
    await answering.wait()
    released.set()
    await asyncio.wait([parked])
    answered.set()
    await answer
    await gate.begun.acquire()
    # A journal that is kept and says that it is not makes whoever waits for it spin, and with it the whole runtime.
    kept = door.runtime.sessions._journals["default", session]
    beyond = asyncio.create_task(kept.wait_beyond(kept.head.seq))
    gate.go.release()
    assert await beyond
    assert (await door.until(session))["result"] == "3 of 3"


async def test_a_session_moves_to_a_new_revision_at_its_next_turn(door: Door) -> None:
    """The turn under way is decided by the revision it began with; the log says when the session moved to the new one."""
    await door.apply(*documents(WORKER))
    gate = door.hold(lambda _tool, args: args["path"] == "n0.txt")
    session = await door.run()
    await gate.begun.acquire()
    await door.apply(policy("closed", '\tinput.syscall.effect == "write"'))
    gate.go.release()
    assert (await door.until(session))["result"] == "1 of 3"
    events = await door.events(session)
    kinds = [event["type"] for event in events]
    moved = kinds.index("agentos.session.revised")
    assert events[moved]["data"] == {"from": 1, "to": 2}
    assert kinds[moved - 1] == "agentos.syscall.finished"
    assert [event["configrevision"] for event in events] == [1] * moved + [2] * (len(events) - moved)
    assert len({event["policydigest"] for event in events}) == 2
    assert await door.decisions(session) == [
        ("write", "allow", ["grants.allowed"]),
        ("write", "deny", ["closed.no"]),
        ("write", "deny", ["closed.no"]),
    ]


async def test_a_policy_that_is_deleted_denies_no_more(door: Door) -> None:
    """From the next turn on; the decisions before it stay what they were."""
    await door.apply(*documents(WORKER), policy("closed", '\tinput.syscall.args.path == "n0.txt"'))
    gate = door.hold(lambda _tool, args: args["path"] == "n1.txt")
    first = await door.run()
    await gate.begun.acquire()
    await door("registry.delete", keys=["policy/default/closed"], allow_destroy=True, allow_widen=True)
    gate.go.release()
    assert (await door.until(first))["result"] == "2 of 3"
    gate.only = lambda _tool, _args: False
    second = await door.run()
    assert (await door.until(second))["result"] == "3 of 3"
    assert [effect for _, effect, _ in await door.decisions(first)] == ["deny", "allow", "allow"]


async def test_a_grant_that_has_ended_denies(door: Door) -> None:
    """`until` in the past: denied by the rule that says so, and nothing is written."""
    manifests = documents(WORKER)
    manifests[-1]["spec"]["until"] = "2020-01-01T00:00:00Z"
    await door.apply(*manifests)
    session = await door.run()
    assert (await door.until(session))["result"] == "0 of 3"
    assert {rules for _, _, [rules] in await door.decisions(session)} == {"grants.expired"}
    assert await workspace(door, session) == {}


async def test_a_budget_that_is_used_up_denies(door: Door) -> None:
    """After as many calls as the agent may make nothing is done any more, and the session says why it ended."""
    manifests = documents(WORKER)
    manifests[2]["spec"]["budget"] = {"calls": 2, "tokens": 1_000_000}
    await door.apply(*manifests)
    session = await door.run()
    ended = await door.until(session)
    assert (ended["state"], ended["calls"]) == ("failed", 2)
    assert "used up the 2 calls" in ended["error"]["message"]
    assert sorted(await workspace(door, session)) == ["n0.txt", "n1.txt"]
    denied = await door("audit.query", effect="deny")
    assert {rule for row in denied["rows"] for rule in row["rules"]} == {"budget.calls"}


async def test_tokens_are_a_budget_too(door: Door) -> None:
    """An agent without tokens left does not ask its model again."""
    manifests = documents(WORKER)
    manifests[2]["spec"]["budget"] = {"calls": 100, "tokens": 1}
    await door.apply(*manifests)
    session = await door.run(goal="word " * 50)
    ended = await door.until(session)
    assert ended["state"] == "failed"
    assert "tokens" in ended["error"]["message"]


async def test_cancel_in_mid_call(door: Door) -> None:
    """The session ends at once with who and why; nothing is done after it."""
    await door.apply(*documents(WORKER))
    gate = door.hold(lambda _tool, args: args["path"] == "n1.txt")
    session = await door.run()
    await gate.begun.acquire()
    ended = await door("session.cancel", session=session, reason="stop it")
    assert (ended["state"], ended["error"]["message"]) == ("cancelled", "stop it")
    assert sorted(await workspace(door, session)) == ["n0.txt"]
    assert (await door.types(session))[-1] == "session.cancelled"
    with pytest.raises(Conflict):
        await door("session.cancel", session=session, reason="again")


async def test_a_rebuilt_read_model_equals_the_old_one(house: House) -> None:
    """Thrown away by the verb, and deleted with its file: the same answers come out of the log."""

    async def answers(door: Door) -> list[Any]:
        return [
            await door("session.list", all=True),
            await door("approval.list", all=True),
            (await door("audit.query"))["rows"],
        ]

    async with house.open() as door:
        await door.apply(*asking())
        waiting, ended = await door.run(), await door.run()
        for session in (waiting, ended):
            await door.until(session, "waiting")
        await door("approval.deny", **await door.looked(ended), reason="no")
        await door.until(ended, "finished")
        before = await answers(door)
        assert [len(rows) for rows in before] == [2, 2, len(before[2])]
        rebuilt = await door("audit.rebuild")
        assert rebuilt["faults"] == []
        assert await answers(door) == before
    for file in (house.root / "read").iterdir():
        file.unlink()
    async with house.open() as door:
        assert await answers(door) == before


async def test_evidence_of_a_live_runtime_is_verified_offline(door: Door, tmp_path: Path) -> None:
    """The pack of a finished and a waiting session proves itself with the public key alone; one byte changed, and it fails."""
    import base64

    await door.apply(*asking())
    first, second = await door.run(), await door.run()
    await door.until(first, "waiting")
    await door.until(second, "waiting")
    await door.approve(first, reason="I looked")
    await door.until(first, "finished")
    exported = await door("evidence.export")
    pack, trust = base64.b64decode(exported["pack"]), (await door("evidence.key"))["pem"].encode()
    report = verify_pack(pack, trust)
    assert (report.faults, report.ok, report.sessions) == ((), True, 2)
    assert report.events > exported["events"] == len(await door.events(first)) + len(await door.events(second))
    edited = bytearray(pack)
    edited[len(pack) // 2] ^= 1
    assert not verify_pack(bytes(edited), trust).ok


async def test_what_is_not_there_is_not_found(door: Door) -> None:
    """A session, an agent, a tenant of no such name."""
    await door.apply(*documents(WORKER))
    with pytest.raises(NotFound):
        await door("session.get", session="s-none")
    with pytest.raises(NotFound, match="no agent nobody"):
        await door.run("nobody")
    other = await door.in_tenant("nowhere")
    with pytest.raises(NotFound, match="no tenant nowhere"):
        await other("session.list")
