"""Headers of requests and responses on their way from one connection to another: which may pass, which are put in.

What concerns a single connection (RFC 9110, 7.6.1) never passes, nor does what would tell one side of the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.errors import DriverError
from agentos.egress.asking import NetRequest
from agentos.egress.names import Target

Headers = Sequence[tuple[bytes, bytes]]
"""Names and values as they came, in order."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that is to be made. `headers` may hold anything: what concerns only one connection is left out."""

    request: NetRequest
    target: Target
    headers: Headers = field(default=(), repr=False)


_ONE_CONNECTION: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"http2-settings",
    }
)
_OURS: Final = _ONE_CONNECTION | {b"host", b"expect"}
_NAME: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
_VALUE: Final = re.compile(rb"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff\t]*[\x21-\x7e\x80-\xff])?")


def values_of(headers: Headers, name: bytes) -> list[bytes]:
    """All values of the header `name` (lower case)."""
    return [value for one, value in headers if one.lower() == name]


def forwarded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of a request that pass on: `Host`, `Expect` and those of a single connection are left out."""
    return _without(headers, _OURS)


def returned(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of a response that pass back. Its framing (`Transfer-Encoding`) stays for whoever sends it on to look at."""
    return _without(headers, _ONE_CONNECTION)


def with_credential(headers: Iterable[tuple[bytes, bytes]], name: str, value: str) -> list[tuple[bytes, bytes]]:
    """`headers` with this one in place of any of the same name.

    Raises DriverError for a value that cannot stand in a header; the message does not have it.
    """
    try:
        key, text = name.encode("ascii"), value.encode("utf-8")
    except UnicodeError:
        raise DriverError("a credential cannot stand in a header") from None
    if _NAME.fullmatch(key) is None or key.lower() in {*_OURS, b"content-length", b"transfer-encoding"}:
        raise DriverError(f"a credential cannot stand in the header {name[:80]!r}")
    if _VALUE.fullmatch(text) is None:
        raise DriverError("a credential has characters that no header takes")
    return [(one, kept) for one, kept in headers if one.lower() != key.lower()] + [(key, text)]


def _without(headers: Headers, names: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    dropped = set(names)
    for value in values_of(headers, b"connection"):
        dropped.update(token.strip().lower() for token in value.split(b","))
    # The framing is no matter of choice: a `Connection: content-length` must not take it away.
    dropped -= {b"content-length", b"transfer-encoding"}
    return [(name, value) for name, value in headers if name.lower() not in dropped]
