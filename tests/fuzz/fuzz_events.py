"""Events and archives: whoever holds the disk, a backup or a pack may have written them.

What is read is what its own bytes say to everybody, no broken chain is followed, no state shows a call allowed that no event
allowed, and no byte of a signed archive is changed without its being said.
"""

from __future__ import annotations

import io
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

from fuzz_case import Broken, Target
from fuzz_frames import LOOP
from fuzz_strict import clean_parse, same

from agentos.abi.attributes import attributes_of, session_attributes
from agentos.abi.canonical import Json, NotCanonical, canonical, parse_strict
from agentos.abi.chain import Head, follow, verify
from agentos.abi.errors import ChainBroken, EvidenceError, NotFound, PayloadErased
from agentos.abi.event import SESSION_CREATED, SYSCALL_DECIDED, Event
from agentos.abi.exact import read_exact
from agentos.audit.checkpoint import open_checkpoint
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.layout import MANIFEST, SIGNATURE, SIGNED_PREFIX, unzip_members, zip_members
from agentos.audit.note import parse_note
from agentos.audit.trust import Trust
from agentos.audit.verify import verify_pack
from agentos.boot.backup_file import BackupWriter, open_backup
from agentos.boot.backup_manifest import LogEntry, Manifest, StreamEntry
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message, Stored
from agentos.eventlog.subject import session_subject
from agentos.kernel.journal import Journal
from agentos.projections.decoded import read_header, read_kind
from agentos.projections.rows import Rows, take
from agentos.projections.session import Step, fold_all
from agentos.projections.state_document import digest_of_state, read_state, state_document
from agentos.projections.state_snapshot import read_state_lines, write_state
from agentos.projections.texts import text_of

TESTS: Final = Path(__file__).parents[1]
SUBJECT: Final = "s-1hf7yat01v514x4zmty"
KEY: Final = SigningKey.from_seed(bytes(range(32)))


def _golden(name: str) -> list[bytes]:
    """The stored events of a recorded session."""
    return (TESTS / "golden" / f"{name}.jsonl").read_bytes().splitlines()


def record(data: bytes) -> str:
    """One record: whoever decodes it, by whatever way, comes to the same event, which is what a clean parse has, or to none."""
    header, _, _ = data.partition(b"\t")
    exact = _read(read_exact, header)
    if exact is not None and not same(exact, clean_parse(header)):
        raise Broken(f"{exact} was read, others read {clean_parse(header)}")
    if exact is not None and canonical(exact) != header:
        raise Broken("it is called canonical, and is not")
    try:
        event = Event.from_bytes(data)
    except (ValueError, KeyError):
        event = None
    try:
        told = read_header(header)
    except (ValueError, KeyError, TypeError):
        told = None
    try:
        read_kind(data, {SESSION_CREATED, SYSCALL_DECIDED})
    except (ValueError, KeyError, TypeError):
        told = None
    subject = event.subject if event is not None else "s-1"
    try:
        follow(Head.empty(), data, subject=subject)
    except ChainBroken as error:
        canonical(error.to_dict())
    if event is None:
        return "refused"
    if told is not None and (told.type, told.seq, told.prev, told.actor) != (event.type, event.seq, event.prev, event.actor):
        raise Broken(f"{told} and {event} are the same record")
    return "taken" if told is not None else "refused: header"


def _read(way: Any, data: bytes) -> Json | None:
    try:
        return way(data)
    except NotCanonical:
        return None


def _records() -> list[bytes]:
    """Records with an opening, as sessions of today are stored."""
    members = unzip_members(_pack())
    return [line for name, data in members.items() if name.endswith(".jsonl") for line in data.splitlines()[:3]]


def session(data: bytes) -> str:
    """A session whose events say whatever they say, in a whole chain: it is read, or refused as a broken one.

    A call that the state calls allowed was allowed by an event. The state says the same from a document and from a snapshot. The
    read models note a fault where an event is odd, and never raise.
    """
    events, stored = _chained(data)
    if not stored:
        return "refused: no event"
    rows = Rows(load=lambda _table, _key: None)
    for position, one in enumerate(stored, 1):
        take(rows, "EV_202611_0", Stored(session_subject(SUBJECT), position, one), tenant="default")
        _words(one)
    log = MemoryLog()
    log_subject = session_subject(SUBJECT)
    LOOP.run_until_complete(log.append(log_subject, [Message(f"m-{n}", one) for n, one in enumerate(stored)], after=0))
    try:
        journal = LOOP.run_until_complete(Journal.load(log, "default", SUBJECT, None, None))  # type: ignore[arg-type]
    except (ChainBroken, PayloadErased, NotFound):
        return "refused"
    if events[0].type == SESSION_CREATED and fold_all(events) != journal.state:
        raise Broken("two folds of the same events differ")
    allowed = {_call(event) for event in events if event.type == SYSCALL_DECIDED and _effect(event) == "allow"}
    inherited = set(journal.inherited)
    for call in journal.state.calls.values():
        if call.step is Step.ALLOWED and call.call not in allowed | inherited:
            raise Broken(f"{call.call} is allowed by no event")
    return _kept(journal)


def _kept(journal: Journal) -> str:
    """Whether the state can be kept; then it is the same when it is read again."""
    state = journal.state
    try:
        document = parse_strict(canonical(state_document(state)))
        lines = list(write_state(state))
    except (NotCanonical, TypeError, ValueError, AttributeError):
        return "odd state"
    try:
        again = read_state(document)
        snapshot = read_state_lines(lines)
    except (LookupError, TypeError, ValueError, AttributeError):
        return "odd state"
    if digest_of_state(again) != digest_of_state(snapshot):
        raise Broken("a document and a snapshot of the same state differ")
    return "taken"


def _words(stored: bytes) -> None:
    try:
        header, body = read_kind(stored, _EVERY)
        if body is not None:
            text_of(header, body)
    except (ValueError, KeyError, TypeError):
        return


class _Every:
    def __contains__(self, _: object) -> bool:
        return True


_EVERY: Final = _Every()


def _call(event: Event) -> Json:
    return event.data.get("call") if isinstance(event.data.get("call"), str) else None


def _effect(event: Event) -> Json:
    decision = event.data.get("decision")
    return decision.get("effect") if isinstance(decision, dict) else None


def _chained(data: bytes) -> tuple[list[Event], list[bytes]]:
    """The events of lines `{type, data, actor?, time_ms?}`, chained as the runtime chains them; other lines are left out."""
    events: list[Event] = []
    stored: list[bytes] = []
    head, of_session = Head.empty(), {}
    for line in data.split(b"\n")[:60]:
        try:
            said = parse_strict(line)
            body, kind = said["data"], said["type"]
            actor, now = said.get("actor", "system/kernel"), said.get("time_ms", 1_795_000_000_000 + 1000 * head.seq)
            if not isinstance(body, dict) or type(now) is not int or not isinstance(kind, str) or not isinstance(actor, str):
                continue
            of_session = of_session or session_attributes(actor, body)
            told = of_session | attributes_of(kind, body)
            event = Event(
                f"e-{head.seq}", kind, "default", SUBJECT, head.seq + 1, head.hash, now, actor, 1, None, body, told
            )  # fmt: skip
            record_ = event.to_record(bytes(16))
        except (NotCanonical, KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
            continue  # the runtime writes nothing of that kind: what is read is what is looked at here
        events.append(event)
        stored.append(record_)
        head = event.head(record_)
    return events, stored


def _sessions() -> list[bytes]:
    """Every recorded session, its events as lines, with smaller numbers of each."""
    found = []
    for path in sorted((TESTS / "golden").glob("*.jsonl")):
        lines = []
        for one in path.read_bytes().splitlines()[:20]:
            event = Event.from_bytes(one)
            lines.append(
                json.dumps({"type": event.type, "actor": event.actor, "data": _short(event.data)}, separators=(",", ":"))
            )
        found.append("\n".join(lines).encode())
    return found


def _short(value: Json) -> Json:
    """The same with short texts: long ones are where nothing is found."""
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value[:4]]
    return value[:80] if isinstance(value, str) else value


def chain(data: bytes) -> str:
    """A recorded chain with something done to its lines: whoever follows it to the same head has followed the same headers."""
    lines = data.split(b"\n")
    subject = next((name for name in _heads() if name.encode() in lines[0]), SUBJECT)
    try:
        head = verify(subject, lines)
    except ChainBroken as error:
        canonical(error.to_dict())
        return "refused"
    for line in lines:
        clean_parse(line.partition(b"\t")[0])
    whole = _heads().get(subject, {})
    if head.hash in whole.values() and whole.get(head.seq) != head.hash:
        raise Broken("the same head after another number of events")
    return "taken"


@cache
def _heads() -> dict[str, dict[int, str]]:
    """The heads of recorded sessions, by how many events they have."""
    found: dict[str, dict[int, str]] = {}
    for lines in _chains():
        subject, head = Event.from_bytes(lines[0]).subject, Head.empty()
        for line in lines:
            head, _ = follow(head, line, subject=subject)
            found.setdefault(subject, {})[head.seq] = head.hash
    return found


@cache
def _chains() -> list[list[bytes]]:
    return [_golden(name)[:8] for name in ("cancel", "approval", "fork")]


TRUST: Final = Trust(KEY.public)


@cache
def _backup() -> bytes:
    """A backup of two accounts with two small archives."""
    file = io.BytesIO()
    writer, logs = BackupWriter(file, lambda _: None), []
    for tenant, stream, subjects in (("acme", "EV_202611_0", "ev.202611.0.>"), ("*", "REG", "reg.>")):
        with writer.member(LogEntry(tenant, "", ()).member(stream)) as writing:
            writing.write(b"archive of " + stream.encode() * 9)
        config = {"name": stream, "subjects": [subjects], "max_age": 0}
        entry = StreamEntry(stream, writing.size, writing.sha256, 3, 1, 3, "ab" * 32, config, {"messages": 3})
        logs.append(LogEntry(tenant, "a note\n", (entry,)))
    ring = KeyRing(None, KEY)
    writer.finish(Manifest("2026-11-21T08:30:00.000Z", "0.1.0", "principal/op", KEY.id, ring.rotations, tuple(logs)), ring)
    return file.getvalue()


def backup(data: bytes) -> str:
    """A backup's file: it is the one that was signed, byte for byte, or it is refused with the reason."""
    try:
        opened = open_backup(io.BytesIO(data))
        opened.require_signed(opened.keys(TRUST))
        opened.check()
    except EvidenceError as error:
        canonical(error.to_dict())
        return "refused"
    if data != _backup():
        raise Broken("a backup that nobody signed is taken")
    return "taken"


def signed_backup(data: bytes) -> str:
    """A backup whose manifest says whatever it says, under a good signature: read to exactly what it says, or refused."""
    try:
        read = Manifest.parse(data)
    except EvidenceError as error:
        canonical(error.to_dict())
        return "refused"
    if read.to_bytes() != data or not same(clean_parse(data), json.loads(data)):
        raise Broken("two spellings of one manifest")
    return "taken"


def _manifest() -> list[bytes]:
    return [open_backup(io.BytesIO(_backup())).manifest.to_bytes()]


@cache
def _pack() -> bytes:
    """A pack of two sessions, as the tests of the audit fabricate it."""
    sys.path.insert(0, str(TESTS / "unit" / "audit"))
    import importlib.util

    spec = importlib.util.spec_from_file_location("fuzz_fleet", TESTS / "unit" / "audit" / "conftest.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("the fabricated record is gone")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_fleet"] = module
    spec.loader.exec_module(module)
    sessions = {"s-busy": module.busy_session("s-busy").stored, "s-short": module.short_session("s-short").stored}
    return bytes(module.Fleet(sessions, module.registry_record(), KEY).pack())


def pack(data: bytes) -> str:
    """An evidence pack, as a script of edits: a pack that holds under a key is byte for byte what the holder of the key signed.

    Lines `member offset cut text`: in this member, from there, so many bytes give way to the text. `sign` as the first line: the
    holder of the key has signed the outcome, so that the checks behind the signature are reached.
    """
    lines = data.split(b"\n")
    members, ours = unzip_members(_pack()), False
    names = list(members)
    for line in lines[:20]:
        words = line.split(b" ", 3)
        if words == [b"sign"]:
            ours = True
        elif len(words) == 4 and all(word.isdigit() and len(word) < 8 for word in words[:3]):
            name = names[int(words[0]) % len(names)]
            body = members[name]
            at = int(words[1]) % (len(body) + 1)
            members[name] = body[:at] + words[3] + body[at + int(words[2]) :]
    if ours:
        members = _signed(members)
    whole = zip_members(members)
    report = verify_pack(whole, KEY.public_pem)
    canonical(report.to_dict())
    if report.ok and not ours and whole != _pack():
        raise Broken("a pack that nobody signed holds")
    return "taken" if report.ok else f"refused: {next((check.name for check in report.checks if check.ok is False), '?')}"


def _signed(members: dict[str, bytes]) -> dict[str, bytes]:
    """The members with a manifest that fits them, signed with the key."""
    from agentos.abi.canonical import digest

    try:
        body = parse_strict(members[MANIFEST])
        listed = [
            {"name": name, "sha256": digest(data), "size": len(data)}
            for name, data in members.items()
            if name not in {MANIFEST, SIGNATURE}
        ]
        manifest = canonical({**body, "members": listed})
    except (NotCanonical, TypeError):
        return members
    return members | {MANIFEST: manifest, SIGNATURE: KEY.sign(SIGNED_PREFIX + manifest)}


def note(data: bytes) -> str:
    """A signed note: a checkpoint, or refused; what counts has the signature of exactly its text."""
    try:
        taken = parse_note(data)
        found = open_checkpoint(data, TRUST.keys(()))
    except EvidenceError as error:
        canonical(error.to_dict())
        return "refused"
    if found.text() != taken.text or taken.text not in {parse_note(one).text for one in _notes()}:
        raise Broken("a checkpoint that nobody signed counts")
    return "taken"


@cache
def _notes() -> list[bytes]:
    members = unzip_members(_pack())
    return [data for data in members.values() if "\n\n— ".encode() in data]


def snapshot(data: bytes) -> str:
    """The lines of a snapshot of a session's state: read to a state that writes the same lines, or refused as documented."""
    try:
        state = read_state_lines(data.split(b"\n"))
    except (LookupError, TypeError, ValueError):
        return "refused"
    del state
    return "taken"


def _snapshots() -> list[bytes]:
    return [b"\n".join(write_state(fold_all(map(Event.from_bytes, _golden(name))))) for name in ("cancel", "open", "denial")]


_NAMES: Final = (b'"type":"agentos.', b'"data":', b'"call":', b'"decision":', b'"effect":"allow"', b'"seq":', b'"prev":', b'"p":')

EVENTS: Final = (
    Target(
        "events.record",
        record,
        2500,
        (*_NAMES, b"\t", b'"time":"2026-11-21T08:30:00.125Z"'),
        made=lambda: [*_golden("cancel"), *_records()],
    ),
    Target("events.session", session, 1200, (*_NAMES, b'"approvals":', b'"obligations":', b'"forked":'), made=_sessions),
    Target("events.chain", chain, 800, _NAMES, made=lambda: [b"\n".join(lines) for lines in _chains()], longest=32 * 1024),
    Target("events.snapshot", snapshot, 500, (b'"state":', b'"calls":'), made=_snapshots, longest=32 * 1024),
    Target("archives.backup", backup, 800, (b"ustar", b"0000600", b"manifest.json"), made=lambda: [_backup()]),
    Target("archives.manifest", signed_backup, 800, (b'"streams":', b'"logs":', b'"tenant":'), made=_manifest),
    Target("archives.pack", pack, 500, (b"sign\n", b"0 10 1 ", b"3 100 5 "), made=lambda: [b"", b"sign"]),
    Target("archives.note", note, 800, (b"\n\n", "— ".encode(), b"stream ", b"time "), made=_notes),
)
