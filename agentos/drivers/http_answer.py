"""What a call of an HTTP tool gives back: text within the tool's limit, JSON as data, and the whole kept where it does not fit.

The other side is not believed: headers are passed on only if they are among those that a model can use, a text is read in a
character set that is known, what is compressed is unpacked up to a bound, and JSON with two meanings stays text.

    Answered(200, headers, b'{"id": 7}')  ->  content '{"id": 7}', data {"status": 200, "headers": {…}, "body": {"id": 7}}
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, digest, parse_strict
from agentos.abi.errors import AgentOSError
from agentos.abi.syscall import Result
from agentos.drivers.http_request import is_json, media_type
from agentos.drivers.output import MAX_KEPT, Outputs, bounded

MAX_HEADER: Final = 1024
"""Most characters of a header that are passed on."""

MAX_HEADERS: Final = 24

_TOLD: Final = frozenset({"content-type", "content-language", "etag", "last-modified", "location", "retry-after", "link"})
_TOLD_BEGINNINGS: Final = ("ratelimit", "x-ratelimit-")
_IN_TEXT: Final = ("location", "retry-after")
"""Headers that a model has to know to go on, so that they stand in the text too."""

_TEXTS: Final = frozenset(
    {
        "application/xml", "application/javascript", "application/ecmascript", "application/yaml", "application/x-yaml",
        "application/toml", "application/sql", "application/graphql", "application/x-ndjson", "application/jsonl",
        "application/json-seq", "application/x-www-form-urlencoded", "application/x-sh", "image/svg+xml",
    }
)  # fmt: skip
_CHARSETS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("utf-8", "utf8", "us-ascii", "ascii"), "utf-8"),
    **dict.fromkeys(("iso-8859-1", "latin1", "latin-1", "windows-1252", "cp1252"), "cp1252"),
    **{f"iso-8859-{number}": f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16)},
    **{f"windows-{number}": f"cp{number}" for number in range(1250, 1259) if number != 1252},
    **{
        name: name
        for name in ("utf-16", "utf-16le", "utf-16be", "shift_jis", "euc-jp", "euc-kr", "gbk", "gb18030", "big5", "koi8-r")
    },
    "gb2312": "gb18030",
}
"""Character sets that texts are read in, with Python's name. Python knows more that are no character sets or are slow."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A response. `body` is as it was sent, at most MAX_KEPT bytes; `missing` says what of it is not there, "" if it is whole."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, in the order in which they came."""
    body: bytes = field(default=b"", repr=False)
    missing: str = ""

    def header(self, name: str) -> str:
        """The first value of a header; "" if it is not there."""
        return next((value for key, value in self.headers if key == name), "")


def told_headers(answered: Answered) -> dict[str, Json]:
    """The headers that are passed on: few, short, and printable."""
    told: dict[str, Json] = {}
    for name, value in answered.headers:
        if (name in _TOLD or name.startswith(_TOLD_BEGINNINGS)) and name not in told and len(told) < MAX_HEADERS:
            told[name] = "".join(char if char.isprintable() else "·" for char in value[:MAX_HEADER])
    return told


def unpacked(answered: Answered) -> Answered:
    """`answered` without its compression, cut at MAX_KEPT bytes. What cannot be unpacked stays as it is, and is told."""
    encoding = answered.header("content-encoding").strip().lower()
    if encoding in {"", "identity"} or not answered.body:
        return answered
    if encoding not in {"gzip", "x-gzip"}:
        # `content-encoding` stays among the headers, so that the body is not taken for what it is an encoding of.
        return replace(answered, missing=_both(answered.missing, f"it is encoded as {encoding[:32]!r}, which was not asked for"))
    engine = zlib.decompressobj(wbits=31)
    try:
        body = engine.decompress(answered.body, MAX_KEPT)
    except zlib.error:
        return replace(answered, missing=_both(answered.missing, "it is said to be compressed, and cannot be unpacked"))
    headers = tuple((name, value) for name, value in answered.headers if name != "content-encoding")
    missing = answered.missing
    if engine.unconsumed_tail or (len(body) == MAX_KEPT and not engine.eof):
        missing = _both(missing, f"unpacked it is larger than {MAX_KEPT} bytes, and the rest was left")
    elif not engine.eof:
        missing = _both(missing, "what is compressed ends too early")
    elif engine.unused_data:
        missing = _both(missing, "something follows what is compressed, and was left")
    return replace(answered, headers=headers, body=body, missing=missing)


def result_of(answered: Answered, limit: int, outputs: Outputs | None, *, tenant: str, session: str) -> Result:
    """The result of a call whose response is `answered`, with at most `limit` bytes of text. Blocks while the whole is kept.

    A status of 400 and above is an error of the tool. `data` has `status`, `headers`, and for JSON that fits `body`; where the
    whole is kept, its `digest`.
    """
    answered = unpacked(answered)
    body = answered.body if outputs is None else outputs.clean(tenant, session, answered.body)
    data: dict[str, Json] = {"status": answered.status, "headers": told_headers(answered)}
    notes = [f"[{answered.missing}]"] if answered.missing else []
    head = _head(answered, body)
    kind = answered.header("content-type")
    text = None if answered.header("content-encoding") else text_of(body, kind)
    if text is None:
        said, whole = _binary(body, kind, outputs, tenant=tenant, session=session)
        if whole is not None:
            data["digest"] = whole
        return Result("\n".join([*head, said, *notes]), data, is_error=answered.status >= HTTPStatus.BAD_REQUEST)
    if is_json(kind) and len(body) <= limit and not answered.missing:
        try:
            data["body"] = parse_strict(body)
        except NotCanonical as error:
            notes.append(f"[it is no data: {error}]")
    room = max(0, limit - sum(len(line.encode()) + 1 for line in (*head, *notes)))
    shown = bounded(text.encode(), room, outputs, tenant=tenant, session=session)
    if shown.digest is not None:
        data["digest"] = shown.digest
    parts = [*head, *([shown.text] if shown.text else []), *notes]
    return Result("\n".join(parts), data, is_error=answered.status >= HTTPStatus.BAD_REQUEST)


def text_of(body: bytes, kind: str) -> str | None:
    """`body` as text, if its content type says that it is one, or says nothing and it looks like one."""
    media = media_type(kind)
    if not media or media == "application/octet-stream":
        if b"\0" in body:
            return None
        try:
            return body.decode()
        except UnicodeDecodeError:
            return None
    if not (media.startswith("text/") or is_json(media) or media.endswith("+xml") or media in _TEXTS):
        return None
    charset = next(
        (
            value.strip().strip("\"'").lower()
            for name, _, value in (part.partition("=") for part in kind.split(";")[1:])
            if name.strip().lower() == "charset"
        ),
        "utf-8",
    )
    return body.decode(_CHARSETS.get(charset, "utf-8"), "replace")


def _head(answered: Answered, body: bytes) -> list[str]:
    """Lines that say what the body does not: the status, unless it is the one that everybody expects, and how to go on."""
    told = told_headers(answered)
    lines = [f"{name}: {told[name]}" for name in _IN_TEXT if name in told]
    if answered.status != HTTPStatus.OK or not body:
        try:
            phrase = f" {HTTPStatus(answered.status).phrase}"
        except ValueError:
            phrase = ""
        lines.insert(0, f"HTTP {answered.status}{phrase}")
    return lines


def _binary(body: bytes, kind: str, outputs: Outputs | None, *, tenant: str, session: str) -> tuple[str, str | None]:
    """What is told in place of a body that is no text, and the digest under which it is kept."""
    what = media_type(kind) or "no known type"
    what = "".join(char if char.isprintable() else "·" for char in what[:128])
    if outputs is None:
        return f"[{len(body)} bytes of {what}, {digest(body)}; nothing keeps them here]", None
    try:
        whole = outputs.keep(tenant, session, body)
    except AgentOSError as error:
        return f"[{len(body)} bytes of {what}, which are lost: {error.message[:100]}]", None
    return f"[{len(body)} bytes of {what}, kept: agentos fs cat SESSION {whole}]", whole


def _both(first: str, second: str) -> str:
    return f"{first}; {second}" if first else second
