"""The chain notices whatever is done to stored events."""

from __future__ import annotations

import pytest
from abi_values import JSON, TEXT
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import canonical, digest, parse_strict
from agentos.abi.chain import GENESIS, Head, follow, verify
from agentos.abi.errors import ChainBroken
from agentos.abi.event import Event

PAYLOADS = st.lists(st.dictionaries(TEXT, JSON, max_size=2), min_size=1, max_size=6)


def chain(payloads: list[dict[str, object]], subject: str = "s-1") -> list[bytes]:
    """The stored events of one subject, one per payload."""
    head, stored = Head.empty(), []
    for data in payloads:
        event = Event(
            id=f"{subject}-{head.seq + 1}",
            type="agentos.session.created",
            tenant="default",
            subject=subject,
            seq=head.seq + 1,
            prev=head.hash,
            time_ms=1_795_000_000_000 + head.seq,
            actor="system/kernel",
            config_revision=0,
            policy_digest=None,
            data=data,
        )
        stored.append(event.to_bytes())
        head = event.head(stored[-1])
    return stored


@given(PAYLOADS)
def test_a_whole_chain_ends_at_the_digest_of_its_last_event(payloads: list[dict[str, object]]) -> None:
    """The head counts the events and hashes the last stored bytes."""
    stored = chain(payloads)
    assert verify("s-1", stored) == Head(len(stored), digest(stored[-1]))


def test_no_events_are_the_empty_chain() -> None:
    """Nothing stored, nothing to prove: the head is the genesis."""
    assert verify("s-1", []) == Head(0, GENESIS)


@given(PAYLOADS, st.data())
def test_a_changed_byte_is_noticed(payloads: list[dict[str, object]], data: st.DataObject) -> None:
    """Any byte of any event: the chain breaks there or behind it, or its head is another."""
    stored = chain(payloads)
    number = data.draw(st.integers(0, len(stored) - 1))
    place = data.draw(st.integers(0, len(stored[number]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != stored[number][place]))
    edited = bytearray(stored[number])
    edited[place] = byte
    assert noticed(stored, [*stored[:number], bytes(edited), *stored[number + 1 :]])


@given(PAYLOADS.filter(lambda payloads: len(payloads) > 1), st.data())
def test_a_dropped_event_is_noticed(payloads: list[dict[str, object]], data: st.DataObject) -> None:
    """One missing in the middle breaks the chain; a cut tail has another head."""
    stored = chain(payloads)
    number = data.draw(st.integers(0, len(stored) - 1))
    rest = stored[:number] + stored[number + 1 :]
    assert noticed(stored, rest)
    if number < len(stored) - 1:
        with pytest.raises(ChainBroken, match="dropped, added or moved"):
            verify("s-1", rest)


@given(PAYLOADS.filter(lambda payloads: len(payloads) > 1), st.randoms(use_true_random=False))
def test_moved_events_are_noticed(payloads: list[dict[str, object]], random: object) -> None:
    """Any other order of the same events breaks the chain."""
    stored = chain(payloads)
    moved = list(stored)
    random.shuffle(moved)  # type: ignore[attr-defined]
    if moved != stored:
        with pytest.raises(ChainBroken):
            verify("s-1", moved)


@given(PAYLOADS, st.data())
def test_an_inserted_event_is_noticed(payloads: list[dict[str, object]], data: st.DataObject) -> None:
    """A repeated event, and a forged one that names the right predecessor, break the chain or change its head."""
    stored = chain(payloads)
    place = data.draw(st.integers(0, len(stored)))
    repeated = data.draw(st.sampled_from(stored))
    with pytest.raises(ChainBroken):
        verify("s-1", [*stored[:place], repeated, *stored[place:]])
    head = verify("s-1", stored[:place])
    body = parse_strict(stored[0]) | {"id": "forged", "seq": head.seq + 1, "prev": head.hash}
    assert noticed(stored, [*stored[:place], canonical(body), *stored[place:]])


def test_an_event_of_another_subject_is_noticed() -> None:
    """A whole chain of one session is none of another."""
    with pytest.raises(ChainBroken, match="belongs to 's-1'"):
        verify("s-2", chain([{}]))


@pytest.mark.parametrize("change", [lambda data: data + b"\n", lambda data: data.replace(b":", b": ", 1), lambda _: b"[]"])
def test_bytes_that_mean_the_same_are_not_the_stored_ones(change: object) -> None:
    """Only canonical bytes of an object are an event; another spelling is refused."""
    with pytest.raises(ChainBroken, match="canonical"):
        follow(Head.empty(), change(chain([{}])[0]), subject="s-1")  # type: ignore[operator]


@pytest.mark.parametrize("seq", ["1", 1.0, True, None, 0, 2])
def test_a_number_that_is_not_the_next_is_refused(seq: object) -> None:
    """`seq` is a whole number, the one after the last."""
    body = parse_strict(chain([{}])[0]) | {"seq": seq}
    if seq != 1 or seq is True:
        with pytest.raises(ChainBroken, match="expected event 1"):
            follow(Head.empty(), canonical(body), subject="s-1")
    else:
        assert follow(Head.empty(), canonical(body), subject="s-1")[0].seq == 1


def noticed(stored: list[bytes], tampered: list[bytes]) -> bool:
    """Whether `verify` tells `tampered` from `stored`, given the head of the original."""
    try:
        return verify("s-1", tampered) != verify("s-1", stored)
    except ChainBroken:
        return True
