"""Accounts and users: what the server is told of tenants and principals."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from agentos.abi.assets import asset
from agentos.abi.errors import UsageError
from agentos.boot.backend import PUBLIC, Embedded, External, Remote, account_of, sender_of, user_of
from agentos.eventlog.adapters.credentials import create_seed
from agentos.registry.principal import ROLES, Principal


class Seeded:
    """Random bytes that repeat."""

    def __init__(self) -> None:
        self._random = random.Random(7)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


ANN = Principal("ann", "acme", ("auditor",), create_seed(Seeded()).public_key, 0, "system/kernel")


def test_a_tenant_is_an_account() -> None:
    """One wall per tenant, and one for the fleet, whose names never meet."""
    assert (account_of("*"), account_of("default"), account_of("agentos")) == ("AGENTOS", "T-default", "T-agentos")


def test_a_principal_may_knock_at_its_own_door_only() -> None:
    """Publish below `ctl.<name>.`, hear below `_INBOX.<name>.`, and that is all."""
    user = user_of(ANN)
    assert (user.publish, user.subscribe) == (("ctl.ann.>",), ("_INBOX.ann.>",))


def test_each_role_may_send_what_it_has_verbs_for() -> None:
    """By the policy's own table: who has verbs can send them all, the public ones everybody, and who has none nothing else."""
    text = (asset("policies") / "agentos" / "control" / "rules" / "roles" / "roles.rego").read_text()
    table = text[text.index("verbs := {") :]
    verbs = {
        role: re.findall(r'"([a-z.-]+)",', body) for role, body in re.findall(r'\t"([a-z]+)": \{\n(.*?)\n\t\},', table, re.DOTALL)
    }
    everyone = re.search(r"everyone := \{([^}]*)\}", text)
    assert everyone is not None
    assert set(PUBLIC) == set(re.findall(r'"([a-z.]+)"', everyone[1]))
    assert verbs
    for role in ROLES:
        publish = user_of(replace(ANN, roles=(role,))).publish or ()
        able = {verb for verb in verbs.get(role, ()) if not any(_covers(subject, f"ctl.ann.{verb}") for subject in publish)}
        assert able == set(), role
        for subject in publish:
            known = [*PUBLIC, *verbs.get(role, ()), "evt"]
            assert any(_covers(subject, f"ctl.ann.{verb}") or subject.startswith("evt.ann.") for verb in known), (role, subject)


def _covers(pattern: str, subject: str) -> bool:
    return subject.startswith(pattern[:-1]) if pattern.endswith(">") else pattern == subject


def test_the_server_knows_valid_principals_in_their_own_account(tmp_path: Path) -> None:
    """The runtime and its sender of delegations alone are where the streams are; at the door stand the runtime and the valid
    principals, each in its own tenant; keys are made once and are private."""
    made = Embedded(tmp_path / "nats", tmp_path / "keys", Seeded(), 0)
    bob = replace(ANN, name="bob", tenant="*", public_key=create_seed(Seeded()).public_key)
    gone = replace(ANN, name="gone", revoked_ms=1)
    config = made._config(["globex", "acme"], [ANN, bob, gone])
    users = {account.name: [user.publish for user in account.users] for account in config.accounts}
    acme, globex = ((f"task.{made.sender(name).public_key}.>",) for name in ("acme", "globex"))
    assert users == {
        "AGENTOS": [None],
        "DOOR": [None, ("ctl.bob.>",)],
        "T-acme": [None, acme],
        "D-acme": [None, ("ctl.ann.>",)],
        "T-globex": [None, globex],
        "D-globex": [None],
    }
    assert {account.users[0].never for account in config.accounts if account.jetstream} == {("task.>",)}
    assert {account.name for account in config.accounts if account.jetstream} == {"AGENTOS", "T-acme", "T-globex"}
    assert made._config(["globex", "acme"], [ANN, bob, gone]) == config
    keys = list((tmp_path / "keys" / "nats").iterdir())
    assert len(keys) == 8
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert made.user_stanza(ANN) is None


def test_an_external_server_has_one_tenant_and_is_told_by_hand(tmp_path: Path) -> None:
    """More tenants are refused before anything happens; the line for its operator holds exactly the rights."""
    remote = Remote(External("nats://there:4222", tmp_path / "creds"), tmp_path / "keys", Seeded())
    remote.require(["default"])
    with pytest.raises(UsageError, match="tenant acme has no walls there"):
        remote.require(["default", "acme"])
    assert remote.user_stanza(ANN) == (
        f'{{ nkey: {ANN.public_key}, permissions {{ publish: "ctl.ann.>", subscribe: "_INBOX.ann.>" }} }}'
    )


def test_the_sender_of_delegations_may_send_as_itself_and_do_nothing_else(tmp_path: Path) -> None:
    """Publish below its own key, hear its own answers; each tenant has another one, on whichever server, and keeps it."""
    made = Embedded(tmp_path / "nats", tmp_path / "keys", Seeded(), 0)
    key = made.sender("acme")
    user = sender_of(key)
    assert (user.publish, user.subscribe) == ((f"task.{key.public_key}.>",), ("_INBOX.SENDER.>",))
    assert made.sender("acme") == key
    assert made.sender("globex") != key
    remote = Remote(External("nats://there:4222", tmp_path / "creds"), tmp_path / "keys", Seeded())
    assert remote.sender("acme") == key
