"""An MCP server in plain Python that keeps a ledger outside the runtime: one line, `key number`, for each call that took effect.

usage: plain_ledger.py LEDGER [MILLISECONDS [DIES_AT]]. `note {number}` writes the number under the idempotency key of the
call and answers after so many milliseconds; at the number DIES_AT it dies after writing. `find {call, args}` looks a key up.

It starts in a tenth of the time of one that is made with the SDK: twenty of them start again after each crash of a load test.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.umask(0)  # in sandboxes each session writes as another user
LEDGER = Path(sys.argv[1])
SECONDS = int(sys.argv[2]) / 1000 if len(sys.argv) > 2 else 0.0
DIES_AT = int(sys.argv[3]) if len(sys.argv) > 3 else None

TOOLS = [
    {
        "name": "note",
        "description": "Write a number down.",
        "inputSchema": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
    },
    {
        "name": "find",
        "description": "Whether a call was written down.",
        "inputSchema": {"type": "object", "properties": {"call": {"type": "string"}, "args": {"type": "object"}}},
    },
]


def answer(number: Any, result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}) + "\n")
    sys.stdout.flush()


def text(said: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}]}


def lines() -> list[list[str]]:
    return [line.split() for line in LEDGER.read_text().splitlines()] if LEDGER.exists() else []


def note(params: dict[str, Any]) -> dict[str, Any]:
    key, number = params["_meta"]["agentos/idempotency-key"], params["arguments"]["number"]
    file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, f"{key} {number}\n".encode())
    os.close(file)
    if number == DIES_AT:
        os._exit(3)
    time.sleep(SECONDS)
    return text(f"noted {number}")


def find(params: dict[str, Any]) -> dict[str, Any]:
    call = params["arguments"]["call"]
    found = [number for key, number in lines() if key == call]
    if found:
        return text(json.dumps({"outcome": "finished", "reason": "it is in the ledger", "result": f"noted {found[0]}"}))
    return text(json.dumps({"outcome": "not-run", "reason": "it is not in the ledger"}))


for line in sys.stdin:
    message = json.loads(line)
    number, method = message.get("id"), message.get("method")
    if method == "initialize":
        version = message["params"]["protocolVersion"]
        about = {"name": "ledger", "version": "1"}
        answer(number, {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about})
    elif method == "tools/list":
        answer(number, {"tools": TOOLS})
    elif method == "tools/call":
        answer(number, {"note": note, "find": find}[message["params"]["name"]](message["params"]))
    elif number is not None:
        error = {"code": -32601, "message": "no such method"}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": number, "error": error}) + "\n")
        sys.stdout.flush()
