"""What a child has learnt stays on what comes of it: no way back to the parent is without its labels, and none is undecided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from delegating_in_memory import House
from kernel_in_memory import ALLOW, Kernel, calls, text

from agentos.abi.decision import Decision, Verdict
from agentos.abi.syscall import Result, ToolEffect
from agentos.drivers.port import CallContext, ToolSpec
from agentos.kernel.fork import Forks
from agentos.projections.session import Step

HAND = ("c1", "hand", {"agent": "writer", "goal": "write it"})
WORK = ("w", "write", {"path": "a", "content": "b"})


@pytest.fixture
async def house(kernel: Kernel) -> AsyncIterator[House]:
    made = House(kernel)
    yield made
    await made.stop()


def leaves(house: House, files: dict[str, str], go: asyncio.Event | None = None) -> None:
    """A write of the writer leaves `files` in its `output/`, as a tool with a hand of its own would, once `go` is set."""

    async def call(context: CallContext) -> Result:
        if go is not None:
            await go.wait()
        for name, content in files.items():
            place = context.workspace / "output" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
        return Result("done")

    house.answers["write"] = call


def delegated(house: House, session: str) -> list[str]:
    folder = house.kernel.workspaces.path("default", session) / "delegated"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_as_many_and_as_long_names_as_a_child_likes_are_told_of_in_bounds(house: House) -> None:
    """A child cannot make its result too large to be recorded, and so come back without its labels."""
    deep = "/".join("x" * 250 for _ in range(9))
    leaves(house, {f"{deep}/{number}": "secret" for number in range(1000)})
    house.model.plays |= {
        "boss": [calls(HAND), calls(("r1", "read", {"path": f"delegated/c1/0/{deep}/999"})), text("thanks")],
        "writer": [calls(WORK), text("written")],
    }
    boss = await house.run()
    state = await house.over(boss)
    assert state.calls["c1"].step is Step.FINISHED, state.calls["c1"].error
    assert "of-writer" in state.labels
    read = state.calls["r1"].result
    assert read is not None
    assert "of-writer" in read["labels"], "also of a file that the list had no room for"


async def test_what_was_taken_back_of_a_call_that_failed_does_not_stay(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outcome carries no label of the child, so nothing of the child may be there."""
    monkeypatch.setattr("agentos.kernel.gate.MAX_OUTCOME", 400)
    leaves(house, {"a.md": "secret"})
    house.model.plays |= {
        "boss": [calls(HAND), calls(("r1", "read", {"path": "delegated/c1/0/a.md"})), text("thanks")],
        "writer": [calls(WORK), text("written")],
    }
    boss = await house.run()
    state = await house.over(boss)
    assert state.calls["c1"].step is Step.FAILED
    assert delegated(house, boss) == []
    assert state.calls["r1"].step is Step.FAILED


@pytest.mark.parametrize("gone", [False, True])
async def test_files_come_back_under_the_decision_that_holds_then(house: House, gone: bool) -> None:
    """The parent had left its place; its grant was taken back, or the tool itself, before the child ended: no file comes over."""
    go = asyncio.Event()
    leaves(house, {"a.md": "secret"}, go)
    house.model.plays |= {"boss": [calls(HAND), text("thanks")], "writer": [calls(WORK), text("written")]}
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    (child,) = await house.children(boss)
    await house.clock.advance(1000)
    await house.until(lambda: boss not in house.seats())
    if gone:
        hand = house.kernel.tools.pop("hand")
        house.kernel.revision += 1
        assert hand
    else:
        house.kernel.policy.decide = lambda document: (
            Decision(Verdict.DENY, ("grants.none",), ("revoked",)) if document["syscall"]["tool"] == "hand" else ALLOW
        )
    go.set()
    state = await house.over(boss)
    assert (await house.over(child)).over
    assert state.calls["c1"].step in {Step.DENIED, Step.REFUSED}
    assert delegated(house, boss) == []
    assert "of-writer" not in state.labels


async def test_what_a_crash_left_of_a_call_that_is_denied_then_does_not_stay(house: House) -> None:
    """The files were over, the result was not recorded, and the call is denied when it is made again."""
    go = asyncio.Event()
    leaves(house, {"a.md": "secret"}, go)
    house.model.plays |= {"boss": [calls(HAND), text("thanks")], "writer": [calls(WORK), text("written")]}
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    left = house.kernel.workspaces.path("default", boss) / "delegated" / "c1" / "0"
    left.mkdir(parents=True)
    (left / "a.md").write_text("secret")
    house.kernel.policy.decide = lambda document: (
        Decision(Verdict.DENY, ("grants.none",), ("revoked",)) if document["syscall"]["tool"] == "hand" else ALLOW
    )
    await house.restart(boss)
    await house.over(boss)
    assert delegated(house, boss) == []


async def test_a_call_that_is_refused_when_it_is_made_again_ends_its_children(house: House) -> None:
    """After a restart the tool is not declared any more: nobody waits for the child, so it is cancelled at once."""
    go, later = asyncio.Event(), asyncio.Event()
    leaves(house, {}, go)

    async def slow(_context: CallContext) -> Result:
        await later.wait()
        return Result("read")

    house.answers["read"] = slow
    house.model.plays |= {
        "boss": [calls(HAND), calls(("r1", "read", {"path": "x"})), text("thanks")],
        "writer": [calls(WORK), text("written")],
    }
    boss = await house.run()
    await house.until(lambda: house.files.calls)
    (child,) = await house.children(boss)
    del house.kernel.tools["hand"]
    house.kernel.revision += 1
    await house.restart(boss, child)
    assert (await house.over(child)).state == "cancelled"
    later.set()
    await house.over(boss)


async def test_the_labels_of_a_child_that_says_nothing_come_too(house: House) -> None:
    """That it finished, and how, is a word of it."""
    house.model.plays |= {"boss": [calls(HAND), text("thanks")], "writer": [text("")]}
    state = await house.over(await house.run())
    assert state.calls["c1"].step is Step.FINISHED
    assert "of-writer" in state.labels


async def test_a_child_that_was_refused_does_not_begin_when_its_envelope_comes_again(house: House) -> None:
    """Its parent was told that it does not: the queue delivers what was answered and not heard once more."""
    house.most = 2
    go = asyncio.Event()
    leaves(house, {}, go)
    house.model.plays |= {
        "boss": [
            calls(("c1", "hand", {"tasks": [{"agent": "writer", "goal": "1"}, {"agent": "writer", "goal": "2"}]})),
            text("ok"),
        ],
        "writer": [calls(WORK), text("written")],
    }
    house.delivers = False
    boss = await house.run()
    await house.until(lambda: len(house.queue) == 2)
    kept = list(house.queue)
    house.deliver()
    await house.until(lambda: len(house.received) == 2)
    told = [event.data["child"] for event in await house.kernel.events(boss) if event.type.endswith("delegation.refused")]
    assert len(told) == 1
    house.most = 100
    house.queue += kept
    house.deliver()
    await house.until(lambda: len(house.received) == 4)
    assert await house.kernel.events(told[0]) == []
    go.set()
    await house.over(boss)


async def test_a_fork_knows_what_the_files_of_children_carry(house: House) -> None:
    """The label was taken off the session, and the files are still there: a fork has them, and so carries the label."""
    schema: dict[str, Any] = {"type": "object"}
    release = ToolSpec("release", "takes off", ToolEffect.WRITE, True, schema, {"builtin": {"primitive": "declassify"}})
    house.kernel.tools["release"] = release

    async def done(_context: CallContext) -> Result:
        return Result("taken off")

    house.answers["release"] = done
    house.model.plays |= {
        "boss": [calls(HAND), calls(("d", "release", {"labels": ["of-writer"]})), text("thanks")],
        "writer": [calls(WORK), text("written")],
    }
    leaves(house, {"a.md": "secret"})
    boss = await house.run()
    assert "of-writer" not in (await house.over(boss)).labels
    assert delegated(house, boss) == ["c1/0/a.md"]
    forks = Forks(house.sessions, house.kernel, lambda _: house.kernel.log, house.kernel.workspaces, house.clock)
    # Behind the declassification, before the last words.
    seq = next(event.seq for event in await house.kernel.events(boss) if event.data.get("declassified"))
    fork = await forks.fork("default", boss, str(seq), actor="principal/op")
    assert delegated(house, fork.state.id) == ["c1/0/a.md"]
    assert "of-writer" in fork.state.labels
