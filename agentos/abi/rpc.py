"""Frames of the syscall ABI: newline-delimited JSON-RPC 2.0 on a harness's standard input and output (`docs/abi.md`).

The harness calls `session.view`, `model.call`, `tool.call`, `finish`, and methods that stand for a tool by what it does; it says
`left` when it is used again. The kernel calls `initialize` and says `cancel`; the end of the harness's input is how it is
told that nobody waits for it any more. Each frame has a schema in `schemas/v1/abi/`.

A kernel that says `concurrent: true` in `initialize` takes a request before it has answered earlier ones, and answers by their
ids, in any order: it makes calls of tools that commute at once, everything else one after the other in the order of the requests.
It reads as far as it serves. So whoever has several requests under way reads answers while it writes, or keeps what it has sent
without an answer smaller than what a pipe takes.
"""

from __future__ import annotations

import json
from typing import Final

from agentos.abi.canonical import Json

ABI: Final = "agentos/v1"

MAX_FRAME: Final = 8 * 1024 * 1024
"""Longest frame in bytes, newline included."""

_LONGEST_LEFT: Final = 1024

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL: Final = -32603
PARKED: Final = -32001
"""The session waits for a person: leave now, a fresh harness will be started when it may go on."""
ENDED: Final = -32002
"""The session is over (cancelled, halted, budget): leave now."""


def request(number: int, method: str, params: dict[str, Json]) -> bytes:
    """A request frame."""
    return _frame({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def notification(method: str, params: dict[str, Json]) -> bytes:
    """A notification frame."""
    return _frame({"jsonrpc": "2.0", "method": method, "params": params})


def response(number: Json, result: Json) -> bytes:
    """A response frame."""
    return _frame({"jsonrpc": "2.0", "id": number, "result": result})


def error(number: Json, code: int, message: str) -> bytes:
    """An error frame."""
    return _frame({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}})


def is_left(frame: bytes) -> bool:
    """Whether a frame is the notification `left`, by which a harness that is used again parts with a session."""
    if len(frame) > _LONGEST_LEFT:
        return False
    try:
        said = json.loads(frame)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("method") == "left" and "id" not in said


def _frame(body: dict[str, Json]) -> bytes:
    return json.dumps(body, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
