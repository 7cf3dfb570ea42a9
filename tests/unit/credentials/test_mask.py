"""Masks: no way of writing a value down that is promised to be found is left in any text; other text stays as it is."""

from __future__ import annotations

import base64
import codecs
import html
import json
import quopri
import re
import tracemalloc
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentos.abi.canonical import Json
from agentos.credentials import mask
from agentos.credentials.forms import weak
from agentos.credentials.mask import MASK, Masker
from agentos.credentials.views import squeeze, unsqueezed, views

TOKEN = "ghp_9fQ2xLr7VbT0sKdE4wYzMnAa1uHc3JpG5iOq"


def masker(*values: str) -> Masker:
    made = Masker()
    for value in values:
        made.add(value)
    return made


def _percent(value: str, every: int = 1) -> str:
    return "".join(f"%{byte:02x}" if at % every == 0 else chr(byte) for at, byte in enumerate(value.encode()))


ENCODINGS: dict[str, Callable[[str], str]] = {
    "raw": lambda v: v,
    "upper": str.upper,
    "hex": lambda v: v.encode().hex(),
    "HEX": lambda v: v.encode().hex().upper(),
    "hex with colons": lambda v: v.encode().hex(":"),
    "hex of C": lambda v: ", ".join(f"0x{byte:02X}" for byte in v.encode()),
    "hex escapes": lambda v: "".join(f"\\x{byte:02x}" for byte in v.encode()),
    "octal escapes": lambda v: "".join(f"\\{byte:03o}" for byte in v.encode()),
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64 without padding": lambda v: base64.b64encode(v.encode()).decode().rstrip("="),
    "base64 url": lambda v: base64.urlsafe_b64encode(v.encode()).decode(),
    "base64 behind one": lambda v: base64.b64encode(b"u" + v.encode() + b"tail").decode(),
    "base64 behind two": lambda v: base64.b64encode(b"u:" + v.encode() + b"t").decode(),
    "base64 of a login": lambda v: "Basic " + base64.b64encode(f"agentos:{v}".encode()).decode(),
    "base64 in lines": lambda v: base64.encodebytes(b"x" * 50 + v.encode() * 3).decode(),
    "base64 in an address": lambda v: quote_plus(base64.b64encode(v.encode()).decode()),
    "base32": lambda v: base64.b32encode(v.encode()).decode(),
    "base32 in lower case": lambda v: base64.b32encode(b"abc" + v.encode()).decode().lower(),
    "address": lambda v: quote(v, safe=""),
    "form": quote_plus,
    "percent": _percent,
    "percent in part": lambda v: _percent(v, 3),
    "percent twice": lambda v: quote(_percent(v), safe=""),
    "percent three times": lambda v: quote(quote(_percent(v), safe=""), safe=""),
    "json": json.dumps,
    "json of json": lambda v: json.dumps(json.dumps({"v": v})),
    "json escapes": lambda v: "".join(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else json.dumps(char)[1:-1] for char in v),
    "python": repr,
    "javascript": lambda v: "".join(f"\\u{{{ord(char):x}}}" for char in v),
    "html": html.escape,
    "html decimal": lambda v: "".join(f"&#{ord(char)};" for char in v),
    "html hexadecimal": lambda v: "".join(f"&#x{ord(char):X};" for char in v),
    "quoted-printable": lambda v: quopri.encodestring(v.encode(), quotetabs=True).decode(),
    "quoted-printable whole": lambda v: "".join(f"={byte:02X}" for byte in v.encode()),
    "reversed": lambda v: v[::-1],
    "rot13": lambda v: codecs.encode(v, "rot13"),
    "spaced": " ".join,
    "in lines": "\n".join,
    "comma separated": ", ".join,
    "concatenated": "' + '".join,
    "concatenated in lines": lambda v: '" +\n    "'.join(v[at : at + 3] for at in range(0, len(v), 3)),
    "zero width": "\u200b".join,
    "joiners": "\u2060\u200d".join,
    "soft hyphens": "\u00ad".join,
    "wide spaces": "\u3000".join,
    "bearer": lambda v: f"Authorization: Bearer {v}\r\n",
}

PLAIN = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%()*<>?@[]^{}~-_./+=:;,&|'\"\\ ", min_size=0)
VALUES = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%()*<>?@[]^{}~-_./+=:;,&|", min_size=8, max_size=80
).filter(lambda value: weak(value) is None and value.lower() != MASK and len(squeeze(value.encode())) >= 8)


def stands_in(encoded: str, text: str) -> bool:
    """Whether somebody who knows the way of writing could read the value out of `text`: the same characters, in that order."""
    return encoded in text


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_way_of_writing_is_found(name: str) -> None:
    """Text around a value stays; of the value nothing does, however it is written."""
    written = ENCODINGS[name](TOKEN)
    text = masker(TOKEN).text(f"before <{written}> after")
    assert text.startswith("before <")
    assert text.endswith("> after")
    assert MASK in text
    assert written not in text
    if name in {"bearer", "base64 in lines", "base64 of a login"}:
        return  # there is more in it than the value
    core = re.sub(r"[^A-Za-z0-9]", "", written)
    left = re.sub(r"[^A-Za-z0-9]", "", text)
    assert not any(core[at : at + 14] in left for at in range(max(1, len(core) - 13))), text


@given(VALUES, st.sampled_from(sorted(ENCODINGS)), PLAIN, PLAIN)
@settings(max_examples=400, deadline=None)
def test_any_value_in_any_text(value: str, name: str, before: str, after: str) -> None:
    """For any value, written in any of these ways, in any text: what was written is not there any more."""
    made = masker(value)
    written = ENCODINGS[name](value)
    told = made.text(f"{before} {written} {after}")
    assert not made.spans(told.encode())
    assert not stands_in(written, told)


@given(VALUES, st.text(max_size=400))
@settings(max_examples=200, deadline=None)
def test_other_text_stays(value: str, text: str) -> None:
    """A text in which a value does not stand is given back as it is, to the byte."""
    assume(squeeze(value.encode())[:8] not in squeeze(text.encode("utf-8", "surrogatepass")))
    assert masker(value).text(text) == text


@given(st.text(min_size=8, max_size=40).filter(lambda value: weak(value) is None), st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_values_of_any_characters(value: str, text: str) -> None:
    """Whatever characters a value has, it is found as it is, in text, in UTF-16 and in JSON."""
    assume(value != MASK)
    made = masker(value)
    assume(not made.spans(text.encode("utf-8", "surrogatepass")) and not re.search(r"[%\\&=]", value + text))
    assert value not in made.text(f"{text}{value}{text}")
    for coding in ("utf-16-le", "utf-16-be"):
        raw = value.encode(coding, "surrogatepass")
        assert raw not in made.bytes(b"\n" + raw + b"\n") or len(squeeze(raw)) < 6
    assert value not in json.dumps(made.json({"a": [value, 1], value: None}), ensure_ascii=False) or '"' in value


@given(VALUES, st.lists(st.integers(1, 3000), min_size=1, max_size=12), st.sampled_from(["raw", "base64", "percent", "spaced"]))
@settings(max_examples=60, deadline=None)
def test_streams(value: str, sizes: list[int], name: str) -> None:
    """A text that comes in pieces is masked as if it came whole, wherever it was cut."""
    made = masker(value)
    written = ENCODINGS[name](value)
    assume(len(written) < 2000)
    whole = ("line of a log\n" * 700 + written + "\n") * 4
    data, stream, told, at, turn = whole.encode(), made.stream(), b"", 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        told += stream.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    told += stream.finish()
    assert told.decode() == made.text(whole)
    assert written not in told.decode()


@pytest.mark.parametrize("name", ["raw", "base64", "percent", "spaced"])
def test_large_texts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text too large to be searched at one time is searched in windows, and no value stands between two of them."""
    monkeypatch.setattr(mask, "_WINDOW", 2000)
    monkeypatch.setattr(mask, "_OVERLAP", 500)
    made = masker(TOKEN)
    monkeypatch.setattr(mask, "_HELD", 1)
    written = ENCODINGS[name](TOKEN)
    for before in range(3000, 3900, 7):
        whole = ("line of a log\n" * 900)[:before] + "\n" + written + "\n" + "line of a log\n" * 300
        text = made.text(whole)
        assert (written in text, MASK in text) == (False, True)
        assert len(text) < len(whole)
    clean = b"line of a log\n" * 900
    assert made.bytes(clean) is clean


def test_a_search_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that writes nothing but characters to be undone does not take the memory of the runtime away."""
    monkeypatch.setattr(mask, "_WINDOW", 1 << 15)
    monkeypatch.setattr(mask, "_OVERLAP", 1 << 12)
    made = masker(TOKEN)
    data = b"%41 " * (1 << 17) + TOKEN.encode()
    tracemalloc.start()
    try:
        assert TOKEN.encode() not in made.bytes(data)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 16 * len(data)


def test_deep_data() -> None:
    """Lists in lists as deep as anybody can send them are masked, as a whole where they are deeper than anything of use."""
    made = masker(TOKEN)
    for depth in (10, 500, 100_000):
        body: Json = TOKEN
        for _ in range(depth):
            body = [body]
        told = made.json(body)
        for _ in range(depth):
            if told == MASK:
                break
            (told,) = told
        assert told == MASK


def test_a_value_of_which_the_end_is_cut_off() -> None:
    """The beginning, the end and the middle of a value are masked where they are a third of it and twelve characters."""
    for part in (TOKEN[:14], TOKEN[:30], TOKEN[-25:], TOKEN[5:25]):
        assert masker(TOKEN).text(f"cut> {part}") == f"cut> {MASK}"
    coded = base64.b64encode(TOKEN.encode()).decode()
    assert coded[:20] not in masker(TOKEN).text(f"cut> {coded[:36]}")
    assert masker(TOKEN).text(TOKEN[:8]) == TOKEN[:8]


def test_key_files() -> None:
    """Lines of a key file are masked one by one, and so are the texts of a key file in JSON; the lines that all have are not."""
    body = base64.encodebytes(bytes(range(7, 250)) * 2).decode()
    pem = f"-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----\n"
    line = body.splitlines()[3]
    assert (
        masker(pem).text(f"line 4: {line}\n-----BEGIN RSA PRIVATE KEY-----") == f"line 4: {MASK}\n-----BEGIN RSA PRIVATE KEY-----"
    )
    account = json.dumps({"type": "service_account", "private_key": pem, "client_id": "1042aaaabbbbcccc9931"})
    assert line not in masker(account).text(f"line 4: {line}")
    assert masker(account).text("as 1042aaaabbbbcccc9931") == f"as {MASK}"


def test_json_values_keys_and_numbers() -> None:
    """Texts, keys, numbers, and values that are spread over the items of a list are masked; other types stay."""
    made = masker(TOKEN, "4929123412341234")
    body = {"a": [TOKEN, {"b": f"x{TOKEN}"}], TOKEN: True, "n": 4929123412341234, "m": 17, "none": None, "ok": "fine"}
    assert made.json(body) == {"a": [MASK, {"b": f"x{MASK}"}], MASK: True, "n": MASK, "m": 17, "none": None, "ok": "fine"}
    assert made.json({"chars": list(TOKEN), "other": [1, 2]}) == {"chars": MASK, "other": [1, 2]}
    assert made.json({"deep": [[TOKEN[:20]], [TOKEN[20:]]]}) != {"deep": [[TOKEN[:20]], [TOKEN[20:]]]}
    clean = {"nothing": ["here", 1.5]}
    assert made.json(clean) is clean


def test_two_keys_that_are_masked_alike() -> None:
    """No entry of an object is lost by masking."""
    body = masker(TOKEN).json({TOKEN: 1, TOKEN[::-1]: 2})
    assert sorted(body.values()) == [1, 2]


def test_several_values_and_what_they_join_up_to() -> None:
    """Every value of a session is masked, also where taking one out puts the parts of another one together."""
    other = "zzTop-4711-moreThanEight"
    made = masker(TOKEN, other)
    told = made.text(f"{other[:12]}{TOKEN}{other[12:]} {TOKEN}{other}")
    assert TOKEN not in told
    assert other not in told
    assert not made.spans(told.encode())


def test_binary_and_utf16_files() -> None:
    """Bytes that are no text keep what is not the value."""
    data = bytes(range(128, 256)) + TOKEN.encode("utf-16-le") + b"\x00\xff\xfe" + TOKEN.encode() + b"\x80"
    told = masker(TOKEN).bytes(data)
    assert told.count(MASK.encode()) == 2
    assert told.startswith(bytes(range(128, 250)))


def test_masking_is_over_after_one_pass() -> None:
    """What was masked is not masked again."""
    once = masker(TOKEN).text(f"a {TOKEN} b {TOKEN.encode().hex()} c")
    assert masker(TOKEN).text(once) == once == f"a {MASK} b {MASK} c"


def test_hostile_text_takes_no_longer() -> None:
    """Text made of beginnings of a value, of separators, or of escapes upon escapes is looked through to its end."""
    made = masker(TOKEN, "aaaabbbb" * 4 + "cd", "x+y" * 10 + "abc")
    for unit in (TOKEN[:11], " \u200b'+", "%25", "\\\\u005c", "aaaabbbb", "&amp;", "=3D=", "x+y"):
        text = unit * (200_000 // len(unit))
        assert len(made.text(text)) <= len(text)


def test_weak_values() -> None:
    """Values that occur by chance are told apart from those that do not, with a reason."""
    assert str(weak("hunter2")) == str(weak("abcabcabcabc")) != "None"
    assert "more than" in str(weak("ab1c" * 20000))
    assert weak("hunter22") is None


@given(
    st.lists(
        st.sampled_from([b"a", b"%41", b"\\u00e9", b"&lt;", b"=\n", b" ", b"\xe2\x80\x8b", b"\\n", b"B", b"%25"]), max_size=30
    )
)
@settings(max_examples=200, deadline=None)
def test_the_way_back(parts: list[bytes]) -> None:
    """Every byte of every view leads to bytes of the text that are there, in order, and the whole to the whole."""
    data = b"".join(parts)
    for view in views(data):
        squeezed = squeeze(view.data)
        spans = unsqueezed(view.data, [(at, at + 1) for at in range(len(squeezed))])
        for at, (low, high) in enumerate(spans):
            assert view.data[low:high].lower() == squeezed[at : at + 1]
        back = view.back(spans)
        assert all(0 <= low < high <= len(data) for low, high in back)
        assert back == sorted(back)
