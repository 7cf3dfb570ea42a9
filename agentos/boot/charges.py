"""The past of the charge counters, read from the event logs of the tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

from agentos.abi.canonical import NotCanonical
from agentos.abi.errors import ChainBroken
from agentos.abi.event import Event
from agentos.abi.record import header_of
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import is_session_stream
from agentos.kernel.charges import History

_MARK: Final = b'"charged":'
"""How a charge stands in the header of an event; few have it, and the others need not be decoded."""


def charged_events(logs: Callable[[str], EventLog]) -> History:
    """The headers of a tenant that name a charge, stream by stream; `logs` gives a tenant's log as it is stored."""

    async def history(tenant: str) -> AsyncIterator[Event]:
        log = logs(tenant)
        for stream in filter(is_session_stream, await log.streams()):
            async with aclosing(log.scan(stream)) as messages:
                async for stored in messages:
                    header = header_of(stored.data)
                    if _MARK not in header:
                        continue
                    try:
                        yield Event.from_bytes(header)
                    except (NotCanonical, LookupError, ValueError) as error:
                        # Overlooked, it would let more calls through than there may be.
                        where = f"{stored.subject} in {stream} at {stored.position}"
                        raise ChainBroken(f"what was charged cannot be told: no event of ours ({error})", where=where) from error

    return history
