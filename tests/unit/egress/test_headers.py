"""Headers on their way from one connection to another, and credentials among them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.errors import DriverError
from agentos.egress.headers import forwarded, returned, values_of, with_credential
from agentos.egress.outbound import HeaderCredential, credentials_for

CANARY = "canary-77aa01"


def test_what_concerns_one_connection_stays_there() -> None:
    """RFC 9110, 7.6.1: the headers of a connection and those that it names, but never the framing."""
    came = [
        (b"Host", b"a.test"),
        (b"Connection", b"close, X-Mine, content-length"),
        (b"X-Mine", b"1"),
        (b"Content-Length", b"3"),
        (b"Proxy-Authorization", b"Basic x"),
        (b"TE", b"trailers"),
        (b"Upgrade", b"h2c"),
        (b"HTTP2-Settings", b"x"),
        (b"Expect", b"100-continue"),
        (b"Cookie", b"a=b"),
    ]
    assert forwarded(came) == [(b"Content-Length", b"3"), (b"Cookie", b"a=b")]
    assert returned([(b"Keep-Alive", b"5"), (b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")]) == [
        (b"Set-Cookie", b"a"),
        (b"Set-Cookie", b"b"),
    ]


def test_a_credential_replaces_what_is_there() -> None:
    """However it was written, and however often; all else stays."""
    came = [(b"AUTHORIZATION", b"1"), (b"X", b"2"), (b"authorization", b"3")]
    assert with_credential(came, "Authorization", "Bearer x") == [(b"X", b"2"), (b"Authorization", b"Bearer x")]
    assert values_of(came, b"authorization") == [b"1", b"3"]


@pytest.mark.parametrize(
    "name", ["", "a b", "a:", "a\r\n", "Host", "content-length", "Transfer-Encoding", "Connection", "\u00e9"]
)
def test_headers_that_no_credential_may_be(name: str) -> None:
    """Names that are none, and those that say whom a request is for or where it ends."""
    with pytest.raises(DriverError):
        with_credential([], name, "x")


@given(st.text(max_size=40))
def test_a_value_is_sent_whole_or_not_at_all(text: str) -> None:
    """No value can end its header, and an error never has it in it."""
    value = CANARY + text + CANARY
    failed, sent = None, []
    try:
        sent = with_credential([], "X-Key", value)
    except DriverError as error:
        failed = error
    if failed is None:
        assert sent == [(b"X-Key", value.encode())]
        assert not set(sent[0][1]) & {0, 10, 13}
    else:
        assert CANARY not in str(failed)
        assert failed.__cause__ is None
        assert failed.__suppress_context__ or failed.__context__ is None


def test_credentials_are_for_their_hosts() -> None:
    """Without hosts a credential goes nowhere."""
    one = HeaderCredential("A", lambda: CANARY, ("api.test", "*.sub.test"))
    none = HeaderCredential("B", lambda: CANARY)
    assert credentials_for([one, none], "api.test") == (one,)
    assert credentials_for([one, none], "x.sub.test") == (one,)
    assert credentials_for([one, none], "sub.test") == ()
    assert credentials_for([one, none], "api.test.evil.test") == ()
    assert "lambda" not in repr(one)
