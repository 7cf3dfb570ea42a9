"""A backup's file: one spelling, every byte accounted for."""

from __future__ import annotations

import io
import tarfile

import pytest

from agentos.abi.canonical import canonical, parse_strict
from agentos.abi.errors import EvidenceError
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.trust import Trust
from agentos.boot.backup_file import BackupWriter, open_backup
from agentos.boot.backup_manifest import LogEntry, Manifest, StreamEntry

KEY = SigningKey.from_seed(bytes(range(32)))
RING = KeyRing(None, KEY)
TRUST = Trust(KEY.public)
ARCHIVES = {
    ("acme", "CKPT"): b"notes",
    ("acme", "EV_202611_0"): b"x" * 1500,
    ("acme", "BLOB_202611"): b"",
    ("*", "CKPT"): b"more notes",
    ("*", "REG"): b"r" * 512,
}


def entry(name: str, subjects: str, size: int, sha256: str) -> StreamEntry:
    config = {"name": name, "subjects": [subjects], "max_age": 0}
    return StreamEntry(name, size, sha256, 3, 1, 3, "ab" * 32, config, {"messages": 3})


SUBJECTS = {
    "CKPT": "ckpt.>",
    "EV_202611_0": "ev.202611.0.>",
    "BLOB_202611": "blob.202611.>",
    "REG": "reg.>",
}


def made(ring: KeyRing = RING, change=lambda manifest: manifest) -> bytes:
    """A backup of two accounts; `change` edits the manifest before it is signed."""
    file = io.BytesIO()
    writer = BackupWriter(file, lambda size: None)
    logs: dict[str, list[StreamEntry]] = {}
    for (tenant, stream), data in ARCHIVES.items():
        with writer.member(LogEntry(tenant, "", ()).member(stream)) as writing:
            writing.write(data[:700])
            writing.write(data[700:])
        logs.setdefault(tenant, []).append(entry(stream, SUBJECTS[stream], writing.size, writing.sha256))
    entries = tuple(LogEntry(tenant, "a note\n", tuple(streams)) for tenant, streams in logs.items())
    manifest = Manifest("2026-11-21T08:30:00.000Z", "0.1.0", "principal/operator", ring.current.id, ring.rotations, entries)
    writer.finish(change(manifest), ring)
    return file.getvalue()


def check(data: bytes, trust: Trust = TRUST) -> Manifest:
    backup = open_backup(io.BytesIO(data))
    backup.require_signed(backup.keys(trust))
    backup.check()
    return backup.manifest


def test_what_was_written_is_read() -> None:
    """Archives, manifest and signature come back; any tar program reads the file too."""
    data = made()
    manifest = check(data)
    assert manifest.tenants == ("acme",)
    backup = open_backup(io.BytesIO(data))
    for log in manifest.logs:
        for one in log.streams:
            archive = backup.archive(log, one)
            assert archive.read(10**6) == ARCHIVES[log.tenant, one.name]
            assert archive.read(10**6) == b""
    with tarfile.open(fileobj=io.BytesIO(data)) as other:
        assert other.getnames()[-2:] == ["manifest.json", "manifest.sig"]
        assert all(member.mode == 0o600 and member.isfile() for member in other.getmembers())


def test_no_byte_can_be_changed() -> None:
    """Of all bytes of a backup there is none that can be another one."""
    data = made()
    for at in range(len(data)):
        bent = bytearray(data)
        bent[at] ^= 1 << at % 8
        with pytest.raises(EvidenceError):
            check(bytes(bent))


def test_no_end_can_be_cut_or_added() -> None:
    """A backup that ends earlier or later is none."""
    data = made()
    for cut in (0, 1, 511, 512, 700, 2048, len(data) - 1024, len(data) - 512, len(data) - 1):
        with pytest.raises(EvidenceError):
            check(data[:cut])
    for more in (b"\0", bytes(512), bytes(10240), data):
        with pytest.raises(EvidenceError):
            check(data + more)


def test_members_that_no_backup_has() -> None:
    """Links, folders, other names, two of one name: refused before anything is read."""

    def tar(*members: tarfile.TarInfo) -> bytes:
        file = io.BytesIO()
        for member in members:
            file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(1024))
        return file.getvalue()

    def member(name: str, **changes) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.mode, info.mtime = 0o600, 0
        for key, value in changes.items():
            setattr(info, key, value)
        return info

    fine = member("fleet/REG.s2")
    for odd in (
        member("../../etc/passwd"),
        member("/etc/passwd"),
        member("tenants/acme/keys.pem"),
        member("tenants/Acme/EV_0.s2"),
        member("fleet/REG.s2", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("fleet/REG.s2", type=tarfile.DIRTYPE),
        member("fleet/REG.s2", mode=0o644),
        member("fleet/REG.s2", uname="root"),
        member("fleet/REG.s2", size=10**12),
    ):
        with pytest.raises(EvidenceError):
            open_backup(io.BytesIO(tar(odd)))
    with pytest.raises(EvidenceError, match="two members"):
        open_backup(io.BytesIO(tar(fine, fine)))
    with pytest.raises(EvidenceError, match="manifest"):
        open_backup(io.BytesIO(tar(fine)))


def test_signed_by_somebody_else() -> None:
    """A backup of another key is refused, whatever it says of itself."""
    other = KeyRing(None, SigningKey.from_seed(bytes(32)))
    with pytest.raises(EvidenceError, match="not signed by a trusted key"):
        check(made(other))
    with pytest.raises(EvidenceError, match="not signed by a trusted key"):
        check(made(other, lambda manifest: parsed(manifest, key=KEY.id)))


def parsed(manifest: Manifest, **changes) -> Manifest:
    return Manifest.parse(canonical({**parse_strict(manifest.to_bytes()), **changes}))


@pytest.mark.parametrize(
    "bend",
    [
        lambda body: body | {"format": "agentos-backup/v2"},
        lambda body: body | {"extra": 1},
        lambda body: body | {"created_at": "yesterday"},
        lambda body: body | {"rotations": "none"},
        lambda body: body | {"logs": []},
        lambda body: body | {"logs": body["logs"][::-1]},
        lambda body: body | {"logs": [body["logs"][0], *body["logs"]]},
        lambda body: body["logs"][0].update(tenant="../x") or body,
        lambda body: body["logs"][0]["streams"][0].update(name="REG") or body,
        lambda body: body["logs"][0]["streams"][1].update(name="OTHER") or body,
        lambda body: body["logs"][0]["streams"][1]["config"].update(subjects=["ctl.>"]) or body,
        lambda body: body["logs"][0]["streams"][1]["config"].update(name="EV_0") or body,
        lambda body: body["logs"][0]["streams"][1].update(bytes=-1) or body,
        lambda body: body["logs"][0]["streams"][1].update(bytes=True) or body,
        lambda body: body["logs"][0]["streams"][1].update(root="x") or body,
        lambda body: [],
    ],
)
def test_manifests_that_no_backup_has(bend) -> None:
    """A manifest of another shape is refused even if the right key signed it."""
    body = parse_strict(open_backup(io.BytesIO(made())).manifest.to_bytes())
    with pytest.raises(EvidenceError):
        Manifest.parse(canonical(bend(body)))


def test_a_manifest_in_another_spelling() -> None:
    """The same manifest with a blank in it is another one."""
    data = open_backup(io.BytesIO(made())).manifest.to_bytes()
    with pytest.raises(EvidenceError, match="not written as"):
        Manifest.parse(data.replace(b":", b": ", 1))
