"""What a client asks of the proxy, read in one way or refused. (Whole requests: `tests/integration/egress/test_proxy.py`.)"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.egress.asking import NetRequest, Scheme
from agentos.egress.incoming import Unfit, check_head, connect_of, wanted_of

HOST = (b"Host", b"a.test")


def test_absolute_and_inner_requests() -> None:
    """A request to the proxy is plain http; one inside a tunnel is https to the tunnel's host."""
    assert wanted_of(b"GET", b"http://A.test/x/../y?q", [HOST]).request == NetRequest(Scheme.HTTP, "a.test", 80, "GET", "/y")
    inner = wanted_of(b"PUT", b"/y", [(b"host", b"A.TEST.:8443")], within=("a.test", 8443))
    assert inner.request == NetRequest(Scheme.HTTPS, "a.test", 8443, "PUT", "/y")


def test_two_hosts_are_one_too_many() -> None:
    """Also when they agree: who reads the headers next may not see both."""
    for headers in ([HOST, HOST], [HOST, (b"host", b"a.test")]):
        with pytest.raises(Unfit, match="two hosts"):
            wanted_of(b"GET", b"http://a.test/", headers)
        with pytest.raises(Unfit, match="two hosts"):
            connect_of(b"a.test:443", headers)


def test_tunnels() -> None:
    """A tunnel needs a port; its Host header may leave it out."""
    assert connect_of(b"a.test:443", [HOST]) == ("a.test", 443)
    assert connect_of(b"[::1]:8443", [(b"Host", b"[::1]:8443")]) == ("::1", 8443)
    for target, host in (
        (b"a.test", b"a.test"),
        (b"a.test:443", b"b.test"),
        (b"a.test:443", b"a.test:444"),
        (b"\xff:1", b"a.test"),
    ):
        with pytest.raises(Unfit):
            connect_of(target, [(b"Host", host)])


PIECES = [
    b"GET / HTTP/1.1", b"Host: a", b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"X: y", b":", b"Content-Length: 3",
    b"Content-Length: 3, 3", b"content-length : 3", b"Transfer-Encoding: chunked", b"\x0b", b"\x85", b"\xff",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_heads_that_pass_are_plain_lines(pieces: list[bytes]) -> None:
    """A head that passes has only whole lines, none empty but the last, none folded, and one length at most."""
    raw = b"".join(pieces) + b"\r\n\r\n"
    try:
        check_head(raw)
    except Unfit:
        return
    assert raw.endswith(b"\r\n\r\n")
    lines = raw[:-4].split(b"\r\n")
    assert all(lines)
    assert not any(set(line) & {0, 10, 13} for line in lines)
    assert not any(line[:1] in {b" ", b"\t"} for line in lines[1:])
    assert sum(line.lower().startswith(b"content-length") for line in lines[1:]) <= 1
