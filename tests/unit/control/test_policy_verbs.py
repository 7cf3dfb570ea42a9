"""History through the door: paged and gathered it is the log's own; a change is asked about again as it was asked about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of, session_attributes
from agentos.abi.canonical import Json, digest_of
from agentos.abi.chain import Head
from agentos.abi.decision import Decision, Verdict
from agentos.abi.errors import ChainBroken, NotFound, UsageError
from agentos.abi.event import Event
from agentos.abi.record import header_of, join
from agentos.abi.resource import Resource
from agentos.audit.backtest import Admission
from agentos.audit.history import Undecidable, recall
from agentos.cli import past
from agentos.control import policy_verbs
from agentos.control.policy_verbs import PolicyVerbs
from agentos.control.principal import Caller
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject
from agentos.policy.decide import CacheStats
from agentos.projections.question import Recorded
from agentos.registry.apply import Allow, Applier
from agentos.registry.principal import Principals
from agentos.registry.store import Registry

START_MS = 1_795_000_000_000
SALT = bytes(16)
AL = Caller("al", ("operator", "compliance"), "default", fleet=True)
BO = Caller("bo", ("operator",), "acme", fleet=False)


@dataclass
class Ticks:
    """A clock that moves a second with each look, and bytes that never repeat."""

    used: int = 0

    def now_ms(self) -> int:
        self.used += 1
        return START_MS + self.used * 1000

    def token(self, size: int) -> bytes:
        self.used += 1
        return self.used.to_bytes(size, "big")


@dataclass
class Chain:
    """Fabricates a session of so many denied and allowed reads, as records."""

    session: str
    now_ms: int = START_MS
    head: Head = field(default_factory=Head.empty)
    told: dict[str, str | int] = field(default_factory=dict)

    def event(self, kind: str, data: dict[str, Any], actor: str = "system/kernel") -> Event:
        self.now_ms += 60_000
        seq = self.head.seq + 1
        self.told = self.told or session_attributes(actor, data)
        told = self.told | attributes_of(kind, data)
        made = Event(
            f"{self.session}-{seq}", kind, "default", self.session, seq, self.head.hash, self.now_ms, actor, 1, None, data, told
        )
        self.head = made.head(made.to_record(SALT))
        return made

    def whole(self, calls: int, *, over: bool = True) -> list[Event]:
        found = [self.event(ev.SESSION_CREATED, {"agent": "triage", "goal": "go", "inputs": []}, "principal/al")]
        for number in range(calls):
            call, args = f"c{number}", {"path": f"in/{number}.md"}
            effect = "allow" if number % 2 else "deny"
            data = {"call": call, "tool": "read", "effect": "read", "args": args, "args_digest": digest_of(args), "turn": 1}
            data |= {"agent": {"name": "triage", "labels": {}}, "now": self.now_ms}
            data |= {"decision": {"effect": effect, "rules": ["grants.none"], "reasons": ["so"]}}
            found.append(self.event(ev.SYSCALL_DECIDED, data, "agent/triage"))
            if effect == "allow":
                result = {"content": "mail", "is_error": False, "labels": [f"l{number}"]}
                found.append(self.event(ev.SYSCALL_FINISHED, {"call": call, "tool": "read", "result": result, "duration_us": 1}))
        return [*found, self.event(ev.SESSION_FINISHED, {"result": "done"})] if over else found


class House:
    """The verbs over logs in memory, and a client of theirs."""

    def __init__(self) -> None:
        ticks = Ticks()
        self.log, registry_log = MemoryLog(), MemoryLog()
        self.registry = Registry(registry_log, ticks, ticks)
        self.principals = Principals(registry_log, ticks, ticks)
        self.asked: list[dict[str, Any]] = []
        self.applier = Applier(self.registry, validate=Resource.from_dict, check=self._check, admit=self._admit)
        self.verbs = PolicyVerbs(
            self.registry, lambda _: self.log, lambda: "opa", lambda _: (1, "", CacheStats(0, 0, 0, 0)), self.principals
        )
        self.caller = AL

    async def open(self) -> None:
        for number, (name, tenant, roles) in enumerate((("al", "*", ["operator", "compliance"]), ("bo", "acme", ["operator"]))):
            key = "U" + "ABCDEFGH"[number] * 55
            await self.principals.create(name, tenant=tenant, roles=roles, public_key=key, actor="system/boot")

    async def _check(self, *_: object) -> None:
        return

    async def _admit(self, tenant: str, question: dict[str, Json]) -> Decision:
        self.asked.append({"of": tenant, **question})
        return Decision(Verdict.ALLOW)

    async def apply(self, caller: Caller, *manifests: dict[str, Any], delete: tuple[Any, ...] = ()) -> None:
        proposal = await self.applier.propose(caller, list(manifests), delete=delete)
        await self.applier.apply(caller, proposal, allow=Allow(destroy=True, widen=True))

    async def write(self, events: list[Event], kept: Callable[[bytes], bytes] = bytes) -> None:
        """Write records, of each as much as `kept` leaves."""
        after = 0
        for event in events:
            subject = session_subject(event.subject)
            after = await self.log.append(subject, [Message(event.id, kept(event.to_record(SALT)))], after=after)

    async def call(self, verb: str, params: dict[str, Json], *, within: float = 30.0) -> Json:
        del within
        return await self.verbs.handlers()[verb](self.caller, params)


@pytest.fixture
async def house() -> House:
    made = House()
    await made.open()
    return made


def manifest(kind: str, name: str, tenant: str | None = "default", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name} if tenant is None else {"name": name, "tenant": tenant}
    return {"apiVersion": "agentos/v1", "kind": kind, "metadata": metadata, "spec": spec}


async def everything(house: House, since: int = 0) -> list[Recorded | Undecidable]:
    found = [item async for page in past.decisions(house, since, lambda done, size: None) for item in page]  # type: ignore[arg-type]
    return sorted(found, key=lambda item: (item.session, item.time_ms))


async def test_pages_hold_every_decision_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over small pages of several streams, sessions that are over and one that is not: what is gathered is what the log says."""
    monkeypatch.setattr(policy_verbs, "PAGE", 7)
    sessions = [Chain(f"s-{number}", START_MS + number * 1000).whole(number, over=number != 5) for number in range(12)]
    for events in sessions:
        await house.write(events)
    told: list[tuple[int, int]] = []
    found = [item async for page in past.decisions(house, 0, lambda *at: told.append(at)) for item in page]  # type: ignore[arg-type]
    assert len(found) == sum(range(12))
    wanted = [item for events in sessions for item in recall(events)]
    assert sorted(found, key=lambda item: (item.session, item.time_ms)) == sorted(
        wanted, key=lambda item: (item.session, item.time_ms)
    )
    assert told[-1] == (sum(map(len, sessions)),) * 2


async def test_what_is_older_is_left_out_and_nothing_else(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that began before the moment are told from there on, their questions whole."""
    monkeypatch.setattr(policy_verbs, "PAGE", 5)
    sessions = [Chain(f"s-{number}", START_MS + number * 600_000).whole(6) for number in range(40)]
    for events in sessions:
        await house.write(events)
    since = START_MS + 20 * 600_000 + 1
    wanted = [item for events in sessions for item in recall(events) if item.time_ms >= since]
    found = await everything(house, since)
    assert found == sorted(wanted, key=lambda item: (item.session, item.time_ms))
    assert 0 < len(found) < 40 * 6


async def test_an_erased_decision_is_named_wherever_it_is_asked_for(house: House) -> None:
    """In a page, in the decisions of a session, and in its explanation."""
    events = Chain("s-1").whole(2)
    data = {key: value for key, value in events[1].data.items() if key != "args"}
    await house.write([events[0], replace(events[1], data=data), *events[2:]])
    gone, left = await everything(house)
    assert isinstance(gone, Undecidable)
    assert isinstance(left, Recorded)
    answer = await house.call("policy.recorded", {"sessions": ["s-1"]})
    assert [one["id"] for one in answer["undecidable"]] == ["s-1#2"]
    told = await house.call("policy.why", {"session": "s-1", "call": "#2"})
    assert told["undecidable"] == "erased: args"
    assert "it cannot be decided again: erased: args" in told["text"]


async def test_an_erased_session_is_undecidable_and_not_guessed(house: House) -> None:
    """Its key is gone: by session, in pages and asked why, each decision has the reason; the verdict is the header's."""
    await house.write(Chain("s-1").whole(2), header_of)
    answer = await house.call("policy.recorded", {"sessions": ["s-1"]})
    assert answer["decisions"] == []
    assert [(one["call"], one["reason"]) for one in answer["undecidable"]] == [
        ("c0", "the payload was erased"),
        ("c1", "the payload was erased"),
    ]
    assert [(item.call, item.reason) for item in await everything(house) if isinstance(item, Undecidable)] == [
        ("c0", "the payload was erased"),
        ("c1", "the payload was erased"),
    ]
    why = await house.call("policy.why", {"session": "s-1", "call": "c0"})
    assert (why["tool"], why["agent"], why["undecidable"]) == ("read", "triage", "the payload was erased")
    assert why["decision"] == {"effect": "deny", "rules": ["grants.none"], "reasons": []}
    assert "it cannot be decided again: the payload was erased" in "\n".join(why["text"])


async def test_a_payload_that_is_not_the_headers_is_no_history(house: House) -> None:
    """Neither erased nor there: an error that names the event."""
    await house.write(Chain("s-1").whole(1), lambda record: join(header_of(record), b""))
    (stream,) = (await house.call("policy.recorded", {"streams": True}))["streams"]
    with pytest.raises(ChainBroken) as caught:
        await house.call("policy.recorded", {"stream": stream})
    assert caught.value.where == "s-1#1"
    with pytest.raises(ChainBroken):
        await house.call("policy.recorded", {"sessions": ["s-1"]})


async def test_a_change_is_asked_about_again_as_it_was(house: House) -> None:
    """Create, update, delete, a Tenant, a tenant's own principal: question by question what admission policy was asked."""
    spec = {"instructions": "go", "model": "m", "governance": {"owner": "o", "purpose": "p", "risk": "minimal"}}
    await house.apply(AL, manifest("Model", "m", provider="scripted"), manifest("Agent", "triage", **spec))
    await house.apply(AL, manifest("Agent", "triage", **spec, tools=["read"]), manifest("Tenant", "acme", None))
    await house.apply(BO, manifest("Model", "m", "acme", provider="scripted"))
    state = await house.registry.state()
    await house.apply(AL, delete=(next(key for key in state.entries if key.kind == "Agent"),))
    found = [item async for item in past.changes(house, 0)]  # type: ignore[arg-type]
    assert all(isinstance(item, Admission) for item in found)
    asked = [item for item in house.asked if item["of"] in {"default", "*"}]
    assert [{"of": item.tenant, **item.question} for item in found if isinstance(item, Admission)] == asked
    assert [item.actor for item in found if isinstance(item, Admission)] == ["principal/al"] * 4
    house.caller = replace(AL, tenant="acme")
    assert [item.question async for item in past.changes(house, 0) if isinstance(item, Admission)] == [  # type: ignore[arg-type]
        {key: value for key, value in item.items() if key != "of"} for item in house.asked if item["of"] == "acme"
    ]


async def test_what_cannot_be_asked_again_is_named(house: House) -> None:
    """A change by an actor that is no principal, and one in a tenant that was new."""
    await house.apply(replace(AL, name="ghost"), manifest("Model", "m", provider="scripted"))
    await house.apply(AL, manifest("Tenant", "acme", None), manifest("Model", "m", "acme", provider="scripted"))
    (ghost, tenant) = [item async for item in past.changes(house, 0)]  # type: ignore[arg-type]
    assert isinstance(ghost, Undecidable)
    assert (ghost.decision, ghost.reason) == ("revision/1", "there is no record of principal ghost, so its roles are unknown")
    assert isinstance(tenant, Admission)
    house.caller = replace(AL, tenant="acme")
    (new,) = [item async for item in past.changes(house, 0)]  # type: ignore[arg-type]
    assert isinstance(new, Undecidable)
    assert new.reason == "tenant acme was new: the policy of the default tenant decided"


async def test_a_change_is_explained(house: House) -> None:
    """By its revision; one that is not there is said."""
    await house.apply(AL, manifest("Model", "m", provider="scripted"))
    answer = await house.call("policy.why", {"revision": 1})
    assert answer["text"][0].startswith("revision/1 in tenant default")
    assert "tenant.foreign" in "\n".join(answer["text"])
    with pytest.raises(NotFound, match="no revision 2"):
        await house.call("policy.why", {"revision": 2})


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"sessions": ["../x"]},
        {"stream": 99},
        {"stream": "EV_0", "odd": 1},
        {"streams": 1},
        {"changes": True, "after": -1},
        {"stream": True},
    ],
)
async def test_odd_questions_are_refused(house: House, params: dict[str, Json]) -> None:
    """Whatever is no question about the record."""
    with pytest.raises(UsageError):
        await house.call("policy.recorded", params)
