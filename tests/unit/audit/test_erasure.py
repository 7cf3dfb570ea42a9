"""Erasure: what must be kept is refused; what is erased is gone in whatever order the runtime stops, and the log still holds."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from audit_world import World

from agentos.abi.chain import Head, follow
from agentos.abi.errors import AgentOSError, Conflict, LogUnavailable, NotFound, PayloadErased, UsageError
from agentos.abi.event import Event
from agentos.audit.erasure import Erasure, Plan, Wanted
from agentos.eventlog.subject import session_subject

ANN = "principal/ann"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def erase(
    erasure: Erasure,
    *sessions: str,
    subject: str | None = None,
    overrule: bool = False,
    seen: list[str] | None = None,
    cancel: bool = False,
) -> Plan:
    wanted = Wanted(sessions, subject)
    return await erasure.erase(wanted, basis="request 17", overrule=overrule, actor=ANN, revision=1, seen=seen, cancel=cancel)


async def test_what_is_erased_is_gone_and_the_log_still_holds(world: World) -> None:
    """Payload, key and workspace of the one session are gone; its chain of headers, and the other session, are as they were."""
    gone, kept = await world.session(goal="canary"), await world.session()
    key = (await world.keys.of_session(gone)).id
    before = [stored.data async for stored in world.raw.read(session_subject(gone))]
    done = await erase(world.erasure, gone)
    assert [one.session for one in done.candidates] == [gone]
    assert not await world.readable(gone)
    assert await world.readable(kept)
    assert await world.keys.find(key) is None
    assert world.around.rooms == {kept}
    assert world.around.waited == 1
    assert [stored.data async for stored in world.raw.read(session_subject(gone))] == before
    head = Head.empty()
    async for stored in world.log.read(session_subject(gone)):
        head, _ = follow(head, stored.data, subject=gone)
        assert b"canary" not in stored.data
    assert head.seq == 2
    tombstone = (await world.erasure.chain.record()).erased[gone]
    assert (tombstone.keys, tombstone.basis, tombstone.overruled, tombstone.actor) == ((key,), "request 17", False, ANN)


async def test_erased_twice_is_erased_once(world: World) -> None:
    """The second time there is nothing to do, and nothing is said twice."""
    gone = await world.session()
    await erase(world.erasure, gone)
    again = await erase(world.erasure, gone)
    assert (again.candidates, again.already) == ((), (gone,))
    assert len((await world.erasure.chain.record()).tombstones) == 1


async def refusal(world: World, *sessions: str, subject: str | None = None, overrule: bool = False) -> AgentOSError:
    """Why an erasure is refused; nothing is changed by it, and the plan says the same."""
    rooms, tombstones = set(world.around.rooms), len((await world.erasure.chain.record()).tombstones)
    with pytest.raises(AgentOSError) as refused:
        await erase(world.erasure, *sessions, subject=subject, overrule=overrule)
    assert world.around.rooms == rooms
    assert len((await world.erasure.chain.record()).tombstones) == tombstones
    return refused.value


async def test_what_runs_is_not_erased(world: World) -> None:
    """A session that is not over is to be cancelled first."""
    running = await world.session(over=False)
    error = await refusal(world, running)
    assert isinstance(error, Conflict)
    assert "not over" in error.message
    assert f"agentos session cancel {running}" in (error.mend or "")
    assert await world.readable(running)


async def test_what_runs_is_cancelled_for_an_erasure(world: World) -> None:
    """In the name of whoever erases, and only those that run; then nothing of any of them can be read."""
    over, fork = await world.session(subject="customer-4711"), await world.session(subject="customer-4711", over=False)
    assert "--cancel-running" in ((await refusal(world, subject="customer-4711")).mend or "")
    plan = await world.erasure.plan(Wanted(subject="customer-4711"))
    assert (plan.to_dict()["refused"] is None, plan.to_dict(cancel=True)["refused"]) == (False, None)
    done = await erase(world.erasure, subject="customer-4711", seen=[over, fork], cancel=True)
    assert [one.session for one in done.candidates] == sorted([over, fork])
    assert world.around.cancelled == [(fork, ANN)]
    assert [await world.readable(name) for name in (over, fork)] == [False, False]


@pytest.mark.parametrize("why", ["a hold", "retention", "another session"])
async def test_what_is_kept_anyway_is_not_cancelled_for_nothing(world: World, why: str) -> None:
    """Whatever else refuses the erasure refuses before anything is stopped: retention as if the session ended now."""
    if why == "retention":
        world.around.governance["triage"] = [{"risk": "limited", "retentionDays": 30}]
    running = await world.session(subject="customer-4711", over=False)
    if why == "a hold":
        await world.erasure.hold({"session": running}, reason="a case", actor=ANN, revision=1)
    seen = [] if why == "another session" else [running]
    with pytest.raises(Conflict, match={"a hold": "legal hold", "retention": "30 days"}.get(why, "than you were shown")):
        await erase(world.erasure, subject="customer-4711", seen=seen, cancel=True)
    assert world.around.cancelled == []
    assert await world.readable(running)


async def test_what_is_declared_is_read_once_for_a_plan(world: World) -> None:
    """However many sessions it looks at; what is applied meanwhile makes it void."""
    names = [await world.session(subject="customer-4711") for _ in range(5)]
    await world.erasure.plan(Wanted(tuple(names)))
    assert world.around.reads == 1
    candidate = world.erasure.candidate

    async def meanwhile(*args: object) -> object:
        world.around.revision += 1
        return await candidate(*args)  # type: ignore[arg-type]

    world.erasure.candidate = meanwhile  # type: ignore[method-assign, assignment]
    assert "another revision" in (await refusal(world, *names)).message


@pytest.mark.parametrize("kind", ["session", "agent", "period"])
async def test_what_is_held_is_not_erased(world: World, kind: str) -> None:
    """Overruling the retention does not overrule a hold; once released it may go."""
    name = await world.session()
    target = {"session": name, "agent": "triage", "period": world.clock.period}
    hold = await world.erasure.hold({kind: target[kind]}, reason="a case", actor=ANN, revision=1)
    for overrule in (False, True):
        error = await refusal(world, name, overrule=overrule)
        assert f"legal hold {hold.id} (a case; {ANN}" in error.message
    await world.erasure.release(hold.id, reason="closed", actor=ANN, revision=1)
    await erase(world.erasure, name)
    assert not await world.readable(name)


@pytest.mark.parametrize(
    ("governance", "days"),
    [
        ([{"risk": "limited", "retentionDays": 30}], 30),
        ([{"risk": "high"}], 183),
        ([{"risk": "minimal", "retentionDays": 1}, {"risk": "high", "retentionDays": 200}], 200),
    ],
    ids=["as declared", "never below the floor", "as was declared when it ran"],
)
async def test_retention_is_kept(world: World, governance: list[dict[str, object]], days: int) -> None:
    """Until the last of the days it is refused; overruled, it is recorded; behind it nothing needs to be overruled."""
    world.around.governance["triage"] = governance
    first, second = await world.session(), await world.session()
    world.clock.later(days=days - 1)
    error = await refusal(world, first)
    assert f"a retention of {days} days" in error.message
    assert "--overrule-retention" in (error.mend or "")
    plan = (await world.erasure.plan(Wanted((first,)))).to_dict()
    assert (plan["overrule_helps"], plan["refused"]["message"]) == (True, error.message)
    await erase(world.erasure, first, overrule=True)
    world.clock.later(days=1)
    await erase(world.erasure, second, overrule=True)
    record = await world.erasure.chain.record()
    assert (record.erased[first].overruled, record.erased[second].overruled) == (True, False)


async def test_the_copy_of_a_fork_that_never_came_to_be_goes_too(world: World) -> None:
    """The runtime died after it copied the workspace and before it stored the fork's first event."""
    gone = await world.session()
    lost = world.clock.session()
    await world.erasure.join(lost, gone)
    world.around.rooms.add(lost)
    done = await erase(world.erasure, gone, lost)
    assert [one.session for one in done.candidates] == [gone]
    assert world.around.rooms == set()
    world.around.rooms.add(lost)  # and if the runtime dies again before it removes it
    await world.start().finish()
    assert world.around.rooms == set()


async def test_a_data_subject_is_erased_as_a_whole(world: World) -> None:
    """All sessions of it share one key: none alone, all together; then nobody remembers who it was."""
    ours = [await world.session(subject="customer-4711") for _ in range(2)]
    other = await world.session(subject="customer-9")
    error = await refusal(world, ours[0])
    assert ours[1] in error.message
    assert "--data-subject" in (error.mend or "")
    done = await erase(world.erasure, subject="customer-4711")
    assert [one.session for one in done.candidates] == sorted(ours)
    assert [await world.readable(name) for name in (*ours, other)] == [False, False, True]
    assert isinstance(await refusal(world, subject="customer-4711"), NotFound)
    assert b"customer-4711" not in b"".join(path.read_bytes() for path in world.keys.path.parent.iterdir())
    stored = [one.data for stream in await world.raw.streams() async for one in world.raw.scan(stream)]
    assert not any(b"customer-4711" in data for data in stored)


async def test_a_data_subject_that_nothing_was_stored_of_is_forgotten(world: World) -> None:
    """A session was to be created for it and was not: the name beside the key goes all the same."""
    await world.erasure.assign(world.clock.session(), "customer-4711")
    done = await erase(world.erasure, subject="customer-4711")
    assert done.candidates == ()
    assert b"customer-4711" not in b"".join(path.read_bytes() for path in world.keys.path.parent.iterdir())


async def test_sessions_of_one_key_are_named_together(world: World) -> None:
    """Naming each of them does, without knowing whose they are."""
    ours = [await world.session(subject="customer-4711") for _ in range(2)]
    await erase(world.erasure, *ours)
    assert [await world.readable(name) for name in ours] == [False, False]


async def test_a_fork_goes_with_the_session_that_it_repeats(world: World) -> None:
    """A fork carries the payload of the other one on: it has its key, and neither goes alone."""
    first = await world.session()
    fork = await world.session(fork_of=first)
    for name, other in ((first, fork), (fork, first)):
        assert other in (await refusal(world, name)).message
    await erase(world.erasure, first, fork)
    assert [await world.readable(name) for name in (first, fork)] == [False, False]
    with pytest.raises(PayloadErased):
        await world.session(fork_of=first)


async def test_a_session_that_is_just_being_created_is_not_lost(world: World) -> None:
    """It has the key of the data subject and no event yet: erasing waits until it is over."""
    await world.session(subject="customer-4711")
    name = world.clock.session()
    world.around.alive.add(name)
    await world.erasure.assign(name, "customer-4711")
    assert "just being created" in (await refusal(world, subject="customer-4711")).message


async def test_what_was_not_shown_is_not_erased(world: World) -> None:
    """Between the plan and the yes another session of the data subject came and ended."""
    seen = [await world.session(subject="customer-4711")]
    await world.session(subject="customer-4711")
    with pytest.raises(Conflict, match="other sessions than you were shown"):
        await erase(world.erasure, subject="customer-4711", seen=seen)
    assert await world.readable(seen[0])


async def test_unknown_names(world: World) -> None:
    """No such session, data subject, hold or month."""
    assert isinstance(await refusal(world, "s-nowhere"), NotFound)
    assert isinstance(await refusal(world, subject="nobody"), NotFound)
    with pytest.raises(NotFound):
        await world.erasure.release("h-nowhere", reason="r", actor=ANN, revision=1)
    with pytest.raises(NotFound):
        await world.erasure.hold({"session": "s-nowhere"}, reason="r", actor=ANN, revision=1)
    with pytest.raises(UsageError):
        await world.erasure.hold({"period": "2026-11"}, reason="r", actor=ANN, revision=1)


@pytest.mark.parametrize("stop", ["before the keys", "before the workspace", "before the read models"])
async def test_a_crash_at_any_step_is_made_up_for_at_the_next_start(
    world: World, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the tombstone on nothing is lost: the next start destroys the key and removes the workspace, once."""
    name = await world.session()
    key = (await world.keys.of_session(name)).id

    class Stopped(BaseException):
        pass

    def fail(*_: object) -> None:
        raise Stopped

    where = {
        "before the keys": (world.keys, "destroy"),
        "before the workspace": (world.around, "remove_workspace"),
        "before the read models": (world.around, "forgotten"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*where[stop], fail)
        with pytest.raises(Stopped):
            await erase(world.erasure, name)
    again = world.start()
    assert await again.finish() == (1 if stop == "before the keys" else 0)
    assert await world.keys.find(key) is None
    assert not await world.readable(name)
    assert world.around.rooms == set()
    assert await again.finish() == 0


async def test_an_older_copy_of_the_keys_does_not_bring_it_back(tmp_path: Path) -> None:
    """Somebody puts the key file back that was copied before the erasure: the next start destroys the key in it too."""
    world = World(tmp_path)
    name = await world.session()
    world.keys.close()
    shutil.copy(tmp_path / "keys.db", tmp_path / "copy.db")
    world.open_keys()
    await erase(world.start(), name)
    world.keys.close()
    shutil.copy(tmp_path / "copy.db", tmp_path / "keys.db")
    world.open_keys()
    assert await world.readable(name)
    assert await world.start().finish() == 1
    assert not await world.readable(name)


async def test_a_workspace_that_cannot_be_removed_is_said_and_tried_again(world: World) -> None:
    """The key is gone; the error goes to whoever erases, and the next start tries again. The others' workspaces go."""
    names = [await world.session(subject="customer-4711") for _ in range(3)]
    world.around.stuck = {names[1]}
    with pytest.raises(AgentOSError, match="cannot be removed"):
        await erase(world.erasure, subject="customer-4711")
    assert world.around.rooms == {names[1]}
    assert not any([await world.readable(name) for name in names])
    with pytest.raises(AgentOSError, match="cannot be removed"):
        await world.start().finish()
    world.around.stuck = set()
    await world.start().finish()
    assert world.around.rooms == set()


async def test_a_lost_answer_of_the_log_is_made_up_for(tmp_path: Path) -> None:
    """The tombstone is stored and nobody hears of it: asking again carries it out, and says that it was."""
    world = World(tmp_path)
    name = await world.session()
    append = world.raw.append

    async def unanswered(*args: object, **words: object) -> int:
        await append(*args, **words)  # type: ignore[arg-type]
        raise LogUnavailable("the event log does not answer")

    world.raw.append = unanswered  # type: ignore[method-assign, assignment]
    with pytest.raises(LogUnavailable):
        await erase(world.erasure, name)
    world.raw.append = append  # type: ignore[method-assign]
    assert (await erase(world.erasure, name)).already == (name,)
    assert not await world.readable(name)
    assert world.around.rooms == set()


async def test_a_hold_and_an_erasure_at_one_moment(world: World) -> None:
    """Either the hold was first, and nothing is erased; or the erasure was, and the hold is refused. Never both."""
    for _ in range(20):
        name = await world.session()
        both = await asyncio.gather(
            erase(world.erasure, name),
            world.erasure.hold({"session": name}, reason="a case", actor=ANN, revision=1),
            return_exceptions=True,
        )
        assert sum(isinstance(one, Conflict) for one in both) == 1, both
        assert await world.readable(name) == isinstance(both[0], Conflict)


async def test_two_runtimes_on_one_chain(world: World) -> None:
    """Another runtime places a hold between our look and our tombstone: the log lets one of us win."""
    name = await world.session()
    other = world.start()
    candidate = world.erasure.candidate
    asked = 0

    async def meanwhile(record: object, declared: object, last: bytes) -> object:
        nonlocal asked
        asked += 1
        if asked == 1:
            await other.hold({"session": name}, reason="a case", actor=ANN, revision=1)
        return await candidate(record, declared, last)  # type: ignore[arg-type]

    world.erasure.candidate = meanwhile  # type: ignore[method-assign, assignment]
    assert "legal hold" in (await _refused(world.erasure, name)).message
    assert await world.readable(name)


async def _refused(erasure: Erasure, name: str) -> AgentOSError:
    with pytest.raises(Conflict) as refused:
        await erase(erasure, name)
    return refused.value


async def test_many_sessions_of_one_data_subject(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one tombstone names are told in several, together."""
    monkeypatch.setattr("agentos.audit.erasure.TOGETHER", 2)
    names = [await world.session(subject="customer-4711") for _ in range(5)]
    await erase(world.erasure, subject="customer-4711")
    record = await world.erasure.chain.record()
    assert [len(one.sessions) for one in record.tombstones] == [2, 2, 1]
    assert set(record.erased) == set(names)
    assert not any([await world.readable(name) for name in names])


async def test_an_event_tells_its_agent_without_its_payload(world: World) -> None:
    """What is planned is read from headers: an erased session's agent is still known."""
    name = await world.session(agent="payer")
    await erase(world.erasure, name)
    last = await world.log.last(session_subject(name))
    assert last is not None
    assert Event.from_bytes(last.data).attributes["agent"] == "payer"
