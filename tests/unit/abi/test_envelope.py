"""The envelope of a delegation: one form, one meaning, and nothing in it but references."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentos.abi.assets import asset
from agentos.abi.canonical import canonical
from agentos.abi.envelope import LONGEST_MS, Envelope, read_task_subject, signed, task_subject

SCHEMA = Draft202012Validator(json.loads((asset("schemas") / "v1" / "delegation-envelope.json").read_text()))
SENDER = "U" + "A" * 55
GOOD = Envelope("acme", "s-parent", "call-1", 2, "s-child", 7, "sha256:" + "a" * 64, 1000, 2000)

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True)
NUMBERS = st.integers(0, 2**53 - 1)
ENVELOPES = st.builds(
    lambda tenant, parent, call, index, child, decided, head, issued, life: Envelope(
        tenant, parent, call, index, child, decided, f"sha256:{head}", issued, issued + life
    ),
    NAMES,
    NAMES,
    st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    NUMBERS,
    NAMES,
    st.integers(1, 2**53 - 1),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    st.integers(0, 2**52),
    st.integers(1, LONGEST_MS),
)


@given(ENVELOPES)
def test_what_is_written_is_read_back_and_is_as_published(envelope: Envelope) -> None:
    """Every envelope is the value of its bytes, and its bytes are what the schema says."""
    assert Envelope.from_bytes(envelope.to_bytes()) == envelope
    SCHEMA.validate(json.loads(envelope.to_bytes()))


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": True},
        {"v": None},
        {"tenant": "*"},
        {"tenant": "A"},
        {"parent": "s.parent"},
        {"parent": 7},
        {"call": ""},
        {"call": "a b"},
        {"call": "c" * 65},
        {"index": -1},
        {"index": True},
        {"index": 1.5},
        {"child": "s/../x"},
        {"decided": 0},
        {"head": "sha256:" + "A" * 64},
        {"head": "a" * 64},
        {"expires_ms": 1000},
        {"expires_ms": 1000 + LONGEST_MS + 1},
        {"issued_ms": -1},
        {"goal": "words"},
        {"sender": SENDER},
    ],
)
def test_whatever_is_not_exactly_an_envelope_is_refused(changes: dict[str, Any]) -> None:
    """Another version, kind, range or field: refused, without a word of it in what is said."""
    body = json.loads(GOOD.to_bytes()) | changes
    with pytest.raises(ValueError, match="envelope") as said:
        Envelope.from_bytes(canonical(body))
    assert all(str(value) not in str(said.value) for value in changes.values() if isinstance(value, str) and len(value) > 3)


@given(st.binary(max_size=300))
def test_no_bytes_are_taken_for_an_envelope(data: bytes) -> None:
    """Whatever comes, it is refused by ValueError and nothing else."""
    with pytest.raises(ValueError):
        Envelope.from_bytes(data)


def test_one_meaning_has_one_form() -> None:
    """A missing field, other spaces, another order or an overlong body are refused: what is signed is what is read."""
    body = json.loads(GOOD.to_bytes())
    others = [
        json.dumps(body).encode(),
        GOOD.to_bytes() + b" ",
        json.dumps(dict(reversed(body.items())), separators=(",", ":")).encode(),
        canonical({name: value for name, value in body.items() if name != "head"}),
        canonical(body | {"parent": "s" * 4000}),
    ]
    for data in others:
        with pytest.raises(ValueError):
            Envelope.from_bytes(data)


def test_the_subject_tells_sender_and_child() -> None:
    """What is made is read back; what could be another subject, or several, is refused."""
    assert read_task_subject(task_subject(SENDER, "s-1")) == (SENDER, "s-1")
    for subject in (
        "task.x.s-1",
        f"task.{SENDER}",
        f"task.{SENDER}.s-1.x",
        f"task.{SENDER}.*",
        f"task.{SENDER}.>",
        f"ev.{SENDER}.s-1",
    ):
        with pytest.raises(ValueError, match="not the subject"):
            read_task_subject(subject)


def test_a_signature_is_of_one_subject_and_one_body() -> None:
    """What is signed differs as soon as sender, child or body do, wherever one ends and the other begins."""
    body = GOOD.to_bytes()
    all_signed = {
        signed(task_subject(SENDER, "s-1"), body),
        signed(task_subject(SENDER, "s-2"), body),
        signed(task_subject("U" + "B" * 55, "s-1"), body),
        signed(task_subject(SENDER, "s-1"), replace(GOOD, index=3).to_bytes()),
    }
    assert len(all_signed) == 4
    assert all(one.startswith(b"agentos delegation 1\n") for one in all_signed)
