"""Names, identifiers and the two sources of the unpredictable: the clock and randomness.

Both are ports, handed in by the composition root, so that tests jump the clock and repeat a run exactly.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, Protocol

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}", re.ASCII)
"""What anything may be called: safe in NATS subjects, paths, argv and SQL."""

DEFAULT_TENANT: Final = "default"

FLEET: Final = "*"
"""The tenant of a principal that may act on every tenant."""


class Clock(Protocol):
    """Where time comes from."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""


class Random(Protocol):
    """Where unpredictable bytes come from; must be cryptographically strong in production."""

    def token(self, size: int) -> bytes:
        """`size` random bytes."""


def is_name(text: str) -> bool:
    """Whether `text` may name a resource, tenant or principal."""
    return NAME.fullmatch(text) is not None


def new_id(prefix: str, clock: Clock, random: Random) -> str:
    """A fresh id such as `s-0k3v9q2m1x8h4t7r5w`: sorts by time, is a valid name, 48 random bits.

    Shape: `<prefix>-` + 9 base-32 digits of milliseconds + 10 base-32 digits of randomness.
    """
    return f"{prefix}-{_base32(clock.now_ms(), 9)}{_base32(int.from_bytes(random.token(7), 'big'), 10)}"


def derived_id(prefix: str, at_ms: int, *parts: str) -> str:
    """An id of the shape of `new_id`, as of `at_ms`: always the same for the same parts, and hardly ever for others.

    So whatever is begun under it is begun once, however often that is tried.
    """
    named = "".join(f"{len(part)}:{part}" for part in (prefix, str(at_ms), *parts)).encode()
    return f"{prefix}-{_base32(at_ms, 9)}{_base32(int.from_bytes(hashlib.sha256(named).digest()[:7], 'big'), 10)}"


_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"


_TIMED: Final = re.compile(rf"[a-z][a-z0-9-]*-([{_ALPHABET}]{{9}})[{_ALPHABET}]{{10}}", re.ASCII)


def time_of(identity: str) -> int | None:
    """When `new_id` made `identity`, in ms since the Unix epoch; None for a name that does not look as if it did."""
    found = _TIMED.fullmatch(identity)
    if found is None:
        return None
    value = 0
    for digit in found[1]:
        value = value << 5 | _ALPHABET.index(digit)
    return value


def _base32(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        digits.append(_ALPHABET[value & 31])
        value >>= 5
    return "".join(reversed(digits))
