"""A tenant in memory for erasures: a clock that is moved, a sealed log, keys in a file, sessions that began and ended."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentos.abi import event as ev
from agentos.abi.canonical import Json
from agentos.abi.chain import Head
from agentos.abi.errors import Conflict
from agentos.abi.event import Event
from agentos.abi.ids import new_id
from agentos.abi.retention import DAY_MS
from agentos.audit.audit_chain import AuditChain
from agentos.audit.erasure import Erasure
from agentos.eventlog.adapters.keystore import SqliteKeyStore
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.blob import LogBlobs
from agentos.eventlog.port import Message
from agentos.eventlog.sealed import SealedLog
from agentos.eventlog.subject import period_of, session_subject

START_MS = 1_795_000_000_000


class Seeded:
    def __init__(self, seed: int = 5) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


class Seconds:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.ms = START_MS
        self._random = Seeded(9)

    def now_ms(self) -> int:
        return self.ms

    def later(self, *, days: int = 0) -> None:
        self.ms += days * DAY_MS

    @property
    def period(self) -> str:
        return f"{datetime.fromtimestamp(self.ms / 1000, UTC):%Y%m}"

    def session(self) -> str:
        """The id of a session that begins now."""
        return new_id("s", self, self._random)


def chain_on(log: Any, *, seed: int = 3) -> AuditChain:
    return AuditChain(log, "default", Seconds(), Seeded(seed))


@dataclass
class Around:
    """What lies outside of the log: declarations, live sessions, workspaces, a read model that is asked to catch up."""

    governance: dict[str, list[dict[str, Json]]] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    rooms: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    waited: int = 0
    reads: int = 0
    """How often what is declared was read."""
    revision: int = 1
    end: Callable[[str], Awaitable[None]] | None = None
    cancelled: list[tuple[str, str]] = field(default_factory=list)

    async def declared(self) -> Declared:
        self.reads += 1
        return Declared(self, self.revision)

    async def cancel(self, session: str, *, reason: str, actor: str) -> None:
        assert reason
        assert self.end is not None
        self.cancelled.append((session, actor))
        await self.end(session)

    async def longest_retention(self) -> int:
        from agentos.abi.retention import days_kept

        return max((days_kept(one) for each in self.governance.values() for one in each), default=0)

    def live(self) -> frozenset[str]:
        return frozenset(self.alive)

    def workspaces(self) -> frozenset[str]:
        return frozenset(self.rooms)

    def remove_workspace(self, session: str) -> None:
        from agentos.abi.errors import AgentOSError

        if session in self.stuck:
            raise AgentOSError("the workspace cannot be removed")
        self.rooms.remove(session)

    async def forgotten(self) -> None:
        self.waited += 1


class Declared:
    """What is declared at one revision; nothing was declared otherwise before."""

    def __init__(self, around: Around, revision: int) -> None:
        self._around = around
        self._revision = revision

    async def governance(self, agent: str, revision: int) -> list[dict[str, Json]]:
        del revision
        return self._around.governance.get(agent, [])

    async def require_current(self) -> None:
        if self._around.revision != self._revision:
            raise Conflict("another revision was applied meanwhile")


class World:
    """One tenant. `raw` is the log as it is stored, `log` as it is read."""

    def __init__(self, folder: Path) -> None:
        self.clock = Seconds()
        self.raw = MemoryLog()
        self._folder = folder
        self.open_keys()
        self.around = Around(end=self._cancelled)
        self._ids = Seeded(4)
        self._seed = 10
        self.erasure = self.start()

    def open_keys(self) -> None:
        """Open the file of the keys, whatever it is by now."""
        self.keys = SqliteKeyStore.open(self._folder / "keys.db", Seeded(1))
        self.log = SealedLog(self.raw, self.keys, LogBlobs(self.raw), Seeded(2))

    def start(self) -> Erasure:
        """A runtime that is started (again) on what there is."""
        self._seed += 1
        chain = AuditChain(self.log, "default", self.clock, Seeded(self._seed))
        return Erasure("default", self.log, chain, self.keys, self.around, self.clock, Seeded(self._seed + 1000))

    async def session(
        self, agent: str = "triage", *, over: bool = True, subject: str | None = None, fork_of: str | None = None, goal: str = "g"
    ) -> str:
        """A session with a workspace; two events if it is over."""
        name = self.clock.session()
        assert period_of(name) == self.clock.period
        if subject is not None:
            await self.erasure.assign(name, subject)
        if fork_of is not None:
            await self.erasure.join(name, fork_of)
        kinds: list[tuple[str, dict[str, Json]]] = [(ev.SESSION_CREATED, {"agent": agent, "goal": goal, "inputs": []})]
        kinds += [(ev.SESSION_FINISHED, {"result": f"{goal} is done"})] if over else []
        await self._add(name, agent, Head.empty(), 0, kinds)
        self.around.rooms.add(name)
        if not over:
            self.around.alive.add(name)
        return name

    async def _cancelled(self, name: str) -> None:
        """The session is over, by somebody's word."""
        last = await self.log.last(session_subject(name))
        assert last is not None
        event = Event.from_bytes(last.data)
        ended = [(ev.SESSION_CANCELLED, {"reason": "r"})]
        await self._add(name, str(event.attributes["agent"]), event.head(last.data), last.position, ended)
        self.around.alive.discard(name)

    async def _add(self, name: str, agent: str, head: Head, position: int, kinds: list[tuple[str, dict[str, Json]]]) -> None:
        for kind, data in kinds:
            event = Event(
                id=self._ids.token(8).hex(),
                type=kind,
                tenant="default",
                subject=name,
                seq=head.seq + 1,
                prev=head.hash,
                time_ms=self.clock.ms,
                actor="principal/al",
                config_revision=1,
                policy_digest=None,
                data=data,
                attributes={"agent": agent},
            )
            record = event.to_record(self._ids.token(16))
            position = await self.log.append(session_subject(name), [Message(event.id, record)], after=position)
            head = event.head(record)

    async def readable(self, session: str) -> bool:
        """Whether a payload of the session can be read."""
        last = await self.log.last(session_subject(session))
        return last is not None and not Event.from_bytes(last.data).withheld
