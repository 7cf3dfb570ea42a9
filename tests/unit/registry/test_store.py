"""The registry over a log: atomic, chained, verified, told who was first."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import jsonschema
import pytest

from agentos.abi.assets import asset
from agentos.abi.chain import verify
from agentos.abi.errors import ChainBroken, Conflict, NotFound, SequenceConflict, UsageError
from agentos.abi.resource import Resource
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import REGISTRY_STREAM, REVISIONS, blob_subject
from agentos.registry.plan import plan, restore
from agentos.registry.revision import CHAIN, Revision
from agentos.registry.store import Registry, ago


async def put(registry: Registry, *resources: Resource, actor: str = "principal/alice", reason: str = "") -> Revision:
    return await registry.commit(plan(await registry.state(), resources), actor=actor, reason=reason)


async def test_empty(registry: Registry) -> None:
    """A registry begins at revision 0 with nothing in it."""
    assert await registry.head() is None
    assert (await registry.state()).entries == {}
    assert registry.current.revision == 0
    with pytest.raises(NotFound):
        await registry.state(1)


async def test_commit_and_read_back(registry: Registry, log: MemoryLog, ticks: SimpleNamespace, new: SimpleNamespace) -> None:
    """What was committed is what another process reads, with who changed what in which revision."""
    first = await put(registry, new.agent(), new.grant(), reason="start")
    second = await put(registry, new.agent(calls=20), actor="principal/bob")
    assert (first.number, second.number, second.parent) == (1, 2, first.tree)
    other = Registry(log, ticks, ticks)
    state = await other.state()
    assert state == await registry.state()
    assert [(str(key), entry.by, entry.revision) for key, entry in sorted(state.entries.items())] == [
        ("agent/default/triage", "principal/bob", 2),
        ("toolgrant/default/triage-read", "principal/alice", 1),
    ]
    assert (await other.state(1)).get(new.agent().key) == new.agent()
    assert (await other.state(0)).entries == {}
    assert [one.reason for one in await other.history()] == ["start", ""]


async def test_stored_form(registry: Registry, log: MemoryLog, new: SimpleNamespace) -> None:
    """Revisions form a verifiable chain and follow `schemas/v1/revision.json`; equal blobs are stored once."""
    await put(registry, new.agent())
    await put(registry, new.agent(calls=11))
    await put(registry, new.agent())
    events = [stored.data async for stored in log.read(REVISIONS)]
    assert verify(CHAIN, events).seq == 3
    schema = json.loads((asset("schemas") / "v1" / "revision.json").read_text())
    for one in await registry.history():
        jsonschema.Draft202012Validator(schema).validate(one.to_dict())
    subjects = [stored.subject async for stored in log.scan(REGISTRY_STREAM)]
    assert subjects.count(blob_subject(new.agent().digest())) == 1


async def test_two_at_once(registry: Registry, log: MemoryLog, ticks: SimpleNamespace, new: SimpleNamespace) -> None:
    """Of two commits on one revision exactly one wins; the other is told who was first and what changed, and nothing is lost."""
    await put(registry, new.agent())
    other = Registry(log, ticks, ticks)
    mine = plan(await registry.state(), [new.agent(calls=20)])
    theirs = plan(await other.state(), [new.agent(calls=30), new.agent("second")])
    ticks.now += 5_000
    await other.commit(theirs, actor="principal/bob", reason="")
    ticks.now += 3_000
    with pytest.raises(Conflict) as caught:
        await registry.commit(mine, actor="principal/alice", reason="")
    assert caught.value.message == (
        "revision 2 by principal/bob 3 s ago changed agent/default/triage (spec.budget.calls), agent/default/second (created)"
    )
    assert caught.value.mend == "plan again: yours was made from revision 1"
    assert (await registry.state()).resources() == (new.agent("second"), new.agent(calls=30))


async def test_racing_commits(log: MemoryLog, ticks: SimpleNamespace, new: SimpleNamespace) -> None:
    """Ten registries that commit at the same moment make ten revisions, each by exactly one winner per round."""
    registries = [Registry(log, ticks, ticks) for _ in range(10)]

    async def insist(number: int) -> None:
        while True:
            try:
                await put(registries[number], new.agent(f"a{number}"))
            except Conflict:
                continue
            return

    await asyncio.gather(*(insist(number) for number in range(10)))
    reader = Registry(log, ticks, ticks)
    assert len(await reader.history()) == 10
    assert len((await reader.state()).entries) == 10


async def test_refusal_of_the_log(log: MemoryLog, ticks: SimpleNamespace, new: SimpleNamespace) -> None:
    """When the log refuses although nobody was first, that is what is told."""

    class Stuck:
        def token(self, size: int) -> bytes:
            return bytes(size)

    registry = Registry(log, ticks, Stuck())
    await put(registry, new.agent())
    with pytest.raises(SequenceConflict):
        await put(registry, new.agent(calls=20))
    assert registry.current.revision == 1


async def test_replay(registry: Registry, new: SimpleNamespace) -> None:
    """A plan that was applied is not applied again, however often it is sent."""
    once = plan(await registry.state(), [new.agent()])
    await registry.commit(once, actor="principal/alice", reason="")
    await put(registry, new.agent("second"))
    with pytest.raises(Conflict, match="already applied as revision 1 by principal/alice"):
        await registry.commit(once, actor="principal/alice", reason="")


async def test_foreign_plan(registry: Registry, log: MemoryLog, ticks: SimpleNamespace, new: SimpleNamespace) -> None:
    """A plan that was made against another runtime is refused as such."""
    elsewhere = Registry(MemoryLog(), ticks, ticks)
    await put(elsewhere, new.agent("x"))
    foreign = plan(await elsewhere.state(), [new.agent()])
    with pytest.raises(Conflict, match="never had"):
        await registry.commit(foreign, actor="principal/alice", reason="")
    assert await log.last(REVISIONS) is None


async def test_no_change(registry: Registry, new: SimpleNamespace) -> None:
    """A plan without changes makes no revision."""
    await put(registry, new.agent())
    with pytest.raises(UsageError):
        await put(registry, new.agent())
    assert len(await registry.history()) == 1


async def test_rollback_equals_the_old_tree(registry: Registry, new: SimpleNamespace) -> None:
    """Going back gives a new revision with the old tree, attribution and what was changed and changed back included."""
    first = await put(registry, new.agent(), new.grant())
    await put(registry, new.agent(calls=20), new.agent("more"), actor="principal/bob")
    await put(registry, new.agent(), actor="principal/bob")
    goal = await registry.state(1)
    back = await registry.commit(restore(await registry.state(), goal), actor="principal/carol", reason="back", restores=goal)
    assert (back.number, back.tree, back.restores) == (4, first.tree, 1)
    assert (await registry.state()).entries == goal.entries


def tamper(log: MemoryLog, subject: str, old: bytes, new: bytes) -> None:
    """Edit what is stored, as somebody with the server's files could."""
    stored = log._streams[REGISTRY_STREAM].stored
    for place, one in enumerate(stored):
        if one.subject == subject and old in one.data:
            stored[place] = Stored(subject, one.position, one.data.replace(old, new))
            return
    raise AssertionError("nothing to edit")


async def test_edited_blob(registry: Registry, log: MemoryLog, ticks: SimpleNamespace, new: SimpleNamespace) -> None:
    """A blob whose bytes were changed is never handed out."""
    await put(registry, new.agent(calls=10))
    subject = blob_subject(new.agent(calls=10).digest())
    tamper(log, subject, b'"calls":10', b'"calls":99')
    with pytest.raises(ChainBroken) as caught:
        await Registry(log, ticks, ticks).state()
    assert caught.value.where == subject


async def test_edited_tree(registry: Registry, log: MemoryLog, ticks: SimpleNamespace, new: SimpleNamespace) -> None:
    """A tree in which another author stands is found out."""
    revision = await put(registry, new.agent())
    tamper(log, blob_subject(revision.tree), b"principal/alice", b"principal/mallo")
    with pytest.raises(ChainBroken):
        await Registry(log, ticks, ticks).state()


async def test_edited_revision(registry: Registry, log: MemoryLog, ticks: SimpleNamespace, new: SimpleNamespace) -> None:
    """An edited revision is found out by the next one's link; a reader that fails stays where it was."""
    await put(registry, new.agent(), reason="good")
    reader = Registry(log, ticks, ticks)
    await put(registry, new.agent(calls=20))
    tamper(log, REVISIONS, b'"reason":"good"', b'"reason":"evil"')
    for _ in range(2):
        with pytest.raises(ChainBroken, match="hash of the event before"):
            await reader.state()
    assert reader.current.revision == 0


async def test_cut_tail(registry: Registry, log: MemoryLog, new: SimpleNamespace) -> None:
    """A registry that saw more than the log now holds says that the tail was cut."""
    await put(registry, new.agent())
    log._streams.clear()
    with pytest.raises(ChainBroken, match="tail was cut"):
        await registry.head()


async def test_missing_blob(registry: Registry, log: MemoryLog, ticks: SimpleNamespace, new: SimpleNamespace) -> None:
    """A revision whose blob is gone cannot be read, and says which."""
    await put(registry, new.agent())
    log._streams[REGISTRY_STREAM]._places.pop(blob_subject(new.agent().digest()))
    with pytest.raises(ChainBroken, match="missing"):
        await Registry(log, ticks, ticks).state()


async def test_follow(registry: Registry, log: MemoryLog, ticks: SimpleNamespace, new: SimpleNamespace) -> None:
    """Who follows is handed every revision in order, the state being current by then."""
    await put(registry, new.agent("first"))
    reader = Registry(log, ticks, ticks)
    await reader.head()
    seen: list[tuple[int, int]] = []

    async def watch() -> None:
        async for revision in reader.follow():
            seen.append((revision.number, reader.current.revision))
            if revision.number == 3:
                return

    watching = asyncio.create_task(watch())
    await put(registry, new.agent("second"))
    await put(registry, new.agent("third"))
    await asyncio.wait_for(watching, 5)
    assert [number for number, _ in seen] == [2, 3]
    assert seen[-1] == (3, 3)


async def test_old_states_do_not_pile_up(registry: Registry, new: SimpleNamespace) -> None:
    """However many revisions there are, few states stay in memory, and every one can be had."""
    for calls in range(1, 30):
        await put(registry, new.agent(calls=calls))
    for number in range(30):
        assert (await registry.state(number)).revision == number
    assert len(registry._states) <= 9
    assert registry.current.revision == 29


@pytest.mark.parametrize(
    ("elapsed", "text"),
    [(-1, "0 s ago"), (119_000, "119 s ago"), (120_000, "2 min ago"), (7_200_000, "2 h ago"), (4 * 86_400_000, "4 days ago")],
)
def test_ago(elapsed: int, text: str) -> None:
    """Ages are told in one whole unit."""
    assert ago(elapsed) == text
