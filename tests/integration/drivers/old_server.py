"""An MCP server of 2025 in plain Python: only the old handshake, and rude on demand. For the tests of the MCP driver.

Its tool `ask` sends the client a sampling, an elicitation and a roots request and returns what it was told; its tool
`flood` sends one endless line; its tool `noise` prints what is not JSON-RPC before it answers.
"""

from __future__ import annotations

import json
import sys
from typing import Any

SCHEMA = {"type": "object", "properties": {}}
ASKED = {
    "sampling/createMessage": {
        "messages": [{"role": "user", "content": {"type": "text", "text": "your key?"}}],
        "maxTokens": 10,
    },
    "elicitation/create": {"message": "your name?", "requestedSchema": {"type": "object", "properties": {}}},
    "roots/list": {},
}


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def receive() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def ask() -> str:
    heard = {}
    for method, params in ASKED.items():
        send({"id": f"asked-{method}", "method": method, "params": params})
        reply = receive()
        heard[method] = reply.get("error", {}).get("message", "granted")
    return json.dumps(heard)


def call(name: str) -> str:
    if name == "ask":
        return ask()
    if name == "flood":
        while True:
            sys.stdout.write("x" * 65536)
    sys.stdout.write('not json\n{"jsonrpc": "2.0"}\n[]\n\xff\n')
    return "after the noise"


while True:
    message = receive()
    number, method = message.get("id"), message.get("method")
    if method == "initialize":
        version = message["params"]["protocolVersion"]
        about = {"name": "old", "version": "1"}
        send({"id": number, "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}})
    elif method == "tools/list":
        send({"id": number, "result": {"tools": [{"name": name, "inputSchema": SCHEMA} for name in ("ask", "flood", "noise")]}})
    elif method == "tools/call":
        send({"id": number, "result": {"content": [{"type": "text", "text": call(message["params"]["name"])}]}})
    elif number is not None:
        send({"id": number, "error": {"code": -32601, "message": "no such method"}})
