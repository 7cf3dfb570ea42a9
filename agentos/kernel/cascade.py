"""Nobody outlives whom it works for: the children of a session that is over are cancelled, and so are theirs in turn.

Who works for whom is remembered here from the moment that children are named, and read from the index at start. A child that is
to end and is not there yet, because what begins it is still on its way, is ended as soon as it begins. What the log does not take
now is tried until it does.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from agentos.abi.errors import AgentOSError, Conflict, NotFound, PayloadErased, Relieved, Unavailable
from agentos.kernel.gate import SYSTEM
from agentos.kernel.port import Timer
from agentos.kernel.sessions import Sessions
from agentos.projections.session import OPEN, SessionState

log = logging.getLogger(__name__)

PAUSE_S: Final = 1.0
"""Seconds until a session that could not be ended is tried again."""

MOST_RECALLED: Final = 100_000
"""Children that are to end should they begin after all: so many are remembered. Who begins one looks at its parent as well."""

_Key = tuple[str, str]
"""Tenant and session."""


class Cascade:
    """The live children of every session, and their ending. `sessions` gives those that they are of."""

    def __init__(self, sessions: Callable[[], Sessions], timer: Timer) -> None:
        self._sessions = sessions
        self._timer = timer
        self._children: defaultdict[_Key, dict[str, str]] = defaultdict(dict)
        """By session: its children, each with the call that it was begun by."""
        self._parents: dict[_Key, str] = {}
        self._recalled: OrderedDict[_Key, str] = OrderedDict()
        """Children that are to end and were not there yet, and why."""
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, tenant: str, parent: str, call: str, child: str) -> None:
        """`child` works for `parent` from now on."""
        self._children[tenant, parent][child] = call
        self._parents[tenant, child] = parent

    def drop(self, tenant: str, child: str) -> None:
        """It does not any more: it is over, or does not begin."""
        parent = self._parents.pop((tenant, child), None)
        if parent is not None and (tenant, parent) in self._children:
            self._children[tenant, parent].pop(child, None)
            if not self._children[tenant, parent]:
                del self._children[tenant, parent]

    def recalled(self, tenant: str, child: str) -> bool:
        """Whether it is to end as soon as it begins."""
        return (tenant, child) in self._recalled

    def dismiss(
        self, tenant: str, parent: str, reason: str, *, call: str | None = None, but: Iterable[str] = (), only: str | None = None
    ) -> None:
        """End the children of `parent` in the background: all of them, those of one call, those not in `but`, or `only` one."""
        kept = set(but)
        for child, of in list(self._children.get((tenant, parent), {}).items()):
            if call in (None, of) and child not in kept and only in (None, child):
                self.drop(tenant, child)
                self._spawn(self.end(tenant, child, reason), f"end {child}")

    async def began(self, tenant: str, parent: str, call: str, child: str) -> None:
        """A child is there: one that is to end is ended. May be told more than once."""
        reason = self._recalled.pop((tenant, child), None)
        if reason is not None:
            await self.end(tenant, child, reason)
        elif child in self._sessions().live(tenant):
            self.add(tenant, parent, call, child)

    async def recover(self, tenant: str, live: Iterable[tuple[str, str]]) -> None:
        """At start: remember the children (session, parent) that there are, and end those that nobody waits for any more.

        Raises LogUnavailable.
        """
        by_parent: defaultdict[str, list[str]] = defaultdict(list)
        for child, parent in live:
            by_parent[parent].append(child)
        for parent, children in by_parent.items():
            try:
                state: SessionState | None = await self._sessions().state(tenant, parent)
            except (NotFound, PayloadErased):
                state = None
            for child in children:
                call = None if state is None or state.over else _open_call(state, child)
                self.add(tenant, parent, call or "", child)
                if call is None:
                    self.dismiss(tenant, parent, f"session {parent}, which delegated to it, waits for it no longer", only=child)

    async def end(self, tenant: str, child: str, reason: str) -> None:
        """End a session; one that is not there yet is ended when it begins. Tried until the log answers."""
        self.drop(tenant, child)
        while True:
            try:
                await self._sessions().cancel(tenant, child, reason=reason, actor=SYSTEM)
            except NotFound:
                self._recalled[tenant, child] = reason
                while len(self._recalled) > MOST_RECALLED:
                    self._recalled.popitem(last=False)
            except Relieved as error:
                log.warning("session %s is left to another runtime: %s", child, error)
            except (Conflict, Unavailable) as error:
                if not await self._is_over(tenant, child):
                    log.warning("session %s cannot be ended yet: %s", child, error)
                    await self._timer.sleep(PAUSE_S)
                    continue
            except AgentOSError as error:
                log.warning("session %s cannot be ended: %s", child, error)
            return

    async def close(self) -> None:
        """End nobody any more; after a restart `recover` does."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _is_over(self, tenant: str, session: str) -> bool:
        try:
            return (await self._sessions().state(tenant, session)).over
        except AgentOSError:
            return False

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _open_call(state: SessionState, child: str) -> str | None:
    """The call of a session that waits for `child`, or will."""
    found = (call for call, children in state.delegations.items() if child in children)
    return next((call for call in found if state.calls[call].step in OPEN), None)
