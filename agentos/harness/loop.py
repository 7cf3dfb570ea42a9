"""The built-in loop: ask the model, perform the calls it proposes, and again, until it calls nothing.

It keeps no state of its own: after a restart the view tells what is still to do, and it goes on from there. So one process
drives any number of sessions, each from one wait to the next.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Sequence
from typing import BinaryIO, Final

from agentos.abi import rpc
from agentos.abi.canonical import Json


class _Gone(Exception):
    """The kernel told the harness to leave the session."""


class _Over(Exception):
    """The kernel closed the pipe."""


AHEAD: Final = 4096
"""Bytes of requests without an answer that are sent at most: so much a pipe takes though nobody reads it. Who writes while the
other side writes too, and neither reads, waits for ever.
"""


class Kernel:
    """The harness's side of the pipe."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._concurrent = False
        """Whether the kernel takes requests before it has answered earlier ones."""

    def greet(self) -> bool:
        """Answer the kernel's `initialize`. Returns whether more sessions may come after this one."""
        frame = self._read()
        if frame.get("method") != "initialize":
            raise _Over
        params = frame.get("params", {})
        self._number, self._concurrent, reuse = 0, params.get("concurrent") is True, params.get("reuse") is True
        told: dict[str, Json] = {"abi": rpc.ABI, "name": "agentos-loop", "version": "1"}
        self._write(rpc.response(frame.get("id"), told | {"reuse": True} if reuse else told))
        return reuse

    def leave(self) -> None:
        """Say that nothing more is said about this session."""
        self._write(rpc.notification("left", {}))

    def call(self, method: str, params: dict[str, Json]) -> dict[str, Json]:
        """Ask the kernel; return its result.

        Raises RuntimeError with the kernel's words for a request that it refuses, _Gone when the session is parked or over.
        """
        self._number += 1
        self._write(rpc.request(self._number, method, params))
        return self._answer({self._number})[1]

    def call_all(self, method: str, several: Sequence[dict[str, Json]]) -> None:
        """Ask the kernel the same with each of `several`, without waiting for one answer before the next if it takes that.

        Returns once all are answered. Raises as `call`.
        """
        waiting: dict[int, int] = {}
        for params in several:
            frame = rpc.request(self._number + 1, method, params)
            while waiting and (not self._concurrent or sum(waiting.values()) + len(frame) > AHEAD):
                del waiting[self._answer(waiting)[0]]
            self._number += 1
            self._write(frame)
            waiting[self._number] = len(frame)
        while waiting:
            del waiting[self._answer(waiting)[0]]

    def _answer(self, waiting: Collection[int]) -> tuple[int, dict[str, Json]]:
        """The next answer to one of the requests `waiting`, with its number."""
        while True:
            frame = self._read()
            if frame.get("method") == "cancel" and "id" not in frame:
                raise _Gone
            number: int = frame.get("id", 0)
            if number not in waiting or "method" in frame:
                continue
            if "error" not in frame:
                return number, frame["result"]
            if frame["error"]["code"] in {rpc.PARKED, rpc.ENDED}:
                raise _Gone
            raise RuntimeError(frame["error"]["message"])

    def _read(self) -> dict[str, Json]:
        try:
            line = self._reader.readline(rpc.MAX_FRAME)
        except ConnectionResetError as error:
            raise _Over from error
        if not line.endswith(b"\n"):
            raise _Over  # the end, be it in the middle of a frame
        frame: dict[str, Json] = json.loads(line)
        return frame

    def _write(self, frame: bytes) -> None:
        try:
            self._writer.write(frame)
            self._writer.flush()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _Over from error


def run(kernel: Kernel) -> None:
    """Drive sessions, one after the other, until the kernel closes the pipe or has no more."""
    more = True
    while more:
        more = kernel.greet()
        with contextlib.suppress(_Gone):
            _drive(kernel)
        if more:
            kernel.leave()


def _drive(kernel: Kernel) -> None:
    """Drive one session to its end or until the kernel tells the harness to leave it."""
    view = kernel.call("session.view", {})
    pending, final = view["pending"], view["final"]
    while final is None:
        kernel.call_all("tool.call", pending)
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
    except _Over:
        return 0
    return 0
