"""The values of batches: what is collected, what is kept of a submission, and its ids."""

from __future__ import annotations

import re

import pytest

from agentos.abi.canonical import Json, canonical
from agentos.drivers import batching
from agentos.drivers.batching import BatchCall, Gathering, Submission, SubmissionUnreadable, pauses
from agentos.drivers.port import ModelRequest, ModelSpec

MODEL = ModelSpec("claude", "anthropic", {"model": "m", "maxTokens": 9})


async def still() -> None:
    return


def call(identity: str, words: str = "x") -> BatchCall:
    request = ModelRequest("", [{"role": "user", "content": words}], [])
    return BatchCall("default", f"s-{identity}", identity, MODEL, request, 1000, 2, still)


def test_a_submission_is_kept_whole() -> None:
    """With the id of its batch and without."""
    made = Submission("abcd", MODEL, 7, (("a", "s-1"), ("b", "s-2")))
    assert Submission.from_bytes(made.to_bytes()) == made
    known = Submission("abcd", MODEL, 7, (("a", "s-1"),), "msgbatch_1")
    assert Submission.from_bytes(known.to_bytes()) == known


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"token": 1},
        {"at": "7"},
        {"members": [["a"]]},
        {"members": [["a", 1]]},
        {"members": 3},
        {"model": {"name": "m", "provider": "p", "settings": []}},
        {"model": None},
        {"batch": 5},
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, Json]) -> None:
    """Whatever stands in the bucket is read in full or not at all."""
    body: dict[str, Json] = {"v": 1, "token": "t", "at": 7, "members": [["a", "s"]]}
    body["model"] = {"name": "m", "provider": "p", "settings": {"model": "x"}}
    Submission.from_bytes(canonical(body))
    with pytest.raises(SubmissionUnreadable):
        Submission.from_bytes(canonical(body | change))


def test_no_record_at_all() -> None:
    with pytest.raises(SubmissionUnreadable):
        Submission.from_bytes(b"\xff not json")


def test_the_ids_of_requests_fit_the_api() -> None:
    """They are told from those of every other submission, and lead back to their call."""
    identity, token = "0" * batching.IDENTITY, "f" * 2 * batching.TOKEN_BYTES
    made = Submission(token, MODEL, 7, ((identity, "s-1"),))
    name = made.request_id(identity)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name)
    assert made.identity(name) == identity
    assert made.identity(name[:-1] + "0") is None
    assert made.identity(identity) is None


def test_calls_are_collected_until_as_many_are_there_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or as many bytes; a call that is dropped gives its room back, one that comes again takes its own."""
    gathering = Gathering(2)
    gathering.add(call("a"))
    gathering.add(call("a"))
    assert not gathering.full
    gathering.add(call("b"))
    assert gathering.full
    gathering.drop("b")
    gathering.drop("nobody")
    assert not gathering.full
    assert list(gathering.calls) == ["a"]
    monkeypatch.setattr(batching, "MOST_BYTES", call("a").size + 100)
    assert not gathering.full
    gathering.add(call("c", "y" * 100))
    many = Gathering(10)
    many.add(call("a"))
    assert not many.full
    many.add(call("c", "y" * 100))
    assert many.full


def test_pauses_grow_to_the_longest() -> None:
    assert list(pauses(2.0, 8.0)) == [2.0, 3.0, 4.5, 6.75, 8.0]
    assert list(pauses(5.0, 5.0)) == [5.0]
