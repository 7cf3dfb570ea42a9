"""Signed notes: a text and the Ed25519 signatures under it, byte for byte as https://c2sp.org/signed-note has them.

    agentos/5d0c…/default          the text: lines, each with its line feed
    812
    …
                                   an empty line
    — agentos/5d0c…/default Az3g…  em dash, name of the key, base64 of its four-byte hash and the signature

A verifier is known by its name and key (`<name>+<hash>+<base64>`), so that a note reads on any machine that speaks the format.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi.errors import EvidenceError
from agentos.audit.keys import SigningKey

ED25519: Final = 1
"""The byte that says Ed25519 in a verifier's key."""

MAX_NOTE: Final = 1_000_000
"""Largest note read, in bytes."""

MAX_SIGNATURES: Final = 100
"""Most signatures of one note, as other verifiers have it."""

_PREFIX: Final = "— "
_NAME: Final = re.compile(r"[^\s+]+")


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks the signatures that one key made under one name."""

    name: str
    public: bytes
    """The 32 raw bytes of the Ed25519 public key."""

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise EvidenceError(f"{self.name!r} cannot name a key: it is empty or holds a blank or a plus")
        if len(self.public) != 32:
            raise EvidenceError(f"the key of {self.name} has {len(self.public)} bytes, an Ed25519 key 32")

    @property
    def hash(self) -> bytes:
        """The four bytes by which signatures name this verifier."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes((ED25519,)) + self.public).digest()[:4]

    @property
    def text(self) -> str:
        """The verifier's key as others take it: `<name>+<hash in hex>+<base64>`."""
        return f"{self.name}+{self.hash.hex()}+{base64.b64encode(bytes((ED25519,)) + self.public).decode('ascii')}"

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Read `<name>+<hash>+<base64>`. Raises EvidenceError."""
        name, _, rest = text.strip().partition("+")
        said, _, key = rest.partition("+")
        raw = _base64(key)
        if raw is None or raw[:1] != bytes((ED25519,)):
            raise EvidenceError("this is no Ed25519 verifier key: expected NAME+HASH+KEY")
        found = cls(name, raw[1:])
        if found.hash.hex() != said:
            raise EvidenceError(f"the hash in the verifier key of {name} is not that of its name and key")
        return found

    def accepts(self, text: str, signature: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's of `text`."""
        return signed_by(self.public, signature, text.encode())


@dataclass(frozen=True, slots=True)
class Signature:
    """One line under a text: the name it gives, the key's hash, the signature."""

    name: str
    hash: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A note, taken apart. That its signatures hold is not known before `signers` was asked."""

    text: str
    signatures: tuple[Signature, ...]

    def signers(self, verifiers: Sequence[Verifier]) -> tuple[Verifier, ...]:
        """Those of `verifiers` that signed the text. Raises EvidenceError for a signature that says so and does not hold."""
        found = []
        for signature in self.signatures:
            for verifier in verifiers:
                if (verifier.name, verifier.hash) == (signature.name, signature.hash):
                    if not verifier.accepts(self.text, signature.signature):
                        raise EvidenceError(f"the signature of {verifier.name} does not fit the note: one of them was edited")
                    found.append(verifier)
        return tuple(dict.fromkeys(found))


def signed_by(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` is the Ed25519 signature of `data` by the key with the raw bytes `public`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def sign_note(text: str, name: str, *keys: SigningKey) -> str:
    """The note of `text` (whole lines), signed by each of `keys` under `name`. Raises EvidenceError."""
    _check_text(text)
    lines = []
    for key in keys:
        verifier = Verifier(name, key.public)
        lines.append(f"{_PREFIX}{name} {base64.b64encode(verifier.hash + key.sign(text.encode())).decode('ascii')}\n")
    return f"{text}\n{''.join(lines)}"


def parse_note(data: str | bytes) -> Note:
    """Take a note apart. Raises EvidenceError for what is no signed note."""
    if len(data) > MAX_NOTE:
        raise EvidenceError(f"a note has at most {MAX_NOTE} bytes")
    try:
        whole = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise EvidenceError(f"the note is not UTF-8 at byte {error.start}") from error
    text, gap, below = whole.rpartition("\n\n")
    if not gap or not below.endswith("\n"):
        raise EvidenceError("this is no signed note: no empty line parts a text from signatures below it")
    text += "\n"
    _check_text(text)
    lines = below[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise EvidenceError(f"a note has at most {MAX_SIGNATURES} signatures")
    return Note(text, tuple(_signature(line) for line in lines))


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_PREFIX).partition(" ")
    raw = _base64(encoded)
    if not line.startswith(_PREFIX) or _NAME.fullmatch(name) is None or raw is None or len(raw) < 5:
        raise EvidenceError(f"{line[:120]!r} is no signature line of a note")
    return Signature(name, raw[:4], raw[4:])


def _check_text(text: str) -> None:
    if not text.endswith("\n") or text == "\n" or any(char < " " and char != "\n" for char in text):
        raise EvidenceError("the text of a note is whole lines without control characters")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise EvidenceError("the text of a note is not Unicode")


def _base64(text: str) -> bytes | None:
    """The bytes of standard base64 in its one canonical spelling, None for anything else."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw).decode("ascii") == text else None
