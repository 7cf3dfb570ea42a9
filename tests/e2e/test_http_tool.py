"""An agent that asks an API: declared in YAML, decided twice, recorded, from the command to a real server and back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from e2e_runtime import Cli

DECLARED = """apiVersion: agentos/v1
kind: Model
metadata: {{name: clerk-model}}
spec:
  provider: scripted
  scripted:
    play:
      name: clerk
      rules:
        - id: look
          when: "not calls"
          say: I look it up.
          call:
            - {{tool: get-order, args: {{id: "a b"}}}}
            - {{tool: get-order, args: {{id: ".."}}}}
            - {{tool: moved-order, args: {{id: "7"}}}}
        - id: done
          when: "true"
          say: "{{{{ results[0].content }}}} | {{{{ results[1].content }}}} | {{{{ results[2].content }}}}"
---
apiVersion: agentos/v1
kind: Tool
metadata: {{name: get-order}}
spec:
  description: Look an order up.
  effect: read
  inputSchema: {{type: object, required: [id], additionalProperties: false, properties: {{id: {{type: string}}}}}}
  driver:
    http: {{url: "http://127.0.0.1:{port}/v1", private: [127.0.0.0/8], path: "/orders/{{id}}"}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {{name: moved-order}}
spec:
  description: Look an order up where it was.
  effect: read
  driver:
    http:
      url: http://127.0.0.1:{port}
      private: [127.0.0.0/8]
      redirects: 1
      openapi:
        operation: getMoved
        document:
          openapi: 3.1.0
          paths:
            /moved/{{id}}:
              get:
                operationId: getMoved
                parameters: [{{name: id, in: path, required: true, schema: {{type: string}}}}]
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: clerk}}
spec:
  instructions: Look orders up.
  model: clerk-model
  tools: [get-order, moved-order]
  governance: {{owner: you@example.com, purpose: Look orders up., risk: minimal}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {{name: clerk-looks}}
spec: {{agents: [clerk], tools: [get-order, moved-order], reason: It may look orders up.}}
"""


class Shop(BaseHTTPRequestHandler):
    """An API with one order, and one that points to another place of this machine."""

    heard: list[str]

    def do_GET(self) -> None:
        self.heard.append(self.path)
        moved = self.path.startswith("/moved/")
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("Location", "http://localhost:1/admin")
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"order": self.path}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
        """Says nothing."""


@pytest.fixture
def shop() -> Iterator[ThreadingHTTPServer]:
    Shop.heard = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_agent_asks_an_api(up: Cli, shop: ThreadingHTTPServer, tmp_path: Path) -> None:
    """The answer reaches the model; a trick in an argument never leaves; a redirect elsewhere is denied, and recorded."""
    file = tmp_path / "clerk.yaml"
    file.write_text(DECLARED.format(port=shop.server_port))
    up("apply", str(file), "--yes", "--allow-widen")
    done = up("run", "clerk", "look it up", "--wait")
    assert '{"order": "/v1/orders/a%20b"}' in done.err
    assert "is `.` or `..`" in done.err
    assert Shop.heard == ["/v1/orders/a%20b", "/moved/7"]
    session = done.out.strip()
    asked = [row for row in up("audit", "query", "--session", session, "-o", "json").json if row["tool"] == "net-request"]
    assert [(row["args"]["host"], row["decision"]) for row in asked] == [
        ("127.0.0.1", "allow"), ("127.0.0.1", "allow"), ("localhost", "deny"),
    ]  # fmt: skip
