"""What comes out of the queue of delegations: one that was decided begins one child, all else begins nothing and is visible."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from kernel_in_memory import ALLOW, FakeRandom, Kernel, settled

from agentos.abi import event as ev
from agentos.abi.canonical import digest_of
from agentos.abi.decision import Decision, Verdict
from agentos.abi.envelope import Envelope, signed, task_subject
from agentos.abi.errors import LogUnavailable, UsageError
from agentos.abi.ids import new_id
from agentos.abi.syscall import ToolEffect
from agentos.boot.budgets import budgeted_events
from agentos.boot.charges import charged_events
from agentos.drivers.port import ToolSpec
from agentos.eventlog.adapters.credentials import NKey, create_seed
from agentos.eventlog.adapters.faults import Fault, Kind, Script
from agentos.eventlog.adapters.tasks import is_signed
from agentos.kernel.budgets import Budgets
from agentos.kernel.charges import Charges
from agentos.kernel.gate import Gate
from agentos.kernel.journal import Journal
from agentos.kernel.port import AgentSpec, Configuration
from agentos.kernel.receiving import Code, Handover, Received, Receiver, Refusal
from agentos.kernel.receiving import Verdict as Got
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import SessionState

HAND: ToolSpec = ToolSpec(
    "hand",
    "hands work over",
    ToolEffect.WRITE,
    True,
    {"type": "object"},
    {"delegate": {"agents": ["worker", "writer"], "tools": ["read", "write"], "budget": {"calls": 5, "dollars": "0.5"}}},
)
ARGS: dict[str, Any] = {"tasks": [{"agent": "writer", "goal": "write"}, {"agent": "worker", "goal": "work"}], "tools": ["read"]}
LATER = 86_400_000
FINISHED = {"result": {"content": "", "data": None, "is_error": False, "labels": []}, "duration_us": 1}


@dataclass
class Desk:
    """The side that delegates: what it was told, and what it hands over."""

    told: list[Refusal] = field(default_factory=list)
    files: Handover = field(default_factory=Handover)
    fails: Exception | None = None

    async def hand_over(self, tenant: str, parent: SessionState, call: str, index: int) -> Handover:
        if self.fails is not None:
            raise self.fails
        return self.files

    async def refused(self, refusal: Refusal) -> None:
        self.told.append(refusal)

    def has_refused(self, tenant: str, child: str) -> bool:
        return False

    async def began(self, tenant: str, parent: str, call: str, child: str) -> None:
        return


@dataclass
class Office(Kernel):
    """A kernel with two agents, and books that are kept."""

    agents: dict[str, AgentSpec] = field(
        default_factory=lambda: {
            name: AgentSpec(name, "m", "Work.", ("read", "write"), {"team": name}, ("own",)) for name in ("worker", "writer")
        }
    )

    def current(self, tenant: str) -> Configuration:
        return replace(super().current(tenant), agents=self.agents)

    def gate(self) -> Gate:
        charges, budgets = Charges(charged_events(lambda _: self.log)), Budgets(budgeted_events(lambda _: self.log))
        driver: Any = self.driver
        return Gate(driver, self.model, self.workspaces, self.timer, charges, budgets=budgets)


class Scene:
    """A session that has decided to delegate to two children, and somebody who receives."""

    def __init__(self, kernel: Office) -> None:
        self.kernel = kernel
        self.random = FakeRandom(11)
        self.key = create_seed(self.random)
        self.tenant = "default"
        kernel.tools["hand"] = HAND
        self.agents = kernel.agents
        self.desk = Desk()
        self.sessions: Sessions = kernel.sessions()
        self.frozen = False
        self.joined: list[tuple[str, str, str]] = []
        self.reads = 0
        self.children = [new_id("s", kernel.timer, self.random) for _ in range(2)]
        self.receiver = self.receiving()

    def receiving(self) -> Receiver:
        scene = self

        async def join(tenant: str, child: str, parent: str) -> None:
            scene.joined.append((tenant, child, parent))

        def streams(_: str) -> Any:
            scene.reads += 1
            return scene.kernel.log

        return Receiver(
            self.sessions,
            self.kernel,
            self.desk,
            self.kernel.timer,
            streams=streams,
            trusted=lambda tenant: (scene.key.public_key,) if tenant == scene.tenant else (),
            verify=is_signed,
            join=join,
            frozen=lambda *_: scene.frozen,
        )

    async def parent(self, name: str = "s-parent", verdict: Decision = ALLOW, tool: str = "hand", **created: Any) -> Journal:
        """A session that has decided its call `c1`."""
        journal = await self.kernel.journal(name, labels=["pii"], **created)
        await self.decide(journal, verdict, tool)
        return journal

    async def decide(self, journal: Journal, verdict: Decision = ALLOW, tool: str = "hand", call: str = "c1") -> None:
        data: dict[str, Any] = {
            "call": call,
            "tool": tool,
            "effect": "write",
            "args": ARGS,
            "args_digest": digest_of(ARGS),
            "turn": 1,
        }
        more = {"decision": verdict.to_dict(), "children": self.children}
        await self.record(journal, ev.SYSCALL_DECIDED, data | more)

    async def record(self, journal: Journal, kind: str, data: dict[str, Any]) -> None:
        await journal.record(kind, data, actor="agent/worker", revision=1, policy=None)

    def envelope(self, parent: Journal, index: int = 0, **changes: Any) -> Envelope:
        now = self.kernel.timer.now_ms()
        child, seq, head = self.children[index % 2], parent.head.seq, parent.head.hash
        made = Envelope("default", parent.session, "c1", index, child, seq, head, now, now + LATER)
        return replace(made, **changes)

    async def receive(self, envelope: Envelope, *, key: NKey | None = None, subject: str = "", **changes: Any) -> Received:
        """Receive an envelope as its sender would have sent it, but for what is changed."""
        signer = key or self.key
        on = subject or task_subject(signer.public_key, envelope.child)
        body = changes.get("body", envelope.to_bytes())
        signature = changes.get("signature", signer.sign(signed(on, body)))
        return await self.receiver.receive(changes.get("tenant", "default"), on, body, signature)

    async def begun(self) -> list[str]:
        """Which of the children are in the log."""
        return [child for child in self.children if await self.kernel.types(child)]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(Office(Workspaces(tmp_path / "workspaces")))


async def test_a_decided_delegation_begins_its_child_with_the_words_of_the_decision(scene: Scene) -> None:
    """Agent and goal are those of the decided arguments; labels, class, deadline and whoever it is for come from the parent."""
    parent = await scene.parent(priority="high", deadline_ms=99)
    assert await scene.receive(scene.envelope(parent)) == Received(Got.BEGUN)
    first = (await scene.kernel.published(scene.children[0]))[0]
    delegated = {
        "parent": "s-parent",
        "call": "c1",
        "index": 0,
        "decided": 2,
        "tool": "hand",
        "lineage": ["s-parent"],
        "delegators": [
            {"session": "s-parent", "agent": "worker", "labels": {"team": "worker"}, "tool": "hand", "tools": ["read"]}
        ],
        "tools": ["read"],
        "budget": {"calls": 5, "microdollars": 500_000},
    }
    assert (first.type, first.actor, first.data["agent"], first.data["goal"]) == (
        ev.SESSION_CREATED,
        "principal/op",
        "writer",
        "write",
    )
    assert first.data["delegated"] == delegated
    assert (first.data["labels"], first.data["priority"], first.data["deadline_ms"]) == (["own", "pii"], "high", 99)
    assert (first.attributes["parent"], first.attributes["origin"]) == ("s-parent", "delegated")
    assert scene.joined == [("default", scene.children[0], "s-parent")]
    assert scene.reads == 0  # the parent ends with its decision, which says all
    await settled(scene.sessions)
    assert (await scene.sessions.state("default", scene.children[0])).result == "done"


async def test_a_chain_of_delegations_keeps_everybody_and_only_narrows(scene: Scene) -> None:
    """The delegators of the parent come before it; a child may use no tool that its parent was kept from."""
    top = {"session": "s-top", "agent": "writer", "labels": {}, "tool": "hand", "tools": ["write"]}
    before = {
        "parent": "s-top",
        "call": "c0",
        "index": 0,
        "decided": 2,
        "tool": "hand",
        "lineage": ["s-top"],
        "delegators": [top],
    }
    parent = await scene.parent(delegated={**before, "tools": ["write"], "budget": None}, parent="s-top")
    await scene.receive(scene.envelope(parent))
    told = (await scene.kernel.events(scene.children[0]))[0].data["delegated"]
    assert (told["lineage"], [one["session"] for one in told["delegators"]]) == (["s-top", "s-parent"], ["s-top", "s-parent"])
    assert (told["delegators"][1]["tools"], told["tools"]) == (["read"], [])


async def test_the_same_envelope_begins_one_child(scene: Scene) -> None:
    """At once, after the child has ended, after the call and the parent have: it is known, and nobody is told of a refusal."""
    parent = await scene.parent()
    envelope = scene.envelope(parent)
    await asyncio.gather(*(scene.receive(envelope) for _ in range(5)))
    await settled(scene.sessions)
    events = await scene.kernel.types(scene.children[0])
    assert (await scene.receive(envelope)).verdict is Got.KNOWN
    await scene.record(parent, ev.SYSCALL_FINISHED, {"call": "c1", "tool": "hand", "turn": 1, **FINISHED})
    assert (await scene.receive(envelope)).verdict is Got.KNOWN
    await scene.record(parent, ev.SESSION_CANCELLED, {"reason": "enough"})
    assert (await scene.receive(envelope)).verdict is Got.KNOWN
    scene.kernel.timer.ms += 2 * LATER
    assert (await scene.receive(envelope)).verdict is Got.KNOWN
    assert await scene.kernel.types(scene.children[0]) == events
    assert (events.count("session.created"), scene.desk.told) == (1, [])


async def test_an_older_decision_of_an_open_call_counts(scene: Scene) -> None:
    """The call was decided again after a restart: an envelope under way from before begins the child that both decisions name."""
    parent = await scene.parent()
    envelope = scene.envelope(parent)
    await scene.decide(parent)
    assert await scene.receive(envelope) == Received(Got.BEGUN)
    assert await scene.receive(scene.envelope(parent, 1)) == Received(Got.BEGUN)
    assert await scene.begun() == scene.children


async def test_the_log_is_read_once_for_all_children(scene: Scene) -> None:
    """A parent that has gone on since its decision is read for it once, however many children come."""
    parent = await scene.parent()
    first, second = scene.envelope(parent), scene.envelope(parent, 1)
    await scene.record(parent, ev.SESSION_OWNED, {"epoch": 1})
    assert [await scene.receive(one) for one in (first, second)] == [Received(Got.BEGUN)] * 2
    assert scene.reads == 1


async def refused(scene: Scene, got: Received, code: Code, *, told: bool) -> None:
    """Nothing has begun, the code says why, and the parent knows if it could."""
    assert (got.verdict, got.code, got.told) == (Got.REFUSED, code, told)
    assert got.message
    assert await scene.begun() == []
    assert [one.code for one in scene.desk.told] == ([code] if told else [])


async def test_a_forged_signature_begins_nothing(scene: Scene) -> None:
    """None, one by another key, one of another body or another subject: refused, and no session is touched by it."""
    envelope = scene.envelope(await scene.parent())
    stranger, subject = create_seed(scene.random), task_subject(scene.key.public_key, envelope.child)
    other = scene.envelope(await scene.parent("s-other"), 1)
    theirs = task_subject(scene.key.public_key, other.child)
    for signature in (
        None,
        b"",
        b"\0" * 64,
        stranger.sign(signed(subject, envelope.to_bytes())),
        scene.key.sign(signed(subject, other.to_bytes())),
        scene.key.sign(signed(theirs, envelope.to_bytes())),
        scene.key.sign(envelope.to_bytes()),
    ):
        await refused(scene, await scene.receive(envelope, signature=signature), Code.FORGED, told=False)


async def test_a_key_of_somebody_else_begins_nothing(scene: Scene) -> None:
    """Well signed, by whoever may not delegate in this tenant."""
    envelope = scene.envelope(await scene.parent())
    await refused(scene, await scene.receive(envelope, key=create_seed(scene.random)), Code.SENDER, told=False)


async def test_an_envelope_counts_on_the_subject_of_its_child_alone(scene: Scene) -> None:
    """The sender's own signature on a subject that names another child, or that is none, begins nothing."""
    envelope = scene.envelope(await scene.parent())
    for subject in (task_subject(scene.key.public_key, scene.children[1]), f"task.{scene.key.public_key}", "task.x.y"):
        await refused(scene, await scene.receive(envelope, subject=subject), Code.MALFORMED, told=False)


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[1]", b"x" * 3000])
async def test_a_well_signed_message_that_is_no_envelope_begins_nothing(scene: Scene, body: bytes) -> None:
    """Poison is refused, whatever it is."""
    code = Code.FORGED if len(body) > 2048 else Code.MALFORMED
    await refused(scene, await scene.receive(scene.envelope(await scene.parent()), body=body), code, told=False)


async def test_an_envelope_for_another_tenant_begins_nothing(scene: Scene) -> None:
    """The same key, trusted in two tenants: what was meant for one begins nothing in the other."""
    envelope = scene.envelope(await scene.parent(), tenant="acme")
    await refused(scene, await scene.receive(envelope), Code.TENANT, told=False)


async def test_an_envelope_that_came_too_late_begins_nothing(scene: Scene) -> None:
    """From its expiry on, and its parent is told."""
    envelope = scene.envelope(await scene.parent())
    scene.kernel.timer.ms = envelope.expires_ms
    await refused(scene, await scene.receive(envelope), Code.EXPIRED, told=True)


async def test_a_parent_that_is_not_there_begins_nothing(scene: Scene) -> None:
    """No such session: there is nobody to tell."""
    envelope = replace(scene.envelope(await scene.parent()), parent="s-nobody")
    await refused(scene, await scene.receive(envelope), Code.PARENT, told=False)


@pytest.mark.parametrize(
    "changes", [{"decided": 1}, {"decided": 3}, {"decided": 99}, {"head": "sha256:" + "0" * 64}, {"call": "c2"}], ids=str
)
async def test_what_was_not_decided_begins_nothing(scene: Scene, changes: dict[str, Any]) -> None:
    """Another event than the decision, none, another hash (of a log that is not this one), another call."""
    parent = await scene.parent()
    await scene.record(parent, ev.SESSION_OWNED, {"epoch": 1})
    await refused(
        scene, await scene.receive(replace(scene.envelope(parent), **{"decided": 2, **changes})), Code.UNDECIDED, told=True
    )


async def test_the_hash_of_another_decision_is_of_no_use(scene: Scene) -> None:
    """Hash and number of a decision that is there, of another call or one that denied, do not make a child of this call."""
    parent = await scene.parent(verdict=Decision(Verdict.DENY, ("no.way",), ("no",)))
    denied = scene.envelope(parent)
    await scene.decide(parent, call="c2")
    other = scene.envelope(parent)
    await scene.decide(parent)
    await scene.record(parent, ev.SESSION_OWNED, {"epoch": 1})
    for envelope in (denied, other):
        scene.desk.told.clear()
        await refused(scene, await scene.receive(envelope), Code.UNDECIDED, told=True)


@pytest.mark.parametrize("effect", [Verdict.DENY, Verdict.ASK])
async def test_a_call_that_was_not_allowed_begins_nothing(scene: Scene, effect: Verdict) -> None:
    """Denied, or waiting for a person: the number and the hash are right, and that is not enough."""
    parent = await scene.parent(verdict=Decision(effect, ("no.way",), ("no",)))
    await refused(scene, await scene.receive(scene.envelope(parent)), Code.CLOSED, told=True)


async def test_a_call_that_is_denied_when_it_is_decided_again_begins_nothing(scene: Scene) -> None:
    """A grant taken back while the envelope was under way is taken back."""
    parent = await scene.parent()
    envelope = scene.envelope(parent)
    await scene.decide(parent, Decision(Verdict.DENY, ("no.way",), ("no",)))
    await refused(scene, await scene.receive(envelope), Code.CLOSED, told=True)


async def test_a_call_that_is_done_begins_nothing(scene: Scene) -> None:
    """Its time-out came first, say: nobody waits for the child."""
    parent = await scene.parent()
    envelope = scene.envelope(parent)
    await scene.record(parent, ev.SYSCALL_FINISHED, {"call": "c1", "tool": "hand", "turn": 1, **FINISHED})
    await refused(scene, await scene.receive(envelope), Code.CLOSED, told=True)


async def test_a_parent_that_is_over_begins_nothing(scene: Scene) -> None:
    """Its log is closed: it is not told, and whoever counts is."""
    parent = await scene.parent()
    envelope = scene.envelope(parent)
    await scene.record(parent, ev.SESSION_CANCELLED, {"reason": "enough"})
    await refused(scene, await scene.receive(envelope), Code.OVER, told=False)


async def test_a_parent_that_ends_while_its_child_begins_has_no_child_that_runs_on(scene: Scene) -> None:
    """Whoever ends the children of a session that is over did not know of this one yet."""
    parent = await scene.parent()

    class Ending(Desk):
        async def hand_over(self, tenant: str, parent_: SessionState, call: str, index: int) -> Handover:
            await scene.record(parent, ev.SESSION_CANCELLED, {"reason": "enough"})
            return Handover()

    scene.desk = Ending()
    scene.receiver = scene.receiving()
    assert await scene.receive(scene.envelope(parent)) == Received(Got.BEGUN)
    assert (await scene.sessions.state("default", scene.children[0])).state == "cancelled"


@pytest.mark.parametrize("changes", [{"child": "s-mine"}, {"index": 2}, {"index": 2**53 - 1}], ids=str)
async def test_a_child_that_the_decision_does_not_name_begins_nothing(scene: Scene, changes: dict[str, Any]) -> None:
    """Another id, another index, one too many."""
    await refused(scene, await scene.receive(replace(scene.envelope(await scene.parent()), **changes)), Code.CHILD, told=True)


async def test_a_child_at_another_index_than_its_own_begins_nothing(scene: Scene) -> None:
    """Or the second child would do what the first was to do."""
    envelope = replace(scene.envelope(await scene.parent(), 1), index=0)
    await refused(scene, await scene.receive(envelope), Code.CHILD, told=True)


async def test_a_tool_that_does_not_delegate_begins_nothing(scene: Scene) -> None:
    """The decided call is of another tool, or of one that was declared otherwise since."""
    parent = await scene.parent(tool="write")
    await refused(scene, await scene.receive(scene.envelope(parent)), Code.TOOL, told=True)
    del scene.kernel.tools["write"]
    scene.desk.told.clear()
    await refused(scene, await scene.receive(scene.envelope(parent)), Code.TOOL, told=True)


async def test_an_agent_that_is_not_the_tools_begins_nothing(scene: Scene) -> None:
    """The declaration that is in force when the child is to begin says which agents a tool may delegate to."""
    parent = await scene.parent()
    scene.kernel.tools["hand"] = replace(HAND, driver={"delegate": {"agents": ["worker"]}})
    await refused(scene, await scene.receive(scene.envelope(parent)), Code.TOOL, told=True)


async def test_an_agent_that_is_not_declared_begins_nothing(scene: Scene) -> None:
    """The tool still names it; there is no such agent any more."""
    parent = await scene.parent()
    del scene.agents["writer"]
    await refused(scene, await scene.receive(scene.envelope(parent)), Code.UNUSABLE, told=True)


async def test_what_cannot_be_handed_over_begins_nothing(scene: Scene) -> None:
    """The reason comes to the parent as it was said."""
    scene.desk.fails = UsageError("there is no file notes.txt")
    await refused(scene, await scene.receive(scene.envelope(await scene.parent())), Code.UNUSABLE, told=True)
    assert scene.desk.told[0].message == "there is no file notes.txt"


async def test_an_id_that_another_session_has_begins_nothing(scene: Scene) -> None:
    """A session that has the child's id and is not that child is left alone, and does not count as it."""
    parent = await scene.parent()
    await scene.kernel.journal(scene.children[0])
    got = await scene.receive(scene.envelope(parent))
    assert (got.verdict, got.code, got.told) == (Got.REFUSED, Code.TAKEN, True)
    assert await scene.kernel.types(scene.children[0]) == ["session.created"]


async def test_a_frozen_parent_has_its_children_later(scene: Scene) -> None:
    """A kill switch refuses nothing for good: the same envelope begins its child once it is taken back."""
    envelope = scene.envelope(await scene.parent())
    scene.frozen = True
    assert (await scene.receive(envelope)).verdict is Got.LATER
    assert (await scene.begun(), scene.desk.told) == ([], [])
    scene.frozen = False
    assert await scene.receive(envelope) == Received(Got.BEGUN)


async def test_a_log_that_is_away_is_asked_again(scene: Scene) -> None:
    """The child could not be stored, or nobody knows whether it was: delivered again, it is there once."""
    envelope = scene.envelope(await scene.parent())
    for kind in (Kind.LOST, Kind.UNANSWERED):
        scene.kernel.log._faults = Script([Fault(kind)])
        got: Sequence[str] = (await scene.receive(envelope)).verdict
        assert got is Got.LATER
    assert (await scene.receive(envelope)).verdict in {Got.BEGUN, Got.KNOWN}
    await settled(scene.sessions)
    assert (await scene.kernel.types(scene.children[0])).count("session.created") == 1


async def test_a_refusal_that_could_not_be_stored_comes_again(scene: Scene) -> None:
    """Until its parent is told of it, a message is not dealt with."""
    envelope = scene.envelope(await scene.parent(), index=2)

    class Away(Desk):
        async def refused(self, refusal: Refusal) -> None:
            raise LogUnavailable("away")

    scene.desk = Away()
    scene.receiver = scene.receiving()
    assert (await scene.receive(envelope)).verdict is Got.LATER
