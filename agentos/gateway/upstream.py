"""What the gateway asks of the runtime: the verbs `gateway.*` and the two answers to an approval, as calls and values.

Nothing here knows MCP, and nothing here decides. A call that takes its time is asked after again, so that no request to the
runtime is open for longer than `ROUND_MS`, and whoever waits can tell its own client that it still does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError

FIRST_MS: Final = 250
"""How long the first answer to a call is waited for: then its name is known, and it can be cancelled by it."""

ROUND_MS: Final = 2_000
"""How long one question after a call that runs may take; one that has come to wait for people is known no later than that."""

_SLACK_S: Final = 25.0
"""What a verb may take beyond the time that it waits for by itself."""


class Caller(Protocol):
    """A connection to the runtime as one principal (`agentos.control.client.Client`)."""

    async def call(self, verb: str, params: dict[str, Json], *, within: float = 30.0) -> Json:
        """Ask the runtime; return its answer. Raises the AgentOSError it answered with, Unavailable after `within` s."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the agent is shown it; `digest` is of its name, its description and its schemas."""

    name: str
    description: str
    input_schema: dict[str, Json] = field(hash=False)
    effect: str
    idempotent: bool
    digest: str


@dataclass(frozen=True, slots=True)
class Done:
    """How a call has ended: at which `step` (`finished`, `denied`, `refused` …); `structured` is JSON for programs, or None."""

    call: str
    step: str
    content: str
    is_error: bool
    structured: Json = field(hash=False, default=None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call that waits for people; `question` is the row that `agentos approvals list` shows of what they are asked.

    That may be another call of the session, behind which this one waits: then it is decided once that one is answered.
    """

    call: str
    question: dict[str, Json] = field(hash=False)

    @property
    def asked(self) -> str:
        """The call that people are asked about."""
        return str(self.question["call"])

    @property
    def behind(self) -> bool:
        """Whether they are asked about another one."""
        return self.asked != self.call


@dataclass(frozen=True, slots=True)
class Running:
    """A call that has not ended yet."""

    call: str


Answer = Done | Waiting
Tell = Callable[[], Awaitable[None]]


class Upstream:
    """The runtime, as one principal; `approver` is the principal whose yes is said for the person at the client, if any."""

    def __init__(self, caller: Caller, approver: Caller | None = None) -> None:
        self._caller = caller
        self._approver = approver

    @property
    def can_answer(self) -> bool:
        """Whether a person at the client may be asked at all."""
        return self._approver is not None

    async def open(self, agent: str, client: dict[str, str], session: str | None = None) -> str:
        """Begin a session of `agent` for `client` (`{name, version}`), or take up `session`; its name."""
        params: dict[str, Json] = {"agent": agent, "client": dict(client)}
        if session is not None:
            params["session"] = session
        return str((await self._caller.call("gateway.open", params))["session"])

    async def tools(self, session: str) -> list[Tool]:
        """The tools that the agent is granted, under the revision in force."""
        answer = await self._caller.call("gateway.tools", {"session": session})
        return [_tool(row) for row in answer["tools"]]

    async def begin(self, session: str, tool: str, args: dict[str, Json], digest: str | None) -> Answer | Running:
        """Propose a call. Raises Conflict when `digest` is not that of the tool as it is now."""
        params: dict[str, Json] = {"session": session, "tool": tool, "args": args, "wait_ms": FIRST_MS}
        if digest is not None:
            params["digest"] = digest
        return _answer(await self._caller.call("gateway.call", params, within=FIRST_MS / 1000 + _SLACK_S))

    async def outcome(self, session: str, call: str, *, wait_ms: int = ROUND_MS) -> Answer | Running:
        """How `call` stands, after at most `wait_ms`."""
        params: dict[str, Json] = {"session": session, "call": call, "wait_ms": wait_ms}
        return _answer(await self._caller.call("gateway.result", params, within=wait_ms / 1000 + _SLACK_S))

    async def cancel(self, session: str, call: str) -> None:
        """Give a call up."""
        await self._caller.call("gateway.cancel", {"session": session, "call": call})

    async def close(self, session: str, result: str) -> None:
        """Finish a session; what is under way is not waited for."""
        await self._caller.call("gateway.close", {"session": session, "result": result, "wait_ms": FIRST_MS})

    async def say(self, waiting: Waiting, *, granted: bool, reason: str) -> None:
        """Answer what waits, as the approving principal. Raises Denied when its word does not count, Conflict when it is late."""
        if self._approver is None:
            raise AgentOSError("nobody may be asked through this gateway")
        asked = waiting.question
        params: dict[str, Json] = {
            "session": asked["session"],
            "call": waiting.asked,
            "digest": asked["args_digest"],
            "reason": reason,
        }
        await self._approver.call("approval.approve" if granted else "approval.deny", params)


def _tool(row: dict[str, Json]) -> Tool:
    return Tool(
        str(row["name"]),
        str(row["description"]),
        row["input_schema"],
        str(row["effect"]),
        bool(row.get("idempotent", False)),
        str(row["digest"]),
    )


def _answer(body: dict[str, Json]) -> Answer | Running:
    match body["state"]:
        case "done":
            return Done(body["call"], str(body["step"]), str(body["content"]), bool(body["is_error"]), body.get("structured"))
        case "waiting":
            return Waiting(body["call"], body["question"])
        case _:
            return Running(body["call"])
