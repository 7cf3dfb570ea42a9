"""What an allowed call may use, and what it was seen to use: between its reservation and the record of its outcome.

An act keeps within `output` and `milliseconds`, and says what a model's reply used as soon as it knows (`saw`). `spent` is then
what the record of the outcome says, from which the books are settled (`kernel.booked`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from agentos.abi.canonical import Json, canonical
from agentos.abi.errors import DriverError
from agentos.abi.syscall import ToolEffect
from agentos.drivers.delegating import delegates
from agentos.drivers.port import ToolSpec
from agentos.kernel.budgets import FREE, Held, Want
from agentos.kernel.reply import is_count
from agentos.scheduler.declared import Endpoint, Price

MODEL_MS: Final = 600_000
"""The most time that a model call is given where there is a budget."""


def is_timeless(tool: ToolSpec) -> bool:
    """Whether the time of a call is not charged: it only waits for others, who pay for theirs, or to be told something;
    or it is part of another call, whose time is charged."""
    return delegates(tool) or "net" in tool.driver or tool.driver.get("builtin", {}).get("primitive") == "wait"


def want_of_tool(tool: ToolSpec, args: Mapping[str, Json]) -> Want:
    """What a call of a tool may use at most."""
    written = len(canonical(args)) if tool.effect is ToolEffect.WRITE else 0
    return Want(calls=1, milliseconds=0 if is_timeless(tool) else tool.timeout_ms, bytes=written)


def want_of_model(tokens: int, endpoint: Endpoint) -> Want:
    """What a call of a model may use at most whose request has at most so many tokens, and which gives the longest answer."""
    return Want(input=tokens, output=endpoint.max_output, price=endpoint.price, milliseconds=MODEL_MS)


@dataclass(slots=True)
class Allowance:
    """Of one call. `held` None: its tenant declares no budget, and nothing bounds it."""

    held: Held | None = None
    price: Price = FREE
    tokens: tuple[int, int] | None = None
    """Tokens of the request and of the answer, as the provider has counted them."""
    lost: bool = False
    """The call went out, and nobody can say what it used: unless its tokens are known, all that were reserved count."""
    timeless: bool = False
    """Whether the time that it takes is not charged, and not bounded: it waits in a batch, for others, or for a signal."""

    began_us: int | None = None
    """When a model said its first words, on the clock that its call is timed by; None: not yet."""

    @property
    def output(self) -> int | None:
        """The most tokens of an answer; None: not bounded."""
        return self.held.output if self.held is not None else None

    @property
    def milliseconds(self) -> int | None:
        """The most time that it may take; None: not bounded."""
        return self.held.milliseconds if self.held is not None else None

    def bounded(self, tool: ToolSpec) -> ToolSpec:
        """The tool, with the time-out that it may take."""
        if self.timeless or self.milliseconds is None or self.milliseconds >= tool.timeout_ms:
            return tool
        return replace(tool, timeout_ms=self.milliseconds)

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """A block that a model is asked in. Raises DriverError when it takes longer than it may."""
        seconds = None if self.milliseconds is None or self.timeless else self.milliseconds / 1000
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            self.lost = True
            raise DriverError(f"the model did not answer within the {seconds:g} s that its budget has left for a call") from error
        except DriverError as error:
            self.lost = self.lost or error.answered
            raise

    def began(self, now_us: int) -> None:
        """Note that a model has said something."""
        if self.began_us is None:
            self.began_us = now_us

    def told(self, started_us: int, now_us: int) -> dict[str, Json]:
        """The fields of the record of an outcome that time and use come to: `duration_us`, `first_us`, and those of `spent`."""
        first = {} if self.began_us is None else {"first_us": max(0, self.began_us - started_us)}
        return {"duration_us": now_us - started_us, **first, **self.spent(now_us - started_us)}

    def saw(self, input_tokens: int, output_tokens: int) -> None:
        """Note what the model has used, as it says itself; counts that no reply has are worth nothing."""
        if is_count(input_tokens) and is_count(output_tokens):
            self.tokens = input_tokens, output_tokens
        else:
            self.lost = True

    def spent(self, duration_us: int) -> dict[str, Json]:
        """The fields `spent` and `overdrawn` of the record of an outcome; none where there is nothing to settle."""
        tokens, cost = (sum(self.tokens), self.price.cost(*self.tokens)) if self.tokens is not None else (0, 0)
        time = 0 if self.timeless else -(-duration_us // 1000)
        if self.held is None:
            # Without a budget only money is told, which nobody could work out when prices are others, and that time is not.
            known = {"tokens": tokens, "microdollars": cost, "milliseconds": time}
            told = {"spent": {unit: amount for unit, amount in known.items() if amount or unit == "tokens"}}
            return told if cost or self.timeless else {}
        held = self.held.amounts
        if self.tokens is None and self.lost:
            tokens, cost = held.get("tokens", 0), held.get("microdollars", 0)
        used = {
            "tokens": tokens,
            "microdollars": cost,
            "calls": held.get("calls", 0),
            "milliseconds": time,
            "bytes": held.get("bytes", 0),
        }
        body: dict[str, Json] = {"spent": {unit: amount for unit, amount in used.items() if amount}}
        if over := {unit: amount - held.get(unit, 0) for unit, amount in used.items() if amount > held.get(unit, 0)}:
            body["overdrawn"] = over
        return body
