"""NKey seeds and the files that keep them."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from agentos.abi.errors import IdentityError
from agentos.eventlog.adapters.credentials import NKey, create_seed, parse_seed, read_seed, write_seed


class FixedRandom:
    """The same bytes each time."""

    def __init__(self, fill: bytes) -> None:
        self._fill = fill

    def token(self, size: int) -> bytes:
        return (self._fill * size)[:size]


@pytest.fixture
def key() -> NKey:
    return create_seed(FixedRandom(b"\x01"))


def test_a_key_is_made_of_the_randomness_it_is_given(key):
    """The same random bytes give the same user; its halves look as NATS writes them."""
    assert key == create_seed(FixedRandom(b"\x01"))
    assert key != create_seed(FixedRandom(b"\x02"))
    assert (key.seed[:2], len(key.seed), key.public_key[0], len(key.public_key)) == ("SU", 58, "U", 56)
    assert parse_seed(f" {key.seed}\n") == key


def test_a_seed_never_shows(key):
    """Neither repr nor str nor an error message holds the seed."""
    assert key.seed not in f"{key!r} {key}"
    with pytest.raises(IdentityError) as caught:
        parse_seed(key.seed[:-1] + ("A" if key.seed[-1] != "A" else "B"))
    assert key.seed[:-1] not in f"{caught.value} {caught.value.to_dict()}"


def test_a_signature_verifies(key):
    """What a key signs verifies with Ed25519 under its raw public key."""
    import base64

    raw = base64.b32decode(key.public_key)[1:33]
    VerifyKey(raw).verify(b"message", key.sign(b"message"))
    VerifyKey(raw).verify(b"nonce", base64.b64decode(key.answer("nonce")))


@given(st.text(max_size=80))
def test_other_text_is_no_seed(text):
    """Any other text raises IdentityError."""
    with pytest.raises(IdentityError):
        parse_seed(text)


def test_an_account_seed_is_no_user_seed():
    """A seed of another role than user is refused."""
    import nkeys

    seed = nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_ACCOUNT).decode()
    with pytest.raises(IdentityError):
        parse_seed(seed)


def test_a_file_is_private_and_replaced_whole(key, tmp_path):
    """The file is 0600 in a 0700 folder, reads back, and is replaced by a second write."""
    path = tmp_path / "keys" / "me.nk"
    write_seed(path, create_seed(FixedRandom(b"\x02")))
    write_seed(path, key)
    assert read_seed(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["me.nk"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_a_file_that_others_can_use_is_refused(key, tmp_path, mode):
    """Any right of group or others is refused with the path and the command that mends it."""
    path = tmp_path / "me.nk"
    write_seed(path, key)
    path.chmod(mode)
    with pytest.raises(IdentityError, match=f"{mode:04o}") as caught:
        read_seed(path)
    assert caught.value.where == str(path)
    assert caught.value.mend == f"chmod 600 {path}"


def test_a_missing_or_foreign_file_is_said(tmp_path):
    """No file, a folder, bytes, and text that is no seed: each an IdentityError with the path."""
    (tmp_path / "folder").mkdir()
    for name, content in (("bytes", b"\xff\xfe"), ("text", b"hello\n"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    for name in ("missing", "folder", "bytes", "text", "empty"):
        with pytest.raises(IdentityError) as caught:
            read_seed(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
