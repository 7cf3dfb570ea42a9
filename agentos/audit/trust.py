"""The key that a verifier was given: a public key in PEM, or a note's verifier key (`agentos audit keys -o vkey`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi.errors import EvidenceError
from agentos.audit.layout import key_id
from agentos.audit.note import Verifier
from agentos.audit.rotation import Rotation, TrustedKey, trusted_keys

_MEND: Final = "ask the operator of the runtime for the file that `agentos evidence key` writes"


@dataclass(frozen=True, slots=True)
class Trust:
    """The trusted key. `name` is the log that a verifier key is for; None for a plain public key, which is for any."""

    public: bytes
    name: str | None = None

    @property
    def id(self) -> str:
        """`sha256:<hex>` of the raw key."""
        return key_id(self.public)

    def keys(self, chain: Sequence[Rotation]) -> tuple[TrustedKey, ...]:
        """The keys that count: this one, and those that `chain` leads to from it."""
        return trusted_keys(self.public, chain)

    def require(self, origin: str) -> None:
        """Raises EvidenceError when the key was given for another log than `origin`."""
        if self.name is not None and self.name != origin:
            raise EvidenceError(f"you trust the log {self.name}, this is {origin}")


def load_trust(data: bytes) -> Trust:
    """Read the trusted key. Raises EvidenceError for what is no Ed25519 public key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if b"-----BEGIN" not in data and data.count(b"+") >= 2:
        try:
            verifier = Verifier.parse(data.decode("utf-8"))
        except (UnicodeDecodeError, EvidenceError) as error:
            raise EvidenceError("the trusted key is not a verifier key", mend=_MEND) from error
        return Trust(verifier.public, verifier.name)
    try:
        key = form.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EvidenceError("the trusted key is not a public key in PEM", mend=_MEND) from error
    if not isinstance(key, Ed25519PublicKey):
        raise EvidenceError("the trusted key is not an Ed25519 public key", mend=_MEND)
    return Trust(key.public_bytes(form.Encoding.Raw, form.PublicFormat.Raw))
