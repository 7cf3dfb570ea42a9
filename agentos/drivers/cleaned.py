"""Outputs of tools, cleaned of what was lent in their session before anybody keeps them."""

from __future__ import annotations

from collections.abc import Callable

from agentos.credentials.broker import Broker


class Cleaned:
    """`drivers.output.Outputs`: masks by `broker`, keeps by `keep` (tenant, session, data, gives the digest; may block)."""

    def __init__(self, broker: Broker, keep: Callable[[str, str, bytes], str]) -> None:
        self._broker = broker
        self._keep = keep

    def clean(self, tenant: str, session: str, data: bytes) -> bytes:
        """See `Outputs.clean`."""
        return self._broker.masker(tenant, session).bytes(data)

    def keep(self, tenant: str, session: str, data: bytes) -> str:
        """See `Outputs.keep`. What was not cleaned yet is cleaned here."""
        return self._keep(tenant, session, self.clean(tenant, session, data))
