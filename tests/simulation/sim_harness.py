"""A harness in the loop of the simulation: it speaks the ABI as the built-in loop does, or breaks it as its seed says."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from agentos.abi import rpc
from agentos.kernel.port import Left

if TYPE_CHECKING:
    from sim_runtime import Runtime

HOSTILE = (
    "not json",
    "[1]",
    '{"id": true}',
    '{"id": 1, "method": "fly", "params": {}}',
    '{"id":1,"method":"finish","params":{}}',
)


class _Gone(Exception):
    """The kernel told it to leave, or it has crashed."""


class SimulatedHarness:
    """A `HarnessProcess`. Its own end runs as a task of the runtime's machine and dies with it."""

    def __init__(self, runtime: Runtime, session: str) -> None:
        self._runtime = runtime
        self._world = runtime.world
        self._session = session
        self._to_kernel: asyncio.Queue[bytes] = asyncio.Queue()
        self._to_harness: asyncio.Queue[bytes] = asyncio.Queue()
        self._number = 0
        self._at_once = False
        """Whether it proposes all calls of a reply before it reads an answer."""
        self._task = asyncio.create_task(self._main())

    async def read_frame(self) -> bytes:
        frame = await self._to_kernel.get()
        await self._runtime.step("frame")
        return frame

    async def write_frame(self, frame: bytes) -> None:
        await self._runtime.step("reply")
        self._to_harness.put_nowait(frame)

    def rest(self) -> asyncio.Future[None]:
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._world.dice("needed").random() < 0.05:
            # Another session wants the process, now or in a while.
            asyncio.get_running_loop().call_later(self._world.dice("needed").choice((0, 0.001, 0.1)), _tell, told)
        return told

    def rise(self) -> None:
        pass

    def hint(self, frame: bytes) -> None:
        self._to_harness.put_nowait(frame)

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._runtime.step("stopped")
        return Left(0)

    async def _main(self) -> None:
        try:
            await self._run()
        except _Gone:
            pass
        finally:
            self._to_kernel.put_nowait(b"")

    async def _run(self) -> None:
        hello = json.loads(await self._to_harness.get())
        answer: dict[str, Any] = {"abi": "elsewhere/v9" if self._world.fault("harness", 0.01) else rpc.ABI, "name": "simulated"}
        answer["reuse"] = self._world.dice("needed").random() < 0.5
        self._say(rpc.response(hello["id"], answer))
        self._at_once = hello["params"]["concurrent"] and self._world.dice("harness").random() < 0.7
        view = await self._call("session.view", {"messages": True})
        pending, final = view["pending"], view["final"]
        if self._world.fault("harness", 0.04):
            final = "left half way"
        while final is None:
            await self._propose_all(pending)
            content = (await self._call("model.call", {}))["content"]
            pending = [
                {"call": block["id"], "tool": block["name"], "args": block["input"]}
                for block in content
                if block["type"] == "tool_use"
            ]
            if not pending:
                final = "".join(block["text"] for block in content if block["type"] == "text")
        await self._call("finish", {"result": final})

    async def _propose_all(self, pending: list[dict[str, Any]]) -> None:
        """All calls of a reply: one after the other, or without waiting for an answer before the next."""
        if not self._at_once:
            for proposal in pending:
                await self._propose(proposal)
            return
        waiting: set[int] = set()
        for proposal in pending:
            waiting.add(await self._send("tool.call", proposal))
            if self._world.fate("harness", repeats=0.05) == "repeats":
                waiting.add(await self._send("tool.call", proposal))
        while waiting:
            frame = json.loads(await self._to_harness.get())
            if frame.get("id") not in waiting:
                continue
            waiting.discard(frame["id"])
            if "error" in frame and frame["error"]["code"] in {rpc.PARKED, rpc.ENDED}:
                raise _Gone

    async def _propose(self, proposal: dict[str, Any]) -> None:
        """One call as the model proposed it; a hostile harness also repeats it, changes it, or makes one up."""
        trick = self._world.fate("harness", repeats=0.05, changes=0.02, invents=0.02, early=0.02)
        if trick == "early":
            await self._call("model.call", {})
        if trick == "invents":
            args = {"path": "made up", "n": self._world.dice("harness").randrange(40)}
            await self._call("tool.call", {"call": f"x{self._number}", "tool": "send", "args": args})
        await self._call("tool.call", proposal)
        if trick == "repeats":
            await self._call("tool.call", proposal)
        if trick == "changes":
            await self._call("tool.call", {**proposal, "args": {**proposal["args"], "path": "another"}})

    async def _send(self, method: str, params: dict[str, Any]) -> int:
        """Send a request, unless it crashes before; return its number."""
        match self._world.fate("harness", crash=0.02, hostile=0.01):
            case "crash":
                raise _Gone
            case "hostile":
                self._say(self._world.dice("harness").choice(HOSTILE).encode() + b"\n")
        await asyncio.sleep(self._world.slow("harness"))
        self._number += 1
        self._say(rpc.request(self._number, method, params))
        return self._number

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = await self._send(method, params)
        while True:
            frame = json.loads(await self._to_harness.get())
            if frame.get("id") != number or "method" in frame:
                continue
            if "result" in frame:
                result: dict[str, Any] = frame["result"]
                return result
            if frame["error"]["code"] in {rpc.PARKED, rpc.ENDED}:
                raise _Gone
            if method != "tool.call":
                raise _Gone  # a fresh harness goes on as the view says
            return {}

    def _say(self, frame: bytes) -> None:
        self._to_kernel.put_nowait(frame.rstrip(b"\n"))


def _tell(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
