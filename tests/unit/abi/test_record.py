"""Records: a payload is the header's or it is refused; without it the header says that there was one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import canonical, digest
from agentos.abi.event import Event
from agentos.abi.record import decode, header_of, join, make_opening, opened, read_opening, split

SALT = bytes(range(16))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
payloads = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, max_size=5)


def event(data: dict[str, object]) -> Event:
    return Event(
        "e1", "agentos.session.paused", "default", "s-1", 1, "sha256:" + "0" * 64, 1_795_000_000_000, "x/y", 1, None, data
    )


@given(payloads, st.binary(min_size=16, max_size=16))
def test_a_record_reads_as_what_was_written(data: dict[str, object], salt: bytes) -> None:
    """The event of a record has the payload; that of its header alone has none, says so, and is the same otherwise."""
    record = event(data).to_record(salt)
    assert record.count(b"\t") == 1
    assert b"\n" not in record
    again = Event.from_bytes(record)
    assert (again.data, again.withheld) == (data, False)
    alone = Event.from_bytes(header_of(record))
    assert (alone.data, alone.withheld) == ({}, True)
    assert (alone.id, alone.seq, alone.prev) == (again.id, again.seq, again.prev)
    assert again.head(record) == alone.head(header_of(record))
    header, opening = split(record)
    assert join(header, opening) == record
    assert split(header) == (header, None)


@given(payloads, st.binary(max_size=40))
def test_only_the_opening_that_is_named_is_read(data: dict[str, object], other: bytes) -> None:
    """Any other bytes are refused, an empty opening among them."""
    header, opening = split(event(data).to_record(SALT))
    assert opening is not None
    for wrong in (other, b"", opening + b" ", opening[:-1], make_opening(data, bytes(16))):
        with pytest.raises(ValueError, match="payload"):
            decode(join(header, wrong))


def test_the_salt_hides_what_was_said() -> None:
    """The same payload twice has two digests, so a short one cannot be guessed from the header."""
    one, two = (event({"reason": "no"}).to_record(salt) for salt in (SALT, bytes(16)))
    assert decode(header_of(one))["p"] != decode(header_of(two))["p"]
    assert b"no" not in header_of(one).replace(b"agentos", b"")


@pytest.mark.parametrize(
    "body",
    [[], {"data": []}, {"data": {}, "salt": "00", "more": 1}, {"salt": "00"}, "x"],
    ids=["list", "list of data", "more", "no data", "text"],
)
def test_an_opening_has_one_shape(body: object) -> None:
    """Whatever the header names must be `data` and `salt`."""
    opening = canonical(body)
    with pytest.raises(ValueError, match="not a canonical object"):
        read_opening(opening, digest(opening))
    loose = b'{"data": {}, "salt": "00"}'
    with pytest.raises(ValueError, match="canonical"):
        read_opening(loose, digest(loose))


def test_data_and_its_digest_exclude_each_other() -> None:
    """An event is open or has its payload apart, never both, and nothing stands beside an open one."""
    with pytest.raises(ValueError, match="not both"):
        opened({"p": "sha256:", "data": {}}, None)
    for body in ({"data": {}}, {"p": 1}, {"p": "sha256:", "data": {}}):
        with pytest.raises(ValueError, match="names none"):
            opened(body, b"{}")
    with pytest.raises(ValueError, match="JSON object"):
        opened([], None)
