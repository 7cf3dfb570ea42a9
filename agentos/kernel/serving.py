"""One harness at its pipe: frames are read and checked, requests are served, answers go back.

The harness is untrusted: every frame is checked, a flood or a malformed frame ends the process, and nothing the harness says is
believed except as a proposal. Requests are served in the order in which they come, each when the one before has its answer. Those
that `Answers.at_once` takes are served beside each other, up to `MAX_AT_ONCE` of them; each is answered as soon as it is done.
Whatever else comes waits until they have ended. What is not taken yet stays in the pipe.

A harness that can be used again is told to leave also while everything that it has asked for is under way, once its process
or its place is needed: that goes on without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from agentos.abi import rpc
from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import Conflict, SequenceConflict
from agentos.kernel.port import HarnessProcess, HarnessSilent

MAX_FAULTS: Final = 100
"""Requests of one harness process that make no sense, after which it is stopped."""

MAX_AT_ONCE: Final = 16
"""Requests of one harness that are served beside each other."""

_SHORT: Final = frozenset({"session.view", "finish"})
"""Requests that wait for nothing that another session could use the process for."""


class Leave(Exception):
    """The harness is told to go: the session is parked or over. `code` is one of the ABI's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Answers(Protocol):
    """Who answers a harness's requests: the kernel, or a replay of what it once answered."""

    @property
    def session(self) -> str:
        """The session that the harness drives."""

    async def handle(self, method: str, params: dict[str, Json]) -> dict[str, Json]:
        """Serve one request alone. Raises Leave when the harness must go, Conflict for a request that is off."""

    def at_once(self, method: str, params: dict[str, Json]) -> Coroutine[Any, Any, dict[str, Json]] | None:
        """The same for a request that may be served beside others, in the order of these calls; None for any other."""

    def no_more(self) -> None:
        """Nothing is asked any more until those that are served beside each other have ended."""

    def rest(self) -> asyncio.Future[None] | None:
        """Everything that was asked for is under way: done once the place is needed; None: it never is. Ended by `rise`."""

    def rise(self, *, gone: bool) -> None:
        """Something has ended, or was asked for, or its harness is `gone`."""


@dataclass(frozen=True, slots=True)
class Served:
    """How serving a harness ended. `why` says it in words of ours."""

    why: str
    reuse: bool = False
    """Whether it was told to leave the session, and has said that it can be used again."""
    finished: bool = False
    """Whether it has finished its session."""
    adrift: tuple[asyncio.Task[Any], ...] = ()
    """What it has asked for, and goes on without it."""


async def serve(process: HarnessProcess, turn: Answers) -> Served:
    """Answer the harness's requests until it closes its end or must leave.

    Raises HarnessSilent, and what serving a request raises; then everything that was begun has ended.
    """
    pipe = _Pipe(process, turn)
    try:
        return await pipe.serve()
    except asyncio.CancelledError:
        process.hint(rpc.notification("cancel", {}))
        raise
    finally:
        await pipe.stop()


async def end_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Stop tasks; return once all have ended, however often this is cancelled meanwhile. What they raise is dropped."""
    for task in tasks:
        task.cancel()
    hurried = False
    while left := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError:
            hurried = True
    for task in tasks:
        if not task.cancelled():
            task.exception()  # what stopped all of them is what counts
    if hurried:
        raise asyncio.CancelledError


class _Ended(Exception):
    """Nothing more is read. `why` says it in words of ours; `answer` is what the harness is told, once all others have ended."""

    def __init__(self, why: str, answer: bytes | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.answer = answer


class _Needed(Exception):
    """Its process, or its place, is needed by another session, and all that it has asked for is under way."""


class _Pipe:
    def __init__(self, process: HarnessProcess, turn: Answers) -> None:
        self._process = process
        self._turn = turn
        self._under_way: dict[asyncio.Task[dict[str, Json]], int] = {}
        """What is served beside each other, with the numbers of the requests."""
        self._reading: asyncio.Task[bytes] | None = None
        self._faults = 0
        self._leave: tuple[int, Leave] | None = None
        """Who was told first to go."""
        self._error: BaseException | None = None
        self._reuse = False
        """Whether the harness can be used again."""
        self._finished = False

    async def serve(self) -> Served:
        told: dict[str, Json] = {"abi": rpc.ABI, "session": self._turn.session, "concurrent": True, "reuse": True}
        await self._write(rpc.request(0, "initialize", told))
        try:
            self._reuse = _greeted(await self._frame())
            while self._faults < MAX_FAULTS:
                await self._serve_next(await self._frame())
            end = _Ended(f"it made {MAX_FAULTS} requests that make no sense")
        except _Ended as ended:
            end = ended
        except _Needed:
            return await self._let_go()
        try:
            await self._all_ended()
        except _Needed:
            # Who has broken off, or the contract, is not used again.
            return replace(await self._let_go(), reuse=self._leave is not None)
        if self._leave is not None:
            number, leave = self._leave
            end = _Ended(leave.message, rpc.error(number, leave.code, leave.message))
        if end.answer is not None:
            await self._write(end.answer)
        if self._error is not None:
            raise self._error
        return Served(end.why, self._reuse and self._leave is not None, self._finished)

    async def _let_go(self) -> Served:
        """Have the harness leave while what it has asked for goes on."""
        number = self._leave[0] if self._leave is not None else next(iter(self._under_way.values()))
        await self._write(rpc.error(number, rpc.PARKED, "its process is needed: what it has asked for goes on"))
        if self._reading is not None:
            await end_all([self._reading])
        # Nothing is awaited from here until somebody has taken over what is adrift: a cancellation would leave it to nobody.
        adrift = tuple(self._under_way)
        self._under_way.clear()
        # One that does not read is not used again.
        return Served("its process was needed", reuse=self._error is None, adrift=adrift)

    async def stop(self) -> None:
        """Stop whatever is under way; return once it has ended."""
        tasks: list[asyncio.Task[Any]] = [*self._under_way]
        if self._reading is not None:
            tasks.append(self._reading)
        await end_all(tasks)

    async def _serve_next(self, frame: dict[str, Json]) -> None:
        number, method, params = frame.get("id"), frame.get("method"), frame.get("params", {})
        if type(number) is not int or not isinstance(method, str) or not isinstance(params, dict):
            refused = rpc.error(None, rpc.INVALID_REQUEST, "expected id, method and params")
            raise _Ended("a frame was no request", refused)
        work = self._turn.at_once(method, params)
        if work is not None:
            self._under_way[asyncio.create_task(work, name=f"a call of session {self._turn.session}")] = number
            return
        await self._all_ended()
        if self._stops:
            return
        if not self._reuse or method in _SHORT:
            await self._answer(number, method, self._turn.handle(method, params))
            return
        self._under_way[asyncio.create_task(self._turn.handle(method, params), name=f"{method} of {self._turn.session}")] = number
        await self._something()
        await self._answer_done(method)

    @property
    def _stops(self) -> bool:
        return self._leave is not None or self._error is not None

    async def _frame(self) -> dict[str, Json]:
        """The next frame. Raises _Ended when there is none, or it is not one, or nothing more is to be read."""
        try:
            line = await self._line()
        except ValueError:
            raise _Ended("a frame was too long") from None
        if not line:
            raise _Ended("it closed its end")
        try:
            frame = parse_strict(line)
        except NotCanonical as error:
            raise _Ended("a frame was not JSON", rpc.error(None, rpc.PARSE_ERROR, str(error))) from None
        if not isinstance(frame, dict):
            raise _Ended("a frame was not an object", rpc.error(None, rpc.INVALID_REQUEST, "a frame is one JSON object"))
        return frame

    async def _line(self) -> bytes:
        """The next line. What ends before it comes is answered."""
        while not self._stops:
            if not self._under_way and self._reading is None:
                return await self._process.read_frame()
            if self._reading is None and len(self._under_way) < MAX_AT_ONCE:
                self._reading = asyncio.create_task(self._process.read_frame(), name=f"harness of {self._turn.session}")
            await self._something()
            await self._answer_done()
            if self._reading is not None and self._reading.done():
                reading, self._reading = self._reading, None
                # Who waits for our answers may be silent.
                if not isinstance(reading.exception(), HarnessSilent):
                    return reading.result()
        raise _Ended("it was told to go")

    async def _all_ended(self) -> None:
        """Wait until nothing is under way; answer what was."""
        while self._under_way:
            self._turn.no_more()
            await self._something()
            await self._answer_done()

    async def _something(self) -> None:
        """Wait until something has ended, or was read. Raises _Needed once the harness has to go meanwhile, and can."""
        waited: list[asyncio.Future[Any]] = [*self._under_way]
        if self._reading is not None:
            waited.append(self._reading)
        if not self._reuse or self._error is not None:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            return
        gone, process, place = False, self._process.rest(), self._turn.rest()
        try:
            needed = [process] if place is None else [process, place]
            done, _ = await asyncio.wait([*waited, *needed], return_when=asyncio.FIRST_COMPLETED)
            gone = done.isdisjoint(waited)
        finally:
            self._process.rise()
            self._turn.rise(gone=gone)
        if gone:
            raise _Needed

    async def _answer_done(self, method: str = "") -> None:
        for task in [task for task in self._under_way if task.done()]:
            number, error = self._under_way.pop(task), task.exception()
            if error is None or _is_answer(error):
                await self._answer(number, method, task)
            elif self._error is None or isinstance(self._error, HarnessSilent):
                self._error = error

    async def _answer(self, number: int, method: str, work: Awaitable[dict[str, Json]]) -> None:
        """Send what comes of `work`, or note that the harness has to go."""
        try:
            answer = rpc.response(number, await work)
        except Leave as leave:
            self._leave = self._leave or (number, leave)
            self._finished = self._finished or (method == "finish" and leave.code == rpc.ENDED)
            return
        except SequenceConflict:
            raise
        except Conflict as error:
            self._faults += 1
            answer = rpc.error(number, rpc.INVALID_PARAMS, error.message)
        await self._write(answer)

    async def _write(self, frame: bytes) -> None:
        """Send a frame, unless the harness has stopped reading: that is raised once all has ended."""
        if self._error is not None:
            return
        try:
            await self._process.write_frame(frame)
        except HarnessSilent as silent:
            self._error = silent


def _greeted(frame: dict[str, Json]) -> bool:
    """Whether the harness can be used again, by its answer to `initialize`. Raises _Ended for any other frame."""
    told = frame.get("result")
    if frame.get("id") != 0 or not isinstance(told, dict):
        raise _Ended("it did not answer initialize")
    if told.get("abi") != rpc.ABI:
        raise _Ended(f"it speaks another ABI than {rpc.ABI}")
    return told.get("reuse") is True


def _is_answer(error: BaseException) -> bool:
    return isinstance(error, Leave | Conflict) and not isinstance(error, SequenceConflict)
