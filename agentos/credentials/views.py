r"""Views: a text with what others may have wrapped it in taken away, and the way back to where it stood.

`views(data)` are the text itself; with the escapes of each family undone (percent-encoding, backslashes, HTML, quoted-printable);
with all of them undone at once, up to three times. `squeeze` then drops what people and programs put between characters. Each
step is one pass, in time that grows with the text alone; where something was found, `back` tells which bytes it came from.

>>> squeeze(b"'Ab' +\n 'c-D'")
b'abcd'
>>> [view.data for view in views(rb"%61\x62")]
[b'%61\\x62', b'a\\x62', b'%61b', b'ab']
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

Span = tuple[int, int]
"""From, to (exclusive), in bytes."""

_DEPTH: Final = 3
"""How often all escapes are undone."""

_BETWEEN: Final = b" \t\n\v\f\r\0'\"`+-_/,.:;\\|=&"
"""Bytes that stand between the characters of a value that somebody took apart; NUL is every other byte of UTF-16."""

_INVISIBLE: Final = (
    rb"\xc2[\xa0\xad]|\xcd\x8f|\xe1\x85[\x9f\xa0]|\xe1\xa0[\x8b-\x8e]|\xe2\x80[\x80-\x8f\xa8-\xaf]|\xe2\x81[\x9f-\xaf]"
    rb"|\xe3\x80\x80|\xef\xb8[\x80-\x8f]|\xef\xbb\xbf|\xf3\xa0[\x80-\x87][\x80-\xbf]"
)
"""UTF-8 of white space beyond ASCII, of characters without a width, and of such as only choose how others look."""

_DROPPED: Final = re.compile(rb"(?:[" + re.escape(_BETWEEN) + rb"]|" + _INVISIBLE + rb")+")
_UNSEEN: Final = re.compile(_INVISIBLE)
_LOWER: Final = bytes(range(256)).lower()

_PERCENT: Final = rb"%(?:[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})"
_BACKSLASH: Final = (
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]{1,6}\}|U[0-9a-fA-F]{8}"
    rb"|x[0-9a-fA-F]{2}|0?[0-7]{3}|[abtnvfr\\])"
)
_HTML: Final = rb"&(?:#[0-9]{1,7};?|#[xX][0-9a-fA-F]{1,6};?|[A-Za-z][A-Za-z0-9]{1,31};)"
_QUOTED: Final = rb"=(?:[0-9A-Fa-f]{2}|\r?\n)"
_FAMILIES: Final = tuple(re.compile(one) for one in (_PERCENT, _BACKSLASH, _HTML, _QUOTED))
_ALL: Final = re.compile(b"|".join((_PERCENT, _BACKSLASH, _HTML, _QUOTED)))

_LETTERS: Final = {b"\\a": b"\a", b"\\b": b"\b", b"\\t": b"\t", b"\\n": b"\n", b"\\v": b"\v", b"\\f": b"\f", b"\\r": b"\r"}


@dataclass(frozen=True, slots=True)
class View:
    """A text with the escapes undone that `steps` name, in order; each step keeps what it was done to."""

    data: bytes
    steps: tuple[tuple[bytes, re.Pattern[bytes]], ...] = ()

    def back(self, spans: Sequence[Span]) -> list[Span]:
        """Where in the text itself `spans` of `data` stood."""
        for before, escapes in reversed(self.steps):
            spans = _back(before, escapes, spans, undone=True)
        return list(spans)


def views(data: bytes) -> Iterator[View]:
    """The text, and each way to read it that differs from those before."""
    whole = View(data)
    yield whole
    there = [family for family in _FAMILIES if family.search(data)]
    if not there:
        return
    if len(there) > 1:
        for family in there:
            yield _undone(whole, family)
    if len(there) > 1 and _FAMILIES[0] in there:
        twice = _undone(_undone(whole, _FAMILIES[0]), _FAMILIES[0])
        if twice.data != twice.steps[-1][0]:
            yield twice
    view = whole
    for _ in range(_DEPTH):
        view = _undone(view, _ALL)
        if view.data == view.steps[-1][0]:
            return
        yield view


def squeeze(data: bytes) -> bytes:
    """`data` in lower case (ASCII), without what stands between characters."""
    if not data.isascii():
        data = _UNSEEN.sub(b"", data)
    return data.translate(_LOWER, _BETWEEN)


def unsqueezed(data: bytes, spans: Sequence[Span]) -> list[Span]:
    """Where in `data` `spans` of `squeeze(data)` stood."""
    return _back(data, _DROPPED, spans, undone=False)


def _undone(view: View, escapes: re.Pattern[bytes]) -> View:
    return View(escapes.sub(lambda found: _plain(found[0]), view.data), (*view.steps, (view.data, escapes)))


def _back(before: bytes, tokens: re.Pattern[bytes], spans: Sequence[Span], *, undone: bool) -> list[Span]:
    """`spans` of the text in which `tokens` of `before` were undone, or left out: which bytes of `before` they are."""
    starts, sources, ends = [0], [0], [0]
    # Pieces of the text: where each starts there and in `before`; `ends` is 0 for a piece taken as it is, else its token's end.
    at = shift = 0
    for found in tokens.finditer(before):
        plain = _plain(found[0]) if undone else b""
        start = found.start() - shift
        if plain:
            starts.append(start)
            sources.append(found.start())
            ends.append(found.end())
        at = start + len(plain)
        shift = found.end() - at
        starts.append(at)
        sources.append(found.end())
        ends.append(0)
    answer = []
    for low, high in spans:
        first, last = bisect_right(starts, low) - 1, bisect_right(starts, high - 1) - 1
        begin = sources[first] if ends[first] else sources[first] + low - starts[first]
        end = ends[last] or sources[last] + high - starts[last]
        answer.append((begin, end))
    return answer


@lru_cache(maxsize=8192)
def _plain(token: bytes) -> bytes:
    """What an escape stands for; the escape itself where it stands for nothing."""
    kind, rest = token[:1], token[1:]
    if kind == b"&":
        return html.unescape(token.decode("ascii")).encode("utf-8", "surrogatepass")
    if kind == b"=":
        return b"" if rest.strip() == b"" else bytes.fromhex(rest.decode("ascii"))
    if kind == b"%" and rest[:1] != b"u":
        return bytes.fromhex(rest.decode("ascii"))
    if token in _LETTERS:
        return _LETTERS[token]
    if rest[:1] == b"\\":
        return b"\\"
    if rest[:1] == b"x":
        return bytes.fromhex(rest[1:].decode("ascii"))
    if rest[:1] in (b"u", b"U"):
        return _character(token, [int(one.strip(b"{}"), 16) for one in re.split(rb"[\\%][uU]", token)[1:]])
    return bytes((int(rest, 8) & 0xFF,))


def _character(token: bytes, codes: Sequence[int]) -> bytes:
    if len(codes) == 2:
        return chr(0x10000 + ((codes[0] & 0x3FF) << 10) + (codes[1] & 0x3FF)).encode("utf-8")
    return chr(codes[0]).encode("utf-8", "surrogatepass") if codes[0] <= 0x10FFFF else token
