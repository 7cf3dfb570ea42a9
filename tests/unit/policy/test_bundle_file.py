"""A bundle is read only if it is one: nothing climbs out of it, hides in it, or unpacks for ever."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.errors import PolicyError
from agentos.policy.adapters import bundle_file
from agentos.policy.adapters.bundle_file import read_bundle, write_bundle
from agentos.policy.adapters.opa_bundle import archive, build_bundle
from agentos.policy.port import Module

REGO = b"package agentos.syscall.rules.x\n"


def tarred(*members: tuple[tarfile.TarInfo | str, bytes]) -> bytes:
    """A `.tar.gz` of members in this order, whatever they are called."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for given, body in members:
            entry = given if isinstance(given, tarfile.TarInfo) else tarfile.TarInfo(given)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return packed.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no file."""
    entry = tarfile.TarInfo("x.rego")
    entry.type, entry.linkname = kind, target
    return entry


def test_what_opa_writes_is_read() -> None:
    """Names with a leading slash or dot are of the top; folders are no files; data of several places is one document."""
    folder = tarfile.TarInfo("/rules")
    folder.type = tarfile.DIRTYPE
    manifest = b'{"revision": "r1", "roots": [""], "rego_version": 1}'
    bundle = read_bundle(
        tarred(
            ("/data.json", b'{"a": 1}'),
            (folder, b""),
            ("/rules/x.rego", REGO),
            ("./b/c/data.json", b'{"d": 2}'),
            ("/.manifest", manifest),
        ),
        "b.tar.gz",
    )
    assert bundle.modules == (Module("rules/x.rego", REGO.decode()),)
    assert bundle.data == {"a": 1, "b": {"c": {"d": 2}}}
    assert bundle.revision == "r1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no bundle"),
        (b"\0" * 40, "no bundle"),
        (tarred(("x.rego", REGO))[:-20], "no bundle"),
        (gzip.compress(b"no tar" * 200, mtime=0), "no bundle"),
        (tarred(("x.rego", REGO)) + b"more", "no bundle"),
        (gzip.compress(gzip.decompress(tarred(("x.rego", REGO)))[:1024] + b"\1" * 512, mtime=0), "behind its end"),
        (tarred(("../x.rego", REGO)), "leads out"),
        (tarred(("a/../../x.rego", REGO)), "leads out"),
        (tarred(("//etc/x.rego", REGO)), "leads out"),
        (tarred(("a//x.rego", REGO)), "leads out"),
        (tarred(("a\\x.rego", REGO)), "characters"),
        (tarred(("a\nb.rego", REGO)), "characters"),
        (tarred(("a\u202eb.rego", REGO)), "characters"),
        (tarred(("a" * 600 + ".rego", REGO)), "longer than 512"),
        (tarred(("x.rego", REGO), ("/x.rego", REGO)), "twice"),
        (tarred((special(tarfile.SYMTYPE, "/etc/passwd"), b"")), "link or a device"),
        (tarred((special(tarfile.LNKTYPE, "x.rego"), b"")), "link or a device"),
        (tarred((special(tarfile.FIFOTYPE), b"")), "link or a device"),
        (tarred((special(tarfile.CHRTYPE), b"")), "link or a device"),
        (tarred(*((f"{number}.rego", b"") for number in range(2001))), "too many files"),
        (tarred(("x.rego", b"\xff")), "not UTF-8"),
        (tarred(("x.py", b"")), "neither Rego nor data.json"),
        (tarred(("policy.wasm", b"")), "compiled to wasm"),
        (tarred(("patch.json", b"{}")), "a difference"),
        (tarred((".manifest", b"[]")), "not a JSON object"),
        (tarred((".manifest", b'{"revision": "a", "revision": "b"}')), "stands twice"),
        (tarred((".manifest", b'{"rego_version": 0}')), "Rego v0"),
        (tarred((".manifest", b'{"file_rego_versions": {"/a.rego": 0}}')), "Rego v0"),
        (tarred(("data.json", b'{"a": {}}'), ("a/data.json", b"{}")), "two files give data.a"),
    ],
    ids=lambda part: part if isinstance(part, str) else "bundle",
)
def test_what_is_no_bundle_is_refused(content: bytes, said: str) -> None:
    """Each with the file and what is wrong with it."""
    with pytest.raises(PolicyError, match=said) as caught:
        read_bundle(content, "b.tar.gz")
    assert (caught.value.where or "").startswith("b.tar.gz")


@pytest.mark.parametrize("level", [1, 9])
def test_a_bomb_is_not_unpacked(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks to more than it may is given up at the limit; a file that is too large is not unpacked at all."""
    monkeypatch.setattr(bundle_file, "MAX_UNPACKED", 1 << 20)
    with pytest.raises(PolicyError, match="unpacks to more than 1 MiB"):
        read_bundle(gzip.compress(b"\0" * (8 << 20), level), "b.tar.gz")
    with pytest.raises(PolicyError, match="larger than 16 MiB"):
        read_bundle(b"\0" * (16 << 20) + b"\0", "b.tar.gz")


@given(st.binary(max_size=300), st.integers(0, 2**32))
def test_whatever_is_read_no_other_error_comes(noise: bytes, seed: int) -> None:
    """A bundle with bytes changed anywhere is read or refused."""
    raw = bytearray(gzip.decompress(tarred(("a.rego", REGO), (".manifest", b"{}"))))
    for offset, byte in enumerate(noise):
        raw[(seed + offset * 7919) % len(raw)] = byte
    for content in (noise, gzip.compress(bytes(raw), 1)):
        try:
            read_bundle(content, "b.tar.gz")
        except PolicyError:
            continue


def test_what_is_written_is_read_and_has_the_revision_of_the_engine() -> None:
    """The same for the same, whatever order the facts came in; a path that is none gets a name of its own."""
    modules = [Module("egress/a.rego", REGO.decode()), Module("../b.rego", "package agentos.syscall.rules.y\n")]
    revision, content = write_bundle(modules, {"agentos": {"b": 1, "a": 2}}, {"agentos": {"tenant": "acme"}})
    assert write_bundle(modules, {"agentos": {"a": 2, "b": 1}}, {"agentos": {"tenant": "acme"}}) == (revision, content)
    assert revision == build_bundle(modules, {"agentos": {"a": 2, "b": 1}}).revision
    bundle = read_bundle(content, "b.tar.gz")
    assert [module.path for module in bundle.modules] == ["egress/a.rego", "modules/m0001.rego"]
    assert bundle.revision == revision
    assert bundle.manifest["metadata"] == {"agentos": {"tenant": "acme"}}
    assert archive(dict(sorted(bundle.files.items()))) == content


@pytest.mark.parametrize("change", [lambda files: files.pop("data.json"), lambda files: files.update({"data.json": b"[]"})])
def test_data_is_an_object(change: Callable[[dict[str, bytes]], object]) -> None:
    """And may be missing."""
    files = {"a.rego": REGO, "data.json": json.dumps({}).encode()}
    change(files)
    if "data.json" in files:
        with pytest.raises(PolicyError, match="not a JSON object"):
            read_bundle(archive(files), "b.tar.gz")
    else:
        assert read_bundle(archive(files), "b.tar.gz").data == {}
