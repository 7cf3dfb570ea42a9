"""Output: what a tool wrote, bounded for the model, with the whole of it kept under its digest.

The order matters. Credentials are taken out of the whole first: a value that is cut in two at the bound could not be found any
more. Then the whole is kept, and only then its beginning is shown, with a notice that says where the rest is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

from agentos.abi.errors import AgentOSError

MAX_KEPT: Final = 64 * 1024 * 1024
"""Most bytes of one output that are taken and kept; who writes more is stopped."""

_NOTICE_ROOM: Final = 256
"""Bytes of the limit that the notice of a cut may take."""

_PARTIAL: Final = re.compile(rb"[\x80-\xbf]{0,3}\Z")


class Outputs(Protocol):
    """Where outputs of one session are cleaned and kept. Both block, and may be called from any thread."""

    def clean(self, tenant: str, session: str, data: bytes) -> bytes:
        """`data` without the credentials that were leased in the session."""

    def keep(self, tenant: str, session: str, data: bytes) -> str:
        """Keep `data`, at most MAX_KEPT bytes, and give its digest (`sha256:…`). Raises AgentOSError when that fails."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An output as it is shown."""

    text: str
    bytes: int
    """How long the whole is."""
    truncated: bool = False
    digest: str | None = None
    """Of the whole, where it is kept; None: it is shown whole, or could not be kept, and then the text says so."""


def bounded(body: bytes, limit: int, outputs: Outputs | None, *, tenant: str, session: str) -> Shown:
    """`body` (UTF-8; what is not is replaced) within `limit` bytes of text; what does not fit is kept by `outputs`.

    Credentials are expected to be gone already.
    """
    text = body.decode("utf-8", "replace")
    # Replacing makes longer: three bytes for each that was broken.
    if len(body) <= limit and (len(text) * 4 <= limit or len(text.encode("utf-8")) <= limit):
        return Shown(text, len(body))
    digest, where = None, "the rest is lost: nothing keeps it here"
    if outputs is not None:
        try:
            digest = outputs.keep(tenant, session, body)
            where = f"the whole is kept: agentos fs cat SESSION {digest}"
        except AgentOSError as error:
            where = f"the rest is lost: {error.message[:100]}"
    head = beginning(body, max(0, limit - _NOTICE_ROOM))
    shown = head.decode("utf-8", "replace")
    return Shown(f"{shown}\n[cut here: the first {len(head)} of {len(body)} bytes are shown; {where}]", len(body), True, digest)


def beginning(body: bytes, limit: int) -> bytes:
    """The first bytes of `body` whose text takes at most `limit` bytes, without half a character at the end."""
    head = body[:limit]
    if limit < len(body) and body[limit] & 0xC0 == 0x80:
        # The cut goes through a character: leave all of it out.
        start = _PARTIAL.search(head)
        head = head[: max(0, start.start() - 1)] if start else head
    while (excess := len(head.decode("utf-8", "replace").encode("utf-8")) - limit) > 0:
        head = head[: len(head) - max(1, excess // 3)]
    return head


def ending(body: bytes, limit: int) -> str:
    """The text of at most the last `limit` bytes of `body`, from the beginning of a line where one is near."""
    text = body.decode("utf-8", "replace")
    raw = text.encode("utf-8")
    if len(raw) <= limit:
        return text
    tail = raw[len(raw) - limit :]
    first = tail.find(b"\n")
    return (tail[first + 1 :] if 0 <= first < limit // 2 else tail).decode("utf-8", "ignore")
