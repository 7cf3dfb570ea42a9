"""The signing keys of a runtime: the one in use, and proof of how it came to follow those before it.

`<name>` holds the key in use (`agentos.audit.keys`), `<name>.rotations` the notes of all rotations, `<name>.next` a new key
while it is being put in use. A rotation is durable before the new key signs anything; a crash in the middle is finished, or
undone, by the next start. Private keys that were replaced are gone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from agentos.abi.errors import EvidenceError, IdentityError
from agentos.abi.ids import Random
from agentos.audit.keys import SigningKey, create_key, load_key, load_or_create_key
from agentos.audit.rotation import Rotation, TrustedKey, chain_of, keys_of, make_rotation

MAX_ROTATIONS: Final = 1000
"""Most rotations of one runtime: more are no rotation, but a mistake."""


class KeyRing:
    """The keys. `current` signs; `trusted` are the keys whose signatures count, with the time in which each did."""

    def __init__(self, path: Path | None, current: SigningKey, chain: tuple[Rotation, ...] = ()) -> None:
        self._path = path
        self.current = current
        self._chain = chain

    @classmethod
    def open(cls, path: Path, random: Random) -> KeyRing:
        """Load the keys, or make the first. Raises IdentityError for keys that cannot be used, or do not follow each other."""
        chain = _read(_beside(path, "rotations"))
        fresh = _beside(path, "next")
        if fresh.exists():
            replacement = load_key(fresh)
            if chain and chain[-1].new == replacement.public:
                _put_in_use(fresh, path)
            else:
                # Nobody ever vouched for it, so nothing is signed with it.
                _forget(fresh)
        current = load_or_create_key(path, random)
        if chain and chain[-1].new != current.public:
            raise IdentityError(
                f"the signing key {current.id} is not the one that the last rotation put in use",
                where=str(path),
                mend=f"put that key back, or move {_beside(path, 'rotations').name} away to begin with a new key",
            )
        return cls(path, current, chain)

    @property
    def rotations(self) -> tuple[str, ...]:
        """The notes of all rotations, oldest first: public."""
        return tuple(rotation.note for rotation in self._chain)

    @property
    def trusted(self) -> tuple[TrustedKey, ...]:
        """All keys ever in use, oldest first, the one in use last."""
        return keys_of(self._chain) or (TrustedKey(self.current.public),)

    @property
    def since_ms(self) -> int:
        """From when on the key in use counts; 0 for the first."""
        return self._chain[-1].time_ms if self._chain else 0

    def rotate(self, random: Random, time_ms: int) -> Rotation:
        """Put a new key in use at `time_ms`, or at the last rotation if later. Raises IdentityError, OSError; nothing changes."""
        if len(self._chain) >= MAX_ROTATIONS:
            raise IdentityError(f"the signing key was replaced {MAX_ROTATIONS} times already")
        path = self._path
        if path is None:
            raise IdentityError("a key that is in no file cannot be replaced")
        fresh = _beside(path, "next")
        _forget(fresh)
        replacement = create_key(fresh, random)
        rotation = make_rotation(self.current, replacement, max(time_ms, self.since_ms))
        chain = (*self._chain, rotation)
        _write(_beside(path, "rotations"), json.dumps([one.note for one in chain], ensure_ascii=False, indent=1).encode())
        _put_in_use(fresh, path)
        self.current, self._chain = replacement, chain
        return rotation


def _read(path: Path) -> tuple[Rotation, ...]:
    try:
        notes = json.loads(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise IdentityError(f"the rotations of the signing key cannot be read: {error}", where=str(path)) from error
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise IdentityError("the rotations of the signing key are not a list of notes", where=str(path))
    try:
        return chain_of(notes)
    except EvidenceError as error:
        raise IdentityError(error.message, where=str(path)) from error


def _put_in_use(fresh: Path, path: Path) -> None:
    """Replace the key; its public half is written anew when it is loaded."""
    _beside(path, "pub").unlink(missing_ok=True)
    fresh.replace(path)
    _forget(fresh)
    _sync(path.parent)
    load_key(path)


def _forget(fresh: Path) -> None:
    fresh.unlink(missing_ok=True)
    _beside(fresh, "pub").unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    fresh = _beside(path, "new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")
