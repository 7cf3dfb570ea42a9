"""One endpoint that takes one call at a time, as an operator sees it: who is asked when, and what the log and `top` say of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from e2e_runtime import Cli

SHARED = """
apiVersion: agentos/v1
kind: Model
metadata: {{name: claude}}
spec:
  provider: anthropic
  anthropic: {{model: m, baseUrl: "http://127.0.0.1:{port}", apiKeyEnv: AGENTOS_MODEL_TEST}}
  limits: {{concurrency: 1}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: nightly}}
spec: {{instructions: Sort., model: claude, priorityClass: batch, governance: {{owner: tests, purpose: testing, risk: minimal}}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: desk}}
spec: {{instructions: Answer., model: claude, governance: {{owner: tests, purpose: testing, risk: minimal}}}}
"""

REPLY: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


class Endpoint(ThreadingHTTPServer):
    """Speaks the Messages API; answers one request each time `go` is released, and keeps the goals in the order of asking."""

    daemon_threads = True

    def __init__(self) -> None:
        self.goals: list[str] = []
        self.go = threading.Semaphore(0)
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.goals.append(body["messages"][0]["content"][0]["text"])
        self.server.go.acquire()
        answer = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in REPLY).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the name of the one it replaces
        return


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()


def depth(cli: Cli) -> dict[str, int]:
    """How many wait for the model, by class."""
    shown = next((one for one in cli("top", "--once", "-o", "json").json["endpoints"] if one["name"] == "default/claude"), None)
    return {} if shown is None else {one["class"]: one["waiting"] for one in shown["queues"] if one["waiting"]}


def until(cli: Cli, wanted: dict[str, int]) -> None:
    for _ in range(200):
        if depth(cli) == wanted:
            return
        time.sleep(0.05)
    raise AssertionError(f"never came to {wanted}: {depth(cli)}")


def test_class_decides_who_is_asked_next(cli: Cli, endpoint: Endpoint, tmp_path: Path) -> None:
    """While one call runs, a batch, a standard and an interactive session come: they are answered from the last to the first, and
    the log says as what each was let in.
    """
    cli("up", "--detach", more={"AGENTOS_MODEL_TEST": "sk-test"})
    (tmp_path / "shared.yaml").write_text(SHARED.format(port=endpoint.server_address[1]))
    cli("apply", "-f", str(tmp_path / "shared.yaml"), "--yes", "--allow-widen")
    sessions = [cli("run", "nightly", "first").out.strip()]
    while not endpoint.goals:
        time.sleep(0.02)
    sessions.append(cli("run", "nightly", "batch").out.strip())
    until(cli, {"batch": 1})
    sessions.append(cli("run", "desk", "standard", "--deadline", "1h").out.strip())
    until(cli, {"batch": 1, "standard": 1})
    sessions.append(cli("run", "desk", "interactive", "--priority", "interactive").out.strip())
    until(cli, {"batch": 1, "standard": 1, "interactive": 1})
    for _ in sessions:
        endpoint.go.release()
    for session in sessions:
        cli("wait", session)
    assert endpoint.goals == ["first", "interactive", "standard", "batch"]
    admitted = []
    for session in sessions:
        events = cli("logs", session, "-o", "json").json
        admitted += [event["data"]["admitted"] for event in events if "admitted" in event["data"]]
    assert [one["class"] for one in admitted] == ["batch", "batch", "standard", "interactive"]
    assert {one["endpoint"] for one in admitted} == {"default/claude"}
    waited = [one["waited_ms"] for one in admitted]
    assert waited[0] < waited[3] < waited[2] < waited[1]


def test_a_run_as_a_class_that_is_not_declared(up: Cli, tmp_path: Path) -> None:
    """It is refused before anything is stored, with the classes that there are."""
    (tmp_path / "shared.yaml").write_text(SHARED.format(port=1))
    up("apply", "-f", str(tmp_path / "shared.yaml"), "--yes", "--allow-widen")
    refused = up("run", "desk", "hello", "--priority", "urgent", expect=None)
    assert refused.code == 64
    assert "no priority class is called urgent" in refused.err
    assert "batch, interactive, standard" in refused.err
    assert up("ps", "--all", "-o", "json").json == []
