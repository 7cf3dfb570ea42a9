"""Sources: where a value is read, and what is refused there, without a word of what was read."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path

import pytest

from agentos.abi.resource import Key, Resource
from agentos.credentials.adapters.env import EnvSource
from agentos.credentials.adapters.file import FileSource
from agentos.credentials.adapters.sources import all_sources
from agentos.credentials.reference import SOURCES, Credential, SecretRef, credential_of, secret_ref
from agentos.credentials.source import Apart, SourceFault

VALUE = "s3cr3t-of-the-file"


async def read(path: Path) -> str:
    return await FileSource().fetch(SecretRef("x", "file", str(path)))


def written(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"abc\n", "abc"), (b"abc\r\n", "abc"), (b"abc\n\n", "abc\n"), (b"abc", "abc"), (b" abc ", " abc "), (b"a\rb\r", "a\rb\r")],
)
async def test_one_line_end_is_no_part_of_it(tmp_path: Path, data: bytes, value: str) -> None:
    """Exactly one line end behind the value is left out, and nothing else."""
    assert await read(written(tmp_path / "f", data)) == value


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o610, 0o644])
async def test_files_of_others_are_refused(tmp_path: Path, mode: int) -> None:
    """A file that anybody else may open is not used."""
    with pytest.raises(SourceFault, match=f"open to others .mode {mode:04o}"):
        await read(written(tmp_path / "f", VALUE.encode(), mode))


async def test_what_is_no_plain_file(tmp_path: Path) -> None:
    """Links, folders, FIFOs (which would hang), sockets, too much and what is no text are refused, without a word of it."""
    target = written(tmp_path / "real", VALUE.encode())
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(0o700)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    written(tmp_path / "large", b"x" * 64 * 1024 + b"y")
    written(tmp_path / "binary", b"\xff\xfe" + VALUE.encode())
    for name in ("link", "fifo", "folder", "socket", "large", "binary", "none", "none/none"):
        with pytest.raises(SourceFault) as caught:
            async with asyncio.timeout(5):
                await read(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message
        assert VALUE not in caught.value.message
    listening.close()
    assert len(await read(written(tmp_path / "most", b"x" * 64 * 1024 + b"\n"))) == 64 * 1024


async def test_files_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another user owns, and so can change, is not used."""
    path = written(tmp_path / "f", VALUE.encode())
    me = os.geteuid()
    if me == 0:
        os.chown(path, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(SourceFault, match="belongs to another user"):
        await read(path)


async def test_variables() -> None:
    """A variable is read as it is; one that is not set, or set to nothing, is said."""
    source = EnvSource({"A": " v\n", "EMPTY": ""})
    assert await source.fetch(SecretRef("x", "env", "A")) == " v\n"
    for name, word in (("B", "not set"), ("EMPTY", "empty")):
        with pytest.raises(SourceFault, match=f"{name} .*{word}"):
            await source.fetch(SecretRef("x", "env", name))


async def test_work_that_hangs_is_left_behind() -> None:
    """Who waits for work in a thread can give up; only so many threads are left behind."""
    apart, gate = Apart(2), threading.Event()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await apart.run(gate.wait)
    with pytest.raises(SourceFault, match="hang"):
        await apart.run(gate.wait)
    gate.set()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await apart.run(lambda: 7) == 7
                break
            except SourceFault:
                await asyncio.sleep(0)


async def test_every_source_there_is() -> None:
    """Each way to declare a Secret has a source, and making them asks nobody."""
    sources = all_sources({})
    assert tuple(sources) == SOURCES
    for source in sources.values():
        await source.close()


def test_references() -> None:
    """A declaration is read as it stands."""
    spec = {"vault": {"address": "https://v", "path": "p", "field": "f"}, "hosts": ["a.b"], "leaseSeconds": 5}
    ref = secret_ref(Resource(Key("Secret", "acme", "x"), {}, {}, spec))
    assert ref == SecretRef("x", "vault", spec["vault"], ("a.b",), 5)
    credential = credential_of({"secret": "x", "header": "Authorization", "format": "Bearer {}"})
    assert credential == Credential("x", header="Authorization", format="Bearer {}")
    assert credential.render("{}y") == "Bearer {}y"
