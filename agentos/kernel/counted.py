"""How many tokens a request to a model has at most, said before it goes out and never too low for text.

Two bounds, and the lower one holds:

- A token of text stands for at least one byte of it, so a request has at most as many tokens as bytes, and what the provider puts
  around it (`Endpoint.added_tokens`).
- What the provider has counted for the session's last request, and a token for each byte that has come since. It holds only while
  the last request is the beginning of this one, to the byte, for the same model: that is looked at each time, by digest.

What the provider has counted is kept in memory alone. After a restart, or when a session was not heard of for long, the first
bound holds until the next reply. A reservation is recorded, never worked out again, so the books do not depend on it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import canonical
from agentos.drivers.port import ModelRequest, ModelSpec

KEPT: Final = 10_000
"""Sessions whose last count is kept."""


class Sized:
    """A request in the bytes of its parts; they are made once, when somebody asks for them."""

    def __init__(self, model: ModelSpec, request: ModelRequest) -> None:
        self._model = model
        self._request = request
        self._parts: tuple[bytes, list[bytes]] | None = None
        self.continued = bool(request.beginning)
        """Whether the answer has begun already."""

    def size(self, first: int = 0) -> int:
        """Bytes of the messages from number `first` on and of the answer's beginning; from 0 on, of the whole request."""
        frame, messages = self.parts()
        fresh = messages[first:]
        size = sum(map(len, fresh)) + len(fresh) + len(canonical(self._request.beginning))
        return size if first else size + len(frame)

    def digest(self, most: int) -> bytes:
        """Of all that stands around the messages, and of the first `most` of them."""
        frame, messages = self.parts()
        found = hashlib.sha256(frame)
        for message in messages[:most]:
            found.update(b"%d\n" % len(message))
            found.update(message)
        return found.digest()

    def parts(self) -> tuple[bytes, list[bytes]]:
        """What the request says beside its messages and to whom it goes; and its messages."""
        if self._parts is None:
            model, request = self._model, self._request
            frame = canonical([model.name, model.provider, model.settings, request.system, list(request.tools)])
            self._parts = frame, [canonical(message) for message in request.messages]
        return self._parts


@dataclass(frozen=True, slots=True)
class _Count:
    """What a provider has counted: `tokens` of so many `messages` and what stands around them, all of that by its digest."""

    messages: int
    digest: bytes
    tokens: int


class Counted:
    """The last counts of sessions, by tenant and session."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()

    def most(self, session: tuple[str, str], request: Sized, added: int = 0) -> int:
        """The most tokens that `request` can have. `added`: what the provider may put around any request."""
        whole = request.size() + added
        count = self._counts.get(session)
        if count is None or len(request.parts()[1]) < count.messages or request.digest(count.messages) != count.digest:
            return whole
        return min(whole, count.tokens + request.size(count.messages))

    def counted(self, session: tuple[str, str], request: Sized, tokens: int) -> None:
        """The provider has counted `tokens` for `request`. Where the answer had begun, nothing is kept: it is no message."""
        self._counts.pop(session, None)
        if request.continued:
            return
        messages = len(request.parts()[1])
        self._counts[session] = _Count(messages, request.digest(messages), tokens)
        while len(self._counts) > self._kept:
            self._counts.popitem(last=False)
