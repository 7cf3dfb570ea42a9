"""The list of the streams that a log has had: which are there, which came, which were retired.

Whatever was named once is named in every later checkpoint. A stream that is gone and was not retired is an alarm; one that was
retired keeps its last size and root.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing

from agentos.abi.errors import EvidenceError
from agentos.audit.alarm import Alarm, Found, cut
from agentos.audit.checkpoint import Tree
from agentos.audit.retired import Retired, read_retired
from agentos.audit.rotation import TrustedKey
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import AUDIT_CHAIN, AUDIT_STREAM, event_streams


class StreamList:
    """The streams of `log`: always `fixed`, or, where that is None, the event streams that it has, as they come and go."""

    def __init__(self, log: EventLog, fixed: Sequence[str] | None) -> None:
        self.named: tuple[str, ...] = () if fixed is None else tuple(fixed)
        """What every checkpoint from now on names."""
        self.retired: dict[str, Retired] = {}
        """The streams that were dropped on purpose."""
        self._log = log
        self._fixed = fixed is not None
        self._audited = 0  # position up to which the audit chain was looked through

    @property
    def live(self) -> tuple[str, ...]:
        """The streams that are to be there."""
        return tuple(stream for stream in self.named if stream not in self.retired)

    async def ends(self, signed: Mapping[str, Tree], origin: str, keys: Sequence[TrustedKey]) -> dict[str, int]:
        """The streams that are there now, and the end of each. `signed` is what the last checkpoint says of them.

        Raises Found for one that ends before what was signed, or is gone, without having been retired; LogUnavailable.
        """
        if self._fixed:
            return {stream: await self._log.end(stream) for stream in self.named}
        ends = await self._log.ends()
        # Behind the look at the streams: what was retired is told in the audit chain before it is dropped.
        await self.see_retired(origin, keys)
        self.name((*ends, *signed, *self.retired))
        for stream, tree in signed.items():
            if stream in self.retired:
                _check_retired(self.retired[stream].tree, stream, tree)
            elif ends.get(stream, 0) < tree.size:
                end = await self._log.end(stream)
                if end < tree.size:
                    raise Found(cut(stream, end, f"{tree.size} are signed"))
                ends[stream] = end
        for stream, retired in self.retired.items():
            if ends.pop(stream, 0) > retired.tree.size:
                raise Found(Alarm("streams", stream, f"has events behind the {retired.tree.size} that it was retired with"))
        return ends

    async def new(self, known: Collection[str]) -> tuple[str, ...]:
        """Wait until there are streams that are not among `known`."""
        if self._fixed:
            never: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
            return await never
        found = await self._log.new_streams(known)
        self.name(found)
        return found

    async def see_retired(self, origin: str, keys: Sequence[TrustedKey]) -> None:
        """Take in what the audit chain says of streams that were retired. Raises Found for what was forged there."""
        if self._fixed:
            return
        async with aclosing(self._log.read(AUDIT_CHAIN, after=self._audited)) as events:
            async for stored in events:
                try:
                    found = read_retired(stored.data, origin, keys)
                except EvidenceError as error:
                    raise Found(Alarm("streams", f"{AUDIT_STREAM} position {stored.position}", error.message)) from error
                if found is not None:
                    self.retired.setdefault(found.stream, found)
                self._audited = stored.position

    def name(self, names: Collection[str]) -> None:
        """These were seen, or a checkpoint names them."""
        if not self._fixed:
            self.named = event_streams({*self.named, *names})


def _check_retired(last: Tree, stream: str, signed: Tree) -> None:
    if signed.size > last.size or (signed.size == last.size and signed.root != last.root):
        raise Found(Alarm("streams", stream, "was retired as something else than what was signed"))
