"""Delegating: children are begun once, waited for at no cost, joined by mode, and never outlive whom they work for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from delegating_in_memory import House, hand
from kernel_in_memory import ALLOW, Kernel, calls, text

from agentos.abi.decision import FAILED, Decision, Verdict
from agentos.abi.syscall import Result
from agentos.drivers.port import CallContext
from agentos.kernel.fork import Forks
from agentos.kernel.replay import replay
from agentos.projections.session import Step

TWO = {"tasks": [{"agent": "writer", "goal": "write it"}, {"agent": "checker", "goal": "check it"}]}


@pytest.fixture
async def house(kernel: Kernel) -> AsyncIterator[House]:
    made = House(kernel)
    made.model.plays["boss"] = [calls(("c1", "hand", TWO)), text("thanks")]
    yield made
    await made.stop()


def held(house: House, tool: str = "write") -> asyncio.Event:
    """Hold every call of a tool until the event is set."""
    go = asyncio.Event()

    async def call(_context: CallContext) -> Result:
        await go.wait()
        return Result("done")

    house.answers[tool] = call
    return go


async def test_each_task_becomes_a_child_and_the_results_come_back(house: House) -> None:
    """Children carry the parent's labels, know who asked, share its key; the result names them and carries their labels."""
    house.model.plays |= {"writer": [text("written")], "checker": [text("checked")]}
    boss = await house.run()
    state = await house.over(boss)
    assert state.result == "thanks"
    call = state.calls["c1"]
    assert call.result is not None
    assert call.step is Step.FINISHED
    writer, checker = state.delegations["c1"]
    content = call.result["content"]
    assert "written" in content
    assert "checked" in content
    assert [(one["session"], one["agent"], one["outcome"]) for one in call.result["data"]["children"]] == [
        (writer, "writer", "finished"),
        (checker, "checker", "finished"),
    ]
    assert {"of-writer", "of-checker"} <= state.labels
    child = await house.state(writer)
    assert (child.goal, child.agent, child.actor) == ("write it", "writer", state.actor)
    assert {"of-boss", "of-writer"} <= child.labels
    assert child.delegated is not None
    assert child.delegated["lineage"] == [boss]
    assert sorted(house.joined) == sorted([(writer, boss), (checker, boss)])
    decided = [event for event in await house.kernel.published(boss) if event.data.get("children")]
    assert [event.attributes["children"] for event in decided] == [f"{writer},{checker}"]


async def test_whoever_waits_for_long_holds_no_place(house: House) -> None:
    """After the grace the parent's harness is gone; its call goes on as the same children end, decided once more."""
    go = held(house)
    house.model.plays |= {"writer": [calls(("w", "write", {"path": "a", "content": "b"}))], "checker": [text("checked")]}
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    writer, checker = await house.children(boss)
    await house.over(checker)
    await house.until(lambda: house.seats() == {boss, writer})
    await house.clock.advance(1000)
    await house.until(lambda: len(house.seats()) == 1)
    before = await house.children(boss)
    go.set()
    state = await house.over(boss)
    assert state.result == "thanks"
    assert state.delegations["c1"] == before
    assert len(house.sent) == 2, "nothing was sent again"
    types = await house.kernel.types(boss)
    assert types.count("syscall.decided") == 4, "two calls of the model, and the delegation twice"


@pytest.mark.parametrize("mode", [{"mode": "first"}, {"mode": "quorum", "quorum": 1}])
async def test_enough_is_enough(house: House, mode: dict[str, Any]) -> None:
    """With `first` the others are cancelled as soon as one has finished, and say nothing."""
    house.kernel.tools["hand"] = hand(**mode)
    held(house)
    house.model.plays |= {"writer": [calls(("w", "write", {"path": "a", "content": "b"}))], "checker": [text("checked")]}
    boss = await house.run()
    state = await house.over(boss)
    result = state.calls["c1"].result
    assert result is not None
    assert not result["is_error"]
    assert [one["outcome"] for one in result["data"]["children"]] == ["cancelled", "finished"]
    writer, _ = state.delegations["c1"]
    assert (await house.over(writer)).state == "cancelled"
    assert "of-writer" not in state.labels, "no word of it came back"


async def test_a_child_that_fails_is_an_error_that_tells_what_the_others_did(house: House) -> None:
    """`all` hears everybody; the model reads which one failed."""
    house.model.plays |= {"checker": [text("checked")]}
    house.offered["writer"] = ()
    house.kernel.policy.decide = lambda document: (
        Decision(Verdict.HALT, ("stop",), ("enough",)) if document["agent"]["name"] == "writer" else ALLOW
    )
    boss = await house.run()
    state = await house.over(boss)
    result = state.calls["c1"].result
    assert result is not None
    assert result["is_error"]
    assert [one["outcome"] for one in result["data"]["children"]] == ["halted", "finished"]
    assert "checked" in result["content"]


async def test_files_go_over_and_come_back_with_their_labels(house: House) -> None:
    """What is named stands in the child's `input/`, its `output/` below `delegated/`, and reading that brings its labels."""
    args = {"agent": "writer", "goal": "copy", "inputs": ["notes.md"], "events": {"first": 1, "last": 2}}
    house.model.plays["boss"] = [
        calls(("w1", "write", {"path": "notes.md", "content": "secret plan"})),
        calls(("c1", "hand", args)),
        calls(("r1", "read", {"path": "delegated/c1/0/copy.md"})),
        text("thanks"),
    ]
    house.model.plays["writer"] = [
        calls(("r1", "read", {"path": "input/notes.md"})),
        calls(("w1", "write", {"path": "output/copy.md", "content": "a copy"})),
        text("copied"),
    ]
    boss = await house.run()
    state = await house.over(boss)
    (writer,) = state.delegations["c1"]
    child = await house.state(writer)
    assert {item["path"]: set(item["labels"]) for item in child.inputs} == {
        "input/notes.md": {"of-boss"},
        "input/context.jsonl": {"of-boss"},
    }
    assert child.calls["r1"].result is not None
    assert child.calls["r1"].result["content"] == "secret plan"
    read = state.calls["r1"].result
    assert read is not None
    assert read["content"] == "a copy"
    assert {"of-boss", "of-writer"} <= set(read["labels"])
    assert [item["path"] for item in state.labelled] == ["delegated/c1/0", "delegated/c1/0.txt"]
    lines = house.kernel.workspaces.path("default", writer).joinpath("input/context.jsonl").read_text().splitlines()
    assert len(lines) == 2


async def test_one_more_child_makes_one_of_the_results(house: House) -> None:
    """It begins once the others have finished, finds their results in files, carries their labels, and speaks for all."""
    house.kernel.tools["hand"] = hand(reduce={"agent": "editor", "goal": "merge"})
    house.model.plays |= {
        "writer": [calls(("w", "write", {"path": "output/a.md", "content": "A"})), text("written")],
        "checker": [text("checked")],
        "editor": [calls(("r", "read", {"path": "input/results/0.json"})), text("merged")],
    }
    boss = await house.run()
    state = await house.over(boss)
    *_, editor = state.delegations["c1"]
    child = await house.state(editor)
    assert {item["path"] for item in child.inputs} == {f"input/results/{name}" for name in ("0.json", "1.json", "0/a.md")}
    assert {"of-writer", "of-checker", "of-boss"} <= child.labels
    assert child.calls["r"].result is not None
    assert '"result": "written"' in child.calls["r"].result["content"]
    result = state.calls["c1"].result
    assert result is not None
    assert result["content"] == "merged"


async def test_whoever_is_cancelled_takes_its_children_and_theirs_along(house: House) -> None:
    """Two levels down: all are cancelled by the kernel, with the reason."""
    held(house)
    house.kernel.tools["on"] = hand("on", agents=["checker"])
    house.model.plays |= {
        "boss": [calls(("c1", "hand", {"agent": "writer", "goal": "x"}))],
        "writer": [calls(("c2", "on", {"goal": "y"}))],
        "checker": [calls(("w", "write", {"path": "a", "content": "b"}))],
    }
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    (writer,) = await house.children(boss)
    (checker,) = await house.children(writer)
    await house.sessions.cancel("default", boss, reason="enough", actor="principal/op")
    for one in (writer, checker):
        state = await house.over(one)
        assert state.state == "cancelled"
        assert state.error is not None
        assert "of session" in state.error["message"]
    assert not house.sessions.live("default")


async def test_a_child_still_on_its_way_does_not_outlive_its_parent(house: House) -> None:
    """Its envelope comes after the end of the parent: nothing begins."""
    house.delivers = False
    boss = await house.run()
    await house.until(lambda: len(house.sent) == 2)
    children = await house.children(boss)
    await house.sessions.cancel("default", boss, reason="enough", actor="principal/op")
    house.deliver()
    await house.until(lambda: len(house.received) == 2)
    assert {one.code for one in house.received} == {"delegation.over"}
    for child in children:
        assert await house.kernel.events(child) == []


async def test_after_its_time_the_call_fails_and_its_children_are_cancelled(house: House) -> None:
    """The model reads who was not done."""
    house.kernel.tools["hand"] = hand(seconds=60)
    held(house)
    house.model.plays |= {"writer": [calls(("w", "write", {"path": "a", "content": "b"}))], "checker": [text("checked")]}
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    writer, checker = await house.children(boss)
    await house.over(checker)
    await house.clock.advance(59_000)
    assert not (await house.state(boss)).over
    await house.clock.advance(2_000)
    state = await house.over(boss)
    error = state.calls["c1"].error
    assert error is not None
    assert (error["code"], writer in error["message"], checker in error["message"]) == ("delegation.late", True, False)
    assert (await house.over(writer)).state == "cancelled"


async def test_a_refused_child_is_told_to_the_model_and_stands_in_the_log(house: House) -> None:
    """Two live sessions are all the tenant may have: the second child does not begin."""
    house.most = 2
    go = held(house)
    house.model.plays |= {"writer": [calls(("w", "write", {"path": "a", "content": "b"}))], "checker": [text("checked")]}
    boss = await house.run()
    await house.until(lambda: len(house.received) == 2)
    go.set()
    state = await house.over(boss)
    result = state.calls["c1"].result
    assert result is not None
    outcomes = sorted(one["outcome"] for one in result["data"]["children"])
    assert outcomes == ["finished", "refused"]
    assert "may have 2" in result["content"]
    assert (await house.kernel.types(boss)).count("delegation.refused") == 1


async def test_arguments_that_make_no_task_begin_nobody(house: House) -> None:
    """Both a goal and tasks, neither of them, or no agent named: an error to the model, and no child."""
    house.model.plays["boss"] = [
        calls(("c1", "hand", {})),
        calls(("c2", "hand", {"goal": "x", **TWO})),
        calls(("c3", "hand", {"goal": "x"})),
        calls(("c4", "hand", {"agent": "writer", "goal": "x", "inputs": ["nothing.md"]})),
        text("thanks"),
    ]
    state = await house.over(await house.run())
    assert [state.calls[f"c{number}"].step for number in (1, 2, 3, 4)] == [Step.FAILED] * 4
    assert not house.sent
    assert state.result == "thanks"


async def test_a_restart_finds_the_children_that_there_are(house: House) -> None:
    """One had finished, one was at work, none was begun twice; the call is decided anew, with the same children."""
    go = held(house)
    house.model.plays |= {"writer": [calls(("w", "write", {"path": "a", "content": "b"}))], "checker": [text("checked")]}
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    writer, checker = before = await house.children(boss)
    await house.over(checker)
    await house.restart(boss, writer, checker)
    assert (await house.state(boss)).calls["c1"].step is Step.ALLOWED, "a stop fails no delegation"
    go.set()
    state = await house.over(boss)
    assert state.result == "thanks"
    assert state.delegations["c1"] == before
    assert sorted(house.sent) == sorted(before)
    assert (await house.kernel.types(writer)).count("session.created") == 1


async def test_a_restart_asks_nothing_of_files_that_a_child_has_by_now(house: House) -> None:
    """What was handed over is gone from the parent's workspace: the child that works with its copy goes on."""
    go = held(house)
    house.answers["read"] = lambda context: _put(context, "notes.md")
    args = {"agent": "writer", "goal": "go on", "inputs": ["notes.md"]}
    house.model.plays["boss"] = [calls(("r", "read", {"path": "x"})), calls(("c1", "hand", args)), text("thanks")]
    house.model.plays["writer"] = [calls(("w", "write", {"path": "a", "content": "b"})), text("written")]
    boss = await house.run()
    await house.until(lambda: any(tool == "write" for _, tool, _ in house.files.calls))
    (writer,) = await house.children(boss)
    (house.kernel.workspaces.path("default", boss) / "notes.md").unlink()
    await house.restart(boss, writer)
    go.set()
    state = await house.over(boss)
    assert state.calls["c1"].step is Step.FINISHED
    assert (await house.state(writer)).state == "finished"


async def _put(context: CallContext, name: str) -> Result:
    (context.workspace / name).write_text("notes")
    return Result("done")


async def test_a_restart_begins_what_had_not_begun(house: House) -> None:
    """The envelopes were lost with the runtime: they are sent again, and each child begins once, however often they come."""
    house.model.plays |= {"writer": [text("written")], "checker": [text("checked")]}
    house.delivers = False
    boss = await house.run()
    await house.until(lambda: len(house.sent) == 2)
    lost = list(house.queue)
    house.queue.clear()
    await house.restart(boss)
    house.delivers = True
    await house.until(lambda: len(house.sent) == 4)
    house.queue += lost
    house.deliver()
    state = await house.over(boss)
    assert state.result == "thanks"
    for child in state.delegations["c1"]:
        assert (await house.kernel.types(child)).count("session.created") == 1


async def test_what_is_not_allowed_any_more_after_a_restart_is_ended(house: House) -> None:
    """The second decision denies: the children that were at work are cancelled."""
    held(house)
    house.model.plays |= {"writer": [calls(("w", "write", {"path": "a", "content": "b"}))], "checker": [text("checked")]}
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    writer, _ = await house.children(boss)
    house.kernel.policy.decide = lambda document: (
        Decision(Verdict.DENY, ("grants.none",), ("revoked",)) if document["syscall"]["tool"] == "hand" else ALLOW
    )
    await house.restart(boss, writer)
    state = await house.over(boss)
    assert state.calls["c1"].step is Step.DENIED
    assert (await house.over(writer)).state == "cancelled"


async def test_no_word_of_policy_ends_nothing_that_is_under_way(house: House) -> None:
    """The engine is out of reach when the call is decided again: it is asked later, and the children are at work meanwhile."""
    go = held(house)
    house.model.plays |= {
        "writer": [calls(("w", "write", {"path": "a", "content": "b"})), text("written")],
        "checker": [text("checked")],
    }
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    writer, checker = await house.children(boss)
    await house.over(checker)
    away = Decision(Verdict.DENY, (FAILED,), ("the engine is out of reach",))
    house.kernel.policy.decide = lambda document: away if document["syscall"]["tool"] == "hand" else ALLOW
    await house.restart(boss, writer)
    asked = len(house.kernel.policy.asked)
    await house.until(lambda: any(one["syscall"]["tool"] == "hand" for one in house.kernel.policy.asked[asked:]))
    state = await house.state(boss)
    assert state.calls["c1"].step is Step.ALLOWED
    assert not (await house.state(writer)).over
    house.kernel.policy.decide = lambda _: ALLOW
    go.set()
    await house.clock.advance(1000)
    state = await house.over(boss)
    assert state.result == "thanks"
    assert state.calls["c1"].step is Step.FINISHED


async def test_a_restart_ends_children_whose_parent_is_over(house: House) -> None:
    """The runtime died between the end of the parent and the ends of its children."""
    held(house)
    house.model.plays |= {"writer": [calls(("w", "write", {"path": "a", "content": "b"}))], "checker": [text("checked")]}
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    writer, _ = await house.children(boss)
    house.delegator.cascade._children.clear()  # as if it had died by then
    await house.sessions.cancel("default", boss, reason="enough", actor="principal/op")
    assert not (await house.state(writer)).over
    await house.restart(writer)
    assert (await house.over(writer)).state == "cancelled"


async def test_a_narrowed_child_is_offered_only_what_it_may_use(house: House) -> None:
    """Its model sees the tools that its agent has and the call names."""
    house.model.plays["boss"] = [
        calls(("c1", "hand", {"agent": "writer", "goal": "x", "tools": ["read", "send"]})),
        text("thanks"),
    ]
    house.offered["writer"] = ("read", "write")
    await house.over(await house.run())
    offered = [[tool["name"] for tool in request.tools] for request in house.model.seen if request.system == "writer"]
    assert offered == [["read"]]


async def test_a_parent_can_be_replayed(house: House) -> None:
    """Also one that left its place and was decided twice: the recorded results are shown, and nothing is begun."""
    go = held(house)
    house.model.plays |= {"writer": [calls(("w", "write", {"path": "a", "content": "b"}))], "checker": [text("checked")]}
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    await house.clock.advance(1000)
    await house.until(lambda: len(house.seats()) == 1)
    go.set()
    await house.over(boss)
    sent = len(house.sent)
    replayed = await replay(await house.kernel.events(boss), house.kernel.spawner)
    assert replayed.difference is None
    assert replayed.state == replayed.recorded
    assert len(house.sent) == sent


async def test_a_fork_of_a_parent_adopts_none_of_its_children(house: House) -> None:
    """Forked while they were at work: of that call nobody knows, and the children stay with the session that began them."""
    go = held(house)
    house.model.plays |= {"writer": [calls(("w", "write", {"path": "a", "content": "b"}))], "checker": [text("checked")]}
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    writer, _ = await house.children(boss)
    forks = Forks(house.sessions, house.kernel, lambda _: house.kernel.log, house.kernel.workspaces, house.clock)
    seq = next(event.seq for event in await house.kernel.events(boss) if event.data.get("children"))
    fork = await forks.fork("default", boss, str(seq), actor="principal/op")
    state = await house.over(fork.state.id)
    assert (state.calls["c1"].step, dict(state.delegations)) == (Step.UNKNOWN, {})
    assert not (await house.state(writer)).over
    go.set()
    assert (await house.over(boss)).result == "thanks"


async def test_a_circle_of_waits_is_told(house: House) -> None:
    """A child that would wait for its parent is told at once; a parent whose child waits for it already gets an error."""
    held(house)
    house.model.plays |= {"writer": [calls(("w", "write", {"path": "a", "content": "b"}))], "checker": [text("checked")]}
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    writer, checker = await house.children(boss)
    cycle = house.waits.wait(writer, [boss], "lock ledger", "standard")
    assert cycle is not None
    assert f"{boss} waits for {writer} (delegation c1)" in str(cycle)
    await house.over(checker)
    await house.stop()
    house.start()
    assert house.waits.wait(writer, [boss], "lock ledger", "standard") is None
    await house.delegator.cascade.recover("default", [(writer, boss)])
    await house.sessions.resume("default", boss)
    state = await house.over(boss)
    error = state.calls["c1"].error
    assert error is not None
    assert (error["code"], f"{writer} waits for {boss} (lock ledger)" in error["message"]) == ("delegation.deadlock", True)
    assert (await house.over(writer)).state == "cancelled"
