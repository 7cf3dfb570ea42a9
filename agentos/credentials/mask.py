"""Masks: whatever a tool gives back is looked through for every value that was leased in its session, and the value is taken out.

    masker.text("Authorization: Basic YWdlbnRvczpodW50ZXIyLWh1bnRlcjI=")     # "Authorization: Basic [masked]"

It is a net under what keeps values where they belong, not a wall: a program that has a value can write it in a way that nobody
looks for. What is looked for: see `agentos.credentials.forms`. One search takes time that grows with the text, not with its
contents: there is no pattern that backtracks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.credentials.forms import Form, forms
from agentos.credentials.views import Span, squeeze, unsqueezed, views

MASK: Final = "[masked]"
"""What stands in place of a value. It does not say of which."""

_MASK: Final = MASK.encode("ascii")

_AGAIN: Final = 4
"""How often a text is searched: what stood around a value may join up to another one."""

_HELD: Final = 8192
"""Fewest bytes that a stream holds back, as a value may go on in the next piece."""

_WINDOW: Final = 1024 * 1024
"""Bytes that are searched at one time: a search takes up to a hundred times as much memory as what it goes through."""

_OVERLAP: Final = 128 * 1024
"""Fewest bytes that two windows of a text which is there as a whole have in common."""

_DEEP: Final = 64
"""Levels of lists and objects that are masked item by item; what is deeper is masked as a whole."""

_LARGE: Final = 10_000_000
"""The smallest number that can be a value."""


class Masker:
    """Knows the values of one session. Safe to use from several threads: a search sees the values that were known as it began."""

    def __init__(self) -> None:
        self._values: frozenset[str] = frozenset()
        self._squeezed: tuple[Form, ...] = ()
        self._exact: tuple[Form, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to look for."""
        return not self._values

    @property
    def reach(self) -> int:
        """How many bytes a value may spread over in a stream and still be found, in any case."""
        longest = max((len(form.body) for form in (*self._squeezed, *self._exact)), default=0)
        return max(_HELD, 4 * longest)

    def add(self, value: str) -> None:
        """Look for `value` from now on; one that `forms.weak` refuses must not be added."""
        if value not in self._values:
            fresh = forms(value)
            self._squeezed += tuple(form for form in fresh if not form.exact)
            self._exact += tuple(form for form in fresh if form.exact)
            self._values |= {value}

    def spans(self, data: bytes) -> list[Span]:
        """Where values stand in `data`: in order, apart from each other."""
        if self.empty:
            return []
        found: list[Span] = []
        for view in views(data):
            squeezed = squeeze(view.data)
            hits = [hit for form in self._squeezed for hit in _hits(squeezed, form)]
            spans = unsqueezed(view.data, hits) if hits else []
            spans += [hit for form in self._exact for hit in _hits(view.data, form)]
            if spans:
                found += view.back(spans)
        return _joined(found)

    def _bytes(self, data: bytes) -> bytes:
        for _ in range(_AGAIN):
            spans = self.spans(data)
            if not spans:
                return data
            data = _replaced(data, [_whole_characters(data, span) for span in spans])
        return data

    def bytes(self, data: bytes) -> bytes:
        """`data` with MASK in place of every value; `data` itself where there is none."""
        if self.empty or len(data) <= 2 * _WINDOW:
            return self._bytes(data)
        stream = MaskStream(self, _OVERLAP)
        parts = [stream.feed(data[start : start + _WINDOW]) for start in range(0, len(data), _WINDOW)]
        masked = b"".join((*parts, stream.finish()))
        return data if masked == data else masked

    def text(self, text: str) -> str:
        """`text` with MASK in place of every value."""
        if self.empty:
            return text
        data = text.encode("utf-8", "surrogatepass")
        masked = self.bytes(data)
        return text if masked is data else masked.decode("utf-8", "surrogatepass")

    def json(self, body: Json) -> Json:
        """`body` with its texts, keys and numbers masked; a list or object whose items together show a value becomes MASK."""
        if self.empty:
            return body
        try:
            return self._json(body, 0) if self.spans(_serialised(body)) else body
        except RecursionError:
            return MASK  # nothing that anybody needs is as deep as that

    def stream(self) -> MaskStream:
        """Masks what comes in pieces."""
        return MaskStream(self)

    def _json(self, body: Json, depth: int) -> Json:
        if depth > _DEEP:
            return self._together(body)
        if isinstance(body, str):
            return self.text(body)
        if isinstance(body, (int, float)) and not isinstance(body, bool) and abs(body) >= _LARGE:
            shown = self.text(repr(body))
            return body if shown == repr(body) else shown
        if isinstance(body, list):
            return self._together([self._json(item, depth + 1) for item in body])
        if isinstance(body, dict):
            masked: dict[str, Json] = {}
            for key, item in body.items():
                name = self.text(key)
                while name in masked:
                    name += "'"
                masked[name] = self._json(item, depth + 1)
            return self._together(masked)
        return body

    def _together(self, body: Json) -> Json:
        return MASK if self.spans(_serialised(body)) else body


class MaskStream:
    """Masks a text that comes in pieces: `feed` each, then `finish`. What they give, put together, is the masked text.

    A value that is spread over more than `Masker.reach` bytes, with other characters between its own, may be seen in part.
    """

    def __init__(self, masker: Masker, overlap: int = 0) -> None:
        """`overlap`: bytes that are held back at least."""
        self._masker = masker
        self._overlap = overlap
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What can be told by now."""
        if self._masker.empty:
            # Values that are leased later are no part of what was said before.
            piece, self._held = self._held + piece, b""
            return piece
        self._held += piece
        reach = max(self._masker.reach, self._overlap)
        if len(self._held) < 2 * reach:
            return b""
        cut = len(self._held) - reach
        spans = self._masker.spans(self._held)
        for begin, end in spans:
            if begin < cut < end:
                cut = begin
        while cut and len(self._held) > cut and self._held[cut] & 0xC0 == 0x80:
            cut -= 1
        told, self._held = self._held[:cut], self._held[cut:]
        return self._masker.bytes(told) if any(begin < cut for begin, _ in spans) else told

    def finish(self) -> bytes:
        """The rest."""
        told, self._held = self._held, b""
        return self._masker.bytes(told)


def _hits(text: bytes, form: Form) -> Iterator[Span]:
    """Where enough of `form` stands in `text`."""
    body = form.body
    for offset, anchor in form.anchors:
        at = text.find(anchor)
        while at >= 0:
            low, high = _extended(text, body, at, offset, len(anchor))
            if high - low >= form.least:
                yield _widened(text, form, low, high, whole=high - low == len(body))
                at = text.find(anchor, max(at + 1, high - len(anchor) + 1))
            else:
                at = text.find(anchor, at + 1)


def _widened(text: bytes, form: Form, low: int, high: int, *, whole: bool) -> Span:
    before, behind = form.wide
    if whole and before and text[low - 1 : low].isalnum():
        low -= 1
    if whole and behind and text[high : high + 1].isalnum():
        high += 1
    return low, high


def _extended(text: bytes, body: bytes, at: int, offset: int, width: int) -> Span:
    """How far `text` agrees with `body`, of which `width` bytes from `offset` on stand at `at`."""
    before, behind = offset, len(body) - offset - width
    low = at
    while before and low and text[low - 1] == body[before - 1]:
        low, before = low - 1, before - 1
    high = at + width
    end = len(text)
    while behind and high < end and text[high] == body[len(body) - behind]:
        high, behind = high + 1, behind - 1
    return low, high


def _joined(spans: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def _whole_characters(data: bytes, span: Span) -> Span:
    """`span` without half a character of UTF-8 at its ends."""
    low, high = span
    for _ in range(3):
        low -= 1 if low and data[low] & 0xC0 == 0x80 else 0
        high += 1 if high < len(data) and data[high] & 0xC0 == 0x80 else 0
    return low, high


def _replaced(data: bytes, spans: Sequence[Span]) -> bytes:
    parts, at = [], 0
    for low, high in _joined(spans):
        parts += [data[at:low], _MASK]
        at = high
    return b"".join((*parts, data[at:]))


def _serialised(body: Json) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
