"""The verb about arbitration: sched.top."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace

from agentos.abi.canonical import Json
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.scheduler.top import Top, only, to_dict


class SchedVerbs:
    """`top` looks at endpoints: all (None) or those named; `visible` names those (`tenant/model`) a tenant has or was lent."""

    def __init__(self, top: Callable[[Container[str] | None], Top], visible: Callable[[str], Container[str]]) -> None:
        self._top = top
        self._visible = visible

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {"sched.top": self.top}

    async def top(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{all?} → what runs, waits and goes next (`schemas/v1/top.json`).

        A tenant sees its own endpoints, and of those that it shares with others its own turns and what the others have together.
        `all` shows everything, to principals of the fleet; to others it changes nothing.
        """
        take = Params(params)
        everything = take.flag("all")
        take.end()
        if caller.fleet and everything:
            return to_dict(self._top(None))
        # Of what is not shown nothing is worked out either: whoever looks all the time slows nobody else's queues.
        top = self._top(self._visible(caller.tenant))
        seen = [only(one, caller.tenant) for one in top.endpoints]
        return to_dict(replace(top, endpoints=tuple(seen)))
