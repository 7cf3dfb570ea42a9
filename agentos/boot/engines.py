"""Where policy is decided: OPA in the process, in a server that the runtime owns, or in one that somebody else runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentos.abi.errors import EngineUnavailable, UsageError
from agentos.abi.ids import DEFAULT_TENANT
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.adapters.managed import ManagedFactory
from agentos.policy.port import Place, PolicyEngineFactory


@dataclass(frozen=True, slots=True)
class RemotePolicy:
    """The policy servers of somebody else, as an operator names them; see `RemoteSettings`."""

    url: str
    token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    bundles: Path | None = None
    """Where each tenant's bundle is written for its server to fetch; None: `bundles/` of the home."""


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Engines:
    """What makes the engines of a runtime."""

    deciding: PolicyEngineFactory
    """Makes those that decide."""

    checking: PolicyEngineFactory
    """Makes those that only tell whether modules load where they would decide; changes nothing there."""

    troubles: Callable[[], Sequence[str]] = tuple
    """Why some tenant gets no decision now, a sentence each."""

    close: Callable[[], None] = _nothing
    """Ends what the deciding engines run outside of the process."""

    one_tenant: str | None = None
    """Why there can be no tenant but `default`; None: there can."""

    def require(self, tenants: Collection[str]) -> None:
        """Raise UsageError for tenants that cannot be decided for."""
        others = sorted(set(tenants) - {DEFAULT_TENANT})
        if others and self.one_tenant is not None:
            raise UsageError(
                f"{self.one_tenant}, so tenant {others[0]} cannot have its own",
                mend="start the runtime with {tenant} in --policy-url, and a policy server for each tenant",
            )


async def make_engines(place: Place, *, remote: RemotePolicy | None = None, bundles: Path | None = None) -> Engines:
    """The engines for `place`; `remote` says which servers, `bundles` where their bundles are written if it does not.

    Raises EngineUnavailable for a managed engine without the pinned `opa`, and for a remote one that cannot be asked as told;
    IdentityError for a token that cannot be used. Where `opa` is at hand, the embedded engine moves a policy that passes its
    deadline to a process that can be killed.
    """
    if place is Place.REMOTE:
        return await asyncio.to_thread(_remote, remote, bundles)
    managed = ManagedFactory()
    if place is Place.EMBEDDED:
        # Whether `opa` is at hand is asked when the first policy has to move; without it the engine refuses as it did before.
        embedded = EmbeddedFactory(quarantine=managed)
        return Engines(embedded, embedded, close=managed.close)
    if not await asyncio.to_thread(lambda: managed.available):
        raise EngineUnavailable("the pinned `opa` program is not at hand", mend="make opa, or start with --policy embedded")
    return Engines(managed, managed, close=managed.close)


def _remote(remote: RemotePolicy | None, bundles: Path | None) -> Engines:
    # Imported where it is needed: most runtimes ask no remote server.
    from agentos.policy.adapters.remote import TENANT, RemoteFactory, RemoteSettings, to_folder

    if remote is None:
        raise EngineUnavailable("which policy server is not said", mend="give --policy-url URL")
    folder = remote.bundles or bundles
    factory = RemoteFactory(
        RemoteSettings(remote.url, remote.token_file, remote.certificate, remote.key, remote.authority),
        publish=to_folder(folder) if folder is not None else None,
    )
    factory.usable()
    one_tenant = None if TENANT in remote.url else f"the policy server {remote.url} holds the policies of one tenant"
    return Engines(factory, factory.checking, factory.troubles, factory.close, one_tenant)
