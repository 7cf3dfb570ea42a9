"""Triggers as they are declared, and one firing of one: values only.

    spec = TriggerSpec("digest", "reporter", "Write the digest.", Cron(schedule("0 7 * * *")))
    firing = Firing("digest", "2026-11-21T07:00:00Z", at_ms=1_795_244_400_000, source="cron")

The id of a firing says which one it is: the same id of the same trigger starts one run at most, however often it is told. It is
made of what happened, never of chance: the scheduled time, the sequence in a stream, the id of a delivery, a path and its digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, PayloadErased
from agentos.projections.session import SessionState
from agentos.scheduler.cron import Schedule

MAX_ID: Final = 512
"""Characters of a firing's id at most."""

MAX_PAYLOAD: Final = 8 * 1024 * 1024
"""Bytes of a firing's payload at most."""

MAX_HOPS: Final = 16
"""Runs that triggers may begin one by the other's end, or signal, before the chain is cut."""

MANUAL: Final = "manual"
"""The source of a firing that a person asked for."""

UNTRUSTED: Final = "untrusted"
"""The label of what is not of our own."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9#:._-]{1,64}", re.ASCII)
_FOREIGN: Final = frozenset({"webhook", "workspace"})
"""Sources whose ids somebody else has chosen: they may be words, and stand in no header."""


class Overlap(StrEnum):
    """What a firing does while a run of its trigger is not over."""

    SKIP = "skip"
    ALLOW = "allow"
    QUEUE = "queue"
    REPLACE = "replace"


class Missed(StrEnum):
    """What becomes of the times of a schedule that nobody was there for."""

    SKIP = "skip"
    LAST = "last"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Cron:
    """Fires at the times of a schedule."""

    schedule: Schedule
    missed: Missed = Missed.LAST


@dataclass(frozen=True, slots=True)
class Subject:
    """Fires for each message of a publisher; `name` is a subject behind the publisher's token, `*` and `>` as in NATS."""

    name: str


@dataclass(frozen=True, slots=True)
class Webhook:
    """Fires for each delivery at `path` that is signed by the secret in the environment variable `secret_env`."""

    path: str
    secret_env: str
    scheme: str = "standard"
    """`standard` (Standard Webhooks) or `github`."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Fires for each new content of a file of the shared space `space` that `glob` matches."""

    space: str
    glob: str


@dataclass(frozen=True, slots=True)
class RunEnd:
    """Fires when a session of one of `agents` ends in one of `outcomes`."""

    agents: tuple[str, ...]
    outcomes: tuple[str, ...] = ("finished",)


@dataclass(frozen=True, slots=True)
class Signal:
    """Fires when somebody sends the signal `name`."""

    name: str


Source = Cron | Subject | Webhook | Arrival | RunEnd | Signal

KINDS: Final[Mapping[type, str]] = {
    Cron: "cron",
    Subject: "subject",
    Webhook: "webhook",
    Arrival: "workspace",
    RunEnd: "run",
    Signal: "signal",
}
"""What a declaration calls each kind of source."""


@dataclass(frozen=True, slots=True)
class TriggerSpec:
    """A Trigger declaration as the kernel needs it. `agent` and `goal` are empty where it is for a `daemon` of the runtime."""

    name: str
    agent: str
    goal: str
    on: Source
    overlap: Overlap = Overlap.SKIP
    labels: tuple[str, ...] = ()
    """Labels that each of its sessions carries from its first event."""
    priority: str | None = None
    deadline_ms: int | None = None
    daemon: str = ""
    """Work of the runtime itself; empty: it starts a session of `agent`."""
    digest: str = ""
    """Of the declaration."""

    @property
    def kind(self) -> str:
        """`cron`, `subject`, `webhook`, `workspace`, `run` or `signal`."""
        return KINDS[type(self.on)]


@dataclass(frozen=True, slots=True)
class Firing:
    """One firing. `at_ms` is when it was due or happened; `source` the kind of its trigger, or `manual`.

    `payload` comes into the session's `input/payload`, and what is known about it into `input/firing.json`; both carry `labels`.
    Whoever makes a firing of something that is not of our own names `untrusted` among them. `facts` are told in `firing.json`:
    who sent it, the path, the session that ended.
    """

    trigger: str
    id: str
    at_ms: int
    source: str
    payload: bytes | None = None
    content_type: str = "application/octet-stream"
    labels: tuple[str, ...] = ()
    facts: Mapping[str, Json] = field(default_factory=dict, hash=False)
    hops: int = 0
    """How many runs before it were started by triggers, one by the other's end or signal: a chain that has no end is cut."""

    actor: str = ""
    """The principal who fired it; empty: the trigger itself starts the run."""

    @property
    def name(self) -> str:
        """Its id as headers and records have it: as it is, or its digest where it may hold anybody's words."""
        if self.source not in _FOREIGN and _PLAIN.fullmatch(self.id) is not None:
            return self.id
        return "x-" + hashlib.sha256(self.id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


async def hops_from(state: SessionState, load: Callable[[str], Awaitable[SessionState]]) -> int:
    """The `hops` of a firing that a session brings about: by its end, by a signal, by a file that it has written.

    A child of a delegation counts as the session at the top, which `load` gives; no chain begins anew by being delegated. Where
    that one is gone, or its words are, the child stands for itself.
    """
    if state.delegated is not None:
        with suppress(NotFound, PayloadErased):
            state = await load(str(state.delegated["lineage"][0]))
    return int((state.firing or {}).get("hops", 0)) + 1


class Outcome(StrEnum):
    """What came of a firing; `done` is of daemons alone."""

    STARTED = "started"
    QUEUED = "queued"
    SKIPPED = "skipped"
    PAUSED = "paused"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Fired:
    """What came of a firing: the session that it started (or that waits in line), or why there is none.

    `again`: the same firing was told before, and this is what came of it then.
    """

    outcome: Outcome
    session: str | None
    why: str
    again: bool = False
