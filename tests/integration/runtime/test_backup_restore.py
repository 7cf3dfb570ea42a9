"""A fleet is saved while it works, and comes back in another home as it was; a backup that does not hold brings nothing."""

from __future__ import annotations

import asyncio
import random
import resource
import secrets
import shutil
from pathlib import Path

import pytest
from house import WORKER, House, documents

from agentos.abi.errors import AgentOSError, Conflict, Denied, EvidenceError, NotFound, PayloadErased, UsageError
from agentos.audit.audit_chain import AuditChain, erased_entry
from agentos.audit.checkpoint import Checkpoint, open_checkpoint
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.note import sign_note
from agentos.audit.trust import Trust
from agentos.boot.backup_file import PIECE, BackupWriter, open_backup
from agentos.boot.backup_manifest import LogEntry, Manifest
from agentos.boot.restore import Restoring, Wanted
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.eventlog.adapters.keystore import SqliteKeyStore
from agentos.eventlog.subject import SHARDS


async def save(door, to: Path) -> dict:
    answer = await door("backup.create", to=str(to))
    while not answer["done"]:
        answer = await door("backup.create", run=answer["run"])
    return answer["report"]


async def bring_back(backup: Path, home: Path, **words) -> dict:
    wanted = Wanted(backup, home, **words)
    return (await Restoring(wanted, SystemTimer(), SystemRandom(), lambda _: None).run()).to_dict()


async def refused(backup: Path, home: Path, error=EvidenceError, match=".", **words) -> None:
    """The backup is refused, and neither a home nor anything beside it is left."""
    beside = set(home.parent.glob("*"))
    with pytest.raises(error, match=match):
        await bring_back(backup, home, **words)
    assert set(home.parent.glob("*")) == beside


async def shown(door) -> dict:
    """Every session as the verbs show it, with its events."""
    rows = await door("session.list", all=True)
    return {row["id"]: (row, (await door("session.events", session=row["id"]))["events"]) for row in rows}


async def verified(door) -> dict:
    answer = await door("audit.verify")
    while not answer["done"]:
        answer = await door("audit.verify", run=answer["run"])
    return answer["report"]


async def worked(door, sessions: int = 3) -> list[str]:
    await door.apply(*documents(WORKER))
    names = [await door.run(goal=f"goal {number}") for number in range(sessions)]
    for name in names:
        await door.until(name)
    return names


async def test_saved_under_load_and_brought_back(house, tmp_path):
    """Sessions that were over are the same to the byte; those in the middle go on; the log verifies and grows."""
    async with house.open() as door:
        before = await worked(door)
        known = await shown(door)
        stop = asyncio.Event()

        async def load() -> list[str]:
            names = []
            while not stop.is_set():
                names.append(await door.run(goal="under load"))
            return names

        loads = [asyncio.create_task(load()) for _ in range(4)]
        report = await save(door, tmp_path / "saved.tar")
        stop.set()
        later = sorted(name for names in await asyncio.gather(*loads) for name in names)
        assert later
        assert (report["tenants"], report["warnings"]) == (["default"], [])
    done = await bring_back(tmp_path / "saved.tar", tmp_path / "new", keys=house.root / "keys")
    assert (done["tenants"], done["keys"], done["signs_on"]) == (["default"], True, True)
    (house.root / "identities").rename(tmp_path / "new" / "identities")
    async with House(tmp_path / "new").open() as door:
        now = await shown(door)
        assert {name: now[name] for name in before} == known
        assert set(now) <= {*before, *later}
        for name in now:
            assert (await door.until(name))["state"] == "finished"
        assert await door.until(await door.run(goal="afterwards"))
        found = await verified(door)
        assert found["ok"], found
        assert found["checkpoints"] >= done["checkpoints"] - 3
        assert (await door("runtime.status"))["warnings"] == []


async def test_positions_and_roots_are_those_that_were(house, tmp_path):
    """Each stream has its sequences; a checkpoint that was kept outside still holds after the restore."""
    async with house.open() as door:
        await worked(door)
        note = (await door("audit.checkpoint", now=True))["note"]
        await save(door, tmp_path / "saved.tar")
    with (tmp_path / "saved.tar").open("rb") as file:
        saved = open_backup(file).manifest
    await bring_back(tmp_path / "saved.tar", tmp_path / "new", keys=house.root / "keys")
    (house.root / "identities").rename(tmp_path / "new" / "identities")
    async with House(tmp_path / "new").open() as door:
        tenant = door.runtime.tenants.get("default")
        for entry in saved.logs[0].streams:
            if entry.root is not None:
                assert await tenant.log.end(entry.name) == entry.last
        answer = await door("audit.verify", since=note)
        while not answer["done"]:
            answer = await door("audit.verify", run=answer["run"])
        assert answer["report"]["ok"], answer


async def test_without_the_old_keys(house, tmp_path):
    """The public key alone proves the log; the new home begins a log of checkpoints of its own and keeps the old notes."""
    async with house.open() as door:
        names = await worked(door)
        public = (await door("evidence.key"))["pem"].encode()
        await save(door, tmp_path / "saved.tar")
    from agentos.audit.trust import load_trust

    done = await bring_back(tmp_path / "saved.tar", tmp_path / "new", trust=load_trust(public))
    assert (done["keys"], done["signs_on"]) == (False, False)
    assert len(done["warnings"]) == 2
    assert (tmp_path / "new" / "restored" / "default.notes.jsonl").read_text().count("agentos/") > 0
    (house.root / "identities").rename(tmp_path / "new" / "identities")
    async with House(tmp_path / "new").open() as door:
        assert {row["id"] for row in await door("session.list", all=True)} == set(names)
        found = await verified(door)
        assert found["ok"], found
        assert (await door("runtime.status"))["warnings"] == []


async def test_nothing_secret_is_in_it(house, tmp_path):
    """No seed, no signing key, no payload key, no identity."""
    async with house.open() as door:
        await worked(door)
        await save(door, tmp_path / "saved.tar")
        data = (tmp_path / "saved.tar").read_bytes()
        assert (tmp_path / "saved.tar").stat().st_mode & 0o777 == 0o600
    secret = [path.read_bytes().strip() for path in (house.root / "keys").rglob("*") if path.suffix in {".nk", ".pem"}]
    secret += [path.read_bytes() for path in (house.root / "identities").iterdir()]
    assert len(secret) >= 4
    assert not [one for one in secret if one in data]


async def test_changed_anywhere_it_is_refused(house, tmp_path):
    """A flipped bit, a cut, something added: an error, and no home."""
    async with house.open() as door:
        await worked(door)
        await save(door, tmp_path / "saved.tar")
    whole, bent = (tmp_path / "saved.tar").read_bytes(), tmp_path / "bent.tar"
    dice = random.Random(20261121)
    for at in [*dice.sample(range(len(whole)), 25), 0, len(whole) - 1]:
        changed = bytearray(whole)
        changed[at] ^= 1 << dice.randrange(8)
        bent.write_bytes(changed)
        await refused(bent, tmp_path / "new", keys=house.root / "keys")
    for changed in (whole[:-512], whole[: len(whole) // 2], whole + bytes(512), b"", b"not a tar"):
        bent.write_bytes(changed)
        await refused(bent, tmp_path / "new", keys=house.root / "keys")
    await refused(tmp_path / "none.tar", tmp_path / "new", AgentOSError, "cannot be restored", keys=house.root / "keys")


def rewritten(source: Path, target: Path, ring: KeyRing, change, other: Path | None = None) -> None:
    """A backup that the holder of the key made of another: `change(log)` edits each log; archives that it takes from `other`
    are those whose digest says so.
    """
    with source.open("rb") as file, (other or source).open("rb") as more, target.open("wb+") as out:
        one, two = open_backup(file), open_backup(more)
        logs = tuple(change(log, two.manifest.logs[number]) for number, log in enumerate(one.manifest.logs))
        writer = BackupWriter(out, lambda size: None)
        for number, log in enumerate(logs):
            for at, entry in enumerate(log.streams):
                place = one if entry.sha256 == one.manifest.logs[number].streams[at].sha256 else two
                archive = place.archive(log, entry)
                with writer.member(log.member(entry.name)) as writing:
                    while piece := archive.read(PIECE):
                        writing.write(piece)
        manifest = one.manifest
        words = (manifest.created_at, manifest.version, manifest.by, manifest.key, manifest.rotations)
        writer.finish(Manifest(*words, logs), ring)


async def test_a_wrong_checkpoint_is_refused(house, tmp_path):
    """Whoever holds the key can sign any backup, but not make one log of two: the checkpoints in it say what it must hold."""
    async with house.open() as door:
        # Both backups are to hold the same streams, and a stream is made with its first session.
        while len(await door.runtime.tenants.get("default").log.streams()) < SHARDS:
            await worked(door, 1)
        await save(door, tmp_path / "old.tar")
        await worked(door)
        await save(door, tmp_path / "new.tar")
    ring = KeyRing.open(house.root / "keys" / "evidence.pem", SystemRandom())

    def older_events(log: LogEntry, other: LogEntry) -> LogEntry:
        streams = tuple(one if one.name == "CKPT" else two for one, two in zip(log.streams, other.streams, strict=True))
        return LogEntry(log.tenant, log.note, streams)

    rewritten(tmp_path / "new.tar", tmp_path / "bent.tar", ring, older_events, tmp_path / "old.tar")
    await refused(tmp_path / "bent.tar", tmp_path / "made", match="it was cut", keys=house.root / "keys")

    def another_note(log: LogEntry, _other: LogEntry) -> LogEntry:
        found = open_checkpoint(log.note, ring.trusted)
        lie = Checkpoint(found.origin, found.number, found.root[::-1], found.time_ms, found.streams)
        return LogEntry(log.tenant, sign_note(lie.text(), lie.origin, ring.current), log.streams)

    rewritten(tmp_path / "new.tar", tmp_path / "bent.tar", ring, another_note)
    await refused(tmp_path / "bent.tar", tmp_path / "made", match="another history", keys=house.root / "keys")

    def a_later_note(log: LogEntry, other: LogEntry) -> LogEntry:
        return LogEntry(log.tenant, other.note, log.streams)

    rewritten(tmp_path / "old.tar", tmp_path / "bent.tar", ring, a_later_note, tmp_path / "new.tar")
    await refused(tmp_path / "bent.tar", tmp_path / "made", match="taken back", keys=house.root / "keys")

    def another_root(log: LogEntry, _other: LogEntry) -> LogEntry:
        from dataclasses import replace

        return LogEntry(log.tenant, log.note, tuple(replace(one, root=one.root and "ab" * 32) for one in log.streams))

    rewritten(tmp_path / "new.tar", tmp_path / "bent.tar", ring, another_root)
    await refused(tmp_path / "bent.tar", tmp_path / "made", match="not those that were saved", keys=house.root / "keys")


async def test_whose_signature_counts(house, tmp_path):
    """Without a key to trust, or with somebody else's, nothing is restored; after a rotation both the old and the new key do."""
    async with house.open() as door:
        await worked(door, 1)
        old = KeyRing.open(house.root / "keys" / "evidence.pem", SystemRandom()).current
        await door("audit.rotate")
        await worked(door, 1)
        await save(door, tmp_path / "saved.tar")
        new = door.runtime.checkpoints.ring.current
    saved, home = tmp_path / "saved.tar", tmp_path / "new"
    await refused(saved, home, UsageError, "whose signature counts")
    await refused(saved, home, match="not signed by a trusted key", trust=Trust(SigningKey.from_seed(bytes(32)).public))
    for number, key in enumerate((old, new)):
        await bring_back(saved, tmp_path / f"new-{number}", trust=Trust(key.public))
    stale = tmp_path / "stale"
    (stale / "nats").mkdir(parents=True)
    ring = KeyRing.open(stale / "evidence.pem", SystemRandom())
    await refused(saved, home, match="not the one that goes on", keys=stale, trust=Trust(new.public))
    await refused(saved, home, match="not signed by a trusted key", keys=stale)
    assert ring.current.id
    for path in stale.glob("evidence*"):
        path.unlink()
    await refused(saved, home, UsageError, "holds no evidence.pem", keys=stale)
    done = await bring_back(saved, home, keys=stale, trust=Trust(new.public))
    assert (done["keys"], done["signs_on"]) == (True, False)


async def test_a_home_is_made_where_nothing_is(house, tmp_path):
    """A home that holds something, or whose runtime runs, stays as it is; an empty folder becomes the home."""
    async with house.open() as door:
        await worked(door, 1)
        await save(door, tmp_path / "saved.tar")
        await refused(tmp_path / "saved.tar", house.root, Conflict, "runs on", keys=house.root / "keys")
    await refused(tmp_path / "saved.tar", house.root, Conflict, "not empty", keys=house.root / "keys")
    file = tmp_path / "file"
    file.write_text("mine")
    await refused(tmp_path / "saved.tar", file, Conflict, "not empty", keys=house.root / "keys")
    assert file.read_text() == "mine"
    await refused(tmp_path / "saved.tar", tmp_path / "a" / "b", UsageError, "no folder", keys=house.root / "keys")
    (tmp_path / "new").mkdir()
    await bring_back(tmp_path / "saved.tar", tmp_path / "new", keys=house.root / "keys")
    assert (tmp_path / "new" / "nats" / "jetstream").is_dir()


async def test_where_a_backup_may_go(door, tmp_path):
    """Never over a file, nor into the home, nor by anybody but a principal of the fleet with the role."""
    (tmp_path / "there.tar").write_text("mine")
    for to, error in (
        (str(tmp_path / "there.tar"), Conflict),
        ("relative.tar", UsageError),
        (str(door.runtime.home.root / "x.tar"), UsageError),
        (str(tmp_path / "none" / "x.tar"), UsageError),
    ):
        with pytest.raises(error):
            await door("backup.create", to=to)
    assert (tmp_path / "there.tar").read_text() == "mine"
    with pytest.raises(NotFound):
        await door("backup.create", run="b-nothing")
    with pytest.raises(UsageError):
        await door("backup.create", run="b-nothing", to=str(tmp_path / "x.tar"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UsageError, match="others can write"):
        await door("backup.create", to=str(tmp_path / "open" / "x.tar"))
    await door.apply({"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {}})
    local = await door.as_principal("al", ["operator"], "acme")
    with pytest.raises(Denied, match=r"may not backup\.create"):
        await local.call("backup.create", {"to": str(tmp_path / "x.tar")})
    auditor = await door.as_principal("au", ["auditor"], "*")
    with pytest.raises(Denied):
        await auditor.call("backup.create", {"to": str(tmp_path / "x.tar")})
    folder = tmp_path / "folder"
    folder.mkdir()
    report = await save(door, folder)
    assert [str(path) for path in folder.iterdir()] == [report["file"]]
    assert report["tenants"] == ["acme", "default"]
    answer = await door("backup.create")
    while not answer["done"]:
        answer = await door("backup.create", run=answer["run"])
    (own,) = door.runtime.home.backups.iterdir()
    assert answer["report"]["file"] == str(own)
    assert (own.stat().st_mode & 0o777, own.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_a_disk_that_is_full(door, tmp_path):
    """What cannot be written whole leaves nothing, and the runtime goes on."""
    await door.apply(*documents(WORKER))
    for _ in range(12):
        await door.until(await door.run(goal=secrets.token_hex(30_000)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / "folder"
    folder.mkdir()
    await door("audit.checkpoint", now=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(AgentOSError, match="cannot be written: File too large"):
            await save(door, folder / "saved.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(folder.iterdir()) == []
    assert (await save(door, folder / "saved.tar"))["bytes"] > 300_000
    assert (await verified(door))["ok"]


async def test_erased_stays_erased(house, tmp_path):
    """A restore destroys again what the audit chain says was destroyed, though the copy of the keys is older; a newer backup's
    chain counts for an older backup.
    """
    async with house.open() as door:
        await worked(door, 1)
    folder = house.root / "keys" / "payload"
    store = SqliteKeyStore.open(folder / "default.db", SystemRandom())
    gone, kept = await store.of_session("s-gone"), await store.of_session("s-kept")
    store.close()
    async with house.open() as door:
        await save(door, tmp_path / "older.tar")
        chain = AuditChain(door.runtime.tenants.get("default").log, "default", SystemTimer(), SystemRandom())

        async def decided(_record) -> list:
            return [erased_entry(["s-gone"], [gone.id], "request 17", overruled=False)]

        await chain.append(decided, actor="principal/operator", revision=1)
        await save(door, tmp_path / "newer.tar")
    keys = house.root / "keys"

    async def alive(home: Path) -> list[bool]:
        store = SqliteKeyStore.open(home / "keys" / "payload" / "default.db", SystemRandom())
        found = [await store.find(key.id) is not None for key in (gone, kept)]
        store.close()
        return found

    assert (await bring_back(tmp_path / "older.tar", tmp_path / "one", keys=keys))["erased"] == 0
    assert await alive(tmp_path / "one") == [True, True]
    words = {"keys": keys, "tombstones": tmp_path / "newer.tar"}
    done = await bring_back(tmp_path / "older.tar", tmp_path / "two", **words)
    assert (done["erased"], done["replayed"]) == (1, 1)
    assert await alive(tmp_path / "two") == [False, True]
    assert gone.secret not in (tmp_path / "two" / "keys" / "payload" / "default.db").read_bytes()
    await refused(tmp_path / "newer.tar", tmp_path / "none", UsageError, "is older", keys=keys, tombstones=tmp_path / "older.tar")
    assert (await bring_back(tmp_path / "newer.tar", tmp_path / "three", keys=keys))["erased"] == 1
    assert await alive(tmp_path / "three") == [False, True]


async def test_an_older_copy_of_the_keys_brings_nothing_back_after_a_restore(house, tmp_path):
    """The newer backup's audit chain goes on in the restored log: what it says was erased is erased again by every start, a hold
    of since then holds, and the log still verifies and goes on.
    """
    async with house.open() as door:
        gone, kept = await worked(door, 2)
        await save(door, tmp_path / "older.tar")
        shutil.copytree(house.root / "keys", tmp_path / "keys")
        await door("audit.erase", sessions=[gone], basis="request 17")
        hold = (await door("audit.hold", session=kept, reason="a case"))["hold"]
        chain = [stored.data async for stored in door.runtime.tenants.get("default").log.read("aud.chain")]
        await save(door, tmp_path / "newer.tar")
    words = {"keys": tmp_path / "keys", "tombstones": tmp_path / "newer.tar"}
    done = await bring_back(tmp_path / "older.tar", tmp_path / "new", **words)
    assert (done["erased"], done["replayed"], done["warnings"]) == (1, 2, [])
    (house.root / "identities").rename(tmp_path / "new" / "identities")
    restored = House(tmp_path / "new")
    for _ in range(2):
        async with restored.open() as door:
            tenant = door.runtime.tenants.get("default")
            assert [stored.data async for stored in tenant.log.read("aud.chain")] == chain
            assert [one["hold"] for one in await door("audit.holds")] == [hold]
            with pytest.raises(PayloadErased):
                await door("session.get", session=gone)
            assert (await door("session.get", session=kept))["goal"] == "goal 1"
            report = await verified(door)
            assert report["ok"], report
        # Somebody puts the old copy of the keys back once more.
        shutil.copy(tmp_path / "keys" / "payload" / "default.db", tmp_path / "new" / "keys" / "payload" / "default.db")


async def test_a_newer_backup_of_another_history_is_refused(house, tmp_path):
    """Two homes of one log: whose audit chain is not this one gone on says nothing of this one."""
    async with house.open() as door:
        first, second = await worked(door, 2)
        await save(door, tmp_path / "first.tar")
        await door("audit.hold", session=first, reason="here")
        await save(door, tmp_path / "here.tar")
    await bring_back(tmp_path / "first.tar", tmp_path / "other", keys=house.root / "keys")
    shutil.copytree(house.root / "identities", tmp_path / "other" / "identities", dirs_exist_ok=True)
    async with House(tmp_path / "other").open() as door:
        await door("audit.hold", session=second, reason="there")
        await save(door, tmp_path / "there.tar")
    words = {"keys": house.root / "keys", "tombstones": tmp_path / "there.tar"}
    await refused(tmp_path / "here.tar", tmp_path / "new", match="two homes of one log", **words)
