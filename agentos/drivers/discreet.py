"""Discreet: a way out that lets no address through which shows what was lent in the session.

Where a request goes stands in the log, and is looked up by name servers; so a process that has a value could tell it to both.
Such a request is asked about with the value masked, so that the log has the attempt, and does not leave whatever policy says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from agentos.credentials.mask import MASK, Masker
from agentos.egress.asking import Gatekeeper, NetDenied, NetRequest, Permit

SHOWN: Final = "its address shows a value that was lent to a tool: what is lent is for headers and bodies"
"""Why such a request does not leave."""


class Discreet:
    """A `Gatekeeper` in front of `net`; `masker` gives what masks the session's values now."""

    def __init__(self, net: Gatekeeper, masker: Callable[[], Masker]) -> None:
        self._net = net
        self._masker = masker

    async def ask(self, request: NetRequest) -> Permit:
        """See `Gatekeeper.ask`."""
        masker = self._masker()
        if masker.empty:
            return await self._net.ask(request)
        clean = _clean(request, masker)
        permit = _Quiet(await self._net.ask(clean), self._masker)
        if clean != request:
            await permit.failed(SHOWN)
            raise NetDenied(SHOWN)
        return permit


class _Quiet:
    """A `Permit` whose last words are masked."""

    def __init__(self, permit: Permit, masker: Callable[[], Masker]) -> None:
        self._permit = permit
        self._masker = masker

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        """See `Permit.finished`."""
        await self._permit.finished(status=status, sent=sent, received=received, address=address)

    async def failed(self, message: str) -> None:
        """See `Permit.failed`."""
        await self._permit.failed(self._masker().text(message))


def _clean(request: NetRequest, masker: Masker) -> NetRequest:
    """The request with what it shows masked; also what only its parts together show."""
    method, path = request.method or "", request.path or ""
    if not masker.spans(f"{method}\n{request.host}\n{path}".encode("utf-8", "surrogatepass")):
        return request
    clean = replace(
        request,
        host=masker.text(request.host),
        method=request.method and masker.text(method),
        path=request.path and masker.text(path),
    )
    return replace(request, host=MASK, path=request.path and f"/{MASK}") if clean == request else clean
