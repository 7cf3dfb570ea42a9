"""Who asks: an authenticated principal, as the control service hands it to the verbs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from agentos.abi.canonical import Json


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal behind a command. `tenant` is the tenant that the command acts on."""

    name: str
    roles: tuple[str, ...]
    tenant: str
    fleet: bool
    """Whether the principal may name any tenant; a tenant's own principal always acts on its tenant."""

    @property
    def actor(self) -> str:
        """How the log names this principal."""
        return f"principal/{self.name}"


Handler = Callable[[Caller, dict[str, Json]], Awaitable[Json]]
"""One verb. Raises AgentOSError; the client raises the same class again."""

Handlers = Mapping[str, Handler]
