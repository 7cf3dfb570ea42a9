"""Who may open the door: NKey user seeds, and the files that keep them.

A seed is the private half (`SU…`), a public key the name of a user in the server's configuration (`U…`). Seeds stay in
files of mode 0600 in folders of mode 0700; a file that others can read is refused, as ssh does. No seed shows in a repr.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path

import nkeys

from agentos.abi.errors import IdentityError
from agentos.abi.ids import Random
from agentos.eventlog.adapters.private_file import private_folder, read_private, write_private


@dataclass(frozen=True, slots=True)
class NKey:
    """An NKey user: `seed` is secret text (58 characters, `SU…`), `public_key` names it (56 characters, `U…`)."""

    seed: str = field(repr=False)
    public_key: str

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature of `data` (64 bytes)."""
        pair = nkeys.from_seed(bytearray(self.seed, "ascii"))
        signature: bytes = pair.sign(data)
        pair.wipe()
        return signature

    def answer(self, nonce: str) -> bytes:
        """What the server expects for its `nonce` when a connection opens: the signature in base64."""
        return base64.b64encode(self.sign(nonce.encode()))


def create_seed(random: Random) -> NKey:
    """A fresh user."""
    return parse_seed(nkeys.encode_seed(random.token(32), nkeys.PREFIX_BYTE_USER).decode("ascii"))


def parse_seed(text: str) -> NKey:
    """The user whose seed is `text`. Raises IdentityError, without repeating the text, if that is no user's seed."""
    seed = text.strip()
    try:
        if not seed.startswith("SU"):
            raise ValueError("not a user seed")  # noqa: TRY301 - one place turns every flaw into one sentence
        pair = nkeys.from_seed(bytearray(seed, "ascii"))
        public_key = pair.public_key.decode("ascii")
        pair.wipe()
        if nkeys.encode_seed(nkeys.decode_seed(seed.encode())[1], nkeys.PREFIX_BYTE_USER).decode("ascii") != seed:
            raise ValueError("the checksum does not match")  # noqa: TRY301 - the package does not check it
    except (nkeys.NkeysError, ValueError, IndexError, binascii.Error) as error:
        raise IdentityError("not an NKey user seed", mend="a seed is one line of 58 characters that begins with SU") from error
    return NKey(seed, public_key)


def write_seed(path: Path, key: NKey) -> None:
    """Store `key` at `path` (mode 0600), in a folder of mode 0700 that is made if missing; an older file is replaced whole."""
    private_folder(path.parent)
    write_private(path, f"{key.seed}\n")


def read_seed(path: Path) -> NKey:
    """The key in `path`. Raises IdentityError if it is missing, readable by others, or no seed."""
    text = read_private(path)
    try:
        return parse_seed(text)
    except IdentityError as error:
        raise IdentityError(error.message, where=str(path), mend=error.mend) from error
