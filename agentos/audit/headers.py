"""Whether the headers of a session say what its payloads say: every attribute made again and compared. Pure; used by `verify`.

A header is all that is left of an event whose payload is withheld or erased, so it must be true while the payload can be seen.
What every header of a session repeats (agent, on whose behalf, parent) is told by the first one, whatever is disclosed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from agentos.abi.attributes import SESSION_LEVEL, attributes_of, session_attributes, trace_of
from agentos.abi.event import Event
from agentos.audit.finding import Finding, Unseen


def check_headers(events: Sequence[Event], unseen: Unseen) -> Iterator[Finding]:
    """Check the headers of one session's records, in order. Adds to `unseen` those whose payload is not there."""
    told: Mapping[str, str | int] | None = None
    for event in events:
        where = f"#{event.seq}"
        if told is None:
            told = _told(event)
        if event.withheld:
            unseen.add(("headers", event.seq))
            wrong = _differing(event.attributes, _of_session(event, told), SESSION_LEVEL)
        else:
            wrong = wrong_attributes(event, told)
        if wrong:
            yield Finding("headers", where, f"{event.type}: the header is not true of {', '.join(wrong)}")


def wrong_attributes(event: Event, told: Mapping[str, str | int] | None = None) -> list[str]:
    """The attributes, sorted, that are not what the payload says. Without `told`, those of the session are not looked at."""
    expected = attributes_of(event.type, event.data) | _of_session(event, told or {})
    known = event.attributes.keys() | expected.keys()
    return _differing(event.attributes, expected, known if told is not None else known - set(SESSION_LEVEL) | {"traceparent"})


def _told(first: Event) -> Mapping[str, str | int]:
    if not first.withheld:
        return session_attributes(first.actor, first.data)
    found = {name: value for name, value in first.attributes.items() if name in SESSION_LEVEL}
    return found | {"onbehalfof": first.actor}


def _of_session(event: Event, told: Mapping[str, str | int]) -> dict[str, str | int]:
    trace = trace_of(event.subject, event.id) if event.subject.isascii() else ""
    return {**told, "traceparent": trace}


def _differing(one: Mapping[str, str | int], two: Mapping[str, str | int], names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if one.get(name) != two.get(name))
