"""What a client inside a sandbox asks of the proxy, read so that nobody behind it could read something else. Pure.

    check_head(raw)                                   the bytes of a head, before a parser that forgives sees them
    connect_of(target, headers)                       CONNECT host:port
    wanted_of(method, target, headers, within=None)   a request in absolute form: http://host/path
    wanted_of(method, target, headers, within=("api.example.com", 443))    one inside a tunnel that is looked into: /path

Refused with Unfit: whatever is framed twice, named twice, folded, upgraded, or at odds with the tunnel that it came through.
"""

from __future__ import annotations

import re
from typing import Final

from agentos.egress.asking import NetDenied, NetRequest, Scheme
from agentos.egress.headers import Headers, Wanted, values_of
from agentos.egress.names import PORTS, absolute_of, authority_of, method_of, target_of

_LINES: Final = re.compile(rb"[^\r\n\x00]+\r\n(?:[^\r\n\x00 \t][^\r\n\x00]*\r\n)*\r\n")
_LENGTH: Final = re.compile(rb":[ \t]*[0-9]{1,18}[ \t]*")


class Unfit(Exception):
    """A request that is not passed on. `status` is what the client is answered."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def check_head(raw: bytes) -> None:
    """Raise Unfit unless `raw` is whole lines that end in CR LF, none folded, up to the empty one, with at most one length."""
    if _LINES.fullmatch(raw) is None:
        raise Unfit("the head of the request is not made of whole lines")
    lengths = [line for line in raw.split(b"\r\n")[1:] if line[:14].lower() == b"content-length"]
    if len(lengths) > 1:
        raise Unfit("the length of the request is said in two ways")  # a parser may take two that agree for one
    if lengths and _LENGTH.fullmatch(lengths[0][14:]) is None:
        raise Unfit("the length of the request is no number")


def check_headers(headers: Headers) -> None:
    """Raise Unfit for headers by which two readers could disagree on where the request ends or whom it is for."""
    if len(values_of(headers, b"host")) > 1:
        raise Unfit("the request names two hosts")
    lengths, codings = values_of(headers, b"content-length"), values_of(headers, b"transfer-encoding")
    if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
        raise Unfit("the length of the request is said in two ways")
    if codings and codings[0].lower() != b"chunked":
        raise Unfit("the request is encoded for transfer in a way that is not passed on", 501)
    if [value for value in values_of(headers, b"upgrade") if value.strip().lower() != b"h2c"]:
        raise Unfit("a change of protocol is not passed on: only HTTP/1.1 is, and what is in a tunnel", 501)


def connect_of(target: bytes, headers: Headers) -> tuple[str, int]:
    """Host and port of a CONNECT. Raises Unfit."""
    check_headers(headers)
    if values_of(headers, b"transfer-encoding") or any(value != b"0" for value in values_of(headers, b"content-length")):
        raise Unfit("a CONNECT has no body")
    try:
        asked = authority_of(_text(target), None)
    except NetDenied as error:
        raise Unfit(error.message) from error
    for value in values_of(headers, b"host"):
        _same(value, asked, asked[1], "the request is for a tunnel to another host than it names")
    return asked


def wanted_of(method: bytes, target: bytes, headers: Headers, within: tuple[str, int] | None = None) -> Wanted:
    """What is asked for. `within`: host and port of the tunnel that it came through. Raises Unfit."""
    check_headers(headers)
    try:
        name = method_of(_text(method))
        if within is None:
            host, port, what = absolute_of(_text(target))
            scheme = Scheme.HTTP
        else:
            (host, port), what, scheme = within, target_of(_text(target)), Scheme.HTTPS
    except NetDenied as error:
        raise Unfit(error.message) from error
    hosts = values_of(headers, b"host")
    if within is not None and not hosts:
        raise Unfit("the request names no host")
    other = "the address of the request" if within is None else "the tunnel that it came through"
    for value in hosts:
        _same(value, (host, port), PORTS[str(scheme)], f"the request names another host than {other}")
    return Wanted(NetRequest(scheme, host, port, name, what.path), what, headers)


def _same(value: bytes, asked: tuple[str, int], default: int, message: str) -> None:
    """Raise Unfit unless a Host header means `asked`; `default` is the port that it means without one."""
    try:
        named = authority_of(_text(value), default)
    except NetDenied as error:
        raise Unfit(error.message) from error
    if named != asked:
        raise Unfit(message, 421)


def _text(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise Unfit("the request has characters that must be encoded") from error
