"""Doors: how a driver that starts a process gets the way out for it, without knowing who keeps the proxy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from agentos.credentials.reference import Credential
from agentos.drivers.port import CallContext
from agentos.egress.asking import Gatekeeper
from agentos.sandbox.port import Door
from agentos.sandbox.profile import Profile

Now = Callable[[], Gatekeeper | None]
"""Who decides at the moment."""


class Doors(Protocol):
    """Makes doors."""

    def open(
        self, context: CallContext, profile: Profile, credentials: Sequence[Credential], now: Now | None = None
    ) -> AbstractAsyncContextManager[Door]:
        """A door for the process of one call, until the block is left: every request through it is asked about at `context.net`.

        With `now`, for a process that serves several calls, it is asked about at what that gives at the moment; None: denied.

        `credentials` are those that it puts into headers, by `context.leases`. Raises DriverError when there can be none.
        """
