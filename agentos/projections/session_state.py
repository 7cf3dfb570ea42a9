"""The nouns of a folded session: where it stands, its calls, what it may still spend.

`projections.session` makes these from events; a state is never changed, and each event gives another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.syscall import MODEL_CALL, PSEUDO
from agentos.projections.grown import Grown


class State(StrEnum):
    """Where a session stands. The last four are final."""

    DEFERRED = "deferred"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HALTED = "halted"


class Step(StrEnum):
    """Where one syscall stands. `allowed` without an outcome means: it may have been acted on."""

    REFUSED = "refused"
    DENIED = "denied"
    ASKED = "asked"
    APPROVED = "approved"
    REJECTED = "rejected"
    ALLOWED = "allowed"
    FINISHED = "finished"
    FAILED = "failed"
    UNKNOWN = "unknown"


BARRED: Final = frozenset({Step.REFUSED, Step.DENIED})
"""Steps of calls that were not let through: they cost nothing but their event."""

OPEN: Final = frozenset({Step.ASKED, Step.APPROVED, Step.ALLOWED})
"""Steps after which the call still needs something: a person, or an outcome."""


@dataclass(frozen=True, slots=True)
class Call:
    """One syscall of the session as the log knows it. `decision`, `result`, `error` have the shapes of the events."""

    call: str
    tool: str
    args: Mapping[str, Json]
    args_digest: str
    step: Step
    turn: int
    decision: Mapping[str, Json] | None = None
    result: Mapping[str, Json] | None = None
    error: Mapping[str, Json] | None = None
    proposed: str = ""
    """Digest of the arguments as proposed; obligations may have rewritten them into those of `args_digest`."""
    effect: str = "external"
    """What the tool does to the world, as policy was told."""
    decided: int = 0
    """`seq` of the last decision about the call."""
    decided_ms: int = 0
    """When it was made."""
    policy_digest: str | None = None
    """The policy that made it."""
    approvals: tuple[Mapping[str, Json], ...] = ()
    """Yeses to this very call, in the shape of `SessionState.approvals`."""


@dataclass(frozen=True, slots=True)
class ObligedCall(Call):
    """A call whose last decision obliges to something: also what the runtime needs to go on meeting that.

    Both are of use until the call is done, and stand in no state document.
    """

    carried: tuple[Mapping[str, Json], ...] = ()
    """Obligations of earlier decisions, about the arguments before they were rewritten, that still bind."""
    notified: Mapping[str, int] = field(default_factory=dict)
    """How many notices of the last decision are recorded, by the rule that wants them."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """The whole session. `seq` is the number of events folded; `calls` keeps the order of first appearance.

    `config_revision` is the one its turns run under; what others record of it carries the revision in force then.

    `approvals` are yeses that cover later calls of the session too: `{call, tool, args_digest, by, reason, at, expires,
    policy_digest, scope, rules, max_uses, used}`; times are milliseconds since the epoch, `call` is the one that was asked for.

    `model_calls`, `barred` and `lost` tell what stands in `calls`, so that nobody has to go through them for it; they stand in
    no state document.
    """

    id: str = ""
    tenant: str = ""
    state: State = State.RUNNING
    agent: str = ""
    goal: str = ""
    inputs: tuple[Mapping[str, Json], ...] = ()
    actor: str = ""
    config_revision: int = 0
    seq: int = 0
    epoch: int = 0
    turn: int = 0
    calls: Grown[Call] = field(default_factory=Grown)
    labels: frozenset[str] = frozenset()
    approvals: tuple[Mapping[str, Json], ...] = ()
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    waiting_for: str | None = None
    waiting: Mapping[str, Json] | None = None
    """The question that it waits with: `{call, args_digest, expires, needed, given}`."""
    paused: Mapping[str, Json] | None = None
    """`{by, reason, at}` while a person keeps it from going on; it may wait for an answer at the same time."""
    result: str | None = None
    error: Mapping[str, Json] | None = None
    model_calls: int = 0
    """How many of `calls` are the model's."""
    barred: int = 0
    """How many of `calls` were refused or denied."""
    lost: frozenset[str] = frozenset()
    """Those of `calls`, the model's left out, whose outcome is unknown."""
    priority: str = ""
    """The PriorityClass that its run named; empty: its agent's."""
    deadline_ms: int | None = None
    """When its run is due, by the clock."""
    deferred: Mapping[str, Json] | None = None
    """What has to hold before it begins (`scheduler.precondition`); None once it has begun, and for one that was not deferred."""

    delegated: Mapping[str, Json] | None = None
    """Who delegated to it, on whose behalf it acts, and what it was narrowed to (`agentos.session.created`); None: nobody did."""
    firing: Mapping[str, Json] | None = None
    """What began it, `{trigger, id, at_ms}`, if a trigger did."""
    standing: Mapping[str, Json] | None = None
    """`{agent, number}` of the session of a standing agent: the number of its start."""
    served: Mapping[str, Json] | None = None
    """`{by, client: {name, version}}` of a session that a client outside drives (`kernel.served`); None: a harness does."""
    delegations: Mapping[str, Json] = field(default_factory=dict)
    """By the call of a delegation that was allowed: the list of the sessions that it begins."""
    signals: tuple[Mapping[str, Json], ...] = ()
    """What it was told, in order: `{name, data, by, at, seq, id?, consumed?}`. `id` is the call of another session that sent it,
    `consumed` the call of this one that had waited for it."""
    since: Mapping[str, int] = field(default_factory=dict)
    """Of calls that were allowed again and have no outcome yet: when they were first allowed."""
    frozen: tuple[str, ...] = ()
    """The freezes that it has come to, over or not."""
    held: frozenset[str] = frozenset()
    """Calls that were allowed and surely not begun: a freeze came in between. They are decided again."""
    stopped: Mapping[str, Json] | None = None
    """`{reason, message, code?, after?, at, seq}` once its harness was stopped for what it did. Its end is told apart."""

    @property
    def children(self) -> int:
        """How many sessions it has delegated to."""
        return sum(len(begun) for begun in self.delegations.values())

    @property
    def labelled(self) -> tuple[Mapping[str, Json], ...]:
        """Files of its workspace whose labels are known, as in `inputs`: those it was given, and those that came back to it.

        Of the latter by the folder that they stand in: not each of them need be listed.
        """
        if not self.delegations:
            return self.inputs
        results = [(name, call.result) for name in self.delegations if (call := self.calls.get(name)) is not None and call.result]
        came: list[Mapping[str, Json]] = []
        for name, result in results:
            for index, child in enumerate((result.get("data") or {}).get("children", ())):
                below = f"delegated/{name}/{index}"
                came += ({"path": path, "labels": child["labels"]} for path in (below, f"{below}.txt"))
        return (*self.inputs, *came)

    @property
    def over(self) -> bool:
        """Whether the session has ended for good."""
        return self.state not in {State.DEFERRED, State.RUNNING, State.WAITING, State.PAUSED}


def counts(calls: Iterable[Call]) -> dict[str, Json]:
    """The fields of a state that count its calls."""
    found: dict[str, Json] = {"model_calls": 0, "barred": 0, "lost": frozenset()}
    for call in calls:
        found["model_calls"] += call.tool == MODEL_CALL
        found["barred"] += call.step in BARRED
        found["lost"] |= {call.call} if is_lost(call) else frozenset()
    return found


def is_lost(call: Call) -> bool:
    """Whether nobody knows what came of a call of a tool.

    One of the model is made again, and a request that left is part of another call: there is nothing to find out.
    """
    return call.step is Step.UNKNOWN and call.tool not in PSEUDO
