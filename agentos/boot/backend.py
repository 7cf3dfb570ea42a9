"""Where the log lives: an embedded nats-server of our own, or a server that somebody else runs.

One account per tenant (`T-<tenant>`) and one for the fleet (`AGENTOS`, with the registry) hold the streams, and nobody but the
runtime can enter them. Beside each stands another one, its *door* (`D-<tenant>`, `DOOR`), without any stream, where principals
knock: each may publish what its roles are for (`ctl.<name>.…`, `evt.<name>.…`), subscribe below `_INBOX.<name>.`, and nothing
else. What principals do to their door (all of its connections, floods) does not reach the log, the sessions, or another tenant.

Delegations are sent by a user of their own: of each tenant the runtime holds a second key, and that user may publish below
`task.<its key>.` and hear its own answers, nothing else. Nobody else may publish below `task.`, not the runtime's first user
either.
On a server of somebody else's the key signs, and the one user that there is sends: who else can publish in that account is for
its operator to say, and what is not signed with the key begins nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from nats.aio.client import Client

from agentos.abi.errors import Unavailable, UsageError
from agentos.abi.ids import DEFAULT_TENANT, FLEET, Random
from agentos.boot.walls import PLAIN, Walls, room_of, shares
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import NKey, create_seed, read_seed, write_seed
from agentos.eventlog.adapters.nats_server import ANY_PORT, NatsServer
from agentos.eventlog.adapters.server_config import Account, Limits, ServerConfig, User
from agentos.eventlog.adapters.tasks import SUBJECTS
from agentos.registry.principal import PUBLISHER, Principal

log = logging.getLogger(__name__)

FLEET_ACCOUNT: Final = "AGENTOS"

MOST_REPLICAS: Final = 5
"""What JetStream keeps at most."""

INBOX: Final = "_INBOX.RUNTIME"
"""Where the runtime gets its own answers: no principal can have a name in capitals, and so none can listen there."""

SENDER_INBOX: Final = "_INBOX.SENDER"
"""Where the sender of delegations gets its answers."""

FLEET_DOOR: Final = "DOOR"

PUBLIC: Final = ("runtime.status", "audit.keys", "evidence.key")
"""Verbs that every principal may send, whatever its roles: the policy lets everyone ask them."""

KNOCKS: Final[Mapping[str, tuple[str, ...]]] = {
    "operator": (">",),
    "compliance": (">",),
    "auditor": (">",),
    "approver": (">",),
    "agent": ("gateway.>",),
    "worker": (),
    PUBLISHER: (),
}
"""What each role may send beyond that. Who has verbs at all may send any: policy refuses the others, and says who could."""

RUNTIMES: Final = 1
"""Connections of the runtime into each door."""

MAX_SUBSCRIPTIONS: Final = 1024
"""Subscriptions of one connection into a door: the runtime's has one for each verb, a principal's one for each question."""

STORE: Final = 1 << 60
"""What the server believes that it has. It promises accounts no more than that, and the disk is dealt out by `boot.walls`."""

BACK_S: Final = 5.0
"""Seconds in which the runtime is to be back in its doors after the server died, before others may come in."""

_LOOK_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class External:
    """A NATS server that somebody else runs: its URL and a file with the runtime's credentials."""

    url: str
    creds: Path


class Backend(Protocol):
    """The server, as the runtime uses it."""

    @property
    def url(self) -> str:
        """Where clients connect."""

    async def start(self, tenants: Collection[str]) -> None:
        """Make the server ready, with accounts for the fleet and `tenants`, and no principals yet. Raises Unavailable."""

    def require(self, tenants: Collection[str]) -> None:
        """Whether the server can hold the walls of `tenants`. Raises UsageError."""

    async def update(
        self, tenants: Collection[str], principals: Collection[Principal], walls: Mapping[str, Walls] | None = None
    ) -> None:
        """Put accounts, principals and limits in force while connections stay; keys that are no one's any more are cut off."""

    async def room(self) -> int | None:
        """Bytes that the logs of all tenants may fill together; None where nobody can tell."""

    def log_bytes(self, tenant: str) -> int | None:
        """Bytes that the log of `tenant` may fill, as it is in force; None where nobody can tell."""

    def walls(self, tenant: str) -> Walls:
        """The limits of `tenant` as they are in force."""

    async def connect(self, tenant: str) -> Client:
        """A connection of the runtime into the account of `tenant` (`*`: the fleet's)."""

    async def connect_door(self, tenant: str) -> Client:
        """A connection of the runtime to where the principals of `tenant` (`*`: the fleet's) knock."""

    def sender(self, tenant: str) -> NKey:
        """The key that signs what is delegated in `tenant`. Raises IdentityError for one that cannot be read."""

    async def connect_sender(self, tenant: str) -> Client:
        """A connection that sends what is delegated in `tenant`: it can do nothing else where we say who may do what."""

    def user_stanza(self, principal: Principal) -> str | None:
        """What an operator of an external server must add for `principal`; None where we do it ourselves."""

    async def facts(self) -> dict[str, str | bool]:
        """`server`, `sync`, `store`: what the server says of itself."""

    async def most_replicas(self) -> int:
        """How many replicas of a stream the server can keep at most, as far as it can be told. Raises Unavailable."""

    async def died(self) -> str:
        """Wait until a server of our own has ended; say how. Never returns for an external one."""

    async def stop(self) -> None:
        """Stop a server of our own."""


def account_of(tenant: str) -> str:
    """The NATS account of `tenant`."""
    return FLEET_ACCOUNT if tenant == FLEET else f"T-{tenant}"


def door_of(tenant: str) -> str:
    """The NATS account where the principals of `tenant` knock."""
    return FLEET_DOOR if tenant == FLEET else f"D-{tenant}"


def user_of(principal: Principal) -> User:
    """A principal as a user of the server: it may send what its roles are for, and hear its own answers."""
    verbs = {verb for role in principal.roles for verb in KNOCKS.get(role, ())}
    knocks = [">"] if ">" in verbs else [*PUBLIC, *sorted(verbs)]
    events = (f"evt.{principal.name}.>",) if PUBLISHER in principal.roles and not principal.fleet else ()
    may = (*(f"ctl.{principal.name}.{verb}" for verb in knocks), *events)
    return User(principal.public_key, publish=may, subscribe=(f"_INBOX.{principal.name}.>",))


def sender_of(key: NKey) -> User:
    """The sender of delegations as a user of the server."""
    return User(key.public_key, publish=(f"task.{key.public_key}.>",), subscribe=(f"{SENDER_INBOX}.>",))


class Embedded:
    """A nats-server child of the runtime, all of its state in the home."""

    def __init__(self, folder: Path, keys: Path, random: Random, port: int, *, sync_always: bool = True) -> None:
        self._keys = keys / "nats"
        self._sync_always = sync_always
        self._random = random
        self._folder = folder
        self._room = 0
        self._dealt: Mapping[str, int] = {}
        self._walls: Mapping[str, Walls] = {}
        self._known: tuple[frozenset[str], tuple[Principal, ...]] = (frozenset(), ())
        self._doors: list[Client] = []
        self._server = NatsServer(folder, ServerConfig(()), random=random, port=port or ANY_PORT)

    @property
    def url(self) -> str:
        return self._server.url

    async def start(self, tenants: Collection[str]) -> None:
        self._room = await asyncio.to_thread(room_of, self._folder)
        self._known = (frozenset(tenants), ())
        self._server.config = self._config(*self._known)
        await self._server.start()

    def require(self, tenants: Collection[str]) -> None:
        return

    async def restart(self) -> None:
        """Start the server again after it died, on the same port; principals come in after the runtime.

        Whoever took all the connections of a door meanwhile would keep the runtime out of it.
        """
        await self._server.stop()
        self._server.config = self._config(self._known[0], ())
        await self._server.start()
        self._doors = [door for door in self._doors if not door.is_closed]
        await self._back_at_the_doors()
        # What is known by now: principals may have come and gone meanwhile.
        await self._reload()

    async def update(
        self, tenants: Collection[str], principals: Collection[Principal], walls: Mapping[str, Walls] | None = None
    ) -> None:
        self._known = (frozenset(tenants), tuple(principals))
        if walls is not None:
            self._walls = dict(walls)
        await self._reload()

    async def room(self) -> int | None:
        return self._room

    def log_bytes(self, tenant: str) -> int | None:
        return self._dealt.get(tenant)

    def walls(self, tenant: str) -> Walls:
        return self._walls.get(tenant, PLAIN)

    async def _back_at_the_doors(self) -> None:
        """Wait until the runtime is connected to every door again, for `BACK_S` at most."""
        give_up = asyncio.get_running_loop().time() + BACK_S
        for door in self._doors:
            while not door.is_connected:
                if asyncio.get_running_loop().time() > give_up:
                    log.warning("not all doors were taken up again within %g s after the server died", BACK_S)
                    return
                await asyncio.sleep(_LOOK_S)

    async def _reload(self) -> None:
        config = self._config(*self._known)
        if config != self._server.config:
            await self._server.reload(config)

    async def connect(self, tenant: str) -> Client:
        return await connect(
            self._server.url,
            self._key(tenant),
            name=f"runtime {account_of(tenant)}",
            inbox_prefix=INBOX,
            reconnect=True,
        )

    async def connect_door(self, tenant: str) -> Client:
        name = f"runtime {door_of(tenant)}"
        door = await connect(self._server.url, self._door_key(tenant), name=name, inbox_prefix=INBOX, reconnect=True)
        self._doors.append(door)
        return door

    def sender(self, tenant: str) -> NKey:
        return _key(self._keys / f"{account_of(tenant)}.sender.nk", self._random)

    async def connect_sender(self, tenant: str) -> Client:
        name = f"sender {account_of(tenant)}"
        return await connect(self._server.url, self.sender(tenant), name=name, inbox_prefix=SENDER_INBOX, reconnect=True)

    def user_stanza(self, principal: Principal) -> str | None:
        return None

    async def facts(self) -> dict[str, str | bool]:
        found = await self._server.server_facts()
        return {
            "server": f"nats-server {found.version}, embedded, pid {self._server.pid}",
            "sync": "always" if found.sync_always else "interval: an acknowledged event may be lost in a power cut",
            "sync_always": found.sync_always,
            "store": found.store_dir,
        }

    async def most_replicas(self) -> int:
        return 1

    async def died(self) -> str:
        status = await self._server.wait()
        return f"signal {-status}" if status < 0 else f"status {status}"

    async def stop(self) -> None:
        await self._server.stop()

    def _config(self, tenants: Collection[str], principals: Collection[Principal]) -> ServerConfig:
        self._dealt = shares(self._room, tenants, self._walls)
        accounts = []
        for tenant in (FLEET, *sorted(tenants)):
            senders = [] if tenant == FLEET else [sender_of(self.sender(tenant))]
            runtime = User(self._key(tenant).public_key, never=(SUBJECTS,))
            log_limits = Limits(store=self._dealt.get(tenant))
            accounts.append(Account(account_of(tenant), (runtime, *senders), limits=log_limits))
            users = [user_of(one) for one in principals if one.valid and one.tenant == tenant]
            walls = self.walls(tenant)
            at_the_door = Limits(walls.connections + RUNTIMES, MAX_SUBSCRIPTIONS, walls.message_kib * 1024)
            knocking = User(self._door_key(tenant).public_key)
            accounts.append(Account(door_of(tenant), (knocking, *users), jetstream=False, limits=at_the_door))
        return ServerConfig(tuple(accounts), STORE, sync_always=self._sync_always)

    def _key(self, tenant: str) -> NKey:
        return _key(self._keys / f"{account_of(tenant)}.nk", self._random)

    def _door_key(self, tenant: str) -> NKey:
        return _key(self._keys / f"{door_of(tenant)}.nk", self._random)


def _key(path: Path, random: Random) -> NKey:
    """The key in `path`, made if there is none."""
    if not path.exists():
        write_seed(path, create_seed(random))
    return read_seed(path)


class Remote:
    """A server that somebody else runs. The credentials lead into one account, so there is one tenant: `default`."""

    def __init__(self, external: External, keys: Path, random: Random) -> None:
        self._external = external
        self._keys = keys / "nats"
        self._random = random
        self._walls: Mapping[str, Walls] = {}

    @property
    def url(self) -> str:
        return self._external.url

    async def start(self, tenants: Collection[str]) -> None:
        client = await self.connect(FLEET)
        await client.close()

    async def update(
        self, tenants: Collection[str], principals: Collection[Principal], walls: Mapping[str, Walls] | None = None
    ) -> None:
        # Who may connect there, and how large its store is, is for its operator to say.
        if walls is not None:
            self._walls = dict(walls)

    async def room(self) -> int | None:
        return None

    def log_bytes(self, tenant: str) -> int | None:
        return None

    def walls(self, tenant: str) -> Walls:
        return self._walls.get(tenant, PLAIN)

    def require(self, tenants: Collection[str]) -> None:
        extra = sorted(set(tenants) - {DEFAULT_TENANT})
        if extra:
            raise UsageError(
                f"the credentials of {self._external.url} lead into one account, so tenant {extra[0]} has no walls there",
                mend="use the embedded server for several tenants",
            )

    async def connect(self, tenant: str) -> Client:
        return await connect(
            self._external.url,
            self._external.creds,
            name=f"runtime {account_of(tenant)}",
            inbox_prefix=INBOX,
            reconnect=True,
        )

    async def connect_door(self, tenant: str) -> Client:
        return await self.connect(tenant)

    def sender(self, tenant: str) -> NKey:
        # It never opens a connection: a server that is not ours hears nothing signed with it but envelopes.
        return _key(self._keys / f"{account_of(tenant)}.sender.nk", self._random)

    async def connect_sender(self, tenant: str) -> Client:
        return await self.connect(tenant)

    def user_stanza(self, principal: Principal) -> str | None:
        user = user_of(principal)
        words = [f'"{subject}"' for subject in user.publish or ()]
        publish = words[0] if len(words) == 1 else f"[{', '.join(words)}]"
        return f'{{ nkey: {user.public_key}, permissions {{ publish: {publish}, subscribe: "{(user.subscribe or ())[0]}" }} }}'

    async def facts(self) -> dict[str, str | bool]:
        client = await self.connect(FLEET)
        version = client.connected_server_version
        await client.close()
        return {
            "server": f"nats-server {version}, external at {self._external.url}",
            "sync": "unknown: the account cannot ask the server; see its sync_interval",
            "sync_always": False,
            "store": "external",
        }

    async def most_replicas(self) -> int:
        client = await self.connect(FLEET)
        clustered = bool(client._server_info.get("cluster"))  # noqa: SLF001 - there is no public way
        await client.close()
        # How many servers there are is the cluster's own business: where they are too few it says so.
        return MOST_REPLICAS if clustered else 1

    async def died(self) -> str:
        raise Unavailable("an external server is not ours to watch")

    async def stop(self) -> None:
        return
