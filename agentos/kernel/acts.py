"""What an allowed call does: a tool through its driver, the model through its provider.

An act is made before the decision and called after it. From its call to the driver nothing is awaited: what the gate has looked
at just before still holds when the driver is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.syscall import Result
from agentos.drivers.batching import Batching
from agentos.drivers.port import (
    CallContext,
    Driver,
    ModelProvider,
    ModelReply,
    ModelRequest,
    ModelSpec,
    ToolSpec,
    leaves,
    starts_process,
)
from agentos.kernel import hands
from agentos.kernel.admission import Ticket
from agentos.kernel.allowance import Allowance, want_of_model
from agentos.kernel.asking import beginning, class_of, endpoint_of
from agentos.kernel.batched import batch_call, want_in_batch
from agentos.kernel.budgets import Want
from agentos.kernel.counted import Counted, Sized
from agentos.kernel.departures import Departures, Perform
from agentos.kernel.failures import Preempted
from agentos.kernel.journal import Journal
from agentos.kernel.port import Configuration
from agentos.kernel.reply import check_reply, recordable
from agentos.kernel.ruling import Ruling
from agentos.kernel.tools import offer
from agentos.kernel.workspace import Workspaces
from agentos.projections import context
from agentos.sandbox.profile import standard

Still = Callable[[], Awaitable[None]]
"""Returns while the session is ours; raises SequenceConflict when it may not be, LogUnavailable when that cannot be told."""

Act = Callable[[Ruling, Still, Allowance], Awaitable[Result]]
"""Acts as a ruling says: with its arguments, inside its sandbox, within what is reserved. A driver that had to prepare asks
once more before it acts.
"""

STILL_US: Final = 2_000_000
"""Microseconds that a look at the log holds for: whoever has stood still for longer since looks again before it acts."""


class Acts:
    """Makes the acts of calls."""

    def __init__(
        self, drivers: Driver, models: ModelProvider, workspaces: Workspaces, now_us: Callable[[], int], batches: Batching | None
    ) -> None:
        """`now_us` is a clock in microseconds of which only differences mean something."""
        self.batches = batches
        self._drivers = drivers
        self._models = models
        self._workspaces = workspaces
        self._now_us = now_us
        self._counted = Counted()

    def of_tool(self, journal: Journal, configuration: Configuration, tool: ToolSpec, call: str, net: Perform) -> Act:
        """The act of a tool call. `net` takes what leaves for it through the gate."""
        own = class_of(journal.state, configuration)

        async def act(ruling: Ruling, still: Still, allowance: Allowance) -> Result:
            state, (decided, approved) = journal.state, journal.decisions[call]
            place = CallContext(
                tenant=journal.tenant,
                session=journal.session,
                call=call,
                workspace=self._workspaces.path(journal.tenant, journal.session),
                profile=hands.profile(hands.sandbox_name(tool, state.agent, configuration, ruling), configuration) or standard(),
                still=still,
                agent=state.agent,
                priority=own,
                labels=tuple(sorted(state.labels)),
                children=tuple(state.delegations.get(call, ())),
                decided=(decided.seq, decided.hash),
                approved=approved,
                secrets=hands.secrets(tool, configuration) if tool.credentials else {},
                lent=hands.lent(state, configuration, call),
            )
            bounded = allowance.bounded(tool)
            if not leaves(tool, place.profile):
                return await self._drivers.call(bounded, ruling.args, place)
            about: dict[str, Json] = {"call": call, "tool": tool.name}
            if starts_process(tool):
                about["sandbox"] = place.profile.name
            async with Departures(net, decided.seq, about) as departures:
                return await departures.during(self._drivers.call(bounded, ruling.args, replace(place, net=departures)))

        return act

    def of_model(
        self, journal: Journal, configuration: Configuration, model: str, ticket: Ticket | None = None
    ) -> tuple[Act, Callable[[], Want]]:
        """The act of a model call, and what it may use at most; the `data` of its result is the reply.

        What is asked is what the log says now, at the head that the call's arguments name. A `ticket` that is stopped stops it.
        What the model had said when its last call was stopped is given to it as the beginning of the answer, where its provider
        goes on from one; then that is part of the reply.
        """
        spec, endpoint, state = configuration.models[model], endpoint_of(model, configuration), journal.state
        said = beginning(journal.state) if endpoint.continues else ""
        asked = _request(journal, configuration, said)
        key, sized = (journal.tenant, journal.session), Sized(spec, asked)

        def want() -> Want:
            wanted = want_of_model(self._counted.most(key, sized, endpoint.added_tokens), endpoint)
            return want_in_batch(wanted, endpoint) if ticket is not None and ticket.batched else wanted

        async def ask(_ruling: Ruling, still: Still, allowance: Allowance) -> Result:
            request = replace(asked, max_output=allowance.output)
            try:
                async with allowance.in_time():
                    if ticket is None:
                        reply = await self._models.complete(spec, request, lambda _: allowance.began(self._now_us()))
                    elif ticket.batched and self.batches is not None:
                        reply = await self.batches.ask(batch_call(state, configuration, model, request, still))
                    else:
                        reply = await self._stoppable(spec, request, ticket, allowance)
                allowance.saw(reply.input_tokens, reply.output_tokens)
            finally:
                if ticket is not None:
                    ticket.billed, ticket.lost = allowance.tokens, allowance.lost
            if allowance.held is not None and allowance.tokens is not None:
                # Only who is bounded by it needs to know how many tokens these bytes were.
                self._counted.counted(key, sized, reply.input_tokens)
            check_reply(reply, taken=journal.state.calls)
            body = {
                "content": joined(said, [recordable(block) for block in reply.content]),
                "stop_reason": reply.stop_reason,
                "input_tokens": reply.input_tokens,
                "output_tokens": reply.output_tokens,
            }
            return Result(content="", data=body)

        return ask, want

    async def _stoppable(self, model: ModelSpec, request: ModelRequest, ticket: Ticket, allowance: Allowance) -> ModelReply:
        """Ask the model, until `ticket` is stopped. Raises Preempted then, with what it has said so far."""
        heard: list[str] = []

        def hear(text: str) -> None:
            allowance.began(self._now_us())
            heard.append(text)

        ticket.begun = True
        asked = asyncio.ensure_future(self._models.complete(model, request, hear))
        try:
            await asyncio.wait((asked, ticket.stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped = not asked.done()
            if stopped:
                asked.cancel()
                await asyncio.wait((asked,))
        # A reply that came at the same moment stands; an error then is of the stopping.
        if stopped and (asked.cancelled() or asked.exception() is not None):
            raise Preempted(
                "stopped for a session of a higher class that had waited too long", partial=request.beginning + "".join(heard)
            )
        return asked.result()


def _request(journal: Journal, configuration: Configuration, said: str) -> ModelRequest:
    agent = configuration.agents[journal.state.agent]
    narrowed = (journal.state.delegated or {}).get("tools")
    return ModelRequest(
        system=agent.instructions,
        messages=context.messages(journal.state),
        tools=[offer(configuration.tools[name]) for name in agent.tools if narrowed is None or name in narrowed],
        beginning=said,
    )


def joined(said: str, content: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """`content` behind what was said before it, as one text where it goes on with text."""
    if not said:
        return content
    if content and content[0]["type"] == "text":
        return [{**content[0], "text": said + content[0]["text"]}, *content[1:]]
    return [{"type": "text", "text": said}, *content]
