"""A small fleet's record, fabricated event by event: two sessions, one registry, three principals."""

from __future__ import annotations

import hashlib
import itertools
import sys
from dataclasses import dataclass, field
from types import ModuleType

import pytest

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of, session_attributes, trace_of
from agentos.abi.canonical import Json, canonical, digest, digest_of
from agentos.abi.chain import Head
from agentos.abi.event import Event
from agentos.abi.ids import is_name
from agentos.abi.record import header_of
from agentos.audit.checkpoint import Checkpoint, Tree, statement
from agentos.audit.covered import Covered, StreamProof
from agentos.audit.evidence import RegistryRecord, build_pack
from agentos.audit.keys import SigningKey
from agentos.audit.merkle import Frontier, leaf_hash
from agentos.audit.note import sign_note
from agentos.eventlog.subject import session_subject, stream_of

START_MS = 1_795_000_000_000
POLICY = "sha256:" + "ab" * 32
_NOTHING = {"rules": [], "reasons": []}


@dataclass
class Chain:
    """Writes events of one subject, one second apart: records, or open events as those of the registry are."""

    subject: str
    tenant: str = "default"
    revision: int = 1
    now_ms: int = START_MS
    head: Head = field(default_factory=Head.empty)
    stored: list[bytes] = field(default_factory=list)
    open: bool = False
    told: dict[str, str | int] = field(default_factory=dict)

    def add(self, kind: str, data: dict[str, Json], actor: str = "system/kernel") -> bytes:
        self.now_ms += 1000
        name = f"{self.subject}-{self.head.seq + 1}"
        if not self.stored:
            self.told = session_attributes(actor, data)
        attributes = self.told | attributes_of(kind, data) | {"traceparent": trace_of(self.subject, name)}
        event = Event(
            id=name,
            type=kind,
            tenant=self.tenant,
            subject=self.subject,
            seq=self.head.seq + 1,
            prev=self.head.hash,
            time_ms=self.now_ms,
            actor=actor,
            config_revision=self.revision,
            policy_digest=POLICY,
            data=data,
            attributes={} if self.open else attributes,
        )
        salt = hashlib.sha256(name.encode()).digest()[:16]
        self.stored.append(event.to_bytes() if self.open else event.to_record(salt))
        self.head = event.head(self.stored[-1])
        return self.stored[-1]

    def created(self, agent: str = "triage", actor: str = "principal/alice") -> None:
        self.add(ev.SESSION_CREATED, {"agent": agent, "goal": "sort the inbox", "inputs": []}, actor)

    def restart(self, actor: str) -> None:
        """The same session, begun by somebody else."""
        self.head, self.stored = Head.empty(), []
        self.created(actor=actor)

    def decided(
        self, call: str, tool: str, effect: str, args: Json = None, rules: tuple[str, ...] = ("grants.granted",), **more: Json
    ) -> None:
        args = {"path": f"in/{call}.md"} if args is None else args
        decision = {"effect": effect, "rules": list(rules), "reasons": [f"because of {rule}" for rule in rules]}
        data = {"call": call, "tool": tool, "effect": "write", "args": args, "args_digest": digest_of(args), "turn": 1}
        data |= {"agent": {"name": "triage", "labels": {}}, "now": self.now_ms}
        data["policy"] = {"engine": "opa 1.20.2 (in process)", "data": POLICY}
        self.add(ev.SYSCALL_DECIDED, data | {"decision": decision} | more, "agent/triage")

    def waiting(self, call: str, *, needed: int = 1, given: int = 0, minutes: int = 1440) -> None:
        """A question that is over in `minutes`; the call was the last to be decided."""
        data = {"call": call, "args_digest": self._asked()["args_digest"], "expires": self.now_ms + minutes * 60_000}
        self.add(ev.SESSION_WAITING, data | {"needed": needed, "given": given})

    def granted(self, call: str, actor: str = "principal/anna", *, minutes: int = 60, **more: Json) -> None:
        """A yes to the question that was asked last."""
        data = self._asked() | {"call": call, "reason": "looks right", "policy_digest": POLICY, "scope": "once", "max_uses": 1}
        data |= {"expires": self.now_ms + minutes * 60_000, "roles": ["approver"], "decision": {"effect": "allow"} | _NOTHING}
        self.add(ev.APPROVAL_GRANTED, data | more, actor)

    def rejected(self, call: str, actor: str = "principal/anna", **more: Json) -> None:
        """A no to it."""
        self.add(ev.APPROVAL_DENIED, self._asked() | {"call": call, "reason": "not so"} | more, actor)

    def expired(self, call: str, actor: str = "system/kernel") -> None:
        """Nobody's answer to it."""
        self.add(ev.APPROVAL_EXPIRED, self._asked() | {"call": call}, actor)

    def _asked(self) -> dict[str, Json]:
        for stored in reversed(self.stored):
            event = Event.from_bytes(stored)
            if event.type == ev.SYSCALL_DECIDED:
                return {"args_digest": event.data["args_digest"], "decided": event.seq}
        return {"args_digest": digest_of({}), "decided": 1}

    def finished(self, call: str, tool: str, content: str = "done", data: Json = None) -> None:
        result = {"content": content, "is_error": False} | ({} if data is None else {"data": data})
        self.add(ev.SYSCALL_FINISHED, {"call": call, "tool": tool, "result": result, "duration_us": 1500})

    def model(self, number: int) -> None:
        call = f"model-{number}"
        self.decided(call, "model-call", "allow", {"model": "fast", "input_digest": "sha256:" + "00" * 32})
        self.finished(
            call, "model-call", "", {"content": [], "stop_reason": "tool_use", "input_tokens": 100, "output_tokens": 10}
        )


@dataclass(frozen=True, repr=False)
class Fleet:
    """What a pack is made of, and a key to sign it with."""

    sessions: dict[str, list[bytes]]
    registry: RegistryRecord
    key: SigningKey

    def pack(self, **changes: Json) -> bytes:
        given = {"tenant": "default", "sessions": self.sessions, "registry": self.registry, "audit": [], "key": self.key}
        given |= {"clock": Still(), "exporter": "principal/olga"} | changes
        if "covered" not in given:
            given["covered"] = cover(given["sessions"], given["registry"], given["audit"], self.key)
        return build_pack(**given)


def cover(sessions: dict[str, list[bytes]], registry: RegistryRecord, audit: list[bytes], key: SigningKey) -> Covered:
    """Checkpoints over exactly what a pack holds: every leaf of every stream is in it."""
    ours: dict[str, dict[str, list[bytes]]] = {}
    for session, records in sorted(sessions.items()):
        name = session if is_name(session) else "s-odd"
        ours.setdefault(stream_of(session_subject(name)), {})[session] = [header_of(one) for one in records]
    if audit:
        ours["AUD"] = {"audit": audit}
    chains = {"revisions": registry.revisions, "principals": registry.principals}
    theirs = {"REG": {name: list(events) for name, events in chains.items() if events}}
    return Covered(_note("default", ours, key), _note("REG", theirs, key), (), [*_proofs(ours), *_proofs(theirs)])


Streams = dict[str, dict[str, list[bytes]]]


def _note(name: str, streams: Streams, key: SigningKey) -> str:
    trees = {}
    for stream, chains in streams.items():
        frontier = Frontier()
        for leaf in itertools.chain(*chains.values()):
            frontier.append(leaf_hash(leaf))
        trees[stream] = Tree(frontier.size, frontier.root())
    origin = f"agentos/{key.id.removeprefix('sha256:')[:16]}/{name}"
    point = Checkpoint(origin, 1, leaf_hash(statement(START_MS, trees)), START_MS, trees)
    return sign_note(point.text(), origin, key)


def _proofs(streams: Streams) -> list[StreamProof]:
    found = []
    for stream, chains in streams.items():
        leaves, at = {}, 0
        for name, events in chains.items():
            leaves[name] = list(range(at, at + len(events)))
            at += len(events)
        found += [StreamProof(stream, leaves)] if at else []
    return found


class Still:
    """A clock that stands."""

    def now_ms(self) -> int:
        return START_MS + 3_600_000


def busy_session(name: str) -> Chain:
    """Reads a file, is denied a mail, asks for a write that Anna approves, ends."""
    chain = Chain(name)
    chain.created()
    chain.model(1)
    chain.decided("c1", "read", "allow")
    chain.finished("c1", "read", "a mail")
    chain.decided("c2", "send-mail", "deny", rules=("grants.none",))
    write = {"path": "out/report.md", "text": "=SUM(A1)"}
    chain.decided("c3", "write", "ask", write, rules=("grants.approval",))
    chain.waiting("c3")
    chain.granted("c3")
    yes = {"call": "c3", "by": "principal/anna", "reason": "looks right", "scope": "once"}
    chain.decided("c3", "write", "allow", write, rules=("grants.approval", "syscall.approved"), approvals=[yes])
    chain.finished("c3", "write")
    chain.add(ev.SESSION_FINISHED, {"result": "sorted"})
    return chain


def short_session(name: str) -> Chain:
    chain = Chain(name)
    chain.created(agent="clerk")
    chain.decided("c1", "list", "allow")
    chain.finished("c1", "list")
    return chain


def registry_record() -> RegistryRecord:
    agent = canonical({"kind": "Agent", "metadata": {"name": "triage"}})
    tree = canonical({"agent/default/triage": {"by": "principal/olga", "digest": digest(agent), "revision": 1}})
    revisions = Chain("registry", tenant="*", revision=0, now_ms=START_MS - 60_000, open=True)
    applied = {"revision": 1, "tree": digest(tree), "reason": "first", "counts": {"create": 1}}
    revisions.add(ev.REVISION_APPLIED, applied, "principal/olga")
    principals = Chain("principals", tenant="*", revision=0, now_ms=START_MS - 90_000, open=True)
    for name, tenant, roles in (
        ("olga", "*", ["operator"]),
        ("alice", "default", ["operator"]),
        ("anna", "default", ["approver"]),
        ("bo", "default", ["approver"]),
    ):
        data = {"name": name, "tenant": tenant, "roles": roles, "public_key": f"U{name.upper()}"}
        principals.add(ev.PRINCIPAL_CREATED, data, "system/boot")
    return RegistryRecord(revisions.stored, principals.stored, {digest(agent): agent, digest(tree): tree})


@pytest.fixture(scope="session")
def record() -> ModuleType:
    """This file: its classes for tests that write a record of their own."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    sessions = {"s-busy": busy_session("s-busy").stored, "s-short": short_session("s-short").stored}
    return Fleet(sessions, registry_record(), SigningKey.from_seed(bytes(range(32))))
