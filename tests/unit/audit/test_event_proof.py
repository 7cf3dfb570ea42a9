"""Proof files: whatever the bytes, there is an outcome; only the true proof, checked with the true key, proves."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of, trace_of
from agentos.abi.canonical import canonical
from agentos.abi.errors import EvidenceError
from agentos.abi.event import Event
from agentos.abi.record import header_of
from agentos.audit.checkpoint import Checkpoint, Tree
from agentos.audit.keys import SigningKey
from agentos.audit.merkle import Frontier, inclusion_proof, leaf_hash
from agentos.audit.note import sign_note
from agentos.audit.proof import MAX_PROOF, is_withheld, make_proof, verify_proof, with_payload
from agentos.audit.rotation import make_rotation

KEY = SigningKey.from_seed(bytes(range(32)))
ORIGIN = "agentos/0123456789abcdef/default"


def event(number: int) -> bytes:
    return canonical(
        {
            "specversion": "1.0",
            "id": f"e{number}",
            "source": "agentos/default",
            "type": "agentos.session.created",
            "subject": "s-a",
            "time": "2026-11-21T08:30:00.000Z",
            "datacontenttype": "application/json",
            "seq": number,
            "prev": "sha256:" + "0" * 64,
            "actor": "principal/ann",
            "configrevision": 1,
            "data": {"goal": "x"},
        }
    )


EVENTS = [event(number) for number in range(5)]


def node(level: int, index: int) -> bytes:
    frontier = Frontier()
    for at in range(index << level, (index + 1) << level):
        frontier.append(leaf_hash(EVENTS[at]))
    return frontier.root()


TREE = Tree(5, Frontier.of(node, 5).root())
POINT = Checkpoint(ORIGIN, 3, TREE.root, 1_795_000_000_000, {"EV_0": TREE})
NOTE = sign_note(POINT.text(), ORIGIN, KEY)
PROOF = make_proof(EVENTS[2], stream="EV_0", leaf=2, path=inclusion_proof(node, 2, 5), note=NOTE, rotations=())
DATA = json.dumps(PROOF).encode()


def outcome(**changes: object) -> dict[str, bool | None]:
    found = verify_proof(json.dumps(PROOF | changes).encode(), KEY.public_pem)
    assert found.ok == (found.fault is None)
    return {name: held for name, held, _ in found.checks}


def test_the_true_proof_proves() -> None:
    """Every check held, and the event and checkpoint can be shown."""
    found = verify_proof(DATA, KEY.public_pem)
    assert found.ok
    assert found.event is not None
    assert found.event.id == "e2"
    assert found.checkpoint == POINT
    assert found.to_dict()["event"]["session"] == "s-a"


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"event": base64.b64encode(EVENTS[3]).decode()}, "inclusion"),
        ({"leaf": 3}, "inclusion"),
        ({"leaf": -1}, "inclusion"),
        ({"leaf": 5}, "inclusion"),
        ({"stream": "EV_1"}, "inclusion"),
        ({"path": PROOF["path"][:-1]}, "inclusion"),
        ({"path": []}, "inclusion"),
        ({"checkpoint": NOTE.replace("\n3\n", "\n4\n")}, "checkpoint"),
        ({"checkpoint": sign_note(POINT.text(), ORIGIN, SigningKey.from_seed(bytes(32)))}, "checkpoint"),
        ({"checkpoint": "none"}, "checkpoint"),
        ({"rotations": ["none"]}, "checkpoint"),
        ({"event": "!"}, "format"),
        ({"path": ["!"]}, "format"),
        ({"path": "none"}, "format"),
        ({"leaf": "2"}, "format"),
        ({"leaf": True}, "format"),
        ({"stream": None}, "format"),
        ({"format": "agentos-proof/v3"}, "format"),
        ({"more": 1}, "format"),
    ],
)
def test_any_other_does_not(changes: dict[str, object], failed: str) -> None:
    """The check that failed is named; those behind it were not made."""
    held = outcome(**changes)
    assert held[failed] is False
    assert list(held.values()).index(False) == len([one for one in held.values() if one])


def test_an_event_of_another_tenant_is_no_event_of_this_log() -> None:
    """A leaf of the tree that says it belongs elsewhere."""
    point = Checkpoint("agentos/0123456789abcdef/acme", 3, TREE.root, 1_795_000_000_000, {"EV_0": TREE})
    assert outcome(checkpoint=sign_note(point.text(), point.origin, KEY))["event"] is False


def test_bytes_that_are_no_event_are_said() -> None:
    """They may be a leaf all the same."""
    point = Checkpoint(ORIGIN, 1, TREE.root, 1_795_000_000_000, {"EV_0": Tree(1, leaf_hash(b"hello"))})
    held = outcome(event=base64.b64encode(b"hello").decode(), leaf=0, path=[], checkpoint=sign_note(point.text(), ORIGIN, KEY))
    assert (held["inclusion"], held["event"]) == (True, False)


def test_a_rotation_leads_to_the_key_that_signed() -> None:
    """Trusting the old key is enough for a checkpoint of the new one, and the other way round; not beyond its time."""
    new = SigningKey.from_seed(bytes(32))
    for at, ok in ((1_794_000_000_000, True), (1_796_000_000_000, False)):
        rotation = make_rotation(KEY, new, at).note
        body = PROOF | {"checkpoint": sign_note(POINT.text(), ORIGIN, new), "rotations": [rotation]}
        for key in (KEY, new):
            assert verify_proof(json.dumps(body).encode(), key.public_pem).ok is ok


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_no_changed_byte_proves_another_thing(at: int, change: int) -> None:
    """Any byte of the file changed: it does not prove, or it is the same proof spelled otherwise."""
    data = bytearray(DATA)
    data[at] ^= change
    found = verify_proof(bytes(data), KEY.public_pem)
    assert not found.ok or (found.event is not None and found.event.to_bytes() == EVENTS[2] and found.checkpoint == POINT)


@given(st.binary(max_size=200))
def test_any_bytes_have_an_outcome(data: bytes) -> None:
    """No exception leaves for what a stranger sent."""
    assert not verify_proof(data, KEY.public_pem).ok


def test_too_large_or_an_odd_key() -> None:
    """A file beyond the bound is not parsed; a key that is none is the caller's error."""
    assert not verify_proof(b" " * (MAX_PROOF + 1), KEY.public_pem).ok
    with pytest.raises(EvidenceError):
        verify_proof(DATA, b"key")


def record(number: int, **changes: object) -> bytes:
    data = {"call": "c1", "tool": "write", "labels": ["pii"]}
    name = f"{number:032x}"
    told = attributes_of(ev.SYSCALL_UNKNOWN, data) | {"agent": "triage", "traceparent": trace_of("s-a", name)} | changes
    made = Event(
        name, ev.SYSCALL_UNKNOWN, "default", "s-a", number, "sha256:" + "0" * 64, 0, "system/kernel", 1, None, data, told
    )
    return made.to_record(bytes(16))


def proof_of(data: bytes, leaf: bytes | None = None) -> dict[str, object]:
    tree = Tree(1, leaf_hash(leaf or header_of(data)))
    point = Checkpoint(ORIGIN, 1, tree.root, 1_795_000_000_000, {"EV_202611_0": tree})
    note = sign_note(point.text(), ORIGIN, KEY)
    return make_proof(data, stream="EV_202611_0", leaf=0, path=(), note=note, rotations=())


def held_of(proof: dict[str, object]) -> tuple[bool, dict[str, bool | None]]:
    found = verify_proof(json.dumps(proof).encode(), KEY.public_pem)
    return found.ok, {name: held for name, held, _ in found.checks}


def test_a_record_is_proven_with_its_payload_and_without() -> None:
    """The leaf is the header; without the payload everything else is checked, and that it was not is said."""
    data = record(1)
    ok, held = held_of(proof_of(data))
    assert ok
    assert set(held.values()) == {True}
    alone = proof_of(header_of(data))
    ok, held = held_of(alone)
    assert ok
    assert held.pop("payload") is None
    assert set(held.values()) == {True}
    assert verify_proof(json.dumps(alone).encode(), KEY.public_pem).to_dict()["event"]["withheld"]
    assert (is_withheld(alone), is_withheld(proof_of(data))) == (True, False)
    assert with_payload(alone, data) == proof_of(data)
    for other in (record(2), data.replace(b"pii", b"pic")):
        with pytest.raises(ValueError, match="header"):
            with_payload(alone, other)


def test_a_payload_that_is_not_the_headers_is_no_proof() -> None:
    """Edited, emptied, of another event, or one of which the header is not true; an open event has none beside it."""
    data = record(1)
    header, opening = data.split(b"\t")
    for wrong in (b"", opening.replace(b"write", b"wrote"), record(2, agent="x").split(b"\t")[1] + b" "):
        ok, held = held_of(proof_of(header + b"\t" + wrong))
        assert not ok
        assert (held["inclusion"], held["payload"]) == (True, False)
    for false in ({"tool": "read"}, {"dataclasses": "public"}, {"colour": "red"}, {"traceparent": "00"}):
        ok, held = held_of(proof_of(record(1, **false)))
        assert (ok, held["payload"]) == (False, False)
    ok, held = held_of(proof_of(EVENTS[0] + b"\t" + opening))
    assert (ok, held["payload"]) == (False, False)


def test_proofs_from_before_stay_readable() -> None:
    """Format v1: an open event, all of which is the leaf."""
    assert verify_proof(json.dumps(PROOF | {"format": "agentos-proof/v1"}).encode(), KEY.public_pem).ok
