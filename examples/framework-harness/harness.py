"""A harness made of an agent framework, Pydantic AI: the framework runs the loop, and whatever it wants done it asks the kernel.

Three small pieces stand between the two. `Kernel` is the pipe. `KernelModel` is a model of the framework's, and each request to
it is a `model.call`. `Syscalls` is a toolset of the framework's, and each call of it is a `tool.call`. Nothing is kept from one
session or process to the next: the kernel's log is the state, and its view says where to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_ai import Agent, ModelRequest, ModelResponse, RunContext, ToolCallPart, ToolDefinition, ToolOutput, UsageLimits
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import ModelMessage, UserPromptPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import SchemaValidator, core_schema

ABI: Final = "agentos/v1"
MAX_FRAME: Final = 8 * 1024 * 1024
"""Bytes of the longest frame, its newline counted."""

AT_ONCE: Final = 16
"""Requests without an answer; the kernel acts on so many at once."""

NOTED: Final = 200
"""Characters of a result that the framework keeps. The whole of it is in the log, from which the kernel shows it to the model."""

LEAVE: Final = (-32001, -32002)
"""The session is parked, or over."""


class Left(Exception):
    """The kernel has told the harness to leave the session, or closed the pipe."""


class Broken(Exception):
    """The kernel refuses a request, or does not speak as agreed: nothing that can be mended here."""


class Kernel:
    """The harness's end of the pipe. Answers are read all the time, so that writing never waits for ever."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self.reuse = False
        """Whether the kernel may have another session for this process."""
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._at_once = asyncio.Semaphore(1)
        self._left: Exception | None = Left()
        """Why nothing is asked: no session has begun, or it was left."""
        self._greetings: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue()
        self._listening = asyncio.create_task(self._listen())

    async def greet(self) -> None:
        """Wait for the next session and answer its `initialize`. Raises Left when there is none, Broken."""
        frame = await self._greetings.get()
        if isinstance(frame, Exception):
            raise frame
        more = {"reuse": True} if self.reuse else {}
        self._write({"id": frame.get("id"), "result": {"abi": ABI, "name": "pydantic-ai", "version": "1", **more}})

    def leave(self) -> None:
        """Say that nothing more is said about this session, unless nobody listens any more."""
        if not self._listening.done():
            self._write({"method": "left", "params": {}})

    async def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of a request. Raises Left, Broken."""
        async with self._at_once:
            if self._left is not None:
                raise self._left
            number = next(self._numbers)
            answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            self._waiting[number] = answer
            self._write({"id": number, "method": method, "params": params})
            return await answer

    def close(self) -> None:
        """Read no more."""
        self._listening.cancel()

    def _write(self, frame: dict[str, Any]) -> None:
        self._writer.write(json.dumps({"jsonrpc": "2.0", **frame}).encode() + b"\n")

    async def _listen(self) -> None:
        end: Exception = Left()
        try:
            while (line := await self._reader.readline()).endswith(b"\n"):
                self._take(json.loads(line))
        except (ValueError, RecursionError, Broken) as error:
            end = Broken(f"a frame of the kernel cannot be read: {error}")
        self._leave(end)
        self._greetings.put_nowait(end)

    def _take(self, frame: Any) -> None:
        if not isinstance(frame, dict):
            raise Broken("it is no object")
        if "method" in frame:
            if frame["method"] == "initialize":
                self._begin(frame)
            elif frame["method"] == "cancel" and self.reuse:
                self._leave(Left())
            return
        number = frame.get("id")
        if type(number) is not int or (answer := self._waiting.pop(number, None)) is None or answer.done():
            return
        result, error = frame.get("result"), frame.get("error")
        if isinstance(result, dict):
            answer.set_result(result)
        elif isinstance(error, dict) and error.get("code") in LEAVE:
            answer.set_exception(Left())
            self._leave(Left())
        else:
            answer.set_exception(Broken(f"the kernel refuses a request: {error}"))

    def _begin(self, frame: dict[str, Any]) -> None:
        told = frame.get("params")
        told = told if isinstance(told, dict) else {}
        self.reuse = told.get("reuse") is True
        self._at_once = asyncio.Semaphore(AT_ONCE if told.get("concurrent") is True else 1)
        # A kernel that speaks something else hears what is spoken here, and is asked nothing.
        self._left = None if told.get("abi") == ABI else Left()
        self._greetings.put_nowait(frame)

    def _leave(self, why: Exception) -> None:
        """Ask nothing more in this session; whoever waits hears why."""
        self._left = why
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(why)
        self._waiting.clear()


@dataclass
class Finish:
    """What the framework hands back at the end of a run."""

    result: str


class KernelModel(Model[None]):
    """A model of the framework's: what it is shown is built by the kernel from the log, so `messages` go nowhere."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self._kernel = kernel

    @property
    def model_name(self) -> str:
        """For the framework's records."""
        return "agentos"

    @property
    def system(self) -> str:
        """For the framework's records."""
        return "agentos"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The model's reply: its calls, or where it makes none its words, as the end of the run."""
        content = (await self._kernel.ask("model.call", {})).get("content")
        if not isinstance(content, list):
            raise Broken("a reply of the model is no list")
        calls = [proposal(one["id"], one["name"], one["input"]) for one in content if one.get("type") == "tool_use"]
        words = "\n".join(one["text"] for one in content if one.get("type") == "text")
        return ModelResponse(parts=calls or [ToolCallPart("finish", {"result": words})], model_name=self.model_name)


class Syscalls(AbstractToolset[None]):
    """The framework's one tool. Which tools an agent has only the kernel knows, so the name of each is an argument."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @property
    def id(self) -> str:
        """For the framework's records."""
        return "kernel"

    async def get_tools(self, ctx: RunContext[None]) -> dict[str, ToolsetTool[None]]:
        """The tool, whose arguments are checked by the kernel."""
        anything = SchemaValidator(core_schema.any_schema())
        known = ToolDefinition(name="syscall", description="Propose a call to the kernel.")
        return {"syscall": ToolsetTool(toolset=self, tool_def=known, max_retries=0, args_validator=anything)}

    async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: RunContext[None], tool: ToolsetTool[None]) -> str:
        """Propose the call under the id that the model gave it. A denial is no reason to try again: the model is told."""
        told = await self._kernel.ask("tool.call", {"call": ctx.tool_call_id, **tool_args})
        noted = str(told.get("content"))[:NOTED]
        if told.get("is_error"):
            raise ToolFailed(noted)
        return noted


def proposal(call: str, tool: str, args: dict[str, Any]) -> ToolCallPart:
    """A call as the framework knows it."""
    return ToolCallPart("syscall", {"tool": tool, "args": args}, tool_call_id=call)


async def drive(kernel: Kernel) -> None:
    """One session, from where its log has come to. Raises Left, Broken."""
    view = await kernel.ask("session.view", {})
    final = view["final"]
    if final is None:
        agent = Agent(
            KernelModel(kernel),
            name="agentos",
            output_type=ToolOutput(Finish, name="finish"),
            toolsets=[Syscalls(kernel)],
            retries=0,
        )
        goal = UserPromptPart(view["goal"])
        history: Sequence[ModelMessage] = [ModelRequest(parts=[goal])]
        if view["pending"]:
            # The framework takes these for a reply of the model that it has not acted on yet.
            calls = [proposal(one["call"], one["tool"], one["args"]) for one in view["pending"]]
            history = [*history, ModelResponse(parts=calls)]
        # How long it may go on is a matter of the kernel's budgets.
        final = (await agent.run(message_history=history, usage_limits=UsageLimits(request_limit=None))).output.result
    await kernel.ask("finish", {"result": final})


async def serve(kernel: Kernel) -> None:
    """Sessions, one after the other, for as long as the kernel has any. Raises Left, Broken."""
    more = True
    while more:
        await kernel.greet()
        more = kernel.reuse
        with contextlib.suppress(Left):
            await drive(kernel)
        if more:
            kernel.leave()


async def main() -> int:
    """Serve the pipe; the exit code."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_FRAME)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout)
    kernel = Kernel(reader, writer)
    try:
        await serve(kernel)
    except Left:
        return 0
    except Broken as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        kernel.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
