"""Subjects and the streams that store them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.ids import NAME, new_id
from agentos.eventlog import AUDIT_CHAIN, AUDIT_STREAM, REGISTRY_STREAM, session_of, session_subject, stream_of
from agentos.eventlog.subject import (
    PRINCIPALS,
    REVISIONS,
    SHARDS,
    TIMELESS,
    blob_subject,
    chain_of,
    event_streams,
    is_ours,
    is_session_stream,
    is_session_subject,
    payload_subject,
    period_of,
    subjects_of,
)


class At:
    """A clock that stands, and bytes to go with it."""

    def __init__(self, ms: int, raw: bytes) -> None:
        self.ms, self.raw = ms, raw

    def now_ms(self) -> int:
        return self.ms

    def token(self, size: int) -> bytes:
        return self.raw[:size]


@given(st.from_regex(NAME, fullmatch=True))
def test_a_session_has_one_subject_in_one_stream(session):
    """A session's subject names it, lies in one of the shards of its period, and is the same every time."""
    subject = session_subject(session)
    assert session_of(subject) == chain_of(subject) == session
    assert is_session_subject(subject)
    assert stream_of(subject) in {f"EV_{period_of(session)}_{shard}" for shard in range(SHARDS)}
    assert subject == session_subject(session)
    assert subject.startswith(subjects_of(stream_of(subject)).removesuffix(">"))


@given(st.integers(0, 2**45 - 1), st.binary(min_size=7, max_size=7), st.sampled_from(["s", "v", "a-b"]))
def test_the_period_of_a_fresh_id_is_the_month_of_the_clock(ms, raw, prefix):
    """Whenever an id is made, its period is the UTC month of that moment, the first and the last millisecond among them."""
    month = datetime.fromtimestamp(ms // 1000, UTC)
    assert period_of(new_id(prefix, At(ms, raw), At(ms, raw))) == f"{month.year:04d}{month.month:02d}"


@pytest.mark.parametrize(
    ("moment", "period"),
    [("2026-11-30T23:59:59.999", "202611"), ("2026-12-01T00:00:00.000", "202612"), ("1970-01-01T00:00:00.000", "197001")],
)
def test_a_month_ends_at_midnight_utc(moment, period):
    """The last millisecond of a month is of that month, the next one is of the next."""
    ms = round(datetime.fromisoformat(f"{moment}+00:00").timestamp() * 1000)
    assert period_of(new_id("s", At(ms, bytes(7)), At(ms, bytes(7)))) == period


@pytest.mark.parametrize(
    "session", ["s", "s-1", "s-one", "s-0k3v9q2m1x8h4t7r5w", "s-0k3v9q2m1x8h4t7r5w12", "s-0k3v9q2m1x8h4t7r5l1"]
)
def test_an_id_without_a_time_is_in_the_period_without_one(session):
    """Too short, too long, or a letter that no digit of ours is: the id tells no time."""
    assert period_of(session) == TIMELESS
    assert session_subject(session).startswith("ev.000000.")


def test_the_registry_has_one_stream():
    """Revisions, principals and blobs all lie in the registry's stream."""
    for subject in (REVISIONS, PRINCIPALS, blob_subject("sha256:00ff")):
        assert stream_of(subject) == REGISTRY_STREAM
    assert blob_subject("sha256:00ff") == "reg.blob.00ff"
    assert subjects_of(REGISTRY_STREAM) == "reg.>"


def test_the_audit_chain_has_a_stream_of_its_own():
    """What is said about a log stands apart from its sessions, under a name that no session has."""
    assert (stream_of(AUDIT_CHAIN), subjects_of(AUDIT_STREAM), chain_of(AUDIT_CHAIN)) == (AUDIT_STREAM, "aud.>", "audit")
    assert not is_session_subject(AUDIT_CHAIN)


def test_large_payloads_have_a_stream_for_each_period():
    """A tenant's blobs lie beside the events of their month, apart from them and from the registry's blobs."""
    subject = payload_subject("sha256:00ff", "202611")
    assert (subject, stream_of(subject), subjects_of("BLOB_202611")) == ("blob.202611.00ff", "BLOB_202611", "blob.202611.>")


def test_streams_from_before_there_were_periods_are_still_ours():
    """The streams of older logs keep their names and their subjects, and meet those of no period."""
    assert (stream_of("ev.1.s-1"), subjects_of("EV_1")) == ("EV_1", "ev.1.>")
    assert (stream_of("ev.202611.1.s-1"), subjects_of("EV_202611_1")) == ("EV_202611_1", "ev.202611.1.>")


def test_the_event_streams_are_in_the_order_of_their_periods():
    """Of all streams of an account, those that hold events, older months first and the audit chain last."""
    names = ["KV_a", "AUD", "CKPT", "EV_202612_1", "EV_202611_0", "BLOB_202611", "EV_202612_0", "EV_odd", "EV_202611_0"]
    assert event_streams(names) == ("EV_202611_0", "EV_202612_0", "EV_202612_1", "AUD")
    assert [is_ours(name) for name in names] == [False, True, True, True, True, True, True, False, True]
    assert [is_session_stream(name) for name in ("EV_202611_0", "AUD", "REG")] == [True, False, False]


@pytest.mark.parametrize(
    "subject",
    [
        *("blob", "blob.>", "blob.00ff", "blob.2026.00ff", "", "ev", "ev.0", "ev.x.s", "ev.0.", "ev.0..s", "ev.0.>", "ev.*.s"),
        *("ev.202611.s", "ev.202611.0", "ev.202611.*.s", "ev.20261.0000.s", "aud", "aud.>"),
        *("reg", "reg.a b", "reg.a\n", "x.y"),
    ],
)
def test_other_subjects_belong_to_no_stream(subject):
    """Wildcards, blanks, empty tokens and foreign roots are refused."""
    with pytest.raises(ValueError, match="belongs to no stream"):
        stream_of(subject)


@pytest.mark.parametrize(
    "stream", ["", "EV_", "EV_x", "EV_²", "ev_0", "EV_0.>", "KV_a", "BLOB", "BLOB_2026", "EV_202611", "EV_202611_", "AUD_1"]
)
def test_other_streams_are_none_of_ours(stream):
    """A stream's name is REG, CKPT, AUD, or says a period (and a shard)."""
    assert not is_ours(stream)
    with pytest.raises(ValueError, match="no stream of the event log"):
        subjects_of(stream)
