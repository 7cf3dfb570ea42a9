"""Sessions end to end in memory: the real gate, runner and loop over the memory log."""

from __future__ import annotations

import asyncio

import pytest
from kernel_in_memory import ALLOW, Kernel, calls, settled, text

from agentos.abi.chain import verify
from agentos.abi.decision import Decision, Verdict, deny
from agentos.abi.errors import Conflict, DriverError, NotFound, OutcomeUnknown, Unavailable, UsageError
from agentos.abi.syscall import Result
from agentos.eventlog.subject import session_subject


async def start(kernel: Kernel, goal: str = "work") -> tuple:
    sessions = kernel.sessions()
    state = await sessions.create("default", "worker", goal, None, "principal/op")
    await settled(sessions)
    return sessions, state.id


async def test_a_run_leaves_decisions_before_outcomes_in_one_chain(kernel: Kernel) -> None:
    """Each allowed call is decided before it acts, and the session's events form one chain."""
    kernel.model.replies = [calls(("c1", "write", {"path": "a"})), text("all done")]
    sessions, session = await start(kernel)
    assert await kernel.types(session) == [
        "session.created",
        "syscall.decided",
        "syscall.finished",
        "syscall.decided",
        "syscall.finished",
        "syscall.decided",
        "syscall.finished",
        "session.finished",
    ]
    state = await sessions.state("default", session)
    assert (state.state, state.result, state.tool_calls) == ("finished", "all done", 1)
    head = verify(session, [stored.data async for stored in kernel.log.read(session_subject(session))])
    assert head.seq == 8


async def test_a_denied_call_never_reaches_the_driver(kernel: Kernel) -> None:
    """A denial is logged with its rule, told to the model, and acts on nothing."""
    kernel.policy.decide = lambda doc: deny("grants.none", "no grant") if doc["syscall"]["tool"] == "send" else ALLOW
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("could not")]
    await start(kernel)
    assert kernel.driver.calls == []
    told = kernel.model.seen[-1].messages[-1]["content"][0]
    assert told["is_error"] is True
    assert "grants.none" in told["content"]


async def test_a_malformed_call_is_logged_and_told_and_never_decided(kernel: Kernel) -> None:
    """Arguments that do not fit the schema, and unknown tools, are refused before policy sees them."""
    kernel.model.replies = [
        calls(("c1", "write", {"path": 7}), ("c2", "wrote", {"path": "a"}), ("c3", "write", {"path": "a", "n": 2**60})),
        text("sorry"),
    ]
    _, session = await start(kernel)
    refused = [event.data for event in await kernel.events(session) if event.type.endswith("refused")]
    assert [item["call"] for item in refused] == ["c1", "c2", "c3"]
    assert "did you mean write" in refused[1]["error"]["message"]
    assert all(doc["syscall"]["tool"] == "model-call" for doc in kernel.policy.asked)
    assert kernel.driver.calls == []


async def test_halt_stops_the_session(kernel: Kernel) -> None:
    """`halt` ends the session at once; nothing after it runs."""
    halt = Decision(Verdict.HALT, ("x.stop",), ("enough",))
    kernel.policy.decide = lambda doc: halt if doc["syscall"]["tool"] == "send" else ALLOW
    kernel.model.replies = [calls(("c1", "send", {"path": "x"}), ("c2", "write", {"path": "a"}))]
    sessions, session = await start(kernel)
    assert (await sessions.state("default", session)).state == "halted"
    assert kernel.driver.calls == []


def asks(document: dict) -> Decision:
    """A policy that asks for `send` until it is approved."""
    if document["syscall"]["tool"] != "send":
        return ALLOW
    if not document["approvals"]:
        return Decision(Verdict.ASK, ("grants.approval",), ("needs a person",))
    return Decision(Verdict.ALLOW, ("grants.approval", "syscall.approved"), ("approved",))


async def test_ask_parks_and_an_approval_after_a_restart_runs_exactly_that_call(kernel: Kernel) -> None:
    """A parked session holds nothing; a runtime that never saw it resumes it on an approval and acts once."""
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("sent")]
    sessions, session = await start(kernel)
    assert (await sessions.state("default", session)).state == "waiting"
    assert (kernel.driver.calls, sessions.running()) == ([], 0)

    later = kernel.sessions()
    await later.answer("default", session, granted=True, reason="fine", actor="principal/ann")
    await settled(later)
    assert kernel.driver.calls == [("send", {"path": "x"})]
    decided = [event for event in await kernel.events(session) if event.type.endswith("decided")]
    assert decided[-2].data["approvals"] == [{"call": "c1", "by": "principal/ann", "reason": "fine", "scope": "once"}]
    assert (await later.state("default", session)).state == "finished"


async def test_a_refusal_by_a_person_is_told_to_the_model(kernel: Kernel) -> None:
    """A no wakes the session, is attributed, and nothing acts."""
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("understood")]
    sessions, session = await start(kernel)
    await sessions.answer("default", session, granted=False, reason="not to customers", actor="principal/ann")
    await settled(sessions)
    assert kernel.driver.calls == []
    assert "principal/ann said no: not to customers" in kernel.model.seen[-1].messages[-1]["content"][0]["content"]


async def test_only_the_first_of_two_answers_counts(kernel: Kernel) -> None:
    """Two approvers at once: one is told that it was too late."""
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("sent")]
    sessions, session = await start(kernel)
    answers = await asyncio.gather(
        sessions.answer("default", session, granted=True, reason="yes", actor="principal/ann"),
        sessions.answer("default", session, granted=False, reason="no", actor="principal/bob"),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers].count(Conflict) == 1
    await settled(sessions)
    assert len(kernel.driver.calls) == 1


async def test_an_approval_names_the_call_it_is_for(kernel: Kernel) -> None:
    """An answer for another call than the one that waits is refused."""
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"}))]
    sessions, session = await start(kernel)
    with pytest.raises(Conflict):
        await sessions.answer("default", session, granted=True, reason="r", actor="principal/ann", call="c9")


async def test_a_completed_call_is_not_repeated_after_a_crash(kernel: Kernel) -> None:
    """A runtime that stops between two calls of one reply performs only the second one after it is back."""
    gone = asyncio.Event()

    async def hang() -> Result:
        gone.set()
        await asyncio.Event().wait()
        raise AssertionError

    kernel.driver.answers["read"] = hang
    kernel.model.replies = [calls(("c1", "write", {"path": "a"}), ("c2", "read", {"path": "b"})), text("done")]
    sessions = kernel.sessions()
    state = await sessions.create("default", "worker", "work", None, "principal/op")
    await gone.wait()
    await sessions.close()

    kernel.driver.answers.clear()
    later = kernel.sessions()
    await later.resume("default", state.id)
    await settled(later)
    assert [name for name, _ in kernel.driver.calls].count("write") == 1
    assert (await later.state("default", state.id)).state == "finished"
    assert "session.owned" in await kernel.types(state.id)


@pytest.mark.parametrize(("name", "repeated"), [("send", False), ("write", True), ("read", True)])
async def test_after_a_crash_only_repeatable_calls_are_performed_again(kernel: Kernel, name: str, repeated: bool) -> None:
    """An allowed call without an outcome is repeated if its tool is idempotent or reads; else it is unknown."""
    kernel.model.replies = [calls(("c1", name, {"path": "a"})), text("done")]
    _, session = await start(kernel)
    whole = [stored async for stored in kernel.log.read(session_subject(session))]
    cut = next(i for i, event in enumerate(await kernel.events(session)) if event.data.get("call") == "c1") + 1
    kernel.log = type(kernel.log)()
    position = 0
    from agentos.eventlog.port import Message

    for number, stored in enumerate(whole[:cut]):
        position = await kernel.log.append(stored.subject, [Message(str(number), stored.data)], after=position)
    kernel.driver.calls.clear()
    later = kernel.sessions()
    await later.resume("default", session)
    await settled(later)
    assert len(kernel.driver.calls) == (1 if repeated else 0)
    assert ("syscall.unknown" in await kernel.types(session)) is not repeated
    assert (await later.state("default", session)).state == "finished"


async def test_an_unknown_outcome_is_recorded_as_unknown(kernel: Kernel) -> None:
    """A driver that cannot tell whether it acted makes the call unknown, and the model is told."""
    kernel.driver.answers["send"] = OutcomeUnknown("timed out")
    kernel.model.replies = [calls(("c1", "send", {"path": "x"})), text("hm")]
    _, session = await start(kernel)
    assert "syscall.unknown" in await kernel.types(session)


async def test_cancel_stops_an_acting_tool_and_says_what_is_known(kernel: Kernel) -> None:
    """Cancelling in mid-call records that the outcome is unknown, then the cancellation with its actor."""
    gone = asyncio.Event()

    async def hang() -> Result:
        gone.set()
        await asyncio.Event().wait()
        raise AssertionError

    kernel.driver.answers["send"] = hang
    kernel.model.replies = [calls(("c1", "send", {"path": "x"}))]
    sessions = kernel.sessions()
    state = await sessions.create("default", "worker", "work", None, "principal/op")
    await gone.wait()
    await sessions.cancel("default", state.id, reason="stop it", actor="principal/op")
    assert (await kernel.types(state.id))[-2:] == ["syscall.unknown", "session.cancelled"]
    with pytest.raises(Conflict):
        await sessions.cancel("default", state.id, reason="again", actor="principal/op")


async def test_what_others_record_of_a_session_carries_the_revision_in_force(kernel: Kernel) -> None:
    """An answer, a take-over and a cancellation name the revision and the policy of the moment; the session's own stays."""
    kernel.policy.decide = asks
    kernel.model.replies = [calls(("c1", "send", {"path": "x"}), ("c2", "send", {"path": "y"}))]
    sessions, session = await start(kernel)
    kernel.revision, kernel.policy_digest = 2, "sha256:" + "b" * 64
    await sessions.answer("default", session, granted=False, reason="no", actor="principal/ann")
    await settled(sessions)
    kernel.revision, kernel.policy_digest = 3, "sha256:" + "c" * 64
    await sessions.cancel("default", session, reason="enough", actor="principal/op")
    found = {event.type.removeprefix("agentos."): event for event in await kernel.events(session)}
    told = {
        name: (found[name].config_revision, found[name].policy_digest[-1]) for name in ("approval.denied", "session.cancelled")
    }
    assert told == {"approval.denied": (2, "b"), "session.cancelled": (3, "c")}
    assert found["session.revised"].data == {"from": 1, "to": 2}


async def test_a_call_that_was_allowed_and_not_made_has_an_outcome_when_its_session_is_cancelled(kernel: Kernel) -> None:
    """A runtime that stopped between the record and the act: the call is said to be unknown before the end."""
    from agentos.eventlog.port import Message

    kernel.model.replies = [calls(("c1", "write", {"path": "a"})), text("done")]
    _, session = await start(kernel)
    whole = [stored async for stored in kernel.log.read(session_subject(session))]
    cut = next(i for i, event in enumerate(await kernel.events(session)) if event.data.get("call") == "c1") + 1
    kernel.log = type(kernel.log)()
    position = 0
    for number, stored in enumerate(whole[:cut]):
        position = await kernel.log.append(stored.subject, [Message(str(number), stored.data)], after=position)
    await kernel.sessions().cancel("default", session, reason="enough", actor="principal/op")
    assert (await kernel.types(session))[-2:] == ["syscall.unknown", "session.cancelled"]


async def test_a_session_whose_harness_cannot_be_started_is_run_later(kernel: Kernel) -> None:
    """Too many open files pass: the session is tried again, with longer and longer pauses, and nothing is written meanwhile."""
    spawn, failures = kernel.spawner.spawn, [Unavailable("too many open files")] * 3

    async def failing(session: str) -> object:
        if failures:
            raise failures.pop()
        return await spawn(session)

    kernel.spawner.spawn = failing
    kernel.model.replies = [text("all done")]
    sessions, session = await start(kernel)
    assert (await sessions.state("default", session)).result == "all done"
    assert (await kernel.types(session))[:2] == ["session.created", "syscall.decided"]


async def test_a_model_that_fails_for_a_moment_is_asked_again(kernel: Kernel) -> None:
    """Each try is a syscall of its own in the log; the session goes on."""
    busy = DriverError("overloaded")
    busy.retryable = True  # type: ignore[misc]
    kernel.model.replies = [[busy, busy, text("here I am")]]
    sessions, session = await start(kernel)
    assert (await kernel.types(session)).count("syscall.failed") == 2
    assert (await sessions.state("default", session)).result == "here I am"


async def test_a_model_that_fails_for_good_fails_the_session(kernel: Kernel) -> None:
    """An error that cannot pass ends the session with its message."""
    kernel.model.replies = [DriverError("no key")]
    sessions, session = await start(kernel)
    state = await sessions.state("default", session)
    assert state.state == "failed"
    assert "no key" in state.error["message"]


async def test_a_reply_that_reuses_a_call_id_is_refused(kernel: Kernel) -> None:
    """The result of an old call is never taken for a new one's."""
    kernel.model.replies = [calls(("c1", "write", {"path": "a"})), calls(("c1", "send", {"path": "b"}))]
    sessions, session = await start(kernel)
    assert (await sessions.state("default", session)).state == "failed"
    assert kernel.driver.calls == [("write", {"path": "a"})]


async def test_a_session_moves_to_a_new_revision_at_its_next_turn(kernel: Kernel) -> None:
    """The turn under way keeps its revision; the log says when the session moved."""

    async def change() -> Result:
        kernel.revision = 2
        return Result("ok")

    kernel.driver.answers["write"] = change
    kernel.model.replies = [calls(("c1", "write", {"path": "a"}), ("c2", "read", {"path": "b"})), text("done")]
    _, session = await start(kernel)
    revisions = [(event.type.removeprefix("agentos."), event.config_revision) for event in await kernel.events(session)]
    moved = revisions.index(("session.revised", 2))
    assert all(revision == 1 for _, revision in revisions[:moved])
    assert all(revision == 2 for _, revision in revisions[moved:])
    assert revisions[moved - 2] == ("syscall.decided", 1)


async def test_what_is_not_declared_cannot_run(kernel: Kernel) -> None:
    """An unknown agent is an error that lists the known ones; nothing is created."""
    with pytest.raises(NotFound) as caught:
        await kernel.sessions().create("default", "nobody", "work", None, "principal/op")
    assert "worker" in str(caught.value.mend)


async def test_hostile_input_archives_are_refused(kernel: Kernel) -> None:
    """Junk, climbing names and links are refused and leave no workspace."""
    import io
    import tarfile

    def tar(info: tarfile.TarInfo) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.addfile(info, io.BytesIO(b"x" * info.size))
        return buffer.getvalue()

    climbing, absolute, link = tarfile.TarInfo("../x"), tarfile.TarInfo("/x"), tarfile.TarInfo("x")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    sessions = kernel.sessions()
    for archive in (b"junk", tar(climbing), tar(absolute), tar(link)):
        with pytest.raises(UsageError):
            await sessions.create("default", "worker", "work", archive, "principal/op")
    assert list(kernel.workspaces.path("default", "x").parent.iterdir()) == []
