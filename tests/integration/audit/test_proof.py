"""Proof end to end: a log, its projector, the verbs, the command line, and a verifier on a machine without a runtime."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import typer
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from agentos.abi.assets import asset
from agentos.abi.errors import AgentOSError, ChainBroken, Denied, NotFound, UsageError
from agentos.audit.audit_chain import AuditChain
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.proof import verify_proof
from agentos.audit.prover import Prover
from agentos.audit.tiles import TileStore
from agentos.audit.verify import verify_pack
from agentos.boot.checkpoints import Checkpoints, Notary
from agentos.boot.system import SystemRandom, SystemTimer
from agentos.control.audit_verbs import handlers
from agentos.control.principal import Caller
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import PRINCIPALS, REVISIONS, blob_subject, session_subject, stream_of
from agentos.projections.projector import Projector
from agentos.projections.store import Store
from agentos.projections.text_store import TextStore


def shown(result) -> str:
    """What a command printed. The notaries' clock is the real one, so the number of checkpoints and their times are chance."""
    text = re.sub(r"default, \d{4}-\d\d-\d\dT[0-9:.]+Z", "default, TIME", result.stdout)
    return re.sub(r"\b(checkpoint \d+|\d+ checkpoints?)\b", "CHECKPOINT", text)


def schema(name: str):
    return json.loads((asset("schemas") / "v1" / f"{name}.json").read_text())


OLGA = Caller("olga", ("auditor",), "default", fleet=True)


async def put(log, subject: str, lines) -> None:
    await log.append(subject, [Message(f"{subject}-{at}", line) for at, line in enumerate(lines)], after=0)


class Door:
    """The verbs of one runtime, without the wire."""

    def __init__(self, verbs, notaries, log, record) -> None:
        self.verbs, self.notaries, self.log, self.record = verbs, notaries, log, record

    async def __call__(self, verb: str, **params):
        answer = await self.verbs[verb](OLGA, params)
        # What a verb answers must survive the wire.
        return json.loads(json.dumps(answer))


class Dice:
    """Different bytes each time, the same in every run."""

    count = 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")


class FewNotaries(Checkpoints):
    """The notaries of a tenant and of the registry, over logs that are given."""

    async def begin(self, tenant: str, log) -> None:
        name, streams = ("REG", ("REG",)) if tenant == "*" else (tenant, None)
        tiles = TileStore.open(self._folder / f"{name}.tiles.db", tenant=name)
        prover = Prover(name, log, tiles, self.ring, self._timer, streams=streams)
        self._notaries[tenant] = Notary(prover, self._timer)
        await self._notaries[tenant].start()


@pytest.fixture
async def door(tmp_path, record, bent):
    log, registry = bent.BentLog(), MemoryLog()
    made = record.registry_record()
    for name in ("s-busy", "s-short"):
        make = record.busy_session if name == "s-busy" else record.short_session
        await put(log, session_subject(name), make(name).stored)
    for name, data in made.blobs.items():
        await put(registry, blob_subject(name), [data])
    await put(registry, REVISIONS, made.revisions)
    await put(registry, PRINCIPALS, made.principals)
    store = Store.open(tmp_path / "read" / "default.db", tenant="default")
    text = TextStore.open(tmp_path / "read" / "default.text.db", tenant="default")
    async with Projector(log, store) as projector, Projector(log, text) as wordsmith:

        async def projectors(tenant: str) -> Projector:
            return projector

        async def wordsmiths(tenant: str) -> Projector:
            return wordsmith

        notaries = FewNotaries(tmp_path / "read", KeyRing.open(tmp_path / "evidence.pem", Dice()), SystemTimer(), SystemRandom())
        await notaries.begin("default", log)
        await notaries.begin("*", registry)
        verbs = handlers(
            projectors=projectors,
            wordsmiths=wordsmiths,
            logs=lambda tenant: log,
            registry=registry,
            notaries=notaries,
            chains={"default": AuditChain(log, "default", record.Still(), Dice())}.__getitem__,
            revision=lambda tenant: 1,
            clock=record.Still(),
            random=Dice(),
        )
        yield Door(verbs, notaries, log, record)
        await notaries.close()
    store.close()
    text.close()


async def test_a_query_includes_what_was_just_written(door, record):
    """The answer holds everything that the log held when asked, and says what it lacks: nothing."""
    answer = await door("audit.query", effect="deny")
    assert [row["call"] for row in answer["rows"]] == ["c2"]
    assert (answer["more"], answer["behind"], answer["faults"]) == (False, {}, 0)
    await put(door.log, session_subject("s-new"), record.busy_session("s-new").stored)
    assert len((await door("audit.query", effect="deny"))["rows"]) == 2


async def test_search_finds_words(door):
    """Both sessions by their goal, one by its agent; a query that is none, and an unknown filter, are the user's mistakes."""
    found = await door("audit.search", words=["inbox"])
    assert {row["session"] for row in found["rows"]} == {"s-busy", "s-short"}
    assert (found["more"], found["behind"], found["faults"]) == (False, {}, 0)
    assert [row["session"] for row in (await door("audit.search", words=["inbox"], agent="clerk"))["rows"]] == ["s-short"]
    for params in ({"words": ["("], "raw": True}, {"words": []}, {"words": ["x"], "limit": 0}, {"words": ["x"], "colour": "red"}):
        with pytest.raises(UsageError):
            await door("audit.search", **params)


async def test_rebuild_answers_with_positions_and_faults(door):
    """What could not be read is told, with its place in the log."""
    await put(door.log, session_subject("s-odd"), [b"hello"])
    before = (await door("audit.query"))["rows"]
    answer = await door("audit.rebuild")
    assert [(one["model"], one["same"]) for one in answer["models"]] == [("index", True), ("text", True)]
    assert (await door("audit.rebuild", model="text"))["models"][0]["after"] == answer["models"][1]["before"]
    assert sum(answer["positions"].values()) == 16
    assert [(fault["session"], fault["kind"]) for fault in answer["faults"]] == [("s-odd", "undecodable")]
    again = await door("audit.query")
    assert (again["rows"], again["faults"]) == (before, 1)


async def test_an_exported_pack_verifies_with_the_key_that_the_runtime_gives(door):
    """Export, fetch the key, verify: the whole path of an auditor."""
    answer = await door("evidence.export")
    key = await door("evidence.key")
    assert (answer["sessions"], answer["events"], answer["key"]) == (2, 15, key["key"])
    report = verify_pack(base64.b64decode(answer["pack"]), key["pem"].encode())
    assert report.ok, report.faults
    assert report.exporter == "principal/olga"


async def ended(door, **params):
    """A verification, followed to its end."""
    answer = await door("audit.verify", **params)
    while not answer["done"]:
        answer = await door("audit.verify", run=answer["run"])
    return answer["report"]


async def test_checkpoint_prove_verify(door):
    """The whole path: a checkpoint of this moment, the proof of an event, the log read again."""
    point = await door("audit.checkpoint", now=True)
    count = len([stored for stream in await door.log.streams() async for stored in door.log.scan(stream)])
    assert sum(point["streams"].values()) == count
    assert (await door("audit.checkpoint"))["note"] == point["note"]
    trust = (await door("audit.keys"))["keys"][0]["verifier"].encode()
    proof = (await door("audit.prove", event="s-busy#2"))["proof"]
    Draft202012Validator(schema("event-proof")).validate(proof)
    assert verify_proof(json.dumps(proof).encode(), trust).ok
    assert (await door("audit.prove", event="s-busy-2"))["proof"] == proof
    report = await ended(door)
    Draft202012Validator(schema("audit-verification")).validate(report)
    assert report["ok"]
    assert report["events"] == count
    await put(door.log, session_subject("s-more"), door.record.short_session("s-more").stored)
    assert (await ended(door, since=point["note"]))["events"] == 3
    assert (await ended(door, since=str(point["number"])))["ok"]
    assert (await ended(door, since="1h"))["ok"]
    for since in ("tomorrow", "99", "not\na note\n"):
        with pytest.raises(AgentOSError):
            await ended(door, since=since)
    with pytest.raises(NotFound):
        await door("audit.verify", run="v-none")


async def test_a_rotated_key_is_followed_from_either_side(door):
    """Packs and proofs made before and after verify with the old key and with the new one."""
    before = base64.b64decode((await door("evidence.export"))["pack"])
    old = (await door("evidence.key"))["pem"].encode()
    first = (await door("audit.prove", event="s-busy#2"))["proof"]
    with pytest.raises(Denied):
        await door.verbs["audit.rotate"](replace(OLGA, fleet=False), {})
    answer = await door("audit.rotate")
    new = (await door("evidence.key"))["pem"].encode()
    assert answer["new"] == (await door("evidence.key"))["key"] != answer["old"]
    after = base64.b64decode((await door("evidence.export"))["pack"])
    second = (await door("audit.prove", event="s-busy#2"))["proof"]
    assert verify_pack(after, old).ok
    assert verify_pack(after, new).ok
    assert verify_pack(before, old).ok
    # What was made before the new key existed says nothing of it.
    assert not verify_pack(before, new).ok
    for trust, proof in ((old, first), (old, second), (new, second)):
        assert verify_proof(json.dumps(proof).encode(), trust).ok
    assert (await ended(door))["ok"]
    keys = (await door("audit.keys"))["keys"]
    assert [key["key"] for key in keys] == [answer["old"], answer["new"]]
    assert keys[0]["until"] == keys[1]["from"] == answer["time"]


async def test_behind_a_changed_log_nothing_is_signed(door):
    """What verification finds is an alarm: no checkpoint, no proof, no pack, and the warning says why."""
    await door("audit.checkpoint", now=True)
    stream = stream_of(session_subject("s-busy"))
    door.log.edits[stream, 3] = None
    report = await ended(door)
    assert not report["ok"]
    assert report["findings"][0]["where"] == f"{stream} position 3"
    for verb, params in (("audit.checkpoint", {"now": True}), ("audit.prove", {"event": "s-busy#1"}), ("evidence.export", {})):
        with pytest.raises(ChainBroken):
            await door(verb, **params)
    assert "changed behind the runtime's back" in door.notaries.warnings("default")[0]
    assert door.notaries.get("*").warnings() == []


async def test_odd_requests_are_refused(door):
    """Unknown parameters, unknown sessions, both filters at once: said, with the class that the client raises again."""
    for params, kind in (
        ({"sessions": ["s-none"]}, NotFound),
        ({"sessions": []}, UsageError),
        ({"sessions": ["s-busy"], "since": "1h"}, UsageError),
        ({"since": "tomorrow"}, UsageError),
        ({"since": "1s"}, NotFound),
        ({"colour": "red"}, UsageError),
    ):
        with pytest.raises(kind):
            await door("evidence.export", **params)
    for verb in (
        "audit.rebuild",
        "evidence.key",
        "audit.checkpoint",
        "audit.keys",
        "audit.prove",
        "audit.rotate",
        "audit.verify",
    ):
        with pytest.raises(UsageError):
            await door(verb, extra=1)


@pytest.fixture
def command(door, monkeypatch, tmp_path):
    """Run `agentos audit|evidence …` against the verbs; give exit code, output, errors."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from agentos.cli import audit, evidence, proof

    app = typer.Typer()
    audit.register(app)
    evidence.register(app)
    monkeypatch.chdir(tmp_path)

    async def run(*words: str):
        main = asyncio.get_running_loop()

        def call(verb, params):
            return asyncio.run_coroutine_threadsafe(door(verb, **params), main).result()

        monkeypatch.setattr(audit, "call", call)
        monkeypatch.setattr(evidence, "call", call)
        monkeypatch.setattr(proof, "call", call)
        with ThreadPoolExecutor(1) as pool:
            return await main.run_in_executor(pool, lambda: CliRunner().invoke(app, words))

    return run


async def test_the_query_command_prints_table_json_and_csv(command, snapshot):
    """The same rows in three forms; control characters never reach the terminal."""
    table = await command("audit", "query", "--session", "s-busy")
    assert table.exit_code == 0
    assert table.stdout == snapshot
    rows = json.loads((await command("audit", "query", "--effect", "ask", "-o", "json")).stdout)
    assert [(row["call"], row["approval_by"]) for row in rows] == [("c3", "principal/anna")]
    text = (await command("audit", "query", "-o", "csv")).stdout
    parsed = list(csv.DictReader(io.StringIO(text)))
    assert [row["call"] for row in parsed if row["decision"] == "deny"] == ["c2"]
    few = await command("audit", "query", "--limit", "1")
    assert "there are older rows" in few.stderr


async def test_untrusted_text_is_harmless_in_every_form(command, door, record):
    """A tool name, an argument or an error that tries to drive a terminal or a spreadsheet is shown, not obeyed."""
    chain = record.Chain("s-evil")
    chain.created()
    chain.decided("=cmd|' /C calc'!A0", "\x1b]0;owned\x07@SUM(1)", "deny", {"path": "\x1b[2J\u202egpj.exe"}, ("+rule",))
    await put(door.log, session_subject("s-evil"), chain.stored)
    for output in ("table", "csv"):
        shown = (await command("audit", "query", "--session", "s-evil", "-o", output)).stdout
        assert all(char.isprintable() or char == "\n" for char in shown)
    (row,) = csv.DictReader(io.StringIO((await command("audit", "query", "--session", "s-evil", "-o", "csv")).stdout))
    assert row["call"].startswith("'=")
    for value in row.values():
        assert not value.lstrip().startswith(("=", "+", "-", "@"))


async def test_export_key_and_verify_commands(command, tmp_path, snapshot):
    """Export a pack, fetch the key, verify: exit 0; with one byte changed exit 1 and the fault named."""
    exported = await command("evidence", "export", "-o", "pack.zip")
    assert exported.exit_code == 0, exported.output
    assert (await command("evidence", "key", "-o", "runtime.pub")).exit_code == 0
    good = await command("evidence", "verify", "pack.zip", "--trust", "runtime.pub")
    assert good.exit_code == 0
    assert good.stdout == snapshot
    assert json.loads((await command("evidence", "verify", "pack.zip", "--trust", "runtime.pub", "-o", "json")).stdout)["ok"]
    kept = ("--withhold", "tool=write", "--withhold", "tool=none")
    assert (await command("evidence", "export", "-o", "kept.zip", *kept)).output == snapshot
    some = await command("evidence", "verify", "kept.zip", "--trust", "runtime.pub")
    assert (some.exit_code, some.stdout) == (0, snapshot)
    pack = tmp_path / "pack.zip"
    pack.write_bytes(pack.read_bytes().replace(b"looks right", b"looks wrong"[:11], 1))
    bad = await command("evidence", "verify", "pack.zip", "--trust", "runtime.pub")
    assert bad.exit_code == 1
    assert shown(bad) == snapshot


async def test_checkpoint_prove_and_verify_commands(command, door, tmp_path, snapshot):
    """The note on standard output byte for byte, a proof that verifies offline, the log read again; and each once it is wrong."""
    note = await command("audit", "checkpoint", "--now")
    assert note.stdout_bytes == door.notaries.get("default").prover.last.note.encode()
    assert (await command("audit", "checkpoint", "-o", "json")).exit_code == 0
    proof = await command("audit", "prove", "s-busy#3")
    (tmp_path / "proof.json").write_text(proof.stdout)
    (tmp_path / "checkpoint.note").write_bytes(note.stdout_bytes)
    assert (await command("evidence", "key", "-o", "runtime.pub")).exit_code == 0
    keys = await command("audit", "keys", "-o", "vkey")
    (tmp_path / "runtime.vkey").write_text(keys.stdout)
    for trust in ("runtime.pub", "runtime.vkey"):
        good = await command("audit", "verify-proof", "proof.json", "--trust", trust)
        assert good.exit_code == 0, good.output
    assert shown(good) == snapshot
    assert json.loads((await command("audit", "verify-proof", "proof.json", "--trust", "runtime.pub", "-o", "json")).stdout)["ok"]
    alone = await command("audit", "prove", "s-busy#3", "--withhold")
    (tmp_path / "header.json").write_text(alone.stdout)
    header = await command("audit", "verify-proof", "header.json", "--trust", "runtime.pub")
    assert (header.exit_code, shown(header)) == (0, snapshot)
    whole = await command("audit", "verify")
    assert (whole.exit_code, shown(whole)) == (0, snapshot)
    part = await command("audit", "verify", "--since", "checkpoint.note")
    assert (part.exit_code, shown(part)) == (0, snapshot)
    assert (await command("audit", "keys")).exit_code == 0
    assert isinstance((await command("audit", "rotate-key")).exception, UsageError)
    assert (await command("audit", "rotate-key", "--yes")).exit_code == 0
    assert len((await command("audit", "keys", "-o", "vkey")).stdout.splitlines()) == 2
    body = json.loads(proof.stdout)
    body["leaf"] += 1
    (tmp_path / "proof.json").write_text(json.dumps(body))
    bad = await command("audit", "verify-proof", "proof.json", "--trust", "runtime.pub")
    assert (bad.exit_code, shown(bad)) == (1, snapshot)
    assert isinstance((await command("audit", "verify-proof", "proof.json")).exception, UsageError)
    door.log.edits[stream_of(session_subject("s-busy")), 5] = b"{}"
    found = await command("audit", "verify")
    assert (found.exit_code, shown(found)) == (1, snapshot)
    assert not json.loads((await command("audit", "verify", "-o", "json")).stdout)["ok"]


async def test_verify_without_a_key_explains_itself(command):
    """The key must come from outside: without it the words are off, whatever the pack says."""
    await command("evidence", "export", "-o", "pack.zip")
    result = await command("evidence", "verify", "pack.zip")
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code == 64
    assert "outside" in result.exception.message


async def test_files_that_cannot_be_read_or_written_are_said(command):
    """A missing pack, a missing key, a folder that is not there: expected errors, nothing half written."""
    for words in (
        ("evidence", "verify", "none.zip", "--trust", "none.pub"),
        ("evidence", "export", "-o", "no/such/folder/pack.zip"),
    ):
        assert isinstance((await command(*words)).exception, AgentOSError)


async def test_a_pack_is_verified_where_no_runtime_ever_ran(door, tmp_path):
    """With NATS, OPA, SQLite and every runtime package out of reach, verification works all the same."""
    pack, key = tmp_path / "pack.zip", tmp_path / "runtime.pub"
    events = [stored for stream in await door.log.streams() async for stored in door.log.scan(stream)]
    pack.write_bytes(base64.b64decode((await door("evidence.export"))["pack"]))
    key.write_text((await door("evidence.key"))["pem"])
    program = """
import sys
for name in ("nats", "nkeys", "orjson", "sqlite3", "yaml", "mcp", "anthropic", "jinja2", "opa_bindings", "jsonschema"):
    sys.modules[name] = None
from pathlib import Path
from agentos.audit import verify_pack
report = verify_pack(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]).read_bytes())
print(report.ok, report.sessions, report.events)
"""
    found = subprocess.run([sys.executable, "-c", program, pack, key], capture_output=True, text=True, check=True)
    registry = door.record.registry_record()
    assert found.stdout == f"True 2 {len(events) + len(registry.revisions) + len(registry.principals)}\n"


async def test_a_real_registrys_record_verifies(record):
    """Revisions and principals as the registry itself writes them are what the pack's checks expect."""
    from agentos.abi import Key, Resource
    from agentos.audit.evidence import Scope, build_pack, gather
    from agentos.registry import Principals, Registry, State
    from agentos.registry.plan import plan

    class Dice:
        """Different bytes each time, the same in every run."""

        count = 0

        def token(self, size: int) -> bytes:
            self.count += 1
            return self.count.to_bytes(size, "big")

    class Early:
        """A clock before the sessions began."""

        def now_ms(self) -> int:
            return record.START_MS - 1000

    log, store, dice = MemoryLog(), MemoryLog(), Dice()
    principals = Principals(store, Early(), dice)
    for name, tenant, role, letter in (
        ("olga", "*", "operator", "O"),
        ("alice", "default", "operator", "A"),
        ("anna", "default", "approver", "N"),
    ):
        await principals.create(name, tenant=tenant, roles=[role], public_key="U" + letter * 55, actor="system/boot")
    registry = Registry(store, Early(), dice)
    model = Resource(Key("Model", "default", "fast"), {}, {}, {"provider": "scripted", "scripted": {"play": {}}})
    foreign = Resource(Key("Model", "acme", "slow"), {}, {}, {"provider": "scripted", "scripted": {"play": {}}})
    await registry.commit(plan(State.empty(), [model, foreign]), actor="principal/olga", reason="first")
    await put(log, session_subject("s-busy"), record.busy_session("s-busy").stored)
    gathered = await gather(log, store, tenant="default", scope=Scope())
    found, key = gathered.registry, SigningKey.from_seed(bytes(32))
    pack = build_pack(
        tenant="default",
        sessions=gathered.sessions,
        registry=found,
        audit=[],
        key=key,
        clock=record.Still(),
        exporter="principal/olga",
        covered=record.cover(gathered.sessions, found, [], key),
    )
    report = verify_pack(pack, key.public_pem)
    assert report.ok, report.faults
    assert model.digest() in found.blobs
    assert foreign.digest() not in found.blobs


WRITER = """
import sys
from agentos.eventlog.port import Stored
from agentos.eventlog.subject import session_subject, stream_of
from agentos.projections.store import Store
from pathlib import Path
store = Store.open(Path(sys.argv[1]), tenant="default")
print("open", flush=True)
batch, position = [], 0
for line in Path(sys.argv[2]).read_bytes().splitlines():
    position += 1
    subject = session_subject("s-long")
    batch.append((stream_of(subject), Stored(subject, position, line)))
    if len(batch) == 3:
        store.apply(batch)
        batch = []
        print(position, flush=True)
store.apply(batch)
print("end", flush=True)
"""


@pytest.mark.parametrize("after", [1, 5, 20])
def test_a_killed_writer_leaves_no_half_batch(tmp_path, record, after):
    """SIGKILL between or within batches: what is there is whole, and going on gives the rows of an undisturbed reading."""
    from agentos.eventlog.port import Stored
    from agentos.eventlog.subject import stream_of

    chain = record.Chain("s-long")
    chain.created()
    for number in range(100):
        chain.decided(f"c{number}", "write", "allow")
        chain.finished(f"c{number}", "write")
    lines = tmp_path / "lines"
    lines.write_bytes(b"\n".join(chain.stored))
    path = tmp_path / "default.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, path, lines], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(after):
            writer.stdout.readline()
        writer.kill()
    subject = session_subject("s-long")
    events = [(stream_of(subject), Stored(subject, at, line)) for at, line in enumerate(chain.stored, 1)]

    def rows(store) -> list[tuple]:
        with store.reader() as connection:
            names = ("sessions", "syscalls", "rules", "positions", "faults")
            return [tuple(row) for name in names for row in connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2")]  # noqa: S608 - names are constants

    resumed, fresh = Store.open(path, tenant="default"), Store.open(tmp_path / "fresh.db", tenant="default")
    done = resumed.positions().get(stream_of(subject), 0)
    assert done >= 3 * (after - 1)
    fresh.apply(events[:done])
    assert rows(resumed) == rows(fresh)
    resumed.apply(events)
    fresh.apply(events)
    assert rows(resumed) == rows(fresh)
    resumed.close()
    fresh.close()
