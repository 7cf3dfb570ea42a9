"""Forks: whatever the point, the fork knows what was known there, has used what was used, and does nothing of it again."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from kernel_in_memory import ALLOW, EVENTS, TOOLS, InlineSpawner, Kernel, calls, settled, text

from agentos.abi import event as ev
from agentos.abi.canonical import digest
from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import Conflict, NotFound, PayloadErased, TooLarge, UsageError
from agentos.abi.event import Event
from agentos.abi.obligation import Obligation
from agentos.abi.record import decode, header_of
from agentos.abi.syscall import Result
from agentos.drivers.port import Outcome
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject
from agentos.files.guard import Guard, Stopped
from agentos.kernel import workspace_copy
from agentos.kernel.approvals import Scope
from agentos.kernel.fork import Fork, Forks, first_payload, read_point
from agentos.kernel.life import Life
from agentos.kernel.port import Configuration
from agentos.kernel.replay import read_history, replay
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import Workspaces
from agentos.kernel.workspace_copy import Copied, copy_workspace
from agentos.projections import context
from agentos.projections.difference import difference
from agentos.projections.session import SessionState, State, Step, fold, fold_all
from agentos.projections.state_document import digest_of_state, read_state

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
INDEX: dict[str, Any] = json.loads((GOLDEN / "index.json").read_text())
RIGHT = sorted(set(INDEX) - {"wrong"})
MADE = sorted(set(RIGHT) - {"triage", "obedient"})
ASK = Decision(Verdict.ASK, ("people.ask",), ("a person looks at it",))


@dataclass
class Many(Kernel):
    """A kernel with two agents: `worker` has all tools, `careful` cannot send."""

    def current(self, tenant: str) -> Configuration:
        configuration = super().current(tenant)
        worker = configuration.agents["worker"]
        careful = replace(worker, name="careful", tools=("read", "write"), goal_labels=("careful",), file_labels={".": ("own",)})
        return replace(configuration, agents={"worker": worker, "careful": careful})

    def forks(self, sessions: Sessions) -> Forks:
        return Forks(sessions, self, lambda _tenant: self.log, self.workspaces, self.timer)

    async def records(self, session: str) -> list[bytes]:
        return [stored.data async for stored in self.log.read(session_subject(session))]


@pytest.fixture
def kernel(tmp_path: Path) -> Many:
    return Many(Workspaces(tmp_path), seed=100)  # its sessions are others than those of the golden histories


async def keep(log: MemoryLog, name: str) -> tuple[str, list[Event]]:
    """Put a golden history into a log; return its session and events."""
    session, lines = INDEX[name]["session"], (GOLDEN / f"{name}.jsonl").read_bytes().splitlines()
    events = read_history(session, lines)
    for number, (event, line) in enumerate(zip(events, lines, strict=True)):
        await log.append(session_subject(session), [Message(event.id, line)], after=number)
    return session, events


def halted(call: Any) -> bool:
    return call.decision is not None and call.decision["effect"] == "halt"


@pytest.mark.parametrize("name", RIGHT)
async def test_a_fork_at_any_event_begins_in_the_state_of_that_event(name: str, kernel: Many) -> None:
    """Calls, spend, turns and labels are those of the prefix; what was open is unknown or forgotten, no yes goes over."""
    session, events = await keep(kernel.log, name)
    configuration = kernel.current("default")
    for seq in range(1, len(events) + 1):
        point = await read_point(kernel.log, "default", session, str(seq))
        before = fold_all(events[:seq])
        assert (point.seq, point.state, point.now.seq) == (seq, before, len(events))
        payload = first_payload(point, point.now, configuration.agents["careful"], Copied((), 0), 0, configuration)
        assert digest_of_state(read_state(payload["forked"]["state"])) == digest_of_state(before)
        data = {**payload, "goal": before.goal}
        EVENTS.validate({**json.loads(events[0].to_bytes()), "data": data})
        created = replace(events[0], subject="s-2", data=data)
        after = fold(SessionState(), created)

        gone = {one.call for one in before.calls.values() if one.step in {Step.ASKED, Step.APPROVED} or halted(one)}
        assert list(after.calls) == [call for call in before.calls if call not in gone]
        for call in after.calls.values():
            was = before.calls[call.call]
            if was.step is Step.ALLOWED:
                assert (call.step, call.result) == (Step.UNKNOWN, None)
            else:
                assert (call.step, call.result, call.error, call.args) == (was.step, was.result, was.error, was.args)
        for field in ("turn", "tool_calls", "input_tokens", "output_tokens", "model_calls", "goal"):
            assert getattr(after, field) == getattr(before, field), field
        assert after.labels >= before.labels | {"careful"}
        assert (after.state, after.seq, after.epoch, after.approvals) == (State.RUNNING, 1, 0, ())
        assert (after.waiting, after.paused, after.result, after.error) == (None, None, None, None)
        if not any(one.step is Step.ALLOWED or halted(one) for one in before.calls.values()):
            assert context.messages(after) == context.messages(before)


@pytest.mark.parametrize("name", MADE)
async def test_a_fork_at_any_event_goes_on_and_can_be_gone_through_again(name: str, kernel: Many) -> None:
    """It ends, makes no call that the prefix had made, and its own log alone is enough to replay it."""
    session, events = await keep(kernel.log, name)
    sessions = kernel.sessions()
    for seq in range(1, len(events) + 1):
        kernel.driver.calls.clear()
        fork = await kernel.forks(sessions).fork("default", session, str(seq), actor="principal/ann")
        await settled(sessions)
        records = await kernel.records(fork.state.id)
        mine = read_history(fork.state.id, records)
        final = fold_all(mine)
        assert final.state is State.FINISHED
        decided = {event.data["call"] for event in mine if event.type == ev.SYSCALL_DECIDED}
        assert not decided & set(fork.state.calls)
        assert len(kernel.driver.calls) <= len(decided)
        again = await replay(mine, InlineSpawner())
        assert (again.difference, again.state) == (None, digest_of_state(final))
        assert again.model_calls == sum(1 for call in decided if call.startswith("model-"))
        for record in records:
            EVENTS.validate(decode(record))
    assert await kernel.records(session) == (GOLDEN / f"{name}.jsonl").read_bytes().splitlines()


async def test_a_fork_goes_on_under_another_agent(kernel: Many) -> None:
    """What was sent is not sent again, what was spent counts, the model sees what it saw, and the log says where it is from."""
    kernel.model.replies = [calls(("c1", "send", {"path": "a"})), calls(("c2", "send", {"path": "b"})), text("sent twice")]
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "send both", None, "principal/op")).id
    await settled(sessions)
    before = await sessions.state("default", parent)
    kernel.model.replies[1:] = [calls(("c9", "write", {"path": "b"})), text("sent one, wrote one")]
    seen = len(kernel.model.seen)
    fork = await kernel.forks(sessions).fork(
        "default", parent, "5", actor="principal/ann", agent="careful", goal="send one", reason="the second was wrong"
    )
    await settled(sessions)
    after = await sessions.state("default", fork.state.id)
    assert kernel.driver.calls == [("send", {"path": "a"}), ("send", {"path": "b"}), ("write", {"path": "b"})]
    assert (after.state, after.result, after.agent, after.goal) == (State.FINISHED, "sent one, wrote one", "careful", "send one")
    assert (after.tool_calls, after.input_tokens) == (before.tool_calls, before.input_tokens)
    assert "careful" in after.labels
    shown = kernel.model.seen[seen]
    assert [tool["name"] for tool in shown.tools] == ["read", "write"]
    assert shown.messages[0]["content"][0]["text"] == "send one"
    assert shown.messages[1:] == kernel.model.seen[1].messages[1:]
    assert fork.origin["reason"] == "the second was wrong"
    created, *_ = await kernel.events(fork.state.id)
    assert (created.data["parent"], created.attributes["parent"], created.actor) == (parent, parent, "principal/ann")
    records = await kernel.records(parent)
    assert created.data["forked"]["head"] == digest(header_of(records[4]))
    found = difference(await kernel.events(parent), await kernel.events(fork.state.id))
    assert found["first"]["seq"] == 1
    changes = [(one["change"], (one["a"] or one["b"])["tool"]) for one in found["calls"]]
    assert changes == [("removed", "send"), ("added", "write")]


async def test_a_fork_under_the_same_words_differs_behind_the_point_only(kernel: Many) -> None:
    """Compared with the session that it is from, what they share is no difference."""
    kernel.model.replies = [calls(("c1", "read", {"path": "a"})), text("one")]
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "read", None, "principal/op")).id
    await settled(sessions)
    same = await kernel.forks(sessions).fork("default", parent, "4", actor="principal/op")
    await settled(sessions)
    kernel.model.replies[1] = text("two")
    other = await kernel.forks(sessions).fork("default", parent, "5", actor="principal/op")
    await settled(sessions)
    one, two, three = [await kernel.events(session) for session in (parent, same.state.id, other.state.id)]
    assert difference(one, three)["first"]["seq"] == difference(three, one)["first"]["seq"] == 7
    lost = difference(one, two)
    assert [row["differs"] for row in lost["calls"]] == [["outcome"]]


async def test_a_yes_is_not_inherited(kernel: Many) -> None:
    """Neither one for the session nor one to the call that was about to be made: the fork asks again."""
    kernel.policy.decide = lambda asked: ASK if asked["syscall"]["tool"] == "send" and not asked["approvals"] else ALLOW
    kernel.model.replies = [calls(("c1", "send", {"path": "a"}), ("c2", "send", {"path": "b"})), text("sent")]
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "send", None, "principal/op")).id
    await settled(sessions)
    await sessions.answer("default", parent, granted=True, reason="fine", actor="principal/ann", scope=Scope.SESSION)
    await settled(sessions)
    types = await kernel.types(parent)
    for point in (types.index("approval.granted") + 1, types.index("session.waiting") + 1, types.index("session.waiting")):
        fork = await kernel.forks(sessions).fork("default", parent, str(point), actor="principal/op")
        await settled(sessions)
        state = await sessions.state("default", fork.state.id)
        assert (state.state, state.waiting_for, state.approvals) == (State.WAITING, "c1", ())
        await sessions.cancel("default", fork.state.id, reason="seen", actor="principal/op")


async def test_what_was_under_way_is_unknown_and_settled_by_a_person(kernel: Many) -> None:
    """A call that was allowed and had no outcome is not made by the fork; what a person tells of it is cut as policy obliged."""
    bound = Obligation("redact", "x.redact", {"in": "result", "path": "/card"})
    kernel.policy.decide = lambda _: Decision(Verdict.ALLOW, ("x.rule",), (), (), (bound,))
    kernel.tools["send"] = replace(TOOLS["send"], labels=("pii",))
    kernel.model.replies = [calls(("c1", "send", {"path": "a"})), text("done")]
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "send", None, "principal/op")).id
    await settled(sessions)
    decided = 1 + (await kernel.types(parent)).index("syscall.finished", 4)
    kernel.driver.calls.clear()
    fork = await kernel.forks(sessions).fork("default", parent, str(decided - 1), actor="principal/op")
    assert fork.state.calls["c1"].step is Step.UNKNOWN
    assert "pii" in fork.state.labels
    life = Life(sessions, kernel, kernel.gate())
    state = await life.reconcile(
        "default", fork.state.id, "c1", outcome=Outcome.FINISHED, reason="seen", actor="principal/op", result="card 4111"
    )
    told = state.calls["c1"].result
    assert told is not None
    assert "4111" not in json.dumps(told)
    await settled(sessions)
    assert kernel.driver.calls == []


async def test_a_halt_is_decided_again(kernel: Many) -> None:
    """Policy halts the fork as it halted the session, unless it has changed; a restart does not halt it for the old decision."""
    kernel.policy.decide = lambda asked: (
        Decision(Verdict.HALT, ("x.halt",), ("enough",)) if asked["syscall"]["tool"] == "send" else ALLOW
    )
    kernel.model.replies = [calls(("c1", "send", {"path": "a"})), text("done")]
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "send", None, "principal/op")).id
    await settled(sessions)
    last = str((await sessions.state("default", parent)).seq)
    fork = await kernel.forks(sessions).fork("default", parent, last, actor="principal/op")
    await settled(sessions)
    assert (await sessions.state("default", fork.state.id)).state is State.HALTED
    kernel.policy.decide = lambda _: ALLOW
    fork = await kernel.forks(sessions).fork("default", parent, last, actor="principal/op")
    await settled(sessions)
    assert (await sessions.state("default", fork.state.id)).result == "done"
    assert kernel.driver.calls == [("send", {"path": "a"})]


async def test_the_files_are_those_of_now_and_bring_the_labels_of_now(kernel: Many) -> None:
    """A file may hold what the session learnt behind the point; while there is but input, the labels of the point are enough."""
    wrote = False

    async def write() -> Result:
        nonlocal wrote
        if wrote:
            (kernel.workspaces.path("default", parent) / "note.md").write_text("secret")
        return Result("ok")

    kernel.driver.answers = {"write": write, "read": Result("secret", labels=("pii",))}
    kernel.model.replies = [calls(("c1", "read", {"path": "a"})), calls(("c2", "write", {"path": "note.md"})), text("done")]
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "note", None, "principal/op")).id
    await settled(sessions)
    clean = await kernel.forks(sessions).fork("default", parent, "3", actor="principal/op")
    assert clean.state.labels == set()
    await settled(sessions)
    wrote = True
    await write()
    fork: Fork = await kernel.forks(sessions).fork("default", parent, "3", actor="principal/op")
    await settled(sessions)
    assert fork.state.labels == {"pii"}
    assert (kernel.workspaces.path("default", fork.state.id) / "note.md").read_text() == "secret"
    assert (fork.origin["files"], fork.origin["left"]) == (1, 0)
    assert "not as of the event" in fork.origin["workspace"]


@pytest.mark.parametrize(
    ("at", "words", "error", "told"),
    [
        ("0", {}, UsageError, "numbered from 1"),
        ("999", {}, UsageError, "none with number 999"),
        ("ffff", {}, NotFound, "no event with the id ffff"),
        ("3", {"agent": "nobody"}, NotFound, "no agent nobody"),
        ("8", {"goal": "other"}, UsageError, "its last word"),
        ("8", {"agent": "careful"}, UsageError, "its last word"),
    ],
)
async def test_what_cannot_be_forked_says_why(
    at: str, words: dict[str, str], error: type[Exception], told: str, kernel: Many
) -> None:
    """And leaves neither a session nor a folder."""
    kernel.model.replies = [calls(("c1", "read", {"path": "a"})), text("done")]
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "read", None, "principal/op")).id
    await settled(sessions)
    folders = list(kernel.workspaces.path("default", parent).parent.iterdir())
    with pytest.raises(error, match=told) as raised:
        await kernel.forks(sessions).fork("default", parent, at, actor="principal/op", **words)
    if "last word" in told:
        assert getattr(raised.value, "mend", "") == "fork before that: --at 5"
    assert list(kernel.workspaces.path("default", parent).parent.iterdir()) == folders
    with pytest.raises(NotFound, match="no session s-none"):
        await kernel.forks(sessions).fork("default", "s-none", "1", actor="principal/op")


async def test_a_point_is_found_by_the_id_of_its_event(kernel: Many) -> None:
    """As well as by its number."""
    session, events = await keep(kernel.log, "approval")
    by_id = await read_point(kernel.log, "default", session, events[6].id)
    assert by_id == await read_point(kernel.log, "default", session, "7")


async def test_an_erased_session_is_not_forked(kernel: Many) -> None:
    """Its payload is gone, and nothing is made up in its place."""
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "read", None, "principal/op")).id
    await settled(sessions)
    erased = MemoryLog()
    for number, record in enumerate(await kernel.records(parent)):
        await erased.append(session_subject(parent), [Message(str(number), header_of(record))], after=number)
    with pytest.raises(PayloadErased, match="erased"):
        await read_point(erased, "default", parent, "2")


async def test_a_fork_counts_among_the_live_sessions(kernel: Many) -> None:
    """Where no session may be started, none may be forked."""
    kernel.policy.decide = lambda asked: ASK if asked["syscall"]["tool"] == "send" else ALLOW
    kernel.model.replies = [calls(("c1", "send", {"path": "a"}))]
    sessions = kernel.sessions()
    parents = [(await sessions.create("default", "worker", "send", None, "principal/op")).id for _ in range(10)]
    await settled(sessions)
    with pytest.raises(Conflict, match="10 live sessions"):
        await kernel.forks(sessions).fork("default", parents[0], "1", actor="principal/op")


async def test_a_point_too_large_for_one_event_says_so(kernel: Many, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of the fork."""
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "read", None, "principal/op")).id
    await settled(sessions)

    async def full(*_: Any, **__: Any) -> int:
        raise TooLarge("an event has at most 8 bytes")

    monkeypatch.setattr(kernel.log, "append", full)
    with pytest.raises(TooLarge, match="too far on"):
        await kernel.forks(sessions).fork("default", parent, "1", actor="principal/op")
    assert [path.name for path in kernel.workspaces.path("default", parent).parent.iterdir()] == [parent]


async def test_forks_of_a_fork_go_on_too(kernel: Many) -> None:
    """What a fork inherited is inherited again."""
    kernel.model.replies = [calls(("c1", "send", {"path": "a"})), text("done")]
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "send", None, "principal/op")).id
    await settled(sessions)
    first = await kernel.forks(sessions).fork("default", parent, "5", actor="principal/op")
    await settled(sessions)
    second = await kernel.forks(sessions).fork("default", first.state.id, "1", actor="principal/op")
    await settled(sessions)
    assert second.state.calls == first.state.calls
    assert kernel.driver.calls == [("send", {"path": "a"})]
    assert (await sessions.state("default", second.state.id)).result == "done"
    again = await replay(read_history(second.state.id, await kernel.records(second.state.id)), InlineSpawner())
    assert (again.difference, again.model_calls, again.tool_calls) == (None, 1, 0)


def test_links_and_devices_are_not_copied(tmp_path: Path) -> None:
    """What a tool put into its workspace does not lead the copy out of it; regular files come with mode and digest."""
    source, target, outside = tmp_path / "from", tmp_path / "to", tmp_path / "outside"
    for folder in (source / "sub" / "deep", source / "empty", target, outside):
        folder.mkdir(parents=True)
    (outside / "key").write_text("key")
    (source / "sub" / "deep" / "run.sh").write_text("x")
    (source / "sub" / "deep" / "run.sh").chmod(0o755)
    (source / "file").symlink_to(outside / "key")
    (source / "folder").symlink_to(outside)
    os.mkfifo(source / "pipe")
    (source / ".agentos-tmp-1").write_text("half")
    (source / os.fsdecode(b"\xff")).write_text("odd")
    copied = copy_workspace(source, target, Guard())
    assert [file.path for file in copied.files] == ["sub/deep/run.sh"]
    assert copied.left == 4
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == ["sub", "sub/deep", "sub/deep/run.sh"]
    assert os.access(target / "sub" / "deep" / "run.sh", os.X_OK)


def test_a_copy_is_bounded_and_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is left then; a workspace that is gone has no files."""
    source, target = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    (source / "a").write_text("aaaa")
    (source / "b").write_text("bbbb")
    guard = Guard()
    guard.stop()
    for error, bounds in ((Stopped, {}), (UsageError, {"MAX_FILES": 1}), (UsageError, {"MAX_COPIED": 5})):
        target.mkdir()
        with monkeypatch.context() as patch:
            for name, value in bounds.items():
                patch.setattr(workspace_copy, name, value)
            with pytest.raises(error):
                copy_workspace(source, target, guard if error is Stopped else Guard())
        assert not target.exists()
    target.mkdir()
    assert copy_workspace(tmp_path / "none", target, Guard()) == Copied((), 0)


async def test_a_caller_that_gives_up_leaves_no_copy(kernel: Many, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy in the other thread is stopped, and cleans up behind itself."""
    sessions = kernel.sessions()
    parent = (await sessions.create("default", "worker", "read", None, "principal/op")).id
    await settled(sessions)
    begun, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(source: Path, target: Path, guard: Guard, _take: object) -> Copied:
        loop.call_soon_threadsafe(begun.set)
        try:
            while True:
                guard.check()
        finally:
            loop.call_soon_threadsafe(ended.set)

    monkeypatch.setattr("agentos.kernel.fork.copy_workspace", slow)
    task = asyncio.create_task(kernel.forks(sessions).fork("default", parent, "1", actor="principal/op"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended.wait()


async def test_a_fork_has_the_class_and_the_deadline_of_its_run(kernel: Many) -> None:
    """Unless it is told others, the tenant may not use that class any more, or the deadline is over."""
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op", priority="batch", due_in_ms=10**9)).id
    await settled(sessions)
    made = await kernel.forks(sessions).fork("default", session, "1", actor="principal/op")
    parent = await sessions.state("default", session)
    assert (made.state.priority, made.state.deadline_ms) == ("batch", parent.deadline_ms)
    told = await kernel.forks(sessions).fork("default", session, "1", actor="principal/op", priority="interactive", due_in_ms=1)
    assert told.state.priority == "interactive"
    assert told.state.deadline_ms is not None
    assert parent.deadline_ms is not None
    assert told.state.deadline_ms < parent.deadline_ms
    point = await read_point(kernel.log, "default", session, "1")
    configuration = kernel.current("default")
    barred = replace(configuration, arbitration=replace(configuration.arbitration, allowed=frozenset({"standard"})))
    late = first_payload(point, point.now, configuration.agents["worker"], Copied((), 0), parent.deadline_ms, barred)
    assert not {"priority", "deadline_ms"} & set(late)
    await settled(sessions)
