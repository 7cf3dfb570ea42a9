"""Drivers: the hands. A driver performs one tool call that policy has allowed; a provider performs one model call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.abi.syscall import Result, ToolEffect
from agentos.credentials.lease import Leases
from agentos.credentials.reference import Credential, SecretRef
from agentos.egress.asking import Gatekeeper
from agentos.sandbox.profile import Profile, standard


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A Tool declaration as the kernel and the drivers need it (from `spec` of kind Tool)."""

    name: str
    description: str
    effect: ToolEffect
    idempotent: bool
    input_schema: Mapping[str, Json] = field(hash=False)
    driver: Mapping[str, Json] = field(hash=False)
    """Exactly one key: `builtin: {primitive}`, `exec: {command, …}`, `mcp: {server, tool, …}`, `http: {url, …}` or `delegate:
    {agents, mode, …}`; what stands below it is as it was declared."""
    labels: tuple[str, ...] = ()
    """Labels that every result of this tool carries into the session, such as `untrusted`."""
    timeout_ms: int = 30_000
    commutes: bool = False
    """Whether calls of it give the same in any order, so that several of one turn may run at once."""
    sandbox: str | None = None
    """The Sandbox that its process works in; None: as the agent says."""
    credentials: tuple[Credential, ...] = ()
    """What its driver is given when it acts."""
    output_bytes: int = 262_144
    """Most bytes of text of a result."""
    output_schema: Mapping[str, Json] | None = field(default=None, hash=False)
    """What the structured part of a result has to fit; None: nothing."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """Where a call happens: which session asks, and the folder that is its workspace (absolute, exists)."""

    tenant: str
    session: str
    call: str
    workspace: Path
    profile: Profile = field(default_factory=standard)
    """The sandbox that a process of the call works in."""
    net: Gatekeeper | None = field(default=None, compare=False)
    """Who decides about requests that leave for this call; None: none may leave."""
    secrets: Mapping[str, SecretRef] = field(default_factory=dict, hash=False)
    """The Secrets that the tool's credentials name, by name; one that is not declared any more is not among them."""
    lent: Mapping[str, SecretRef] = field(default_factory=dict, hash=False)
    """The Secrets that earlier calls of the session were lent: an earlier runtime may have done that."""
    leases: Leases | None = field(default=None, compare=False)
    """The credentials of the call while it acts; None: it has none."""
    still: Callable[[], Awaitable[None]] | None = field(default=None, compare=False)
    """To be awaited just before a call goes out that took its time to prepare: raises when it may not go out any more."""
    agent: str = ""
    """The agent of the session."""
    priority: str = ""
    """The PriorityClass that its run was started with; empty: that of its agent."""
    labels: tuple[str, ...] = ()
    """What the session carries when the call is made; it stays with what the call writes for others."""

    children: tuple[str, ...] = ()
    """The sessions that the call begins, as its decision names them; none unless it delegates."""
    decided: tuple[int, str] = (0, "")
    """Number and hash of the event that decided it: one id for the decision, the sandbox and the leases of the call."""
    approved: tuple[str, ...] = ()
    """The people whose approvals its decision rests on (`principal/ann`)."""

    @property
    def key(self) -> str:
        """The idempotency key: the same whenever this call is made again, of no other call."""
        return f"{self.session}/{self.call}"


class Outcome(StrEnum):
    """What somebody found out about a call whose outcome was lost."""

    FINISHED = "finished"
    FAILED = "failed"
    NOT_RUN = "not-run"


@dataclass(frozen=True, slots=True)
class Found:
    """What a tool tells of such a call. `result` is what it gave back, for `finished` only."""

    outcome: Outcome
    reason: str
    result: str = ""


def starts_process(tool: ToolSpec) -> bool:
    """Whether its driver starts a process for it, which then works in a sandbox."""
    return "exec" in tool.driver or "command" in tool.driver.get("mcp", {}).get("server", {})


def leaves(tool: ToolSpec, profile: Profile) -> bool:
    """Whether requests may leave for a call of it: from its process, where the sandbox has a way out, or from its driver."""
    return profile.network is not None if starts_process(tool) else "http" in tool.driver or "mcp" in tool.driver


def can_reconcile(tool: ToolSpec) -> bool:
    """Whether a tool can be asked what came of a call."""
    return "reconcile" in tool.driver.get("mcp", {})


class Driver(Protocol):
    """Performs calls of the tools of one driver kind."""

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        """Act, within `tool.timeout_ms`, and give the result.

        A failure that the tool itself reports is a Result with `is_error`. Raises DriverError when the call surely did not take
        effect (server not found, bad path), OutcomeUnknown when it may have (time-out, connection lost in mid-call).
        Cancelling stops the work.
        """

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        """Ask what came of an earlier call (that of `context.key`, with `args`); None if it cannot be told.

        Only of a tool that `can_reconcile`. Raises DriverError when it cannot be asked.
        """

    async def release(self, session: str) -> None:
        """Stop what is kept warm for `session` (server processes)."""

    async def close(self) -> None:
        """Stop everything."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A Model declaration (from `spec` of kind Model)."""

    name: str
    provider: str
    settings: Mapping[str, Json] = field(hash=False)
    """The provider's own part of the spec: `scripted: {play}` or `anthropic: {model, baseUrl, apiKeyEnv, maxTokens}`."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One model call. `messages` and `tools` have the shape of Anthropic's Messages API (`role`, `content` blocks; `name`,
    `description`, `input_schema`), with one addition: a `tool_result` block may carry `data`, the structured part of the
    result, which never leaves for a provider outside.
    """

    system: str
    messages: Sequence[Mapping[str, Json]]
    tools: Sequence[Mapping[str, Json]]
    max_output: int | None = None
    """The most tokens of the answer; None: as the model is declared, which bounds it in any case."""
    beginning: str = ""
    """How the answer begins already; the reply is what comes behind it. Only for providers that go on from one."""


@dataclass(frozen=True, slots=True)
class ModelReply:
    """What the model said: `content` blocks (`text`, `tool_use` with `id`, `name`, `input`, or others kept verbatim)."""

    content: Sequence[Mapping[str, Json]]
    stop_reason: str
    input_tokens: int
    output_tokens: int


class ModelUnavailable(DriverError):
    """The model's endpoint is overloaded, rate limited or out of reach: another one, or asking again later, can help.

    Of this very class it counts against the endpoint (its circuit opens after a few of them).
    """

    code = "driver.model"
    retryable = True

    def __init__(
        self, message: str, *, retry_after: float | None = None, where: str | None = None, mend: str | None = None
    ) -> None:
        super().__init__(message, where=where, mend=mend)
        self.retry_after = retry_after
        """Seconds that the endpoint asks to wait; None if it says nothing."""

    def details(self) -> dict[str, object]:
        return {} if self.retry_after is None else {"retry_after": self.retry_after}


class ReplyBroken(ModelUnavailable):
    """The endpoint answered, and the answer is of no use: asking again can help, and the endpoint is not to blame."""

    code = "driver.reply"
    answered = True


class ModelProvider(Protocol):
    """Performs model calls of one provider."""

    async def complete(self, model: ModelSpec, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """Ask the model; `on_text` receives text as it streams.

        Raises DriverError when there is no reply (its subclass ModelUnavailable, whose `retryable` is true, when asking again can
        help). Never retries by itself.
        """

    async def close(self) -> None:
        """Close connections."""
