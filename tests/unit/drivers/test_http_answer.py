"""What an HTTP tool gives back, whatever the other side says of it."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import canonical, digest
from agentos.abi.errors import Unavailable
from agentos.drivers.http_answer import Answered, result_of, text_of, told_headers


class Lost:
    """Outputs that cannot keep anything."""

    def clean(self, tenant: str, session: str, data: bytes) -> bytes:
        return data

    def keep(self, tenant: str, session: str, data: bytes) -> str:
        raise Unavailable("the disk is full")


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain", "é".encode(), "é"),
        ("text/plain; charset=ISO-8859-1", b"\xe9", "é"),
        ('text/html;charset="utf-16"', "é".encode("utf-16"), "é"),
        ("text/plain; charset=punycode", b"x", "x"),
        ("text/plain; charset=zlib_codec", b"x", "x"),
        ("text/plain; charset=utf-7", b"+AGE-", "+AGE-"),
        ("text/plain", b"\xff", "�"),
        ("application/vnd.api+json", b"{}", "{}"),
        ("application/atom+xml", b"<a/>", "<a/>"),
        ("", b"plain", "plain"),
        ("", b"a\0b", None),
        ("", b"\xff", None),
        ("application/octet-stream", b"plain", "plain"),
        ("application/pdf", b"plain", None),
        ("image/png", b"plain", None),
        ("multipart/form-data; boundary=x", b"plain", None),
    ],
)
def test_what_is_text(kind: str, body: bytes, text: str | None) -> None:
    """By the content type; where that says nothing, by whether it is UTF-8. Character sets that are none are not used."""
    assert text_of(body, kind) == text


def test_headers_that_are_told() -> None:
    """Few, the first of each, short, and printable."""
    headers = (
        ("set-cookie", "a=b"), ("server", "x"), ("etag", "one"), ("etag", "two"), ("link", "x" * 5000),
        ("location", "/\x1b[31m\u202e"),
        *((f"ratelimit-{number}", "1") for number in range(100)),
    )  # fmt: skip
    told = told_headers(Answered(200, headers))
    assert told["etag"] == "one"
    assert len(told["link"]) == 1024
    assert told["location"] == "/·[31m·"
    assert len(told) == 24
    assert not told.keys() & {"set-cookie", "server"}


@pytest.mark.parametrize(
    ("status", "body", "content", "is_error"),
    [
        (200, b"x", "x", False),
        (200, b"", "HTTP 200 OK", False),
        (204, b"", "HTTP 204 No Content", False),
        (299, b"x", "HTTP 299\nx", False),
        (304, b"", "HTTP 304 Not Modified", False),
        (400, b"x", "HTTP 400 Bad Request\nx", True),
        (599, b"", "HTTP 599", True),
    ],
)
def test_the_status_is_told(status: int, body: bytes, content: str, is_error: bool) -> None:
    """In the words of the standard, not of the other side; the one that everybody expects is not."""
    result = result_of(Answered(status, (("content-type", "text/plain"),), body), 1024, None, tenant="t", session="s")
    assert (result.content, result.is_error) == (content, is_error)


@given(
    st.binary(max_size=6000), st.sampled_from(["text/plain", "application/json", "", "image/png", "text/plain; charset=utf-16"])
)
def test_the_limit_holds(body: bytes, kind: str) -> None:
    """Whatever came: the text is within the limit, and the result can be stored."""
    for outputs in (None, Lost()):
        result = result_of(
            Answered(429, (("content-type", kind), ("retry-after", "9")), body), 1024, outputs, tenant="t", session="s"
        )
        assert len(result.content.encode()) <= 1024 + 64
        canonical(result.to_dict())


@given(st.binary(max_size=300), st.integers(0, 300))
def test_compressed_and_cut_anywhere(body: bytes, at: int) -> None:
    """A stream that ends too early gives what there is of it, and says so."""
    packed = gzip.compress(body)
    cut = packed[: min(at, len(packed))]
    headers = (("content-type", "text/plain; charset=iso-8859-2"), ("content-encoding", "gzip"))
    result = result_of(Answered(200, headers, cut), 4096, None, tenant="t", session="s")
    if cut == packed:
        assert result.content == (text_of(body, headers[0][1]) or "HTTP 200 OK")
    elif cut:
        assert "ends too early" in result.content


def test_what_cannot_be_kept_says_so() -> None:
    """No digest is told under which nothing lies."""
    result = result_of(Answered(200, (("content-type", "image/png"),), b"x"), 1024, Lost(), tenant="t", session="s")
    assert result.content == "[1 bytes of image/png, which are lost: the disk is full]"
    assert "digest" not in result.data
    bare = result_of(Answered(200, (("content-type", "image/png"),), b"x"), 1024, None, tenant="t", session="s")
    assert bare.content == f"[1 bytes of image/png, {digest(b'x')}; nothing keeps them here]"
