"""The verbs about secrets: where values are kept, whether they can be had, and never what they are."""

from __future__ import annotations

import os

import pytest

from agentos.abi.errors import NotFound, UsageError
from agentos.control.principal import Caller
from agentos.control.secret_verbs import SecretVerbs
from agentos.credentials.adapters.env import EnvSource
from agentos.credentials.broker import Broker
from agentos.credentials.reference import SecretRef

VALUE = "hunter2-hunter2-hunter2"
ANN = Caller("ann", ("operator",), "acme", fleet=False)
REFS = {
    "acme": {
        "short": SecretRef("short", "env", "SHORT"),
        "github": SecretRef("github", "env", "GITHUB", ("api.github.com",), 60),
        "unset": SecretRef("unset", "env", "UNSET"),
    },
    "other": {"theirs": SecretRef("theirs", "env", "GITHUB")},
}


class Now:
    """A clock that stands still, and the operating system's randomness."""

    def now_ms(self) -> int:
        return 0

    def token(self, size: int) -> bytes:
        return os.urandom(size)


def made() -> tuple[SecretVerbs, Broker]:
    broker = Broker({"env": EnvSource({"GITHUB": VALUE, "SHORT": "hunter2"})}, Now(), Now(), patience_s=0.01)
    return SecretVerbs(broker, REFS.__getitem__), broker


async def test_secrets_are_listed_with_who_has_them_now() -> None:
    """The tenant's own, by name, with the number of leases that hold at this moment."""
    verbs, broker = made()
    async with (
        broker.lease("acme", "s-1", "c-1", "", {"github": REFS["acme"]["github"]}),
        broker.lease("other", "s-1", "c-1", "", {"theirs": REFS["other"]["theirs"]}),
    ):
        answer = await verbs.list(ANN, {})
    assert answer["secrets"] == [
        {"name": "github", "source": "env", "hosts": ["api.github.com"], "lease_seconds": 60, "leases": 1},
        {"name": "short", "source": "env", "hosts": [], "lease_seconds": 3600, "leases": 0},
        {"name": "unset", "source": "env", "hosts": [], "lease_seconds": 3600, "leases": 0},
    ]


async def test_a_check_tells_no_value() -> None:
    """Whether a value can be lent and, if not, why: without the value, its length or a part of it."""
    verbs, broker = made()
    assert await verbs.check(ANN, {"name": "github"}) == {"name": "github", "source": "env", "ok": True}
    unset = await verbs.check(ANN, {"name": "unset"})
    assert (unset["ok"], unset["why"]) == (False, "the variable UNSET of the runtime's environment is not set")
    short = await verbs.check(ANN, {"name": "short"})
    assert not short["ok"]
    assert "hunter" not in str(short)
    assert broker.live() == []


async def test_what_is_not_there() -> None:
    """Another tenant's secret is not there; odd parameters are said."""
    verbs, _ = made()
    with pytest.raises(NotFound, match="tenant acme has no secret 'theirs'"):
        await verbs.check(ANN, {"name": "theirs"})
    with pytest.raises(UsageError):
        await verbs.check(ANN, {"name": "github", "show": True})
    with pytest.raises(UsageError):
        await verbs.list(ANN, {"values": True})
