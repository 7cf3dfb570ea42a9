"""Model calls that go into a batch: which do, what tells one from another, and what a session carries on while it waits for one.

A batch takes hours. The session gives its place up at once, without being asked: its harness goes, and the call goes on by
itself (`Carried`), until its outcome is in the log. Then the session gets a place and a fresh harness. After a crash the call is
made again, under a new id; by its identity it is known as the one that was submitted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from agentos.abi.canonical import Json, digest_of
from agentos.abi.errors import AgentOSError
from agentos.abi.syscall import MODEL_CALL
from agentos.drivers.batching import IDENTITY, BatchCall
from agentos.drivers.port import ModelRequest, ModelSpec
from agentos.kernel.admission import BATCH, Admissions, PoolKey, Request
from agentos.kernel.asking import endpoint_of
from agentos.kernel.budgets import Want
from agentos.kernel.port import Configuration
from agentos.projections.session import Call, SessionState, Step
from agentos.scheduler.declared import Batch, Endpoint, Price

_PREFIX: Final = len("sha256:")


@dataclass(slots=True)
class Carried:
    """A call that goes on while its session has no place. `attempt` and `asked`: how often, and of whom, it was asked before."""

    work: asyncio.Task[tuple[str, Call]]
    attempt: int
    asked: frozenset[str]

    async def ashore(self) -> None:
        """Wait until it is over. Raises AgentOSError if that keeps the session from going on."""
        await asyncio.wait((self.work,))
        if not self.work.cancelled() and isinstance(error := self.work.exception(), AgentOSError):
            raise error

    async def drop(self) -> None:
        """Nobody waits for it any more: stop it, which is recorded."""
        if not self.work.done():
            self.work.cancel()
            await asyncio.wait((self.work,))
        if not self.work.cancelled():
            self.work.exception()  # it has been looked at, whatever it is


def in_batch(request: Request, endpoint: Endpoint, admissions: Admissions, now_ms: int) -> bool:
    """Whether the call of `request` is submitted with others: its class never ages, and it is not due before a batch has ended.

    A session that somebody of a class that ages waits for is as urgent as that one.
    """
    if endpoint.batch is None or (request.deadline_ms is not None and request.deadline_ms < now_ms + endpoint.batch.expect_ms):
        return False
    ages, _ = admissions.height(admissions.effective(request.session, request.priority))
    return not ages


def batches_of(endpoint: Endpoint) -> PoolKey:
    """Where the calls of an endpoint's batches are shown."""
    return (BATCH, *endpoint.key)


def price_in_batch(endpoint: Endpoint) -> Price:
    """What a call in a batch costs."""
    return endpoint.price if endpoint.batch is None else endpoint.price.at(endpoint.batch.percent)


def want_in_batch(want: Want, endpoint: Endpoint) -> Want:
    """What a call in a batch may use at most: as `want`, at another price, and no time: nobody works for it while it waits."""
    return replace(want, price=price_in_batch(endpoint), milliseconds=0)


def batch_call(
    state: SessionState, configuration: Configuration, model: str, request: ModelRequest, still: Callable[[], Awaitable[None]]
) -> BatchCall:
    """The session's next model call, as it goes into a batch."""
    spec, batch = configuration.models[model], endpoint_of(model, configuration).batch or Batch()
    identity = identity_of(state, spec, request)
    return BatchCall(state.tenant, state.id, identity, spec, request, batch.window_ms, batch.most, still)


def identity_of(state: SessionState, model: ModelSpec, request: ModelRequest) -> str:
    """What a model call is known by, also when it is made again after a crash: 32 hex digits.

    It names the session and what the view of the model is made of: calls by their numbers and what became of them, what it was
    told, by the events of that, and what is declared. It is made of no word of the session, so that nothing of that stays where
    no erasure comes.
    """
    calls: list[Json] = [
        [call.call, str(call.step), call.decided]
        for call in state.calls.values()
        if call.tool != MODEL_CALL or call.step is Step.FINISHED
    ]
    made: dict[str, Json] = {
        "tenant": state.tenant,
        "session": state.id,
        "model": [model.name, model.provider, dict(model.settings)],
        "system": request.system,
        "tools": [dict(tool) for tool in request.tools],
        "calls": calls,
        "begun": len(request.beginning),
        **({"signals": [one["seq"] for one in state.signals]} if state.signals else {}),
    }
    return digest_of(made)[_PREFIX : _PREFIX + IDENTITY]
