"""What of a server's talk reaches the SDK's client: answers to what was asked, and requests, which it refuses.

Notifications are nothing that anybody waits for here, since what is offered is listed before each call in any case. All that is
no answer is counted, so that a server which talks and talks is given up instead of listened to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, RequestId

MAX_CHATTER: Final = 20_000
"""Most messages between the beginnings of two calls that are no answer: notifications and noise."""

MAX_ASKED: Final = 100
"""Most requests of a server between the beginnings of two calls; each one is refused."""

CANCELLED: Final = "notifications/cancelled"


class Sieve:
    """Between one server and the client. `fail` is called with what the server does wrong."""

    def __init__(self, fail: Callable[[str], None]) -> None:
        self._fail = fail
        self._expected: set[RequestId] = set()
        self._chatter = self._asked = 0

    def begin(self) -> None:
        """A call begins: what is no answer is counted anew."""
        self._chatter = self._asked = 0

    def sent(self, message: JSONRPCMessage) -> None:
        """The client tells the server this: an answer to it will be waited for, or will not any more."""
        if isinstance(message, JSONRPCRequest):
            self._expected.add(coerce_request_id(message.id))
        elif isinstance(message, JSONRPCNotification) and message.method == CANCELLED:
            self._expected.discard(coerce_request_id((message.params or {}).get("requestId", "")))

    def heard(self, message: JSONRPCMessage | None) -> SessionMessage | None:
        """What the client is to hear of a message (None: something that is none); None: nothing."""
        if isinstance(message, JSONRPCRequest):
            self._asked += 1
            if self._asked > MAX_ASKED:
                self._fail(f"asked back more than {MAX_ASKED} times in one call")
                return None
            return SessionMessage(message)
        if isinstance(message, (JSONRPCResponse, JSONRPCError)) and message.id is not None:
            key = coerce_request_id(message.id)
            if key in self._expected:
                self._expected.discard(key)
                return SessionMessage(message)
        self._chatter += 1
        if self._chatter > MAX_CHATTER:
            self._fail(f"sent more than {MAX_CHATTER} messages that are no answer in one call")
        return None
