"""Bodies on the wire: JSON, gzip above a size, large answers in numbered parts.

Headers: `Agentos-Encoding: gzip`; `Agentos-Part: 2/5`. A decompressed body is bounded, so that
a small message cannot fill memory.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import UsageError

ENCODING: Final = "Agentos-Encoding"
PART: Final = "Agentos-Part"
GZIP_ABOVE: Final = 32 * 1024
MAX_BODY: Final = 128 * 1024 * 1024
"""Largest answer in bytes, decompressed."""

MAX_REQUEST: Final = 32 * 1024 * 1024
"""Largest request in bytes, decompressed: as JSON it takes many times that in memory."""


def encode(value: Json) -> tuple[bytes, dict[str, str]]:
    """The bytes of a body and the headers that say how to read it."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(data) <= GZIP_ABOVE:
        return data, {}
    return gzip.compress(data, compresslevel=1), {ENCODING: "gzip"}


def unpack(data: bytes, headers: Mapping[str, str] | None, *, most: int) -> bytes:
    """A body as JSON text. Raises UsageError for one that cannot be unpacked, or is larger than `most` bytes then."""
    try:
        if headers and headers.get(ENCODING) == "gzip":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError("the message is not one of AgentOS") from error
    if len(data) > most:
        raise UsageError(f"the message is larger than {most} bytes")
    return data


def decode(data: bytes, headers: Mapping[str, str] | None) -> Json:
    """Read an answer. Raises UsageError for one that is not ours, or larger than MAX_BODY."""
    return _parse(unpack(data, headers, most=MAX_BODY))


def decode_request(text: bytes) -> Json:
    """Read an unpacked request. Raises UsageError also for what could be read in two ways, or no event of the log could hold."""
    try:
        return parse_strict(text)
    except NotCanonical as error:
        raise UsageError(f"the request is not strict JSON: {error}") from error


def _parse(text: bytes) -> Json:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError("the message is not one of AgentOS") from error


def header(text: str) -> str:
    """`text` for a header: one line of printable ASCII, bounded."""
    plain = text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(char if char.isprintable() else " " for char in plain)[:512]


def split(data: bytes, size: int) -> Sequence[bytes]:
    """`data` in parts of at most `size` bytes, at least one."""
    return [data[start : start + size] for start in range(0, len(data), size)] or [b""]
