"""Erasure in a whole runtime: nothing of the payload and of its key is left in any file, and the log still proves itself."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from house import WORKER, Door, House, documents

from agentos.abi.errors import AgentOSError, Conflict, Denied, NotFound, PayloadErased
from agentos.abi.ids import new_id
from agentos.audit.verify import verify_pack
from agentos.boot.strays import AGE_MS
from agentos.boot.system import SystemTimer

CANARY = "kestrel-canary-5f3a"


def forms(secret: bytes) -> Iterator[bytes]:
    """`secret` as it may stand in a file."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for shift in range(3):
        # Base64 of it wherever it begins in a longer text.
        yield base64.b64encode(b"\0" * shift + secret)[4 if shift else 0 : -4]


def holders(root: Path, *secrets: bytes) -> list[str]:
    """The files below `root` that hold one of `secrets`."""
    wanted = [form for secret in secrets for form in forms(secret)]
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if any(form in data for form in wanted):
                found.append(str(path.relative_to(root)))
    return found


async def verified(door: Door) -> dict[str, Any]:
    answer = await door("audit.verify")
    while not answer["done"]:
        answer = await door("audit.verify", run=answer["run"])
    return dict(answer["report"])


async def exported(door: Door, **what: Any) -> tuple[bytes, bytes]:
    """A pack, and the key to verify it with."""
    answer = await door("evidence.export", **what)
    return base64.b64decode(answer["pack"]), (await door("evidence.key"))["pem"].encode()


async def finished(door: Door, goal: str = CANARY, **words: Any) -> str:
    session = str((await door("session.create", agent="worker", goal=goal, **words))["session"])
    assert (await door.until(session))["state"] == "finished"
    return session


async def secret_of(door: Door, session: str) -> bytes:
    return (await door.runtime.tenants.get("default").keys.of_session(session)).secret


async def test_nothing_of_it_is_left_in_any_file(house: House, tmp_path: Path) -> None:
    """Goal, arguments, results, workspace, full text and key are in no file of the home, nor is the payload in a backup.

    Not of the runtime that erased, not of the next one; and what is left still verifies, online and offline.
    """
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        gone, kept = await finished(door), await finished(door, "something else")
        secret = await secret_of(door, gone)
        before, after = tmp_path / "before", tmp_path / "after"
        before.mkdir()
        after.mkdir()
        assert holders(house.root, CANARY.encode()), "the search finds what is there"
        assert any("keys" in path for path in holders(house.root, secret)), "the search finds the key"
        await _backup(door, before)
        plan = await door("audit.erasure", sessions=[gone])
        assert (plan["refused"], [one["session"] for one in plan["sessions"]]) == (None, [gone])
        done = await door("audit.erase", sessions=[gone], basis="request 17")
        assert [one["session"] for one in done["sessions"]] == [gone]
        assert holders(house.root, CANARY.encode(), secret) == []
        await _backup(door, after)
        assert (await verified(door))["ok"]
        report = verify_pack(*await exported(door))
        assert report.ok, report.faults
        assert report.sessions == 2
        with pytest.raises(PayloadErased):
            await door("session.get", session=gone)
        assert (await door("session.get", session=kept))["goal"] == "something else"
        assert {row["id"] for row in await door("session.list", all=True)} == {gone, kept}
    assert holders(house.root, CANARY.encode(), secret) == []
    # A backup made before holds ciphertext of a key that is nowhere.
    assert holders(before, CANARY.encode(), secret) == []
    assert holders(after, CANARY.encode(), secret) == []
    async with house.open() as door:
        assert (await door("audit.rebuild"))["faults"] == []
        assert (await verified(door))["ok"]
    assert holders(house.root, CANARY.encode(), secret) == []


async def _backup(door: Door, folder: Path) -> None:
    answer = await door("backup.create", to=str(folder / "backup.tar"))
    while not answer["done"]:
        answer = await door("backup.create", run=answer["run"])
    assert (folder / "backup.tar").stat().st_size > 1000


async def test_a_data_subject(door: Door) -> None:
    """All sessions that were run for it go together, and nobody remembers who it was; another one's stay."""
    await door.apply(*documents(WORKER))
    ours = [await finished(door, subject="customer-4711") for _ in range(2)]
    other = await finished(door, subject="customer-9")
    with pytest.raises(Conflict, match="shares a key"):
        await door("audit.erase", sessions=[ours[0]], basis="request 17")
    done = await door("audit.erase", subject="customer-4711", basis="request 17", seen=ours)
    assert {one["session"] for one in done["sessions"]} == set(ours)
    assert holders(door.runtime.home.root, b"customer-4711") == []
    assert (await door("session.get", session=other))["goal"] == CANARY
    with pytest.raises(NotFound):
        await door("audit.erase", subject="customer-4711", basis="request 17")


async def test_what_must_be_kept(door: Door) -> None:
    """A session that waits, one under a hold, one whose retention has not passed: each refusal says what to do."""
    agent = next(one for one in documents(WORKER) if one["kind"] == "Agent")
    agent["spec"]["governance"] |= {"risk": "high", "retentionDays": 183}
    await door.apply(*[agent if one["kind"] == "Agent" else one for one in documents(WORKER)])
    hold = door.hold(lambda tool, _: tool.name == "write")
    running = await door.run()
    await hold.begun.acquire()
    with pytest.raises(Conflict, match="not over") as refused:
        await door("audit.erase", sessions=[running], basis="request 17")
    assert refused.value.mend is not None
    assert "session cancel" in refused.value.mend
    await door("session.cancel", session=running, reason="enough")
    with pytest.raises(Conflict, match="retention of 183 days"):
        await door("audit.erase", sessions=[running], basis="request 17")
    made = await door("audit.hold", agent="worker", reason="a case")
    with pytest.raises(Conflict, match="legal hold"):
        await door("audit.erase", sessions=[running], basis="request 17", overrule=True)
    assert [one["hold"] for one in await door("audit.holds")] == [made["hold"]]
    await door("audit.release", hold=made["hold"], reason="closed")
    await door("audit.erase", sessions=[running], basis="request 17", overrule=True)
    assert (await verified(door))["ok"]


async def test_compliance_has_what_runs_cancelled(door: Door) -> None:
    """Within an erasure, by its own name, and not otherwise: the log of the session says who stopped it."""
    await door.apply(*documents(WORKER))
    first = await finished(door)
    hold = door.hold(lambda tool, _: tool.name == "write")
    fork = str((await door("session.fork", session=first, at="3"))["session"])
    await hold.begun.acquire()
    compliance = await door.as_principal("com", ["compliance"], "default")
    with pytest.raises(Denied):
        await compliance.call("session.cancel", {"session": fork, "reason": "enough"})
    wanted: dict[str, Any] = {"sessions": [first, fork]}
    with pytest.raises(Conflict, match="not over"):
        await compliance.call("audit.erase", {**wanted, "basis": "request 17"})
    assert (await compliance.call("audit.erasure", {**wanted, "cancel": True}))["refused"] is None
    done = await compliance.call("audit.erase", {**wanted, "basis": "request 17", "cancel": True})
    assert {one["session"] for one in done["sessions"]} == {first, fork}
    assert holders(door.runtime.home.root, CANARY.encode()) == []
    last = (await door("session.events", session=fork))["events"][-1]
    assert (last["type"], last["actor"]) == ("agentos.session.cancelled", "principal/com")
    assert (await verified(door))["ok"]


async def test_a_promise_below_the_floor_is_not_admitted(door: Door) -> None:
    """An agent of high risk declares half a year or it is not applied; the fault says where."""
    agent = next(one for one in documents(WORKER) if one["kind"] == "Agent")
    agent["spec"]["governance"] |= {"risk": "high", "retentionDays": 30}
    with pytest.raises(AgentOSError) as refused:
        await door.apply(*[agent if one["kind"] == "Agent" else one for one in documents(WORKER)])
    assert "183" in str(refused.value.to_dict())


async def test_compliance_alone_may(door: Door) -> None:
    """An operator and an auditor see holds, and erase nothing."""
    for role in ("operator", "auditor", "approver"):
        client = await door.as_principal(f"{role}-one", [role], "default")
        for verb in ("audit.erase", "audit.erasure", "audit.hold", "audit.release", "audit.retire", "audit.retirement"):
            with pytest.raises(Denied):
                await client.call(verb, {})
    compliance = await door.as_principal("com", ["compliance"], "default")
    assert await compliance.call("audit.holds", {}) == []


async def test_a_workspace_that_a_tool_locked(door: Door) -> None:
    """A folder without rights, a link out of the workspace: all of it goes, and nothing that the link leads to."""
    await door.apply(*documents(WORKER))
    session = await finished(door)
    folder = Path((await door("session.workspace", session=session))["path"])
    outside = door.runtime.home.root / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (folder / "locked" / "deep").mkdir(parents=True)
    (folder / "locked" / "deep" / "file").write_text(CANARY)
    (folder / "link").symlink_to(outside, target_is_directory=True)
    (folder / "locked" / "deep").chmod(0)
    (folder / "locked").chmod(0)
    folder.chmod(stat.S_IRUSR)
    await door("audit.erase", sessions=[session], basis="request 17")
    assert not folder.exists()
    assert (outside / "kept").read_text() == "kept"


async def test_a_crash_behind_the_tombstone_is_made_up_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tombstone is durable and nothing else happened: the next start destroys, removes and forgets."""
    async with house.open() as door:
        await door.apply(*documents(WORKER))
        gone = await finished(door)
        secret = await secret_of(door, gone)

        async def stop(_keys: Any) -> int:
            raise AgentOSError("stopped here")

        with monkeypatch.context() as patch:
            patch.setattr(door.runtime.tenants.get("default").keys, "destroy", stop)
            with pytest.raises(AgentOSError, match="stopped here"):
                await door("audit.erase", sessions=[gone], basis="request 17")
        assert holders(house.root, secret)
    async with house.open() as door:
        await door.runtime.tenants.get("default").projector.caught_up()
        assert holders(house.root, CANARY.encode(), secret) == []
        assert (await verified(door))["ok"]
        with pytest.raises(PayloadErased):
            await door("session.get", session=gone)


async def test_a_fork_goes_with_its_session(door: Door) -> None:
    """A fork repeats the payload of the other session, under the same key."""
    await door.apply(*documents(WORKER))
    first = await finished(door)
    fork = str((await door("session.fork", session=first, at="3"))["session"])
    await door.until(fork, "finished")
    with pytest.raises(Conflict, match=fork):
        await door("audit.erase", sessions=[first], basis="request 17")
    await door("audit.erase", sessions=[first, fork], basis="request 17")
    assert holders(door.runtime.home.root, CANARY.encode()) == []


async def test_a_workspace_whose_session_never_came_to_be_goes_with_the_next_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log was away when it was to be created: its input stays in no folder. What a session has stays."""
    now_ms = SystemTimer.now_ms
    with monkeypatch.context() as patch:
        patch.setattr(SystemTimer, "now_ms", lambda self: now_ms(self) - 2 * AGE_MS)
        async with house.open() as door:
            await door.apply(*documents(WORKER))
            kept = await finished(door, "something else")
            rooms = door.runtime.workspaces
            stray = new_id("s", door.runtime.timer, door.runtime.random)
            rooms.create("default", stray, None)
            (rooms.path("default", stray) / "input.txt").write_text(CANARY)
            for name in (kept, stray):
                os.utime(rooms.path("default", name), ((now_ms(door.runtime.timer) - 2 * AGE_MS) / 1000,) * 2)
    async with house.open() as door:
        async with asyncio.timeout(30):
            while stray in door.runtime.workspaces.sessions("default"):
                await asyncio.sleep(0.05)
        assert door.runtime.workspaces.sessions("default") == {kept}
    assert holders(house.root, CANARY.encode()) == []
