"""How far a trigger is: what is kept of it beside the log, changed by compare and set, so that each firing starts one run.

A firing that is to start a run is *taken* first: its intent, with the id of the session to be, is in the record before anything
is done. Then the session is made, under that id, once; then the intent is done with. Whoever finds an intent after a crash does
what it says, and comes to the same session. What came of a firing that somebody may tell of again is kept by its id, as a *mark*.

Nothing in here is anybody's words: names, times, ids and digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from agentos.abi.canonical import Json, NotCanonical, canonical, parse_strict
from agentos.abi.errors import DriverError
from agentos.kernel.firing import Fired, Outcome

VERSION: Final = 1

MAX_OPEN: Final = 200
"""Intents of one trigger that nobody is done with; more are refused until some are."""

MAX_LIVE: Final = 1000
"""Runs of one trigger that are kept in mind as not over."""


class Moved(Exception):
    """Somebody else has changed the record meanwhile."""


class ProgressUnreadable(DriverError):
    """What is stored of a trigger is no record of one: it fires no more until somebody resets it."""

    code = "trigger.unreadable"


class ProgressStore(Protocol):
    """Where a tenant's records and marks are kept. Every method raises LogUnavailable, or DriverError for what will not pass."""

    async def read(self, key: str) -> tuple[bytes, int] | None:
        """What is stored under `key` (dots, letters, digits, dashes), and its revision; None for nothing."""

    async def write(self, key: str, data: bytes, *, expected: int | None) -> int:
        """Store it; return its revision. `expected`: only if the entry is of that revision (0: there is none), else Moved."""

    async def forget(self, key: str) -> None:
        """Remove an entry."""

    async def all(self) -> list[tuple[str, bytes]]:
        """Every key and what is stored under it, the one written first first."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A firing that has been taken. `id` is `Firing.name`; `taken_ms` is in the id of the session, which is derived from both.

    `whole` says that nothing but this is needed to start the run, and nobody tells of it again: whoever finds it does so.
    """

    id: str
    at_ms: int
    taken_ms: int
    session: str
    source: str
    actor: str
    """Who starts it: the trigger, or the person who fired it."""
    after: tuple[str, ...] = ()
    """Sessions that have to be over before it begins."""
    replaces: tuple[str, ...] = ()
    """Sessions that are cancelled before."""
    whole: bool = False
    labels: tuple[str, ...] = ()
    missed: int = 0
    """How many times of the schedule had passed before it, and nobody was there."""
    hops: int = 0

    def to_dict(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "at_ms": self.at_ms,
            "taken_ms": self.taken_ms,
            "session": self.session,
            "source": self.source,
            "actor": self.actor,
            "after": list(self.after),
            "replaces": list(self.replaces),
            "whole": self.whole,
            "labels": list(self.labels),
            "missed": self.missed,
            "hops": self.hops,
        }

    @classmethod
    def of(cls, body: Mapping[str, Json]) -> Intent:
        """The inverse of `to_dict`. Raises LookupError, TypeError, ValueError."""
        return cls(
            id=_text(body["id"]),
            at_ms=_whole(body["at_ms"]),
            taken_ms=_whole(body["taken_ms"]),
            session=_text(body["session"]),
            source=_text(body["source"]),
            actor=_text(body["actor"]),
            after=_texts(body["after"]),
            replaces=_texts(body["replaces"]),
            whole=body["whole"] is True,
            labels=_texts(body["labels"]),
            missed=_whole(body["missed"]),
            hops=_whole(body["hops"]),
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """The record of one trigger. `revision` is that of the stored entry, 0 where there is none.

    `since_ms` is since when it is looked at; `cursor_ms` up to where its schedule, or the ends of runs, have been looked at;
    `schedule` says of which schedule, or which runs, that is true. `live` are runs that were not over when last looked at.
    `last` is what came of the newest firing: `{id, at_ms, outcome, session, why}`.
    """

    revision: int = 0
    since_ms: int = 0
    cursor_ms: int = 0
    schedule: str = ""
    open: tuple[Intent, ...] = ()
    live: tuple[str, ...] = ()
    started: int = 0
    skipped: int = 0
    failed: int = 0
    missed: int = 0
    last: Mapping[str, Json] | None = None

    def intent(self, name: str) -> Intent | None:
        """The open intent of that firing."""
        return next((one for one in self.open if one.id == name), None)

    def take(self, intent: Intent) -> Progress:
        """With an intent more."""
        return replace(self, open=(*self.open, intent))

    def done(self, intent: Intent, fired: Fired) -> Progress:
        """With that intent done with. The same if it is no more."""
        if self.intent(intent.id) is None:
            return self
        rest = tuple(one for one in self.open if one.id != intent.id)
        live = (*self.live, fired.session)[-MAX_LIVE:] if fired.session is not None else self.live
        return replace(self, open=rest, live=tuple(one for one in live if one)).told(intent.id, intent.at_ms, fired)

    def dropped(self, intent: Intent) -> Progress:
        """Without that intent: nothing has come of it."""
        return replace(self, open=tuple(one for one in self.open if one.id != intent.id))

    def told(self, name: str, at_ms: int, fired: Fired) -> Progress:
        """With what came of a firing."""
        outcome = fired.outcome
        return replace(
            self,
            started=self.started + (outcome in {Outcome.STARTED, Outcome.QUEUED}),
            skipped=self.skipped + (outcome in {Outcome.SKIPPED, Outcome.PAUSED}),
            failed=self.failed + (outcome is Outcome.FAILED),
            last={"id": name, "at_ms": at_ms, **fired_to_dict(fired)},
        )

    def to_bytes(self) -> bytes:
        return canonical(
            {
                "v": VERSION,
                "since_ms": self.since_ms,
                "cursor_ms": self.cursor_ms,
                "schedule": self.schedule,
                "open": [one.to_dict() for one in self.open],
                "live": list(self.live),
                "started": self.started,
                "skipped": self.skipped,
                "failed": self.failed,
                "missed": self.missed,
                "last": None if self.last is None else dict(self.last),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, revision: int) -> Progress:
        """The inverse of `to_bytes`. Raises ProgressUnreadable."""
        try:
            body = _versioned(data)
            last = body["last"]
            return cls(
                revision=revision,
                schedule=_text(body["schedule"]),
                open=tuple(Intent.of(one) for one in body["open"]),
                live=_texts(body["live"]),
                last=None if last is None else {**last, **fired_to_dict(fired_of(last))},
                **{name: _whole(body[name]) for name in ("since_ms", "cursor_ms", "started", "skipped", "failed", "missed")},
            )
        except (NotCanonical, LookupError, TypeError, ValueError, AttributeError) as error:
            raise ProgressUnreadable(
                f"what is stored of the trigger is no record of one: {error}", mend="reset it: agentos trigger reset NAME"
            ) from error


def fired_to_dict(fired: Fired) -> dict[str, Json]:
    """`{outcome, session, why}`."""
    return {"outcome": str(fired.outcome), "session": fired.session, "why": fired.why}


def fired_of(body: Mapping[str, Json]) -> Fired:
    """The inverse of `fired_to_dict`. Raises LookupError, TypeError, ValueError."""
    session = body["session"]
    return Fired(Outcome(body["outcome"]), None if session is None else _text(session), _text(body["why"]))


def mark_to_bytes(fired: Fired, at_ms: int) -> bytes:
    """What is kept of a firing that is done with, since `at_ms`."""
    return canonical({"v": VERSION, "at_ms": at_ms, **fired_to_dict(fired)})


def mark_of(data: bytes) -> tuple[Fired, int]:
    """The inverse of `mark_to_bytes`. Raises ProgressUnreadable."""
    try:
        body = _versioned(data)
        return fired_of(body), _whole(body["at_ms"])
    except (NotCanonical, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ProgressUnreadable(f"what is stored of a firing is no record of one: {error}") from error


def _versioned(data: bytes) -> dict[str, Json]:
    body = parse_strict(data)
    if not isinstance(body, dict) or body.get("v") != VERSION:
        raise ValueError("it is of another version")
    return body


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def _whole(value: Json) -> int:
    if type(value) is not int:
        raise TypeError("a whole number was expected")
    return value


def _texts(value: Json) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("a list was expected")
    return tuple(_text(item) for item in value)
