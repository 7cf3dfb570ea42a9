"""The configuration of a nats-server as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentos.eventlog.adapters.server_config import Account, Limits, ServerConfig, User, render

SYSTEM, ONE, TWO = (f"U{letter * 55}" for letter in "SAB")
HOME = Path("/srv/agent os/nats")


def rendered(*accounts: Account, home: Path = HOME, max_store: int | None = None) -> str:
    return render(ServerConfig(accounts, max_store), home=home, port=-1, system_key=SYSTEM)


def test_a_configuration_is_printed_whole(snapshot):
    """Loopback, no monitoring, synced store, accounts, users and their permissions."""
    users = (User(ONE), User(TWO, publish=("ctl.ops.>", "$JS.API.INFO"), subscribe=("_INBOX.ops.>",)))
    assert rendered(Account("T-default", users), Account("CONTROL", (), jetstream=False), max_store=10_000_000) == snapshot


def test_the_smallest_configuration_still_has_an_account(snapshot):
    """Without accounts there is one that nobody can enter, because a server with the system account alone is open."""
    assert rendered() == snapshot


def test_permissions_may_be_all_or_nothing():
    """None leaves everything in the account open, an empty tuple closes it."""
    text = rendered(Account("A", (User(ONE, publish=None, subscribe=()),)))
    assert 'permissions { subscribe: { deny: [">"] } }' in text
    assert "publish" not in text


def test_a_user_may_be_kept_from_a_few_subjects():
    """Everything but those: only of a user that may publish everything, or it would say two things."""
    text = rendered(Account("A", (User(ONE, never=("task.>",)), User(TWO, publish=("a",), never=("task.>",)))))
    assert 'permissions { publish: { deny: ["task.>"] } }' in text
    assert text.count("deny") == 1


@pytest.mark.parametrize(
    "account",
    [
        Account("", ()),
        Account("a b", ()),
        Account('A" {', ()),
        Account("A\n", ()),
        Account("A", (User("SU" + "A" * 56),)),
        Account("A", (User(ONE.lower()),)),
        Account("A", (User(ONE + "\n"),)),
        *(Account("A", (User(ONE, publish=(subject,)),)) for subject in ("", "a b", 'a"', "a\\", "a\n", "ü", "a'")),
        Account("SYS", ()),
        Account("NOBODY", ()),
        Account("A", (User(SYSTEM),)),
        Account("A", (User(ONE), User(ONE))),
    ],
)
def test_what_cannot_be_written_safely_is_refused(account):
    """Names, keys and subjects that could end a string, and names and keys that stand twice, raise ValueError."""
    with pytest.raises(ValueError, match=r"cannot name an account|no public key|is no subject|stands twice"):
        rendered(account)


def test_limits_are_printed_where_they_are_given():
    """Those of the clients and that of the store; 0, which the server takes for none, is refused."""
    text = rendered(
        Account("D", (User(ONE),), jetstream=False, limits=Limits(5, 64, 65536)), Account("T", (), limits=Limits(store=9))
    )
    assert "limits {\n      max_connections: 5\n      max_subscriptions: 64\n      max_payload: 65536\n    }" in text
    assert "jetstream { max_file: 9 }" in text
    assert text.count("limits {") == 1
    for limits in (Limits(0), Limits(subscriptions=-1), Limits(payload=0), Limits(store=0)):
        with pytest.raises(ValueError, match="is no limit"):
            rendered(Account("A", (), limits=limits))


def test_an_account_stands_once():
    """Two accounts of one name raise ValueError."""
    with pytest.raises(ValueError, match="account A stands twice"):
        rendered(Account("A", (User(ONE),)), Account("A", (User(TWO),)))


@pytest.mark.parametrize("home", [Path("relative"), Path("/a\nb"), Path("/a\x00b")])
def test_a_home_that_cannot_be_written_is_refused(home):
    """Relative paths and control characters raise ValueError."""
    with pytest.raises(ValueError, match="cannot be written"):
        rendered(home=home)
