"""Getting to a server: what is said when it is not there, or does not let us in; files of credentials."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import subprocess

import nkeys
import pytest
from nats.errors import Error as NatsError

from agentos.abi.errors import IdentityError, Unavailable
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.credentials import write_seed
from agentos.eventlog.adapters.server_binary import find_server
from agentos.eventlog.adapters.server_config import Account, User


@pytest.fixture
def closed_port():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


async def test_an_absent_server_is_told_at_once_and_nothing_is_printed(closed_port, new_key, capfd):
    """Without a server `connect` raises Unavailable with the address, at once, in either mode, in silence."""
    for reconnect in (False, True):
        async with asyncio.timeout(2):
            with pytest.raises(Unavailable, match="no NATS server answers") as caught:
                await connect(f"nats://127.0.0.1:{closed_port}", new_key(), name="test", reconnect=reconnect)
        assert caught.value.where == f"nats://127.0.0.1:{closed_port}"
        assert caught.value.mend
    assert capfd.readouterr() == ("", "")


async def test_a_wrong_key_is_an_identity_error_and_nothing_is_printed(log_server, new_key, capfd, caplog):
    """A key that the server does not know raises IdentityError, at once, in either mode, in silence."""
    for reconnect in (False, True):
        async with asyncio.timeout(2):
            with pytest.raises(IdentityError, match="refuses the credentials of mallory"):
                await connect(log_server.url, new_key(), name="mallory", reconnect=reconnect)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize("url", ["", "nats://", "nats://127.0.0.1:port", "nats://127.0.0.1:99999999"])
async def test_an_address_that_is_none_is_said(url, new_key):
    """An address that cannot be read raises Unavailable."""
    with pytest.raises(Unavailable):
        await connect(url, new_key(), name="test")


async def test_something_else_on_the_port_is_unavailable(new_key):
    """A listener that is no NATS server raises Unavailable."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match="no NATS server answers"):
            await connect(f"nats://127.0.0.1:{port}", new_key(), name="test")


async def test_a_seed_file_opens_the_door(open_account, tmp_path):
    """The key may be handed over as a file; one that others can read is refused before anything is sent."""
    async with open_account() as door:
        path = tmp_path / "keys" / "me.nk"
        write_seed(path, door.key)
        client = await connect(door.url, path, name="me")
        assert client.is_connected
        await client.close()
        path.chmod(0o644)
        with pytest.raises(IdentityError, match="can be read by others"):
            await connect(door.url, path, name="me")


def signed(issuer: nkeys.KeyPair, subject: str, kind: str) -> str:
    """A NATS JWT (version 2) about `subject`, signed by `issuer`."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    claims = {"jti": subject, "iat": 1, "iss": issuer.public_key.decode(), "sub": subject, "nats": {"type": kind, "version": 2}}
    if kind == "account":
        claims["nats"]["limits"] = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1}
    if kind == "user":
        claims["nats"] |= {"subs": -1, "data": -1, "payload": -1}
    body = f"{part(json.dumps({'typ': 'JWT', 'alg': 'ed25519-nkey'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{body}.{part(issuer.sign(body.encode()))}"


async def test_a_creds_file_opens_the_door_of_somebody_elses_server(tmp_path, new_key):
    """On a server with operator and JWTs, as NATS clusters have them, a creds file lets its user in and no other."""
    operator, account = (
        nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind))
        for kind in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT)
    )
    operator_id, account_id, user = operator.public_key.decode(), account.public_key.decode(), new_key()
    config = tmp_path / "cluster.conf"
    config.write_text(
        f"host: 127.0.0.1\nport: -1\noperator: {signed(operator, operator_id, 'operator')}\n"
        f"resolver: MEMORY\nresolver_preload {{ {account_id}: {signed(operator, account_id, 'account')} }}\n"
    )
    for name, key in (("user", user), ("thief", new_key())):
        (tmp_path / f"{name}.creds").write_text(
            f"-----BEGIN NATS USER JWT-----\n{signed(account, user.public_key, 'user')}\n------END NATS USER JWT------\n"
            f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n"
        )
        (tmp_path / f"{name}.creds").chmod(0o600)
    with subprocess.Popen([find_server(), "-c", str(config)], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            heard_on = next(line for line in process.stderr if "Listening for client connections on" in line)
            url = f"nats://{heard_on.split()[-1]}"
            client = await connect(url, tmp_path / "user.creds", name="user")
            heard = await client.subscribe("hello")
            await client.publish("hello", b"there")
            assert (await heard.next_msg(timeout=10)).data == b"there"
            await client.close()
            with pytest.raises(IdentityError):
                await connect(url, tmp_path / "thief.creds", name="thief")
        finally:
            process.terminate()


async def test_a_lost_server_fails_waiting_questions_and_comes_back(own_server, new_key, caplog):
    """When the server dies a request under way fails at once; a reconnecting client is back on it after its restart."""
    caplog.set_level(logging.WARNING)
    key = new_key()
    server = own_server(Account("A", (User(key.public_key),)))
    await server.start()
    asker = await connect(server.url, key, name="asker", reconnect=True)
    brief = await connect(server.url, key, name="brief")
    asked = asyncio.Event()

    async def never(_: object) -> None:
        asked.set()

    await asker.subscribe("never", cb=never)
    question = asyncio.create_task(asker.request("never", b"", timeout=60))
    await asyncio.wait_for(asked.wait(), 10)
    server._process.kill()
    await server.wait()
    with pytest.raises(NatsError):
        await asyncio.wait_for(question, 10)
    await server.start()
    asked.clear()
    async with asyncio.timeout(10):
        question = asyncio.create_task(asker.request("never", b"", timeout=60))
        await asked.wait()
    question.cancel()
    assert asker.stats["reconnects"] == 1
    assert brief.is_closed
    assert any("asker: lost the connection" in record.getMessage() for record in caplog.records)
    assert all(record.exc_info is None for record in caplog.records)
    await asker.close()
