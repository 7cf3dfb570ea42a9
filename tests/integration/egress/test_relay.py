"""The relay as a process: bytes through it, the command as its child, and real clients from a sandbox's point of view."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentos.egress import relay
from agentos.egress.adapters.proxy import Way
from agentos.egress.outbound import HeaderCredential

CANARY = "canary-3d1f08aa"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")


def words(way: Path | str, *command: str, port: int = 0) -> list[str]:
    return [sys.executable, "-I", "-S", relay.__file__, "--socket", str(way), "--port", str(port), "--", *command]


def environment(authority: Path | None = None) -> dict[str, str]:
    inside = {"PATH": os.environ["PATH"], **dict.fromkeys(PROXIES, "http://127.0.0.1:0"), "NO_PROXY": ""}
    if authority is not None:
        inside |= dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO"), str(authority))
    return inside


async def run(way: Path | str, *command: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *words(way, *command),
        env=env or environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, errors = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out, errors


@asynccontextmanager
async def started(*command: str, **more: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *words("/nowhere", *command), env=environment(), stdout=asyncio.subprocess.PIPE, **more
    )
    try:
        async with asyncio.timeout(30):
            yield process
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


PYTHON = (sys.executable, "-c")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("false",), 1),
        ((*PYTHON, "raise SystemExit(77)"), 77),
        ((*PYTHON, "import os; os.kill(os.getpid(), 9)"), 128 + 9),
        (("sh", "-c", "kill -PIPE $$"), 128 + 13),
        (("no-such-program-anywhere",), 127),
        (("/etc/hostname",), 126),
    ],
)
async def test_ends_as_the_command_ends(command: tuple[str, ...], code: int) -> None:
    """Exit codes, signals, and programs that are not there: as a shell has them."""
    assert (await run("/nowhere", *command))[0] == code


@pytest.mark.parametrize(
    "given", [[], ["--socket", "x", "--port", "1", "--"], ["--socket", "x", "--port", "y", "--", "z"], ["-h"]]
)
def test_other_words_are_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 64 and how it is used."""
    assert relay.main(given) == 64
    assert "usage" in capsys.readouterr().err


async def test_a_port_that_is_taken() -> None:
    """It says so, and the command is not started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *words("/nowhere", "echo", "ran", port=port), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, errors = await process.communicate()
    assert (process.returncode, out) == (126, b"")
    assert b"cannot listen" in errors


async def test_standard_streams_are_those_of_the_command() -> None:
    """Input, output and errors pass untouched; none of them is read or written by the relay."""
    data = os.urandom(3_000_000)
    code, out, errors = await run("/nowhere", "sh", "-c", "echo oops >&2; exec cat", stdin=data)
    assert (code, out == data, errors) == (0, True, b"oops\n")


async def test_output_ends_when_the_command_ends_it() -> None:
    """Who reads the output sees its end while the command goes on: the relay does not hold it open."""
    script = "import os, sys; print('said', flush=True); os.close(1); sys.stdin.read(); os._exit(5)"
    async with started(*PYTHON, script, stdin=asyncio.subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert await process.stdout.read() == b"said\n"
        assert process.returncode is None
        process.stdin.close()
    assert process.returncode == 5


async def test_a_closed_input_ends_a_writer() -> None:
    """A command that writes into a closed pipe is ended by it, as without the relay."""
    async with started("yes") as process:
        assert process.stdout is not None
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
async def test_signals_reach_the_command(number: signal.Signals) -> None:
    """A signal to the relay is one to the command, which may decide to end in its own way."""
    script = (
        "import signal, sys\nsignal.signal({n}, lambda *_: sys.exit(40))\nprint('up', flush=True)\nwhile True: signal.pause()"
    )
    async with started(*PYTHON, script.format(n=int(number))) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        process.send_signal(number)
    assert process.returncode == 40


async def test_children_of_others_are_reaped() -> None:
    """The end of a process that was left behind does not end the relay, nor is it taken for the end of the command."""
    script = "import os, time\nif os.fork() == 0:\n  os._exit(9)\nos.wait()\nprint('done')\nraise SystemExit(3)"
    assert (await run("/nowhere", *PYTHON, script))[:2] == (3, b"done\n")


async def test_no_descriptor_of_the_relay_is_inherited() -> None:
    """The command has its standard streams and nothing else."""
    script = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
    code, out, _ = await run("/nowhere", *PYTHON, script)
    assert code == 0
    assert set(json.loads(out)) <= {0, 1, 2, 3}  # 3: the folder that is being listed


async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends everything back, and ends when the other has."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


ECHO_CLIENT = """
import hashlib, os, socket, sys, threading
port = int(os.environ["HTTP_PROXY"].rsplit(":", 1)[1])
def one(seed):
    data = bytes([seed]) * 2_000_000
    with socket.create_connection(("127.0.0.1", port)) as link:
        def send():
            link.sendall(data); link.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send); sender.start()
        got = b""
        while piece := link.recv(65536):
            got += piece
        sender.join()
    print(got == data)
threads = [threading.Thread(target=one, args=(seed,)) for seed in range(20)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
"""


async def test_bytes_pass_both_ways(tmp_path: Path) -> None:
    """20 connections at one time, 2 MB each way, ends of each direction passed on."""
    server = await asyncio.start_unix_server(echoing, tmp_path / "echo.sock")
    async with server:
        code, out, errors = await run(tmp_path / "echo.sock", *PYTHON, ECHO_CLIENT)
    assert (code, errors) == (0, b"")
    assert out.split() == [b"True"] * 20


async def test_without_a_proxy_connections_end(tmp_path: Path) -> None:
    """When nobody listens on the socket, clients are let go at once, and the relay goes on."""
    script = (
        "import os, socket\n"
        "port = int(os.environ['HTTP_PROXY'].rsplit(':', 1)[1])\n"
        "for _ in range(3):\n"
        "    with socket.create_connection(('127.0.0.1', port)) as link:\n"
        "        print(link.recv(10))"
    )
    code, out, _ = await run(tmp_path / "nobody.sock", *PYTHON, script)
    assert (code, out) == (0, b"b''\n" * 3)


@pytest.fixture
def curl() -> str:
    found = shutil.which("curl")
    assert found is not None, "install curl: it stands for the clients that a sandbox has"
    return found


async def trusted(way: Way, tmp_path: Path) -> dict[str, str]:
    assert way.authority is not None
    path = tmp_path / "authority.pem"
    path.write_bytes(way.authority)
    return environment(path)


async def test_curl_over_plain_http(way: Any, gate: Any, site: Any, curl: str) -> None:
    """A real client finds its way by its environment alone."""
    async with way() as open_way:
        code, out, errors = await run(open_way.socket, curl, "-sS", "--data", "hello", f"http://api.test:{site.port}/a/../b?x=1")
    assert (code, errors) == (0, b"")
    assert json.loads(out)["target"] == "/b?x=1"
    assert [one.args() for one in gate.asked] == [
        {"scheme": "http", "host": "api.test", "port": site.port, "method": "POST", "path": "/b"}
    ]


async def test_curl_through_a_tunnel(way: Any, gate: Any, secure_site: Any, certificates: Path, curl: str) -> None:
    """TLS from the client to the server, unseen in between."""
    async with way() as open_way:
        env = environment(certificates / "root.pem")
        code, out, errors = await run(open_way.socket, curl, "-sS", f"https://api.test:{secure_site.port}/x", env=env)
    assert (code, errors) == (0, b"")
    assert json.loads(out)["target"] == "/x"
    assert [str(one.scheme) for one in gate.asked] == ["tunnel"]


async def test_curl_inspected_with_a_credential(way: Any, gate: Any, secure_site: Any, curl: str, tmp_path: Path) -> None:
    """The server sees the credential, and nothing that the client prints has it."""
    credential = HeaderCredential("Authorization", lambda: f"Bearer {CANARY}", ("api.test",))
    url = f"https://api.test:{secure_site.port}"
    async with way(inspect=True, credentials=[credential]) as open_way:
        env = await trusted(open_way, tmp_path)
        arguments = ("-sSv", f"{url}/size?10", f"{url}/chunks?3", "-H", "Expect: 100-continue", "--data-binary", "@-")
        code, out, errors = await run(open_way.socket, curl, *arguments, env=env, stdin=b"x" * 100_000)
    assert code == 0
    assert out == b"xxxxxxxxxxpiece 0;piece 1;piece 2;"
    assert CANARY.encode() not in out + errors
    assert [one["body"] for one in secure_site.seen] == [100_000, 100_000]
    assert all(["authorization", f"Bearer {CANARY}"] in [list(pair) for pair in one["headers"]] for one in secure_site.seen)
    assert [(one.method, one.path) for one in gate.asked] == [("POST", "/size"), ("POST", "/chunks")]


async def test_curl_is_told_why_not(way: Any, gate: Any, secure_site: Any, curl: str, tmp_path: Path) -> None:
    """What policy said is in the body where requests are seen, and a tunnel fails with 403."""
    gate.refuses = lambda _: "denied by policy (network.undeclared): no"
    url = f"https://api.test:{secure_site.port}/x"
    async with way(inspect=True) as open_way:
        _, out, _ = await run(open_way.socket, curl, "-sS", url, env=await trusted(open_way, tmp_path))
    assert "network.undeclared" in json.loads(out)["error"]
    async with way() as open_way:
        code, _, errors = await run(open_way.socket, curl, "-sS", url)
    assert code != 0
    assert b"403" in errors


async def test_python_inspected(way: Any, gate: Any, secure_site: Any, tmp_path: Path) -> None:
    """`urllib` trusts the authority by `SSL_CERT_FILE`, also with strict checks of certificates."""
    script = (
        "import ssl, sys, urllib.request\n"
        "context = ssl.create_default_context()\n"
        "context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN\n"
        f"print(urllib.request.urlopen('https://api.test:{secure_site.port}/x', context=context).read().decode())"
    )
    async with way(inspect=True) as open_way:
        code, out, errors = await run(open_way.socket, *PYTHON, script, env=await trusted(open_way, tmp_path))
    assert (code, errors) == (0, b"")
    assert json.loads(out)["target"] == "/x"


async def test_metadata_of_a_cloud(way: Any, gate: Any, curl: str) -> None:
    """Metadata of a cloud through the proxy: asked about, refused, recorded."""
    async with way() as open_way:
        _, out, _ = await run(open_way.socket, curl, "-sS", "http://169.254.169.254/latest/meta-data/")
    assert "metadata" in json.loads(out)["error"]
    assert len(gate.ended) == 1
