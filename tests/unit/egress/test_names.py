"""Hosts, ports and paths: one way of writing each, or none."""

from __future__ import annotations

import ipaddress
import re
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentos.egress.asking import NetDenied
from agentos.egress.names import Target, absolute_of, authority_of, covers, host_of, method_of, port_of, target_of, written


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com.", "example.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("r3---sn-4g5e6nez.example.com", "r3---sn-4g5e6nez.example.com"),
        ("localhost", "localhost"),
        ("b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("fa\N{LATIN SMALL LETTER SHARP S}.example", "xn--fa-hia.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0X7F.0.0.0x1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0xA9FEA9FE", "169.254.169.254"),
        ("169.254.43518", "169.254.169.254"),
        ("127.0.0.1.", "127.0.0.1"),
        ("0", "0.0.0.0"),  # noqa: S104 - a text
        ("0x", "0.0.0.0"),  # noqa: S104 - a text
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[FE80::1]", "fe80::1"),
        ("[::ffff:127.0.0.1]", str(ipaddress.ip_address("::ffff:127.0.0.1"))),
    ],
)
def test_one_way_of_writing_a_host(text: str, host: str) -> None:
    """Every form of a host becomes the one that policy compares, and that one stays as it is."""
    assert host_of(text) == host
    assert host_of(host) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a..b",
        ".example.com",
        "example.com..",
        "a b",
        "a\tb",
        "a\nb",
        "a\x00b",
        "exa%6dple.com",
        "127.0.0.1%00",
        "user@example.com",
        "example.com/x",
        "example.com\\x",
        "example.com?x",
        "example.com#x",
        "-a.example",
        "a-.example",
        "a*.example",
        "x" * 64 + ".example",
        ".".join(["x" * 60] * 5),
        "\N{FULLWIDTH LATIN SMALL LETTER E}xample.com",
        "example\N{FULLWIDTH FULL STOP}com",
        "example\N{IDEOGRAPHIC FULL STOP}com",
        "\N{KELVIN SIGN}ernel.org",
        "\N{CIRCLED DIGIT ONE}27.0.0.1",
        "127.0.0.\N{FULLWIDTH DIGIT ONE}",
        "\N{ARABIC-INDIC DIGIT ONE}27.0.0.1",
        "exam\N{SOFT HYPHEN}ple.com",
        "exam\N{ZERO WIDTH SPACE}ple.com",
        "exam\N{RIGHT-TO-LEFT OVERRIDE}ple.com",
        "a\N{FRACTION SLASH}b.example",
        "a\N{FULLWIDTH SOLIDUS}b.example",
        "xn--.example",
        "xn--a.example",
        "xn--\N{LATIN SMALL LETTER U WITH DIAERESIS}.example",
        "XN--EXAMPLE-.com",
        "256.256.256.256",
        "1.2.3.4.5",
        "127.0.0.09",
        "0x100000000",
        "4294967296",
        "example.1",
        "1.example.0x1",
        "[::1",
        "::1]",
        "[::1]x",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "fe80::1%1",
        "[127.0.0.1]",
        "[v1.fe80]",
        "[]",
        "1::2::3",
    ],
)
def test_what_is_no_host(text: str) -> None:
    """Whatever two readers could take for different hosts is refused."""
    with pytest.raises(NetDenied):
        host_of(text)


@given(st.text(max_size=300))
@example("xn--\udcff")
def test_hosts_are_stable(text: str) -> None:
    """Any text is refused, or becomes a host that is ASCII, lower case, without anything that ends a host, and stays itself."""
    try:
        host = host_of(text)
    except NetDenied:
        return
    assert host_of(host) == host
    assert re.fullmatch(r"[a-z0-9._:-]+", host)
    assert len(host) <= 253


@given(
    st.lists(st.sampled_from(["0x7f", "0177", "127", "1", "0", "0x0", "00", "255", "256", "09", "0xg"]), min_size=1, max_size=5)
)
def test_numbers_are_read_as_the_c_library_reads_them(parts: list[str]) -> None:
    """What `inet_aton` takes for an address is that address here, and nothing that ends in a number is ever a name."""
    text = ".".join(parts)
    try:
        expected = socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        if parts[-1] == "0xg":
            return
        with pytest.raises(NetDenied):
            host_of(text)
    else:
        assert host_of(text) == expected


@pytest.mark.parametrize(
    ("text", "path", "query"),
    [
        ("", "/", None),
        ("/", "/", None),
        ("//", "/", None),
        ("/a/b", "/a/b", None),
        ("/a/b/", "/a/b/", None),
        ("/a//b", "/a/b", None),
        ("/./a/./b/.", "/a/b/", None),
        ("/a/../b", "/b", None),
        ("/../../etc", "/etc", None),
        ("/a/..", "/", None),
        ("/a/b/..", "/a/", None),
        ("/%2e%2e/a", "/a", None),
        ("/a/%2E./b", "/b", None),
        ("/%7euser/%41", "/~user/A", None),
        ("/caf%c3%a9", "/caf%C3%A9", None),
        ("/a%40b", "/a%40b", None),
        ("/a;v=1/b", "/a;v=1/b", None),
        ("/a...b/...", "/a...b/...", None),
        ("/a%25b", "/a%25b", None),
        ("?q", "/", "q"),
        ("/a?", "/a", ""),
        ("/a?b=/../c%2f&d=..;", "/a", "b=/../c%2f&d=..;"),
    ],
)
def test_one_way_of_writing_a_path(text: str, path: str, query: str | None) -> None:
    """Parts are resolved, escapes brought into one form; the query is left alone."""
    assert target_of(text) == Target(path, query)
    assert target_of(path) == Target(path)


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "*",
        "http://x/",
        "/a b",
        "/a\tb",
        "/a\r\nHost: x",
        "/\N{LATIN SMALL LETTER E WITH ACUTE}",
        "/a#b",
        "/a?b#c",
        "/a\\b",
        "/..\\b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/%00",
        "/a%0d%0aHost:%20x",
        "/a%7f",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%u002f",
        "/a%\N{FULLWIDTH DIGIT TWO}f",
        "/..;/b",
        "/a/..;x=1/b",
        "/a/.;/b",
        "/a/..%3b/b",
        "/a/%2e%2e;/b",
        "/a/%252e%252e/b",
        "/a%252fb",
        "/a%25255cb",
        "/" + "a" * 20_000,
    ],
)
def test_what_is_no_path(text: str) -> None:
    """Whatever a server could read as another path is refused."""
    with pytest.raises(NetDenied):
        target_of(text)


PIECES = [
    "a",
    "/",
    ".",
    "..",
    "%2e",
    "%2E",
    "%2f",
    "%5c",
    "\\",
    ";",
    "%3b",
    "%25",
    "?",
    "%",
    "~",
    "%7E",
    "%c3%a9",
    "2e",
    "2f",
    "5c",
]


@given(st.lists(st.sampled_from(PIECES), max_size=20))
def test_paths_are_stable(pieces: list[str]) -> None:
    """Any path is refused, or becomes one that is the same when read again, climbs nowhere, and has no part that is empty."""
    try:
        target = target_of("/" + "".join(pieces))
    except NetDenied:
        return
    assert target_of(target.wire()) == target
    parts = target.path.split("/")[1:]
    assert not {".", ".."} & set(parts)
    assert "" not in parts[:-1]
    assert "\\" not in target.path
    assert "%2F" not in target.path.upper()


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("example.com", 80, ("example.com", 80)),
        ("example.com:8080", None, ("example.com", 8080)),
        ("[::1]:443", None, ("::1", 443)),
        ("[::1]", 80, ("::1", 80)),
        ("0x7f.1:1", None, ("127.0.0.1", 1)),
    ],
)
def test_authorities(text: str, default: int | None, expected: tuple[str, int]) -> None:
    """Host and port as a request has them."""
    assert authority_of(text, default) == expected


@pytest.mark.parametrize(
    "text",
    ["a", "a:", ":80", "a:0", "a:65536", "a:+80", "a:8 0", "a:\N{FULLWIDTH DIGIT EIGHT}0",
     "u@a:1", "u:p@a:1", "a:1:2", "::1:80", "[::1]80", "[::1", "a:1/", ""],
)  # fmt: skip
def test_what_is_no_authority(text: str) -> None:
    """Without a default a port must stand; user names never do."""
    with pytest.raises(NetDenied):
        authority_of(text, None)


def test_absolute_form() -> None:
    """What a client asks a proxy for."""
    assert absolute_of("HTTP://Example.com:81/a/../b?c") == ("example.com", 81, Target("/b", "c"))
    assert absolute_of("http://example.com?c") == ("example.com", 80, Target("/", "c"))
    for bad in ("https://example.com/", "ftp://a/", "//a/", "http:/a/", "http://", "http://a@b/", "http://a\\@b/", "http:///a"):
        with pytest.raises(NetDenied):
            absolute_of(bad)


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("a.test", "a.test", True),
        ("a.test", "b.a.test", False),
        ("*.a.test", "b.a.test", True),
        ("*.a.test", "c.b.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "ba.test", False),
        ("*.a.test", ".a.test", False),
        ("*.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
    ],
)
def test_patterns_of_hosts(pattern: str, host: str, fits: bool) -> None:
    """A pattern stands for whatever is below it, never for itself, never for an address."""
    assert covers(pattern, host) is fits


def test_ports_and_methods() -> None:
    """Plain numbers, and methods in upper case that are not about the proxy."""
    assert port_of("443") == 443
    assert method_of("PATCH") == "PATCH"
    for bad in ("", "0", "-1", "65536", "0x50", "1e3", " 80"):
        with pytest.raises(NetDenied):
            port_of(bad)
    for bad in ("", "get", "GET ", "CONNECT", "TRACE", "G\u00cbT", "A" * 40):
        with pytest.raises(NetDenied):
            method_of(bad)


def test_host_headers() -> None:
    """The port is left out where the scheme means it."""
    assert written("a.test", 443, "https") == "a.test"
    assert written("a.test", 443, "http") == "a.test:443"
    assert written("::1", 80, "http") == "[::1]"
