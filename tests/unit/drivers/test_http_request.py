"""The request of an HTTP tool: whatever the arguments hold, they are one part of it and choose nothing else."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.errors import DriverError
from agentos.drivers.http_request import (
    MAX_URL,
    USER_AGENT,
    Body,
    Parameter,
    Request,
    Shape,
    Style,
    base_of,
    build,
    is_secretive,
    plain_shape,
    refused_header,
    refused_path,
)
from agentos.egress.names import target_of

BASE = "https://api.acme.example/v1"


def made(http: dict[str, Any], **args: Any) -> Request:
    declared = {"url": BASE, **http}
    return build(declared, plain_shape(declared), args, "s-1/c-1")


def headers(request: Request) -> dict[str, str]:
    return dict(request.headers)


def test_the_parts_of_a_request() -> None:
    """Path, query and body are where they are declared to be; what was not given is left out."""
    request = made(
        {
            "method": "POST",
            "path": "/repos/{owner}/{repo}.json",
            "query": {"page": "page", "q": "q", "no": "no"},
            "body": ["title"],
        },
        owner="a b",
        repo="ü~-._",
        page=2,
        no=None,
        title="x",
    )
    assert request.url == f"{BASE}/repos/a%20b/%C3%BC~-._.json?page=2"
    assert request.body == b'{"title":"x"}'
    assert headers(request)["Content-Type"] == "application/json"
    assert headers(request)["User-Agent"] == USER_AGENT
    assert request.method == "POST"


@pytest.mark.parametrize(
    ("value", "query"),
    [
        ("a&b=c", "q=a%26b%3Dc"),
        ("a+b #?/", "q=a%2Bb%20%23%3F%2F"),
        ("line\r\nend", "q=line%0D%0Aend"),
        (True, "q=true"),
        (False, "q=false"),
        (1.0, "q=1"),
        (1e21, "q=1e%2B21"),
        (-0.0, "q=0"),
        (["a", 1, None], None),
        (["a", 1, False], "q=a&q=1&q=false"),
        ([], ""),
        (None, ""),
        ("", "q="),
        ({"a": 1}, None),
        ([["a"]], None),
        ("\0", None),
        ("\ud800", None),
        (float("nan"), None),
        (2**60, None),
    ],
)
def test_values_of_the_query(value: Any, query: str | None) -> None:
    """Lists repeat, numbers are as in JSON, nothing ends a value but its end; None here: it is refused."""
    if query is None:
        with pytest.raises(DriverError):
            made({"query": {"q": "q"}}, q=value)
    else:
        assert made({"query": {"q": "q"}}, q=value).url == BASE + (f"?{query}" if query else "")


@pytest.mark.parametrize(
    ("style", "value", "query"),
    [
        (Style.COMMA, ["a", 1], "q=a%2C1"),
        (Style.COMMA, ["a,b", 1], None),
        (Style.PIPE, ["a", "b"], "q=a%7Cb"),
        (Style.SPACE, ["a", "b"], "q=a%20b"),
        (Style.DEEP, {"a": 1, "b]&x": "c"}, "q%5Ba%5D=1&q%5Bb%5D%26x%5D=c"),
        (Style.DEEP, {"a": {"b": 1}}, None),
        (Style.JSON, {"b": [1], "a": None}, "q=%7B%22a%22%3Anull%2C%22b%22%3A%5B1%5D%7D"),
    ],
)
def test_styles_of_the_query(style: Style, value: Any, query: str | None) -> None:
    """The styles of OpenAPI; an element that would become two is refused."""
    shape = Shape("GET", "", (Parameter("q", "q", style),))
    if query is None:
        with pytest.raises(DriverError):
            build({"url": BASE}, shape, {"q": value}, "k")
    else:
        assert build({"url": BASE}, shape, {"q": value}, "k").url == f"{BASE}?{query}"


@pytest.mark.parametrize(
    "value",
    [
        "..", ".", "", "a/b", "/", "../x", "..\\x", "a\\b", "%2e%2e", "%2E%2e%2f", "%252e%252e", "%25252e.", "..%2fx",
        "..%5cx", "%2f", "..;", "..;a=b", ".%3b", "\uff0e\uff0e", "\u2025", "\uff0e", "a\uff0fb", "a\u2044b/", "\u2100",
        "%c0%ae%c0%ae", "%c0%af", "\0", "a\r\nb", "\t", "%00", "%0d%0a", "%2525252525252e", " ..", ".. ", None, ['a'],
        {'a': 1}, "\ud800",
    ],
)  # fmt: skip
def test_tricks_in_a_part_of_the_path(value: Any) -> None:
    """What somebody behind could read as a way up, as two parts or as none is refused, in whatever disguise."""
    with pytest.raises(DriverError):
        made({"path": "/orders/{id}/items"}, id=value)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("...", "..."),
        (".hidden", ".hidden"),
        ("a..b", "a..b"),
        ("100%", "100%25"),
        ("a?b#c", "a%3Fb%23c"),
        ("a:b@c", "a%3Ab%40c"),
        ("{id}", "%7Bid%7D"),
        ("日本", "%E6%97%A5%E6%9C%AC"),
        (7, "7"),
        (True, "true"),
    ],
)
def test_what_is_one_part_of_the_path(value: Any, part: str) -> None:
    """Everything else is percent-encoded, once, and nothing in it is filled in again."""
    assert made({"path": "/orders/{id}/items"}, id=value).url == f"{BASE}/orders/{part}/items"


def test_dots_of_several_arguments() -> None:
    """A part is judged as a whole: two arguments make no way up together."""
    with pytest.raises(DriverError, match=r"is `\.` or `\.\.`"):
        made({"path": "/x/{a}{b}/y"}, a=".", b=".")
    with pytest.raises(DriverError, match=r"is `\.` or `\.\.`"):
        made({"path": "/x/.{a}"}, a=".")
    assert made({"path": "/x/{a}.json"}, a=".").url == f"{BASE}/x/..json"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats()
    | st.text(max_size=30)
    | st.text("./\\%2eEfF5cC;\uff1f\uff0e", max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
EVERYWHERE = {
    "method": "POST",
    "path": "/a/{p}/b-{r}",
    "query": {"q": "q"},
    "body": ["b"],
    "headers": {"X-Region": "eu"},
    "idempotencyHeader": "Idempotency-Key",
}


@given(p=VALUES, r=VALUES, q=VALUES, b=VALUES, h=VALUES)
def test_arguments_choose_nothing_else(p: Any, r: Any, q: Any, b: Any, h: Any) -> None:
    """No arguments change scheme, host, number of parts, names of parameters, names of headers or the fields of the body."""
    http = {"url": BASE, **EVERYWHERE}
    plain = plain_shape(http)
    shape = Shape(plain.method, plain.path, plain.query, (Parameter("X-Word", "h"),), plain.body)
    try:
        request = build(http, shape, {"p": p, "r": r, "q": q, "b": b, "h": h}, "s-1/c-1")
    except DriverError:
        return
    assert request.url.isascii()
    assert request.url.startswith(f"{BASE}/a/")
    path, _, query = request.url.removeprefix("https://api.acme.example").partition("?")
    # Who decides sees the very path that is sent.
    assert target_of(path).path == path
    assert [unquote(part) for part in path.split("/")][:3] == ["", "v1", "a"]
    assert path.count("/") == 4
    assert path.split("/")[4].startswith("b-")
    assert {name for name, _ in parse_qsl(query, keep_blank_values=True)} <= {"q"}
    names = [name for name, _ in request.headers]
    assert sorted(set(names) - {"X-Word"}) == [
        "Accept", "Accept-Encoding", "Content-Type", "Idempotency-Key", "User-Agent", "X-Region",
    ]  # fmt: skip
    assert len(names) == len(set(names))
    assert all(value.isascii() and value.isprintable() for _, value in request.headers)
    assert headers(request)["Idempotency-Key"] == "s-1/c-1"
    assert json.loads(request.body).keys() == {"b"}


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0", "é", " a", "a ", "\t", "x" * 5000, {"a": 1}])
def test_a_header_is_one_line(value: Any) -> None:
    """No value of an argument begins another header or another request."""
    with pytest.raises(DriverError):
        build({"url": BASE}, Shape("GET", "", headers=(Parameter("X-Word", "w"),)), {"w": value}, "k")


def test_headers_that_are_declared_win() -> None:
    """Those of the declaration stand in place of the usual ones and of arguments; there is none twice."""
    shape = Shape("GET", "", headers=(Parameter("x-region", "w"),))
    request = build(
        {"url": BASE, "headers": {"X-Region": "eu", "user-agent": "mine", "Content-Type": "x/y"}}, shape, {"w": "us"}, "k"
    )
    assert request.headers == (
        ("user-agent", "mine"),
        ("Accept", "application/json, text/*;q=0.9, */*;q=0.1"),
        ("Accept-Encoding", "gzip"),
        ("X-Region", "eu"),
    )


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("Authorization", "use `credentials`"),
        ("cookie", "use `credentials`"),
        ("Proxy-Authorization", "use `credentials`"),
        ("Host", "remove it"),
        ("content-length", "remove it"),
        ("Transfer-Encoding", "remove it"),
        ("Connection", "remove it"),
        ("X-HTTP-Method-Override", "write `method`, `path` and `url`"),
        ("X Y", "letters, digits and -"),
        ("X-A\r\nB", "letters, digits and -"),
    ],
)
def test_headers_that_nobody_declares(name: str, mend: str) -> None:
    """Those that carry secrets, frame the message, or change what was decided; not even a declaration sends them."""
    refused = refused_header(name)
    assert refused is not None
    assert refused[1] == mend
    with pytest.raises(DriverError):
        made({"headers": {name: "x"}})


def test_names_that_tell_a_secret() -> None:
    """By its name a header is known to carry one."""
    assert all(map(is_secretive, ("X-Api-Key", "api_key", "X-Auth-Token", "PRIVATE-TOKEN", "X-Signature", "Session-Id")))
    assert not any(map(is_secretive, ("X-Region", "If-None-Match", "X-Author", "X-Tokenizer", "Keyword")))


def test_bodies() -> None:
    """Fields are an object, one argument is the whole; a form and text are what their content type says."""
    assert made({"method": "PUT", "body": "all"}, all=[1, "é", None]).body == '[1,"é",null]'.encode()
    assert made({"method": "PUT", "body": "all"}, all="text").body == b'"text"'
    assert made({"method": "PUT", "body": ["a", "b"]}, b=None).body == b'{"b":null}'
    assert made({"method": "PUT", "body": ["a", "b"]}).body == b"{}"
    assert made({"method": "PUT", "body": "all"}).body == b""
    text = {"method": "PUT", "body": "all", "headers": {"content-type": "text/plain; charset=utf-8"}}
    assert made(text, all="é").body == "é".encode()
    with pytest.raises(DriverError, match="has to be text"):
        made(text, all={"a": 1})
    form = {"method": "POST", "body": ["a", "b"], "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    assert made(form, a="x&y=z", b=[1, True]).body == b"a=x%26y%3Dz&b=1&b=true"


def test_an_optional_body_is_none() -> None:
    """Fields that were not given make no body unless there has to be one."""
    body = Body(fields=(("a", "a"),), required=False)
    request = build({"url": BASE}, Shape("POST", "", body=body), {}, "k")
    assert request.body == b""
    assert "Content-Type" not in headers(request)


def test_what_has_no_place_is_refused() -> None:
    """An argument that the request does not take is not dropped in silence."""
    with pytest.raises(DriverError, match="no place for the argument 'admin'"):
        made({"query": {"q": "q"}}, q="x", admin=True)


def test_sizes() -> None:
    """An address and a body are bounded."""
    with pytest.raises(DriverError, match=str(MAX_URL)):
        made({"query": {"q": "q"}}, q="x" * MAX_URL)
    with pytest.raises(DriverError, match="the body is"):
        made({"method": "POST", "body": "all"}, all="x" * 3_000_000)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://API.acme.example", "https://api.acme.example"),
        ("https://api.acme.example:443/v1/", "https://api.acme.example/v1"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("https://bücher.example/%C3%BC", "https://xn--bcher-kva.example/%C3%BC"),
        ("http://0x7f.1/", "http://127.0.0.1"),
    ],
)
def test_one_way_of_writing_a_base_address(url: str, base: str) -> None:
    """Two declarations that mean the same address are the same address."""
    assert base_of(url) == base


@pytest.mark.parametrize(
    "url",
    [
        "https://a@b.example", "https://a.example/../b", "https://a.example//b", "https://a.example/%2e%2e/b", "https://a.example/%2fb",
        "https://a.example\\b", "https://a.example/{x}", "https://a.example?x=y", "https://a.example#x", "ftp://a.example", "https://",
        "https://a.example:0", "https://a.example:99999", "https://a b.example", "https://a.example/%zz", "a.example", "https://a.example/ü",
        "https://\uff41.example",
    ],
)  # fmt: skip
def test_addresses_that_could_be_read_in_two_ways(url: str) -> None:
    """They are refused when they are declared, and when they are used."""
    with pytest.raises(DriverError):
        base_of(url)


@pytest.mark.parametrize(
    "path",
    [
        "/a//b",
        "/a/../b",
        "/./a",
        "/a/%2E%2e",
        "/a%2fb",
        "/a%5cb",
        "/a\\b",
        "/{a",
        "/a}",
        "/{}",
        "/{a/b}",
        "a",
        "/%zz",
        "/a b",
        "/a;/..;/b",
    ],
)
def test_declared_paths_that_are_refused(path: str) -> None:
    """A path that is declared is one that every server reads alike."""
    assert refused_path(path) is not None


@pytest.mark.parametrize("path", ["", "/", "/a/", "/a/{b}-{c}.json", "/a:b/@c/~d/%20e", "/ü"])
def test_declared_paths(path: str) -> None:
    """What is plain is taken."""
    assert refused_path(path) is None
