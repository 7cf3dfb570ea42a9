"""Signed notes: the published example byte for byte, and that nothing but a note is taken for one."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.errors import EvidenceError
from agentos.audit.keys import SigningKey
from agentos.audit.note import MAX_SIGNATURES, Verifier, parse_note, sign_note

# The example of https://pkg.go.dev/golang.org/x/mod/sumdb/note, which other implementations test against too.
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNATURE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
NOTE = f"{TEXT}\n{SIGNATURE}"

PETER = SigningKey.from_seed(SEED)
OTHER = SigningKey.from_seed(bytes(32))


def test_the_published_example_is_made_and_read_byte_for_byte() -> None:
    """Same key, same text: the same note; its verifier key reads back to itself."""
    assert sign_note(TEXT, "PeterNeumann", PETER) == NOTE
    verifier = Verifier.parse(VKEY)
    assert verifier == Verifier("PeterNeumann", PETER.public)
    assert verifier.text == VKEY
    assert verifier.hash.hex() == "c74f20a3"
    taken = parse_note(NOTE.encode())
    assert taken.text == TEXT
    assert taken.signers([verifier]) == (verifier,)


def test_several_keys_sign_one_note() -> None:
    """Each known signer is named; a key that did not sign, or signs under another name, is not."""
    note = parse_note(sign_note(TEXT, "log", PETER, OTHER))
    first, second = Verifier("log", PETER.public), Verifier("log", OTHER.public)
    assert note.signers([first, second]) == (first, second)
    assert note.signers([second]) == (second,)
    assert note.signers([Verifier("other", PETER.public)]) == ()


@given(st.integers(0, len(NOTE.encode()) - 1), st.integers(1, 255))
def test_no_changed_byte_passes(at: int, change: int) -> None:
    """A note with any byte changed is no note, has another text's signature, or none of a trusted key."""
    data = bytearray(NOTE.encode())
    data[at] ^= change
    try:
        signers = parse_note(bytes(data)).signers([Verifier.parse(VKEY)])
    except EvidenceError:
        return
    assert signers == ()


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        TEXT,
        f"{TEXT}\n",
        f"{TEXT}{SIGNATURE}",
        f"\n\n{SIGNATURE}",
        f"{TEXT}\n{SIGNATURE[:-1]}",
        f"{TEXT}\n{SIGNATURE[2:]}",
        f"{TEXT}\n{SIGNATURE.replace('— ', '- ')}",
        f"{TEXT}\n{SIGNATURE.replace('PeterNeumann', 'Peter+Neumann')}",
        f"{TEXT}\n{SIGNATURE.replace('AM=', 'AM')}",
        f"{TEXT}\n{SIGNATURE.replace('AM=', 'AN=')}",
        f"{TEXT}\n— PeterNeumann AAAA\n",
        f"tab\there\n\n{SIGNATURE}",
        f"{TEXT}\n{SIGNATURE * (MAX_SIGNATURES + 1)}",
        f"{'x' * 1_000_000}\n\n{SIGNATURE}",
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    """Each with a reason, none with a traceback."""
    with pytest.raises(EvidenceError):
        parse_note(note)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"text\n\n\xe2\x80", TEXT.encode("utf-16")])
def test_bytes_that_are_no_text_are_refused(data: bytes) -> None:
    """A note is UTF-8."""
    with pytest.raises(EvidenceError):
        parse_note(data)


def test_verifier_keys_that_are_off_are_refused() -> None:
    """A cut key, another hash, another algorithm, a key of another length: no verifier."""
    for at in range(len(VKEY)):
        with pytest.raises(EvidenceError):
            Verifier.parse(VKEY[:at])
    for text in (
        VKEY.replace("c74f20a3", "c74f20a4"),
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ):
        with pytest.raises(EvidenceError):
            Verifier.parse(text)
    with pytest.raises(EvidenceError, match="cannot name"):
        Verifier("two words", PETER.public)


@pytest.mark.parametrize("text", ["", "\n", "no end", "bell\x07\n", "lone \ud800\n"])
def test_only_whole_lines_are_signed(text: str) -> None:
    """What others could read otherwise is not signed."""
    with pytest.raises(EvidenceError):
        sign_note(text, "log", PETER)


def test_a_false_signature_of_a_known_key_is_an_error() -> None:
    """Not merely an unsigned note: somebody changed it."""
    note = parse_note(NOTE.replace("answer", "Answer"))
    with pytest.raises(EvidenceError, match="edited"):
        note.signers([Verifier.parse(VKEY)])
