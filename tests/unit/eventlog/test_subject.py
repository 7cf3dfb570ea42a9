"""Subjects and the streams that store them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.ids import NAME
from agentos.eventlog import BLOB_STREAM, EVENT_STREAMS, REGISTRY_STREAM, session_of, session_subject, stream_of
from agentos.eventlog.subject import PRINCIPALS, REVISIONS, blob_subject, payload_subject, subjects_of


@given(st.from_regex(NAME, fullmatch=True))
def test_a_session_has_one_subject_in_one_stream(session):
    """A session's subject names it, lies in one of the event streams, and is the same every time."""
    subject = session_subject(session)
    assert session_of(subject) == session
    assert stream_of(subject) in EVENT_STREAMS
    assert subject == session_subject(session)
    assert subject.startswith(subjects_of(stream_of(subject)).removesuffix(">"))


def test_the_registry_has_one_stream():
    """Revisions, principals and blobs all lie in the registry's stream."""
    for subject in (REVISIONS, PRINCIPALS, blob_subject("sha256:00ff")):
        assert stream_of(subject) == REGISTRY_STREAM
    assert blob_subject("sha256:00ff") == "reg.blob.00ff"
    assert subjects_of(REGISTRY_STREAM) == "reg.>"


def test_large_payloads_have_a_stream_of_their_own():
    """A tenant's blobs lie in BLOB, apart from its events and from the registry's blobs."""
    subject = payload_subject("sha256:00ff")
    assert (subject, stream_of(subject), subjects_of(BLOB_STREAM)) == ("blob.00ff", BLOB_STREAM, "blob.>")


@pytest.mark.parametrize(
    "subject",
    ["blob", "blob.>", "", "ev", "ev.0", "ev.x.s", "ev.0.", "ev.0..s", "ev.0.>", "ev.*.s", "reg", "reg.a b", "reg.a\n", "x.y"],
)
def test_other_subjects_belong_to_no_stream(subject):
    """Wildcards, blanks, empty tokens and foreign roots are refused."""
    with pytest.raises(ValueError, match="belongs to no stream"):
        stream_of(subject)


@pytest.mark.parametrize("stream", ["", "EV_", "EV_x", "EV_²", "ev_0", "EV_0.>", "KV_a"])
def test_other_streams_are_none_of_ours(stream):
    """A stream's name is REG, or EV_ and a number."""
    with pytest.raises(ValueError, match="no stream of the event log"):
        subjects_of(stream)
