"""What a nats-server is told: accounts, users and permissions as frozen values, rendered to its configuration language.

    config = ServerConfig((Account("T-default", (User("UA…"),)),))
    text = render(config, home=Path("/home/me/.agentos/nats"), port=-1, system_key="UB…")

Pure. Every value is checked here before it is quoted, so that no name can smuggle in a directive.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_PAYLOAD: Final = 8 * 1024 * 1024
"""Bytes of the largest message: a blob or an event with a long result; above the server warns of latency."""

SYSTEM_ACCOUNT: Final = "SYS"

_ACCOUNT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,79}", re.ASCII)
_USER_KEY: Final = re.compile(r"U[A-Z2-7]{55}", re.ASCII)
_SUBJECT: Final = re.compile(r"[!#-&(-\[\]-~]+", re.ASCII)  # printable, no blank, no quote, no backslash


@dataclass(frozen=True, slots=True)
class User:
    """A user of an account, known by its NKey. `publish` and `subscribe` list the subjects it may use (`ctl.ops.>`).

    None: everything in the account. An empty tuple: nothing.
    """

    public_key: str
    publish: tuple[str, ...] | None = None
    subscribe: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()
    """Subjects that it may not publish to although `publish` is None."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the clients of one account may use; None: as much as the server has."""

    connections: int | None = None
    """At one time, of all users together. What is beyond is refused; where it is lowered, the newest are cut."""
    subscriptions: int | None = None
    """Of one connection: the server counts no others. Whoever makes more is cut."""
    payload: int | None = None
    """Bytes of a message. Whoever sends more is cut."""
    store: int | None = None
    """Bytes of all streams. What is beyond is refused, and nothing of it is stored; where it is lowered, what is there stays."""


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Account:
    """A wall: subjects and streams of one account cannot be seen from another."""

    name: str
    users: tuple[User, ...]
    jetstream: bool = True
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The accounts of a server, and how many bytes its streams may fill (None: as much as the disk gives)."""

    accounts: tuple[Account, ...] = ()
    max_store: int | None = None
    sync_always: bool = True
    """Off only where nothing is acknowledged to anybody: a restore has all of it on disk before the home is there."""


_CLOSED: Final = Account("NOBODY", (), jetstream=False)
"""An account without users, always there: a server whose only account is the system account lets anybody in."""


def render(config: ServerConfig, *, home: Path, port: int, system_key: str) -> str:
    """The configuration file of a server that keeps its state in `home` and listens on 127.0.0.1:`port` (-1: any free one).

    Loopback only, no monitoring port, every acknowledged message on disk (`sync_interval: always`, unless it is switched off).
    Raises ValueError for a name, key, subject or path that cannot be written safely, and for what stands twice.
    """
    names = [account.name for account in config.accounts]
    keys = [system_key, *(user.public_key for account in config.accounts for user in account.users)]
    for what, values in (("account", [SYSTEM_ACCOUNT, _CLOSED.name, *names]), ("user", keys)):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"{what} {twice[0]} stands twice")
    # The server adds the folder `jetstream` itself.
    store = [f"store_dir: {_path(home)}", *(["sync_interval: always"] if config.sync_always else [])]
    if config.max_store is not None:
        store.append(f"max_file_store: {int(config.max_store)}")
    return "\n".join(
        [
            "# Written by AgentOS at every start and change; edits are lost.",
            "host: 127.0.0.1",
            f"port: {int(port)}",
            f"ports_file_dir: {_path(home)}",
            f"log_file: {_path(home / 'nats.log')}",
            "logfile_size_limit: 10MB",
            "logfile_max_num: 3",
            f"max_payload: {MAX_PAYLOAD}",
            "jetstream {",
            *(f"  {line}" for line in store),
            "}",
            "accounts {",
            *_account(Account(SYSTEM_ACCOUNT, (User(system_key),), jetstream=False)),
            *_account(_CLOSED),
            *(line for account in config.accounts for line in _account(account)),
            "}",
            f"system_account: {SYSTEM_ACCOUNT}",
            "",
        ]
    )


def _account(account: Account) -> list[str]:
    if not _ACCOUNT.fullmatch(account.name):
        raise ValueError(f"{account.name!r} cannot name an account")
    lines = [f'  "{account.name}" {{']
    given = account.limits
    if account.jetstream:
        lines.append("    jetstream: enabled" if given.store is None else f"    jetstream {{ max_file: {_count(given.store)} }}")
    bounds = (("connections", given.connections), ("subscriptions", given.subscriptions), ("payload", given.payload))
    if any(most is not None for _, most in bounds):
        lines += ["    limits {", *(f"      max_{what}: {_count(most)}" for what, most in bounds if most is not None), "    }"]
    return [*lines, "    users [", *(f"      {_user(user)}" for user in account.users), "    ]", "  }"]


def _count(most: int) -> int:
    # The server takes 0 and less for "no limit".
    if most < 1:
        raise ValueError(f"{most} is no limit")
    return int(most)


def _user(user: User) -> str:
    if not _USER_KEY.fullmatch(user.public_key):
        raise ValueError(f"{user.public_key!r} is no public key of a user")
    rules = [
        f"{verb}: {_subjects(subjects)}"
        for verb, subjects in (("publish", user.publish), ("subscribe", user.subscribe))
        if subjects is not None
    ]
    if user.never and user.publish is None:
        rules.append(f"publish: {{ deny: {_subjects(user.never)} }}")
    permissions = f", permissions {{ {', '.join(rules)} }}" if rules else ""
    return f"{{ nkey: {user.public_key}{permissions} }}"


def _subjects(subjects: tuple[str, ...]) -> str:
    for subject in subjects:
        if not _SUBJECT.fullmatch(subject):
            raise ValueError(f"{subject!r} is no subject")
    if not subjects:
        return '{ deny: [">"] }'
    return f"[{', '.join(json.dumps(subject) for subject in subjects)}]"


def _path(path: Path) -> str:
    text = str(path)
    if not path.is_absolute() or not text.isprintable():
        raise ValueError(f"{text!r} cannot be written into the configuration of a nats-server")
    return json.dumps(text, ensure_ascii=False)
