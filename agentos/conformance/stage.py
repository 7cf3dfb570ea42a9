"""The kernel's side of one case: greets a harness, answers it as the scene says, and sees how it leaves.

stage = Stage(harness, Scene(replies=[[use("c1")], [text("all read")]]))
await stage.greet()
asked = await stage.until("tool.call")
await stage.answer(asked)
result = await stage.finish()
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Final

from agentos.abi import rpc
from agentos.abi.canonical import Json
from agentos.conformance.frames import Failed, Parted, Reply, Request, read
from agentos.conformance.process import MAX_COMPLAINTS, Harness
from agentos.conformance.scene import SESSION, Scene

MAX_REQUESTS: Final = 2000
"""Requests that any case needs at most."""

IN_FLIGHT: Final = 20
"""Frames that a harness may have written before it saw that nobody answers any more."""

SETTLE: Final = 0.15
"""Seconds in which a harness shows that it writes what it must not."""


class Stage:
    """See the module."""

    def __init__(self, harness: Harness, scene: Scene | None = None) -> None:
        self.harness = harness
        self.scene = scene or Scene()
        self.numbers: list[int] = []
        """Numbers of all requests, in the order in which they came."""
        self.over = False
        """Whether the harness knows that it has to leave."""
        self.clean = True
        """Whether it has to leave with exit code 0."""
        self.replies: list[Reply] = []
        """What it answered to requests of the kernel."""

    async def send(self, frame: bytes) -> None:
        """Send a frame as it is."""
        await self.harness.write(frame)

    async def initialize(self, number: int = 0, **more: Json) -> Reply:
        """Greet, and return what comes back. Raises Failed when that is no answer."""
        params = {"abi": rpc.ABI, "session": SESSION, "concurrent": True, **more}
        await self.send(rpc.request(number, "initialize", {name: value for name, value in params.items() if value is not None}))
        frame = await self._next()
        if isinstance(frame, Request):
            raise Failed(f"it asked {frame.method} before it had answered initialize")
        if frame is None:
            raise Failed("it left without answering initialize")
        if frame.number != number:
            raise Failed(f"it answered initialize, number {number}, under the number {frame.number}")
        return frame

    async def greet(self, number: int = 0, **more: Json) -> None:
        """Greet, and see that it speaks the ABI."""
        reply = await self.initialize(number, **more)
        if reply.result is None or reply.result.get("abi") != rpc.ABI:
            raise Failed(f"it does not answer initialize with the abi {rpc.ABI}")

    async def _next(self, patience: float | None = None) -> Request | Reply | None:
        line = await self.harness.line(patience)
        if line is None:
            return None
        frame = read(line)
        if isinstance(frame, Parted):
            raise Failed("it said `left` where nobody had told it to leave")
        if isinstance(frame, Reply):
            self.replies.append(frame)
            return frame
        if frame.number in self.numbers:
            raise Failed(f"it used the number {frame.number} twice")
        if len(self.numbers) == MAX_REQUESTS:
            raise Failed(f"it made {MAX_REQUESTS} requests and comes to no end")
        self.numbers.append(frame.number)
        self.scene.took(frame)
        return frame

    async def request(self) -> Request:
        """Its next request. Raises Failed when it leaves, or asks nothing."""
        while True:
            try:
                frame = await self._next()
            except TimeoutError:
                raise Failed(f"it asked nothing for {self.harness.patience:g} s") from None
            if frame is None:
                raise Failed("it left early")
            if isinstance(frame, Request):
                return frame

    async def quiet(self, seconds: float = SETTLE) -> None:
        """See that it asks nothing for a while. Raises Failed."""
        try:
            frame = await self._next(seconds)
        except TimeoutError:
            return
        if isinstance(frame, Request):
            raise Failed(f"it asked {frame.method} when it had to wait or to leave")

    async def answer(self, request: Request) -> None:
        """Answer as the scene says."""
        if request.method == "finish":
            await self.dismiss(request, rpc.ENDED)
        else:
            await self.send(rpc.response(request.number, self.scene.answer(request)))

    async def refuse(self, request: Request, code: int = rpc.INVALID_PARAMS) -> None:
        """Answer with an error."""
        await self.send(rpc.error(request.number, code, _WORDS[code]))

    async def dismiss(self, request: Request, code: int) -> None:
        """Tell it to leave."""
        self.over = True
        await self.refuse(request, code)

    async def until(self, method: str) -> Request:
        """Serve whatever it asks until it asks `method`, which is left unanswered."""
        while True:
            request = await self.request()
            if request.method == method:
                return request
            await self.answer(request)

    async def requests(self, method: str, number: int) -> list[Request]:
        """So many requests of `method` that come without an answer in between; of others each is served."""
        return [await self.until(method) for _ in range(number)]

    async def finish(self) -> str:
        """Serve it to its end; return its result."""
        await self.dismiss(await self.until("finish"), rpc.ENDED)
        return self.scene.results[0]

    async def goes_on_or_leaves(self) -> None:
        """Serve it to its end, or until it leaves of its own accord, however; neither may take for ever."""
        self.clean = False
        while True:
            try:
                frame = await self._next()
            except TimeoutError:
                raise Failed(f"it neither went on nor left for {self.harness.patience:g} s") from None
            if frame is None:
                return
            if isinstance(frame, Request):
                await self.answer(frame)
                if frame.method == "finish":
                    return

    async def end(self) -> None:
        """See how it leaves once it was told to, or the pipe is closed. Raises Failed."""
        if self.over and self.harness.running():
            await self.quiet()
        self.harness.close()
        left = 0
        try:
            while (line := await self.harness.line()) is not None:
                read(line)
                left += 1
                if self.scene.results or left > IN_FLIGHT:
                    raise Failed("it went on writing when it had to leave")
        except TimeoutError:
            raise Failed(f"it is still there {self.harness.patience:g} s after the end of its input") from None
        code = await self.harness.left()
        if self.clean and code != 0:
            raise Failed(f"it left with exit code {code}{_words(self.harness.last_words)}")
        if self.harness.complaints > MAX_COMPLAINTS:
            raise Failed(f"it wrote {self.harness.complaints} bytes to standard error, more than {MAX_COMPLAINTS}")


_WORDS: Final = {
    rpc.PARKED: "the session waits for a person",
    rpc.ENDED: "the session is over",
    rpc.INVALID_PARAMS: "the request is refused",
    rpc.INTERNAL: "something went wrong",
    rpc.METHOD_NOT_FOUND: "there is no such method",
}


def _words(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return f", and says {lines[-1][:200]!r}" if lines else ""


def raw(number: int, result: Json) -> bytes:
    """An answer in another spelling of JSON: spaces, raw UTF-8, other order of the keys."""
    body = {"result": result, "id": number, "jsonrpc": "2.0"}
    return json.dumps(body, ensure_ascii=False, separators=(" , ", " : ")).encode() + b"\n"


async def in_pieces(stage: Stage, frame: bytes, cuts: Sequence[int]) -> None:
    """Send a frame in several pieces, with a pause behind each."""
    begin = 0
    for cut in (*cuts, len(frame)):
        await stage.send(frame[begin:cut])
        await asyncio.sleep(0.03)
        begin = cut
