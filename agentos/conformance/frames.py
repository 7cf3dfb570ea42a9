"""What a harness may write, line by line: what `schemas/v1/abi/from-harness.json` says, in words for a report.

Pure. A test holds it and the schema together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from agentos.abi import rpc
from agentos.abi.canonical import MAX_INTEGER, Json, NotCanonical, parse_strict

CALL_ID: Final = re.compile(r"(?!model-|net-)[A-Za-z0-9_-]{1,64}", re.ASCII)
COUNTED: Final = re.compile(r"[a-z]{1,8}-?[0-9]{1,9}", re.ASCII)
"""What a harness may name a call that no reply has named."""

_PRIMITIVES: Final = (
    "delegate",
    "lock.acquire",
    "lock.release",
    "memory.list",
    "memory.read",
    "memory.search",
    "memory.write",
    "signal",
    "wait",
)
"""Calls of a tool by what is to be done."""

_PARAMS: Final = {
    "session.view": {"messages"},
    "model.call": set[str](),
    "tool.call": {"call", "tool", "args"},
    "finish": {"result"},
    **{method: {"call", "tool", "args"} for method in _PRIMITIVES},
}


class Failed(Exception):
    """The harness does not keep to the contract; the words say where."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request of the harness, checked."""

    number: int
    method: str
    params: dict[str, Json] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """The harness's answer to a request of the kernel: a result, or None where it refuses."""

    number: int
    result: dict[str, Json] | None = field(hash=False)


@dataclass(frozen=True, slots=True)
class Parted:
    """The harness's word that it has left a session."""


def read(line: bytes) -> Request | Reply | Parted:
    """What a line says, its newline left out. Raises Failed."""
    if len(line) + 1 > rpc.MAX_FRAME:
        raise Failed(f"it wrote a frame of {len(line) + 1} bytes, at most {rpc.MAX_FRAME} are read")
    try:
        frame = parse_strict(line)
    except NotCanonical as error:
        raise Failed(f"it wrote a line that is no JSON ({error}): {shown(line)}") from None
    if not isinstance(frame, dict):
        raise Failed(f"it wrote a line that is no object: {shown(line)}")
    if frame.get("jsonrpc") != "2.0":
        raise Failed(f'a frame does not say "jsonrpc": "2.0": {shown(line)}')
    if frame.get("method") == "left" and set(frame) - {"params"} == {"jsonrpc", "method"} and frame.get("params", {}) == {}:
        return Parted()
    number = frame.get("id")
    if type(number) is not int or abs(number) > MAX_INTEGER:
        raise Failed(f"a frame has no integer as its id: {shown(line)}")
    problem = _request_problem(frame) if "method" in frame else _reply_problem(frame)
    if problem:
        raise Failed(f"{problem}: {shown(line)}")
    if "method" in frame:
        return Request(number, frame["method"], frame["params"])
    return Reply(number, frame.get("result"))


def _request_problem(frame: dict[str, Json]) -> str:
    method, params = frame["method"], frame.get("params")
    if set(frame) - {"jsonrpc", "id", "method", "params"}:
        return "a request has a field that no request has"
    if not isinstance(method, str) or method not in _PARAMS:
        return f"there is no method {str(method)[:64]!r}"
    if not isinstance(params, dict):
        return "a request has no object as its params"
    if extra := set(params) - _PARAMS[method]:
        return f"{method} takes no {min(extra)[:64]!r}"
    match method:
        case "session.view" if not isinstance(params.get("messages", False), bool):
            return "`messages` is true or false"
        case "finish" if not isinstance(params.get("result"), str):
            return "finish without text as its result"
        case name if "call" in _PARAMS[name]:
            call = params.get("call")
            if not isinstance(call, str) or not CALL_ID.fullmatch(call):
                return f"{name} without a call id as calls have it"
            # Only where the method itself says what is to be done the tool need not be named.
            if not isinstance(params.get("tool", None if name == "tool.call" else ""), str) or not isinstance(
                params.get("args"), dict
            ):
                return f"{name} without a name as its tool, or an object as its args"
    return ""


def _reply_problem(frame: dict[str, Json]) -> str:
    if set(frame) == {"jsonrpc", "id", "result"}:
        result = frame["result"]
        if not isinstance(result, dict) or not isinstance(result.get("abi"), str):
            return "an answer names no abi"
        words = {name: one for name, one in result.items() if name != "reuse"}
        if not isinstance(result.get("reuse", False), bool):
            return "`reuse` of an answer is true or false"
        if set(words) - {"abi", "name", "version"} or not all(isinstance(one, str) and len(one) <= 200 for one in words.values()):
            return "an answer says more than abi, name, version and reuse, or in more than 200 letters each"
        return ""
    if set(frame) == {"jsonrpc", "id", "error"}:
        error = frame["error"]
        sound = isinstance(error, dict) and type(error.get("code")) is int and isinstance(error.get("message"), str)
        return "" if sound and set(error) == {"code", "message"} else "an error has a code and a message"
    return "a frame is neither a request nor an answer"


def shown(line: bytes) -> str:
    """The beginning of a line, for a report."""
    text = line[:120].decode("utf-8", "replace")
    return repr(text) + (" …" if len(line) > 120 else "")
