"""The signing key's files: made once, private, refused when anybody else could have touched them."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec

from agentos.abi.errors import IdentityError
from agentos.audit.keys import SigningKey, create_key, load_key, load_or_create_key


class Fixed:
    """Randomness that is not."""

    def token(self, size: int) -> bytes:
        return bytes(range(size))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys" / "evidence.pem"


def test_a_key_is_made_once_and_loaded_again(path):
    """The loaded key is the one that was made; both files have the modes they must have."""
    made = load_or_create_key(path, Fixed())
    again = load_or_create_key(path, Fixed())
    assert (again.id, again.public_pem) == (made.id, made.public_pem)
    assert again.sign(b"x") == made.sign(b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("evidence.pem.pub").stat().st_mode) == 0o644
    assert path.with_name("evidence.pem.pub").read_bytes() == made.public_pem
    assert SigningKey.from_seed(Fixed().token(32)).id == made.id


def test_a_key_is_never_overwritten(path):
    """Making a key where one is does nothing but say so."""
    create_key(path, Fixed())
    before = path.read_bytes()
    with pytest.raises(IdentityError, match="already"):
        create_key(path, Fixed())
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o700 | 0o010])
def test_a_key_open_to_others_is_refused(path, mode):
    """A private key that others could read or write is not used."""
    create_key(path, Fixed())
    path.chmod(mode)
    with pytest.raises(IdentityError, match="open to others") as caught:
        load_key(path)
    assert "chmod 600" in (caught.value.mend or "")


def test_a_link_is_refused(path, tmp_path):
    """The key must be the file itself."""
    create_key(path, Fixed())
    link = tmp_path / "link.pem"
    link.symlink_to(path)
    with pytest.raises(IdentityError, match="cannot be read"):
        load_or_create_key(link, Fixed())


def test_what_is_no_ed25519_key_is_refused(path, tmp_path):
    """Missing, garbage, another kind of key, a folder: each is said."""
    with pytest.raises(IdentityError, match="cannot be read"):
        load_key(path)
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    for content, words in ((b"garbage", "not a private key"), (pem, "not an Ed25519 key")):
        odd = tmp_path / "odd.pem"
        odd.write_bytes(content)
        odd.chmod(0o600)
        with pytest.raises(IdentityError, match=words):
            load_key(odd)
    with pytest.raises(IdentityError, match="not a file of your own"):
        load_key(tmp_path)


def test_the_public_file_is_restored_and_compared(path):
    """A missing public file is written again; one of another key is refused, as auditors would be given it."""
    key = create_key(path, Fixed())
    public = path.with_name("evidence.pem.pub")
    public.unlink()
    load_key(path)
    assert public.read_bytes() == key.public_pem
    public.write_bytes(SigningKey.from_seed(bytes(32)).public_pem)
    with pytest.raises(IdentityError, match="not that of the signing key"):
        load_key(path)


def test_a_key_does_not_show_itself(path):
    """No secret in the text form of a key."""
    key = create_key(path, Fixed())
    assert repr(key) == f"SigningKey({key.id})"
