"""Events as they are stored: CloudEvents in canonical JSON, and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from abi_values import JSON, TEXT
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi import event as ev
from agentos.abi.assets import asset
from agentos.abi.canonical import NotCanonical, canonical, parse_strict
from agentos.abi.event import Event, parse_rfc3339, rfc3339

SCHEMA = json.loads((asset("schemas") / "v1" / "event.json").read_text())
TYPES = sorted(value for name, value in vars(ev).items() if name.isupper() and isinstance(value, str))
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)
MOMENTS = st.integers(0, 253_402_300_799_999)
EVENTS = st.builds(
    Event,
    id=NAMES,
    type=st.sampled_from(TYPES),
    tenant=NAMES | st.just("*"),
    subject=NAMES,
    seq=st.integers(1, 2**53 - 1),
    prev=st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}"),
    time_ms=MOMENTS,
    actor=NAMES.map(lambda name: f"principal/{name}"),
    config_revision=st.integers(0, 10_000),
    policy_digest=st.none() | st.just("sha256:" + "0" * 64),
    data=st.dictionaries(TEXT, JSON, max_size=3),
)


@given(EVENTS)
def test_an_event_survives_storage(event: Event) -> None:
    """Reading stored bytes gives the event, and writing it again the same bytes."""
    stored = event.to_bytes()
    assert Event.from_bytes(stored) == event
    assert Event.from_bytes(stored).to_bytes() == stored == canonical(parse_strict(stored))


@given(EVENTS)
def test_attributes_are_those_of_cloudevents_and_of_the_schema(event: Event) -> None:
    """Names are lower-case letters and digits, values have the types that `schemas/v1/event.json` says."""
    body = parse_strict(event.to_bytes())
    assert all(name.isascii() and name.isalnum() and name == name.lower() for name in body)
    assert body["specversion"] == "1.0"
    envelope = {key: value for key, value in SCHEMA.items() if key != "allOf"}
    jsonschema.Draft202012Validator(envelope).validate(body)


def test_the_schema_knows_the_types_of_the_code_and_no_others() -> None:
    """Each type has its payload described, and the order is the one in which they are explained."""
    assert sorted(SCHEMA["properties"]["type"]["enum"]) == TYPES
    described = [rule["if"]["properties"]["type"]["const"] for rule in SCHEMA["allOf"]]
    assert sorted(described) == TYPES
    assert {kind.removeprefix("agentos.session.") for kind in ev.TERMINAL} == {"finished", "failed", "cancelled", "halted"}


@given(JSON | st.dictionaries(st.sampled_from(["source", "seq", "data", "time", "id"]), JSON))
def test_a_foreign_message_is_a_value_error_or_a_missing_key(value: Any) -> None:
    """Whatever JSON is on the subject, reading it raises what the docstring says."""
    with pytest.raises((KeyError, ValueError)):
        Event.from_bytes(canonical(value))


WHOLE = Event("e", TYPES[0], "default", "s-1", 1, "sha256:" + "0" * 64, 0, "system/kernel", 0, None, {})


@given(st.sampled_from(sorted(parse_strict(WHOLE.to_bytes()))), JSON)
def test_a_field_of_another_shape_is_refused_or_kept_as_it_is(field: str, value: Any) -> None:
    """No field is converted on the way in: what is read writes the same value again, but for constants of the format."""
    body = parse_strict(WHOLE.to_bytes()) | {field: value}
    try:
        event = Event.from_dict(body)
    except ValueError:
        return
    if field not in {"specversion", "datacontenttype", "time"}:
        assert parse_strict(event.to_bytes()) == body


def test_a_message_of_another_source_is_foreign() -> None:
    """`source` must name AgentOS."""
    with pytest.raises(ValueError, match="is not AgentOS"):
        Event.from_dict(parse_strict(WHOLE.to_bytes()) | {"source": "elsewhere/default"})
    with pytest.raises(NotCanonical):
        Event.from_bytes(b"{")


@given(MOMENTS)
def test_a_time_survives_to_the_millisecond(time_ms: int) -> None:
    """`rfc3339` and `parse_rfc3339` are inverse, and the text sorts as the time does."""
    text = rfc3339(time_ms)
    assert parse_rfc3339(text) == time_ms
    assert datetime.fromisoformat(text) == datetime.fromtimestamp(time_ms // 1000, UTC).replace(microsecond=time_ms % 1000 * 1000)


@given(MOMENTS, MOMENTS)
def test_times_sort_as_text(one: int, other: int) -> None:
    """A reader may compare the texts."""
    assert (rfc3339(one) < rfc3339(other)) == (one < other)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-21T08:30:00.125Z", 1_795_249_800_125),
        ("2026-11-21T08:30:00Z", 1_795_249_800_000),
        ("2026-11-21T09:30:00+01:00", 1_795_249_800_000),
        ("2026-11-21 08:30:00.1234567Z", 1_795_249_800_123),
    ],
)
def test_times_with_an_offset_are_read(text: str, moment: int) -> None:
    """Any offset, any number of digits."""
    assert parse_rfc3339(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-11-21",
        "2026-11-21T08:30:00",
        "20261121T083000Z",
        "2026-W47-6T08:30:00Z",
        "2026-11-21T08:30Z",
        "2026-11-21T08:30:00,5Z",
        "2026-11-21T08:30:00+0100",
        "2026-02-30T00:00:00Z",
        "2026-11-21T24:00:01Z",
        "٢٠٢٦-11-21T08:30:00Z",
    ],
)
def test_what_is_no_rfc_3339_time_is_refused(text: str) -> None:
    """Other spellings of ISO 8601, no offset, no such day: ValueError."""
    with pytest.raises(ValueError):
        parse_rfc3339(text)
