"""The runtime's signing key: an Ed25519 key in a file that only its owner can read, and the public half beside it.

`<name>` holds the private key (PEM, PKCS 8, mode 0600), `<name>.pub` the public one (PEM, SubjectPublicKeyInfo). A private key
that others could have read or replaced proves nothing any more, so it is refused rather than used.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentos.abi.errors import IdentityError
from agentos.abi.ids import Random
from agentos.audit.layout import key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A loaded signing key. Its text form shows the id only."""

    id: str
    """`sha256:<hex>` of the 32 raw bytes of the public key."""
    public_pem: bytes
    """The public key as SubjectPublicKeyInfo in PEM: what an auditor is given."""
    public: bytes
    """The 32 raw bytes of the public key."""
    _private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"SigningKey({self.id})"

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `data`."""
        return self._private.sign(data)

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key that 32 secret random bytes make."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return _wrap(Ed25519PrivateKey.from_private_bytes(seed))


def create_key(path: Path, random: Random) -> SigningKey:
    """Make a new key in `path` and `path`.pub. Raises IdentityError when there is one, OSError when it cannot be written."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(random.token(32))
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    key = _wrap(private)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        _write(path, pem, 0o600)
    except FileExistsError as error:
        raise IdentityError("there already is a signing key", where=str(path), mend="move it away to start a new one") from error
    _write_public(path, key)
    return key


def load_key(path: Path) -> SigningKey:
    """Load the key in `path`; restore `path`.pub if it is missing.

    Raises IdentityError when the file is missing, is no Ed25519 key, is a link, or belongs or is open to anybody else.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        # Checked on the open file: between a look at the name and the opening of it, another file could take its place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise IdentityError(f"the signing key cannot be read: {error.strerror}", where=str(path)) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise IdentityError("the signing key is not a file of your own", where=str(path))
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            mend = f"if nobody else can have read it: chmod 600 {path}; else make a new key"
            raise IdentityError(f"the signing key is open to others (mode {mode:04o})", where=str(path), mend=mend)
        pem = os.read(descriptor, 65_536)
    finally:
        os.close(descriptor)
    try:
        private = form.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise IdentityError("the signing key is not a private key in PEM", where=str(path)) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise IdentityError("the signing key is not an Ed25519 key", where=str(path))
    key = _wrap(private)
    public = _public_path(path)
    if not public.exists():
        _write_public(path, key)
    elif public.read_bytes() != key.public_pem:
        raise IdentityError(
            "the public key is not that of the signing key", where=str(public), mend="remove it: it is written again"
        )
    return key


def load_or_create_key(path: Path, random: Random) -> SigningKey:
    """`load_key`, or `create_key` where there is none."""
    return load_key(path) if path.exists() or path.is_symlink() else create_key(path, random)


def _wrap(private: Ed25519PrivateKey) -> SigningKey:
    from cryptography.hazmat.primitives import serialization as form

    public = private.public_key()
    raw = public.public_bytes(form.Encoding.Raw, form.PublicFormat.Raw)
    pem = public.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(key_id(raw), pem, raw, private)


def _public_path(path: Path) -> Path:
    return path.with_name(path.name + ".pub")


def _write_public(path: Path, key: SigningKey) -> None:
    public = _public_path(path)
    public.unlink(missing_ok=True)
    _write(public, key.public_pem, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
