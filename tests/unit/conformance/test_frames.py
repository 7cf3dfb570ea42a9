"""What the suite says of a frame is what the published schema says, frame by frame."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from agentos.abi import rpc
from agentos.abi.assets import asset
from agentos.conformance.frames import Failed, Parted, Reply, Request, read

FOLDER = asset("schemas") / "v1" / "abi"
BODIES = {path.name: json.loads(path.read_text("utf-8")) for path in FOLDER.glob("*.json")}
REGISTRY: Registry[Any] = Registry().with_resources([(name, Resource(body, DRAFT202012)) for name, body in BODIES.items()])
SCHEMA = Draft202012Validator({"$ref": "from-harness.json"}, registry=REGISTRY)
EXAMPLES = [example for one in BODIES["from-harness.json"]["oneOf"] for example in BODIES[one["$ref"]]["examples"]]

VALUES = st.sampled_from([None, True, False, 0, 1, -3, 1.5, "", "x", "c1", "model-1", "a b", "x" * 201, [], {}, {"a": 1}])
KEYS = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "more"])
INNER = st.sampled_from(["call", "tool", "args", "result", "messages", "abi", "name", "version", "code", "message", "more"])


def accepted(frame: Any) -> bool:
    try:
        read(json.dumps(frame).encode())
    except Failed:
        return False
    return True


@pytest.mark.parametrize("frame", EXAMPLES, ids=str)
def test_examples_are_read(frame: dict[str, Any]) -> None:
    """Each example of the schemas is read as what it is."""
    said = read(json.dumps(frame).encode())
    if "id" not in frame:
        assert said == Parted()
        return
    assert isinstance(said, Request if "method" in frame else Reply)
    assert said.number == frame["id"]


@given(st.sampled_from(EXAMPLES), st.lists(st.tuples(KEYS, VALUES), max_size=2), st.lists(st.tuples(INNER, VALUES), max_size=2))
def test_both_say_the_same(example: dict[str, Any], outer: list[Any], inner: list[Any]) -> None:
    """With some fields set to something else, or taken away: both accept, or neither. 0 alone answers `initialize`."""
    frame = json.loads(json.dumps(example))
    for holder, changes in ((frame, outer), (frame.get("params", frame.get("result", frame.get("error"))), inner)):
        for key, value in changes:
            if value == "x" and key in holder:
                del holder[key]
            else:
                holder[key] = value
    versions = [holder.get("abi") for holder in [frame.get("result")] if isinstance(holder, dict)]
    if (isinstance(frame.get("result"), dict) and frame.get("id") != 0) or versions not in ([], [rpc.ABI]):
        return  # the number and the version are what cases look at
    assert accepted(frame) == SCHEMA.is_valid(frame), frame


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"hello", "no JSON"),
        (b"[]", "no object"),
        (b"", "no JSON"),
        (b'{"id":1,"method":"model.call","params":{}}', "jsonrpc"),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"model.call","params":{}}', "stands twice"),
        (b'{"jsonrpc":"2.0","id":true,"method":"model.call","params":{}}', "integer"),
        (b'{"jsonrpc":"2.0","id":9007199254740993,"method":"model.call","params":{}}', "no JSON"),
        (b'{"jsonrpc":"2.0","id":1,"method":"delegated","params":{}}', "no method"),
        (b'{"jsonrpc":"2.0","id":1,"method":"finish","params":{"result":1}}', "text"),
        (b"[" * 5000 + b"]" * 5000, "no JSON"),
        (b" " * rpc.MAX_FRAME, "at most"),
    ],
)
def test_a_report_says_what_is_wrong(line: bytes, words: str) -> None:
    """Each kind of fault has its words, and no more of the line than its beginning."""
    with pytest.raises(Failed, match=words) as failed:
        read(line)
    assert len(str(failed.value)) < 1000
