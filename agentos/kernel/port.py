"""What the kernel needs from outside: time, the configuration in force, and processes for harnesses.

The composition root hands these in; no clock, randomness, sleep or process is taken from the standard library in here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision
from agentos.abi.ids import Clock
from agentos.credentials.reference import SecretRef
from agentos.drivers.port import ModelSpec, ToolSpec
from agentos.files.quota import STORAGE, Amount
from agentos.kernel.firing import TriggerSpec
from agentos.kernel.standing import StandingSpec
from agentos.sandbox.profile import Profile
from agentos.scheduler.declared import STANDARD, Arbitration


class Timer(Clock, Protocol):
    """A clock that can also wait and measure."""

    def monotonic_us(self) -> int:
        """Microseconds on a clock that never goes back; only differences mean something."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Tenure(Protocol):
    """Whether this runtime is the one that serves."""

    async def hold(self, tenant: str) -> None:
        """Return if it serves `tenant`. Raises Relieved if a newer one does, LogUnavailable if it cannot be told."""


class Decider(Protocol):
    """Policy of one tenant at one revision."""

    @property
    def engine(self) -> str:
        """What answers now, with its version: `opa 1.20.2 (in process)`."""

    @property
    def data_digest(self) -> str:
        """`sha256:…` of the facts that policy decides on."""

    async def decide_syscall(self, document: Mapping[str, Json]) -> Decision:
        """Decide one syscall (`schemas/v1/policy-input.json`). Never raises: what cannot be decided is denied."""

    async def approve(self, document: Mapping[str, Json]) -> Decision:
        """Whether a person's yes counts (`schemas/v1/approval-input.json`). Never raises: what cannot be decided is denied."""


class ArgumentCheck(Protocol):
    """The compiled input schema of one tool."""

    def __call__(self, args: Mapping[str, Json]) -> str | None:
        """None if `args` fit the tool's schema, else one sentence that says what does not."""


@dataclass(frozen=True, slots=True)
class HarnessSpec:
    """The program that drives an agent's sessions."""

    command: tuple[str, ...]
    sandbox: str | None = None
    """The Sandbox that it works in; None: that of harnesses."""


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """Who may drive an agent from outside (`kernel.served`), beside operators."""

    principals: frozenset[str] = frozenset()
    idle_ms: int = 3_600_000
    """How long a session that a client drives is kept when nobody asks anything of it."""


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """An Agent declaration as the kernel needs it."""

    name: str
    model: str
    instructions: str
    tools: tuple[str, ...]
    labels: Mapping[str, str] = field(hash=False)
    goal_labels: tuple[str, ...] = ()
    """Labels that each of its sessions carries from its first event."""
    file_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Labels of input files by the folder or file below `input/` that they are in; `.` stands for all."""
    program: str = "default"
    """The program that it belongs to, for shares and budgets."""
    priority: str = STANDARD
    """The PriorityClass of its sessions, unless a run says otherwise."""
    deadline_ms: int | None = None
    """How long after it comes a turn of it is due; None: never."""
    fail_fast: bool = False
    """Whether turns of its sessions that are likelier to fail go first among those that are due at the same time."""
    standing: StandingSpec | None = None
    """How it is kept alive; None: it runs when it is told to."""
    sandbox: str | None = None
    """The Sandbox of processes of its tools that name none."""
    harness: HarnessSpec | None = None
    """What drives its sessions; None: the built-in loop."""
    gateway: GatewaySpec = GatewaySpec()
    """Who may drive sessions of it from outside."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One tenant at one revision of the desired state: everything that a turn needs, immutable."""

    tenant: str
    revision: int
    policy_digest: str
    max_sessions: int
    agents: Mapping[str, AgentSpec] = field(hash=False)
    tools: Mapping[str, ToolSpec] = field(hash=False)
    models: Mapping[str, ModelSpec] = field(hash=False)
    checks: Mapping[str, ArgumentCheck] = field(hash=False)
    decider: Decider = field(hash=False)
    approval_timeout_ms: int = 86_400_000
    """How long a question waits for people; nobody's answer is a no."""
    approval_valid_ms: int = 3_600_000
    """How long an approval counts, unless the approver says less."""
    triggers: Mapping[str, TriggerSpec] = field(default_factory=dict, hash=False)
    """By name, those for daemons of the runtime among them."""
    arbitration: Arbitration = field(default_factory=Arbitration, hash=False)
    """Endpoints, classes, weights and budgets."""
    sandboxes: Mapping[str, Profile] = field(default_factory=dict, hash=False)
    """Those that are declared, by name."""
    secrets: Mapping[str, SecretRef] = field(default_factory=dict, hash=False)
    """By name; references, no values."""
    spaces: frozenset[str] = frozenset()
    """The names of its shared spaces."""
    lock_victim: str = "requester"
    """Who of those that wait for each other over locks is told so: one of `kernel.waiting.Victim`."""
    storage: Amount = STORAGE
    """How much its files may take up: workspaces, spaces, and what is kept of versions."""
    requests_per_second: int = 500
    """How often its principals together may ask."""


class ConfigurationSource(Protocol):
    """Where a turn finds the configuration in force."""

    def current(self, tenant: str) -> Configuration:
        """The newest configuration of `tenant`. Raises NotFound for a tenant that is not declared."""


@dataclass(frozen=True, slots=True)
class Brief:
    """What a harness process is wanted for."""

    tenant: str
    session: str
    labels: frozenset[str] = frozenset()
    """The labels that the session carries: a process is shared only by sessions of one tenant with the same ones."""
    harness: HarnessSpec | None = None
    """The program; None: the built-in loop."""
    profile: Profile | None = None
    """The place that it was declared to work in; None: that of harnesses."""


class Misdeed(StrEnum):
    """What a harness must never do; it is stopped at once, and so is its session."""

    NETWORK = "network"
    """It made a socket that leads somewhere."""
    HOME = "home"
    """It opened a file where homes are."""
    AFTER_FINISH = "after-finish"
    """It went on after it had finished its session."""

    @property
    def words(self) -> str:
        """The same for people: `it tried to …`."""
        return _MISDEEDS[self]


_MISDEEDS: Final = {
    Misdeed.NETWORK: "it tried to open a socket that leads out of its sandbox",
    Misdeed.HOME: "it tried to read where homes are",
    Misdeed.AFTER_FINISH: "it went on after it had finished its session",
}


@dataclass(frozen=True, slots=True)
class Left:
    """How a harness process was left. `code` is None while it lives on, for other sessions."""

    code: int | None
    misdeed: Misdeed | None = None


class HarnessSilent(Exception):
    """A harness that neither speaks nor listens; its words say which. It holds a place that others wait for."""


class HarnessProcess(Protocol):
    """A started harness: a pipe that carries frames of the ABI. It drives one session at a time."""

    def rest(self) -> asyncio.Future[None]:
        """All that it has asked for is under way: done once another session waits for it. Ended by `rise`."""

    def rise(self) -> None:
        """It has something to do again."""

    async def read_frame(self) -> bytes:
        """The next line without its newline; empty when the harness closed its end.

        Raises ValueError if it is too long, HarnessSilent if the harness says nothing for too long.
        """

    async def write_frame(self, frame: bytes) -> None:
        """Send one frame. A harness that is gone is not an error here: the next read says so.

        Raises HarnessSilent if the harness does not read.
        """

    def hint(self, frame: bytes) -> None:
        """Send one frame, if that takes no time."""

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        """Let go of it. Never waits for long.

        `reuse`: it was told to leave the session, has said that it can be used again, and has seen these labels; None: the
        process ends (it gets a moment to leave by itself). `finished`: it has finished its session, and may not say another word.
        """


class Spawner(Protocol):
    """How sessions come by harness processes."""

    async def spawn(self, brief: Brief) -> HarnessProcess:
        """A harness that awaits its `initialize`: a fresh one, or one that sessions of the same kind have left.

        Waits while as many as there may be are in use. Raises Unavailable when none can be started, and DriverError when the
        place of a declared program cannot be had, or the program is not there.
        """
