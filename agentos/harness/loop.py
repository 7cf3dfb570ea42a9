"""The built-in loop: ask the model, perform the calls it proposes, and again, until it calls nothing.

It keeps no state of its own: after a restart the view tells what is still to do, and it goes on from there.
"""

from __future__ import annotations

import json
from typing import BinaryIO

from agentos.abi import rpc
from agentos.abi.canonical import Json


class _Gone(Exception):
    """The kernel closed the pipe, or told the harness to go."""


class Kernel:
    """The harness's side of the pipe: one request at a time, answered in order."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    def greet(self) -> None:
        """Answer the kernel's `initialize`."""
        frame = self._read()
        if frame.get("method") != "initialize":
            raise _Gone
        self._write(rpc.response(frame.get("id"), {"abi": rpc.ABI, "name": "agentos-loop", "version": "1"}))

    def call(self, method: str, params: dict[str, Json]) -> dict[str, Json]:
        """Ask the kernel; return its result.

        Raises RuntimeError with the kernel's words for a request that it refuses, _Gone when the session is parked or over.
        """
        self._number += 1
        self._write(rpc.request(self._number, method, params))
        while True:
            frame = self._read()
            if frame.get("id") != self._number or "method" in frame:
                continue
            if "error" not in frame:
                result: dict[str, Json] = frame["result"]
                return result
            if frame["error"]["code"] in {rpc.PARKED, rpc.ENDED}:
                raise _Gone
            raise RuntimeError(frame["error"]["message"])

    def _read(self) -> dict[str, Json]:
        line = self._reader.readline(rpc.MAX_FRAME)
        if not line.endswith(b"\n"):
            raise _Gone  # the end, be it in the middle of a frame
        frame: dict[str, Json] = json.loads(line)
        return frame

    def _write(self, frame: bytes) -> None:
        try:
            self._writer.write(frame)
            self._writer.flush()
        except BrokenPipeError as error:
            raise _Gone from error


def run(kernel: Kernel) -> None:
    """Drive one session to its end or until the kernel tells the harness to leave."""
    kernel.greet()
    view = kernel.call("session.view", {})
    pending, final = view["pending"], view["final"]
    while final is None:
        for proposal in pending:
            kernel.call("tool.call", proposal)
        reply = kernel.call("model.call", {})
        pending = [
            {"call": block["id"], "tool": block["name"], "args": block["input"]}
            for block in reply["content"]
            if block.get("type") == "tool_use"
        ]
        if not pending:
            final = "\n".join(block["text"] for block in reply["content"] if block.get("type") == "text")
    kernel.call("finish", {"result": final})


def main(reader: BinaryIO, writer: BinaryIO) -> int:
    """Run the loop on a pipe; 0 when it ended as it should."""
    try:
        run(Kernel(reader, writer))
    except _Gone:
        return 0
    return 0
