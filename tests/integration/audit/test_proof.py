"""Proof end to end: a log, its projector, the verbs, the command line, and a verifier on a machine without a runtime."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from agentos.abi.errors import AgentOSError, NotFound, UsageError
from agentos.audit.keys import SigningKey
from agentos.audit.verify import verify_pack
from agentos.control.audit_verbs import handlers
from agentos.control.principal import Caller
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import PRINCIPALS, REVISIONS, blob_subject, session_subject
from agentos.projections.projector import Projector
from agentos.projections.store import Store

OLGA = Caller("olga", ("auditor",), "default", fleet=True)


async def put(log, subject: str, lines) -> None:
    await log.append(subject, [Message(f"{subject}-{at}", line) for at, line in enumerate(lines)], after=0)


class Door:
    """The verbs of one runtime, without the wire."""

    def __init__(self, verbs, key, log) -> None:
        self.verbs, self.key, self.log = verbs, key, log

    async def __call__(self, verb: str, **params):
        answer = await self.verbs[verb](OLGA, params)
        # What a verb answers must survive the wire.
        return json.loads(json.dumps(answer))


@pytest.fixture
async def door(tmp_path, record):
    log, registry, key = MemoryLog(), MemoryLog(), SigningKey.from_seed(bytes(range(32)))
    made = record.registry_record()
    for name in ("s-busy", "s-short"):
        make = record.busy_session if name == "s-busy" else record.short_session
        await put(log, session_subject(name), make(name).stored)
    for name, data in made.blobs.items():
        await put(registry, blob_subject(name), [data])
    await put(registry, REVISIONS, made.revisions)
    await put(registry, PRINCIPALS, made.principals)
    store = Store.open(tmp_path / "read" / "default.db", tenant="default")
    async with Projector(log, store) as projector:

        async def projectors(tenant: str) -> Projector:
            return projector

        verbs = handlers(projectors=projectors, logs=lambda tenant: log, registry=registry, key=key, clock=record.Still())
        yield Door(verbs, key, log)
    store.close()


async def test_a_query_includes_what_was_just_written(door, record):
    """The answer holds everything that the log held when asked, and says what it lacks: nothing."""
    answer = await door("audit.query", effect="deny")
    assert [row["call"] for row in answer["rows"]] == ["c2"]
    assert (answer["more"], answer["behind"], answer["faults"]) == (False, {}, 0)
    await put(door.log, session_subject("s-new"), record.busy_session("s-new").stored)
    assert len((await door("audit.query", effect="deny"))["rows"]) == 2


async def test_rebuild_answers_with_positions_and_faults(door):
    """What could not be read is told, with its place in the log."""
    await put(door.log, session_subject("s-odd"), [b"hello"])
    before = (await door("audit.query"))["rows"]
    answer = await door("audit.rebuild")
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
    for verb in ("audit.rebuild", "evidence.key"):
        with pytest.raises(UsageError):
            await door(verb, extra=1)


@pytest.fixture
def command(door, monkeypatch, tmp_path):
    """Run `agentos audit|evidence …` against the verbs; give exit code, output, errors."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from agentos.cli import audit, evidence

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
    pack = tmp_path / "pack.zip"
    pack.write_bytes(pack.read_bytes().replace(b"looks right", b"looks wrong"[:11], 1))
    bad = await command("evidence", "verify", "pack.zip", "--trust", "runtime.pub")
    assert bad.exit_code == 1
    assert bad.stdout == snapshot


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
    assert found.stdout == "True 2 19\n"


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
    sessions, found = await gather(log, store, tenant="default", scope=Scope())
    key = SigningKey.from_seed(bytes(32))
    pack = build_pack(
        tenant="default", sessions=sessions, registry=found, key=key, clock=record.Still(), exporter="principal/olga"
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
