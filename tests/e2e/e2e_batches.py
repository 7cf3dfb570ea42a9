"""A server that speaks the wire format of Anthropic's Message Batches API: create, retrieve, list, JSON lines, cancel."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def message(text: str) -> dict[str, Any]:
    """A whole message, as a succeeded result holds it."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 2},
    }


def answered(params: dict[str, Any]) -> dict[str, Any]:
    """The result of a request: the goal, said again."""
    return {"type": "succeeded", "message": message("did " + params["messages"][0]["content"][0]["text"])}


@dataclass
class Batch:
    id: str
    requests: list[dict[str, Any]]
    made: datetime
    ended: bool = False
    cancelled: bool = False
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def shown(self, url: str) -> dict[str, Any]:
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        for one in self.requests:
            counts[self.results[one["custom_id"]]["type"] if self.ended else "processing"] += 1
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": "ended" if self.ended else "canceling" if self.cancelled else "in_progress",
            "request_counts": counts,
            "created_at": self.made.isoformat().replace("+00:00", "Z"),
            "expires_at": (self.made + timedelta(hours=24)).isoformat().replace("+00:00", "Z"),
            "ended_at": self.made.isoformat().replace("+00:00", "Z") if self.ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{url}/v1/messages/batches/{self.id}/results" if self.ended else None,
        }


class BatchServer(ThreadingHTTPServer):
    """Keeps the batches that it was given, the first one first; `end` has one end, `mute` has creations not answered."""

    daemon_threads = True

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.single: list[str] = []
        """Goals of calls that were asked by themselves."""
        self.mute = False
        self.results_of_others = "http://127.0.0.1:1"
        """Where `results_url` leads: nobody is to go there with the key."""
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> BatchServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no fault of the server's."""

    def end(self, batch: Batch, *, result: Any = answered) -> None:
        """Have a batch end; `result` makes each result of the parameters of its request."""
        batch.results = {one["custom_id"]: result(one["params"]) for one in batch.requests}
        batch.ended = True

    def find(self, name: str) -> Batch | None:
        return next((one for one in self.batches if one.id == name), None)


class _Handler(BaseHTTPRequestHandler):
    server: BatchServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        if not (self.headers.get("x-api-key") or self.headers.get("authorization")):
            self._say(401, {"type": "error", "error": {"type": "authentication_error", "message": "no key"}})
        elif self.path == "/v1/messages/batches":
            self._create(body)
        elif self.path.endswith("/cancel") and (batch := self.server.find(self.path.split("/")[-2])) is not None:
            batch.cancelled = True
            self._say(200, batch.shown(self.server.results_of_others))
        elif self.path == "/v1/messages":
            self.server.single.append(body["messages"][0]["content"][0]["text"])
            self._say(529, {"type": "error", "error": {"type": "overloaded_error", "message": "later"}})
        else:
            self._missing()

    def do_GET(self) -> None:
        path, _, _ = self.path.partition("?")
        if path == "/v1/messages/batches":
            newest = [one.shown(self.server.results_of_others) for one in reversed(self.server.batches)]
            ids = [one["id"] for one in newest]
            page = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
            self._say(200, {"data": newest, "has_more": False, **page})
            return
        name, wants_results = path.removeprefix("/v1/messages/batches/").removesuffix("/results"), path.endswith("/results")
        batch = self.server.find(name)
        if batch is None or (wants_results and not batch.ended):
            self._missing()
        elif wants_results:
            # In another order than they were asked.
            lines = [{"custom_id": name, "result": result} for name, result in reversed(batch.results.items())]
            self._send(200, "application/x-jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
        else:
            self._say(200, batch.shown(self.server.results_of_others))

    def _create(self, body: dict[str, Any]) -> None:
        requests = body["requests"]
        names = [one["custom_id"] for one in requests]
        if not requests or len(set(names)) != len(names) or not all(CUSTOM_ID.fullmatch(name) for name in names):
            self._say(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "custom_id"}})
            return
        batch = Batch(f"msgbatch_{len(self.server.batches) + 1:03}", requests, datetime.now(UTC))
        self.server.batches.append(batch)
        if self.server.mute:
            # The batch is made, and nobody hears of it.
            self.close_connection = True
            self.connection.close()
            return
        self._say(200, batch.shown(self.server.results_of_others))

    def _missing(self) -> None:
        self._say(404, {"type": "error", "error": {"type": "not_found_error", "message": "no such batch"}})

    def _say(self, status: int, body: Any) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the name of the one it replaces
        return
