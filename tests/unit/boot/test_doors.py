"""Where webhooks are taken, and what a publisher may do on the server."""

from __future__ import annotations

import pytest

from agentos.abi.errors import UsageError
from agentos.boot.backend import PUBLIC, user_of
from agentos.boot.doors import Listen
from agentos.registry.principal import Principal


@pytest.mark.parametrize(
    ("text", "host", "port", "local"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("[::1]:0", "::1", 0, True),
        ("localhost:80", "localhost", 80, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),  # noqa: S104 - the point is that this is told apart
        ("hooks.example:80", "hooks.example", 80, False),
    ],
)
def test_where(text: str, host: str, port: int, local: bool) -> None:
    """A place is a host and a port, and it is known whether other machines reach it."""
    place = Listen.parse(text)
    assert (place.host, place.port, place.local) == (host, port, local)


@pytest.mark.parametrize("text", ["", "8080", ":8080", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1"])
def test_no_place(text: str) -> None:
    """Anything else is told at once."""
    with pytest.raises(UsageError, match="no place to listen"):
        Listen.parse(text)


def test_what_a_publisher_may_send() -> None:
    """A publisher sends below its own name; nobody else sends events, and nobody of the fleet does."""

    def subjects(tenant: str, *roles: str) -> tuple[str, ...]:
        return user_of(Principal("shop", tenant, roles, "U" + "A" * 55, 0, "principal/op")).publish or ()

    assert subjects("default", "publisher") == (*(f"ctl.shop.{verb}" for verb in PUBLIC), "evt.shop.>")
    assert subjects("default", "operator", "approver") == ("ctl.shop.>",)
    assert subjects("*", "publisher") == tuple(f"ctl.shop.{verb}" for verb in PUBLIC)
