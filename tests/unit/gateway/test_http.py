"""The door over HTTP: who is let in, at which addresses it stands, and its token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agentos.abi.errors import IdentityError, UsageError
from agentos.gateway.http import Guard, listen, token_of

TOKEN = "t" * 40
GOOD = {"host": "127.0.0.1:8787", "authorization": f"Bearer {TOKEN}"}


async def asked(headers: list[tuple[str, str]], method: str = "POST") -> tuple[int, list[str]]:
    """The status that a request with these headers gets, 0 where it was let through, and who is said to have left."""
    status, left = 0, []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        return None

    async def gone(key: str) -> None:
        left.append(key)

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {"type": "http", "method": method, "headers": [(k.encode(), v.encode()) for k, v in headers]}
    await Guard(app, TOKEN, 8787, gone)(scope, None, send)  # type: ignore[arg-type]
    return status, left


@pytest.mark.parametrize("host", ["127.0.0.1:8787", "localhost:8787", "LOCALHOST:8787", "[::1]:8787"])
async def test_whoever_names_us_and_brings_the_token_is_let_in(host: str) -> None:
    """By each of our names, from a page of our own too."""
    assert await asked(list({**GOOD, "host": host}.items())) == (0, [])
    assert await asked([*GOOD.items(), ("origin", "http://localhost:8787")]) == (0, [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("authorization", GOOD["authorization"])], 421),
        ([*GOOD.items(), ("host", "evil.example:8787")], 421),
        (list({**GOOD, "host": "127.0.0.1:8788"}.items()), 421),
        (list({**GOOD, "host": "localhost:8787.evil.example"}.items()), 421),
        ([*GOOD.items(), ("origin", "https://localhost:8787")], 403),
        ([*GOOD.items(), ("origin", "null")], 403),
        ([*GOOD.items(), ("origin", "http://localhost:8787"), ("origin", "http://evil.example")], 403),
        ([("host", GOOD["host"])], 401),
        (list({**GOOD, "authorization": f"Bearer {TOKEN[:-1]}"}.items()), 401),
        (list({**GOOD, "authorization": f"Basic {TOKEN}"}.items()), 401),
        (list({**GOOD, "authorization": TOKEN}.items()), 401),
    ],
)
async def test_anybody_else_is_not(headers: list[tuple[str, str]], status: int) -> None:
    """Foreign or missing names, foreign origins, no token."""
    assert (await asked(headers))[0] == status


async def test_a_client_that_ends_its_session_has_left() -> None:
    """And only one that was let in."""
    ends = [*GOOD.items(), ("mcp-session-id", "abc")]
    assert await asked(ends, "DELETE") == (0, ["id abc"])
    assert await asked(ends[1:], "DELETE") == (421, [])


def test_it_stands_at_addresses_of_this_host_alone() -> None:
    """Anything else is refused before it is bound; so is a port that is taken."""
    for address in ("0.0.0.0:0", "10.0.0.1:80", "example.com:80", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ""):
        with pytest.raises(UsageError):
            listen(address)
    with listen("localhost:0") as taken, pytest.raises(UsageError):
        listen(f"127.0.0.1:{taken.getsockname()[1]}")


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """Then it is read again; one that others can read, or that can be guessed, is refused."""
    path = tmp_path / "token"
    token = token_of(path)
    assert len(token) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert token_of(path) == token
    path.chmod(0o640)
    with pytest.raises(IdentityError, match="read by others"):
        token_of(path)
    path.chmod(0o600)
    for text in ("short", "é" * 40, "a " * 40):
        path.write_text(text)
        with pytest.raises(IdentityError) as caught:
            token_of(path)
        assert text not in str(caught.value)
    with pytest.raises(IdentityError):
        token_of(tmp_path / "nowhere" / "token")


def test_a_token_that_somebody_else_has_put_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns the file knows what is in it."""
    path = tmp_path / "token"
    token_of(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(IdentityError, match="somebody else's"):
        token_of(path)
