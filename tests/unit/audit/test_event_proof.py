"""Proof files: whatever the bytes, there is an outcome; only the true proof, checked with the true key, proves."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import canonical
from agentos.abi.errors import EvidenceError
from agentos.audit.checkpoint import Checkpoint, Tree
from agentos.audit.keys import SigningKey
from agentos.audit.merkle import Frontier, inclusion_proof, leaf_hash
from agentos.audit.note import sign_note
from agentos.audit.proof import MAX_PROOF, make_proof, verify_proof
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
        ({"format": "agentos-proof/v2"}, "format"),
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
