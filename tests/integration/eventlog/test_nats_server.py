"""A nats-server of our own: its start and end, its doors, its files, and what happens when it or its runtime dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agentos.abi.errors import IdentityError, Unavailable
from agentos.eventlog import Message
from agentos.eventlog.adapters.connection import connect
from agentos.eventlog.adapters.jetstream import JetStreamLog, ensure_streams
from agentos.eventlog.adapters.nats_server import _ended
from agentos.eventlog.adapters.server_config import MAX_PAYLOAD, Account, User

CONNECT_NOBODY = b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n'

RUNTIME = """
import asyncio, os, sys
from pathlib import Path
from agentos.eventlog.adapters.nats_server import NatsServer
from agentos.eventlog.adapters.server_config import ServerConfig

class Random:
    def token(self, size):
        return os.urandom(size)

server = NatsServer(Path(sys.argv[1]), ServerConfig(), random=Random())
asyncio.run(server.start())
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


async def test_it_starts_proves_itself_and_stops(own_server):
    """A started server accepts connections, says that every acknowledged message is on disk, and is gone after `stop`."""
    server = own_server()
    await server.start()
    pid = server.pid
    facts = await server.server_facts()
    assert facts.sync_always is True
    assert facts.max_payload == MAX_PAYLOAD
    assert Path(facts.store_dir) == server.home / "jetstream"
    assert server.url == f"nats://127.0.0.1:{facts.port}"
    assert re.fullmatch(r"2\.(1[2-9]|[2-9]\d)\..+", facts.version)
    await server.start()
    assert server.pid == pid
    await server.stop()
    await server.stop()
    assert server.pid is None
    assert pid is not None
    assert not alive(pid)
    with pytest.raises(Unavailable):
        await server.server_facts()


async def test_what_it_writes_is_for_its_owner_only(own_server):
    """The home is 0700, configuration, log and pid file are 0600, and no seed is in any of them."""
    server = own_server()
    await server.start()
    assert stat.S_IMODE(server.home.stat().st_mode) == 0o700
    for name in ("nats.conf", "nats.log", "nats.pid", "lock"):
        assert stat.S_IMODE((server.home / name).stat().st_mode) == 0o600, name
    written = "".join(path.read_text(errors="replace") for path in server.home.glob("nats*"))
    assert not re.search(r"\bSU[A-Z2-7]{56}\b", written)


async def test_a_home_with_an_odd_name_works(own_server):
    """Blanks, quotes, backslashes, dollars and letters beyond ASCII in the path of the home are written safely."""
    server = own_server(home='it\'s a "home" \\ $HOME { über }')
    await server.start()
    assert (await server.server_facts()).store_dir == str(server.home / "jetstream")


async def test_a_port_that_is_taken_is_said(own_server):
    """A second server on the same port is refused with the port in the sentence, and leaves nothing running."""
    first = own_server(home="one")
    await first.start()
    port = int(first.url.rsplit(":", 1)[1])
    second = own_server(home="two", port=port)
    with pytest.raises(Unavailable, match=f"port {port} is taken") as caught:
        await second.start()
    assert caught.value.mend
    assert second.pid is None
    await first.stop()
    await second.start()
    assert second.url == first.url


async def test_a_second_runtime_on_the_same_home_is_refused(own_server):
    """While one runtime holds a home, another is refused and the first one's server lives on; afterwards it may."""
    first, second = own_server(), own_server()
    await first.start()
    with pytest.raises(Unavailable, match="another runtime uses this home"):
        await second.start()
    assert first.pid is not None
    assert (await first.server_facts()).sync_always
    await first.stop()
    await second.start()


async def test_a_server_that_dies_is_noticed_and_restarted_in_place(own_server, new_key):
    """After `kill -9` of the server `wait` resolves; started again it has its port, its accounts and its data."""
    key = new_key()
    server = own_server(Account("A", (User(key.public_key),)))
    await server.start()
    url = server.url
    client = await connect(url, key, name="test")
    await ensure_streams(client, ["EV_0"])
    await JetStreamLog(client).append("ev.0.s", [Message("a", b"1"), Message("b", b"2")], after=0)
    waiting = asyncio.create_task(server.wait())
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert await asyncio.wait_for(waiting, 10) == -signal.SIGKILL
    assert server.pid is None
    await server.start()
    assert server.url == url
    client = await connect(url, key, name="test")
    assert [stored.data async for stored in JetStreamLog(client).read("ev.0.s")] == [b"1", b"2"]
    await client.close()


async def test_a_start_that_fails_says_why(own_server, new_key):
    """A server that ends at once is reported with its own last words, and can be started once the cause is gone."""
    server = own_server(Account("A", (User(f"U{'A' * 55}"),)))
    with pytest.raises(Unavailable, match="Not a valid public nkey") as caught:
        await server.start()
    assert caught.value.where == str(server.log_file)
    server.config = replace(server.config, accounts=())
    await server.start()


async def test_a_home_that_cannot_be_used_is_said(own_server, tmp_path):
    """A file where the home should be is an error with the path, not a traceback."""
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(Unavailable, match="cannot use its folder") as caught:
        await own_server().start()
    assert caught.value.where == str(tmp_path / "home")


async def test_reload_adds_and_removes_accounts_while_connections_stay(own_server, new_key):
    """A reload lets new users in at once and keeps the connections of the others; a removed user is put out."""
    old, new = new_key(), new_key()
    server = own_server(Account("A", (User(old.public_key),)))
    await server.start()
    client = await connect(server.url, old, name="old", reconnect=True)
    with pytest.raises(IdentityError):
        await connect(server.url, new, name="new")
    both = replace(server.config, accounts=(*server.config.accounts, Account("B", (User(new.public_key),))))
    await server.reload(both)
    assert server.config == both
    fresh = await connect(server.url, new, name="new")
    await ensure_streams(fresh, ["EV_0"])
    assert client.is_connected
    assert client.stats["reconnects"] == 0
    await server.reload(replace(both, accounts=both.accounts[1:]))
    with pytest.raises(IdentityError):
        await connect(server.url, old, name="old")
    assert await JetStreamLog(fresh).end("EV_0") == 0
    await client.close()
    await fresh.close()


async def test_a_reload_that_is_refused_changes_nothing(own_server, new_key):
    """If the server refuses a configuration, the old one stays in force and on disk, and the reason is said."""
    key = new_key()
    server = own_server(Account("A", (User(key.public_key),)))
    await server.start()
    before, config = server.config_file.read_text(), server.config
    with pytest.raises(Unavailable, match="Not a valid public nkey"):
        await server.reload(replace(config, accounts=(Account("B", (User(f"U{'A' * 55}"),)),)))
    assert server.config == config
    assert server.config_file.read_text() == before
    client = await connect(server.url, key, name="test")
    await client.close()


@pytest.mark.parametrize("accounts", [(), (Account("A", ()),), (Account("A", (), jetstream=False),)])
async def test_nobody_comes_in_without_a_key(own_server, accounts):
    """A connection without credentials is refused, also on loopback, also while there is no account yet."""
    server = own_server(*accounts)
    await server.start()
    host, port = server.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(CONNECT_NOBODY)
    with contextlib.suppress(ConnectionResetError):  # the server may hang up before it has said why
        assert b"PONG" not in await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await server.stop()
    assert "authentication error" in server.log_file.read_text()


async def test_no_other_port_is_open(log_server):
    """The server listens on its client port of the loopback interface and nowhere else."""
    data = await log_server.varz()
    assert data["host"] == "127.0.0.1"
    assert not data.get("http_port")
    assert not data.get("https_port")
    assert not data["cluster"]
    assert not data["leaf"]
    assert not data["websocket"].get("port")
    assert not data["mqtt"].get("port")


async def test_a_user_stays_within_its_permissions(own_server, new_key):
    """A user publishes and subscribes to what it was given, nothing else reaches anybody; an empty tuple gives nothing."""
    keys = [new_key() for _ in range(3)]
    users = (
        User(keys[0].public_key),
        User(keys[1].public_key, publish=("ctl.one.>",), subscribe=("_INBOX.one.>",)),
        User(keys[2].public_key, publish=(), subscribe=()),
    )
    server = own_server(Account("A", users))
    await server.start()
    full = await connect(server.url, keys[0], name="full")
    one = await connect(server.url, keys[1], name="one", inbox_prefix="_INBOX.one")
    none = await connect(server.url, keys[2], name="none")
    heard = await full.subscribe("ctl.>")
    spied = await one.subscribe("ctl.>")
    await full.flush()
    await one.flush()
    await none.publish("ctl.one.none", b"no")
    await none.flush()
    for subject in ("ctl.two.x", "$JS.API.INFO", "ctl.one.x"):
        await one.publish(subject, b"")
    await one.flush()
    assert (await heard.next_msg(timeout=10)).subject == "ctl.one.x"
    assert spied.pending_msgs == 0

    async def answer(message):
        await message.respond(b"here")

    await full.subscribe("ctl.one.ask", cb=answer)
    await full.flush()
    assert (await one.request("ctl.one.ask", b"", timeout=10)).data == b"here"
    for client in (full, one, none):
        await client.close()


async def test_accounts_do_not_see_each_other(open_account):
    """What is published in one account is not heard in another, and the streams of one are unknown in another."""
    async with open_account() as one, open_account() as two:
        await ensure_streams(one.client, ["EV_0"])
        await ensure_streams(two.client, ["EV_0"])
        await JetStreamLog(one.client).append("ev.0.s", [Message("a", b"1")], after=0)
        assert await JetStreamLog(two.client).end("EV_0") == 0
        assert await JetStreamLog(one.client).end("EV_0") == 1


async def test_a_killed_runtime_takes_its_server_along(tmp_path):
    """After `kill -9` of the process that owns the server, the server ends by itself."""
    runtime = subprocess.Popen(
        [sys.executable, "-c", RUNTIME, str(tmp_path / "home")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with runtime:
        assert runtime.stdout is not None
        pid = int(runtime.stdout.readline().split()[0])
        assert alive(pid)
        runtime.kill()
        assert await _ended(pid, 10)


async def test_a_server_that_outlived_its_runtime_is_ended_first(own_server):
    """A nats-server still running on this home, with nobody holding the home, is ended before ours starts."""
    lost, ours = own_server(), own_server()
    await lost.start()
    orphan, lost._process = lost._process, None
    await lost.stop()  # lets go of the home, knows no process
    assert orphan.poll() is None
    await ours.start()
    assert orphan.wait(10) is not None
    assert ours.pid != orphan.pid
    assert (await ours.server_facts()).sync_always


async def test_a_stale_pid_of_somebody_else_is_left_alone(own_server):
    """A pid file that names a process of another program ends nobody."""
    server = own_server()
    server.home.mkdir()
    (server.home / "nats.pid").write_text(f"{os.getpid()}\n")
    (server.home / f"nats-server_{os.getpid()}.ports").write_text("{")
    await server.start()
    assert server.pid is not None
