"""Headers read without an `Event`: the same answer, and the same refusal, as with one."""

from __future__ import annotations

import orjson
import pytest

from agentos.abi.event import Event
from agentos.abi.record import header_of, opened, split
from agentos.projections.decoded import Header, PayloadBroken, read_header, read_kind

ODD = (None, "", "x", 0, 7, True, 1.5, [], {})
TIMES = ("2026-11-21T08:30:00.125+02:00", "2026-11-21 08:30:00.125Z", "1969-12-31T23:59:59.001Z", "2026-11-21T08:30:00.12_Z")
FORMS = ("2026-11-21T08:30:00Z", "2026-02-30T08:30:00.125Z", "2026-11-21T08:30:00.\u0661\u0662\u0665Z")
NAMES = ("type", "source", "subject", "prev", "time", "actor", "id", "p", "seq", "configrevision", "policydigest", "call", "data")


def shown(header: Header | Event) -> tuple:
    return tuple(
        getattr(header, name)
        for name in ("type", "tenant", "subject", "seq", "prev", "time_ms", "actor", "config_revision", "policy_digest")
    )


def answer(read, header: bytes) -> object:
    try:
        return shown(read(header))
    except (ValueError, KeyError, TypeError) as error:
        return type(error), str(error)


def by_event(header: bytes) -> Event:
    return Event.from_dict(opened(orjson.loads(header), None))


def test_a_header_says_what_its_event_says(record, written):
    """Every field and every attribute; for an open event what its header would say."""
    stored = record.busy_session("s-a").stored
    for form in ("records", "headers", "open"):
        for line, whole in zip(written(form, stored), written("headers", stored), strict=True):
            header = read_header(header_of(line))
            assert shown(header) == shown(Event.from_bytes(header_of(line)))
            told = Event.from_bytes(whole).attributes
            named = ("call", "tool", "outcome", "decision", "rules", "expires", "durationus", "scope")
            assert {name: header.told[name] for name in named if name in told} == {n: told[n] for n in named if n in told}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_odd_about_a_header_is_judged_as_an_event_would(record, name):
    """One field of another type, of another form, or missing: the same fields come out, or the same words of refusal."""
    header = orjson.loads(header_of(record.busy_session("s-a").stored[-2]))
    cases = [header | {name: value} for value in (*ODD, *TIMES, *FORMS)] + [{key: header[key] for key in header if key != name}]
    answers = set()
    for case in cases:
        data = orjson.dumps(case, option=orjson.OPT_SORT_KEYS)
        if b"1.5" not in data:  # a fraction is refused before there is an event
            assert answer(read_header, data) == answer(by_event, data)
            answers.add(str(answer(read_header, data)))
    assert len(answers) > 1


def test_what_is_no_object_is_refused():
    """Lists, texts, numbers, broken JSON, keys that stand twice."""
    for data in (b"[]", b'"x"', b"1", b"{", b'{"a":1,"a":1}', b'{"b":1, "a":1}'):
        with pytest.raises((ValueError, TypeError)):
            read_header(data)


def test_a_payload_is_read_where_it_is_wanted_and_checked_always(record):
    """Of a wanted type: the payload. Of another: None, unless it was edited. Without one: None."""
    stored = record.busy_session("s-a").stored
    for line in stored:
        event = Event.from_bytes(line)
        assert read_kind(line, {event.type}) == (read_header(header_of(line)), event.data)
        assert read_kind(line, ()) == read_kind(header_of(line), {event.type}) == (read_header(header_of(line)), None)
        header, opening = split(line)
        for wanted in ({event.type}, ()):
            with pytest.raises(PayloadBroken):
                read_kind(header + b"\t" + opening.replace(b"salt", b"sale"), wanted)
            with pytest.raises(PayloadBroken):
                read_kind(event.to_bytes() + b"\t" + opening, wanted)
