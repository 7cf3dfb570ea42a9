"""Keys of payloads: one for each session, or one for all sessions about the same person (a data subject), so that one can be
destroyed.

    key = await keys.of_session("s-0k3v9…")                      # made, durably, when there is none
    key = await keys.find(key.id)                                # None: it was destroyed, and what it sealed is gone

Keys are random and live in no log: whoever holds the log, a snapshot, a backup or a replica of it and not the keys reads headers
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

ID_BYTES: Final = 16

KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Key:
    """One key: 16 random bytes that name it, 32 that are it. Its secret stands in no text that is printed of it."""

    id: bytes
    secret: bytes = field(repr=False)


class KeyStore(Protocol):
    """The keys of one tenant. Every method raises LogUnavailable when the store cannot be read or written."""

    async def of_session(self, session: str) -> Key:
        """The key that the events of `session` are sealed with: assigned before, or made now. Durable when it returns.

        Raises PayloadErased when it was destroyed: nothing can be added to such a session.
        """

    async def assign(self, session: str, subject: str) -> None:
        """Let `session`, which has no key yet, share the key of the data subject `subject`. Raises Conflict when it has
        another.
        """

    async def join(self, session: str, other: str) -> None:
        """Let `session`, which has no key yet, share the key of the session `other`, whose payload it repeats.

        Raises PayloadErased when that key was destroyed, Conflict when `session` has another.
        """

    async def find(self, key: bytes) -> Key | None:
        """The key with this id; None when it was destroyed or never was here (as after a restore without keys)."""

    async def destroy(self, keys: Sequence[bytes]) -> int:
        """Forget these keys for good, in the file and in memory; return how many there were. Safe to repeat."""

    async def sharing(self, session: str) -> tuple[bytes, tuple[str, ...]] | None:
        """The id of the key of `session`, and every session that has it, sorted. None for a session without one."""

    async def of_subject(self, subject: str) -> tuple[bytes, tuple[str, ...]] | None:
        """The id of the key of a data subject, and its sessions, sorted. None for one that is not known, or not any more."""

    async def sessions(self) -> dict[str, bytes]:
        """Every session whose key is here, and the key's id."""
