"""The shop's order service, as far as the example needs it: one operation behind a token, and a page for everybody.

python examples/service-desk/orders.py TOKEN_FILE [PORT]
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = 8321
ORDERS = {
    "KR-10376": {"order": "KR-10376", "state": "in transit", "leaves": {"zone": "Asia/Tokyo", "time": "16:30"}},
    "KR-10440": {"order": "KR-10440", "state": "delivered", "items": ["bell, black"]},
}


class Orders(BaseHTTPRequestHandler):
    """`GET /v1/orders/{id}` for who has the token, `GET /status` for all."""

    token = ""
    heard: list[tuple[str, bool]]

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == f"Bearer {self.token}"
        self.heard.append((self.path, known))
        order = ORDERS.get(self.path.removeprefix("/v1/orders/"))
        if self.path == "/status":
            self._answer(200, {"carrier": "all lorries are on the road"})
        elif not known:
            self._answer(401, {"error": "who are you?"})
        elif order is None:
            self._answer(404, {"error": "no such order"})
        else:
            # A service that tells too much: what it was asked with comes back in its answer.
            self._answer(200, {**order, "asked_with": self.token})

    def _answer(self, status: int, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
        """Says nothing."""


def server(token: str, port: int = PORT) -> ThreadingHTTPServer:
    """The service on this machine; port 0 takes any that is free."""
    handler = type("Handler", (Orders,), {"token": token, "heard": []})
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


if __name__ == "__main__":
    server(Path(sys.argv[1]).read_text().strip(), int(sys.argv[2]) if len(sys.argv) > 2 else PORT).serve_forever()
