"""Evidence: a signed pack of sessions, the desired state they ran under and the principals that acted, for a third party.

`gather` reads the log itself, never a projection; `build_pack` makes the bytes: the same input, key and time always make the same
pack. What a pack holds, byte by byte, is in `docs/evidence.md`; `agentos.audit.verify` checks it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, canonical, digest, parse_strict
from agentos.abi.chain import verify as verify_chain
from agentos.abi.errors import ChainBroken, EvidenceError, NotFound
from agentos.abi.event import Event, rfc3339
from agentos.abi.ids import Clock, is_name
from agentos.abi.record import header_of, split
from agentos.audit import layout
from agentos.audit.covered import Covered
from agentos.audit.findings import erased_sessions, tree_digests
from agentos.audit.keys import SigningKey
from agentos.audit.withhold import NOTHING, Withhold
from agentos.eventlog.port import EventLog, Stored
from agentos.eventlog.subject import (
    AUDIT_CHAIN,
    AUDIT_NAME,
    PRINCIPALS,
    REVISIONS,
    is_session_stream,
    session_of,
    session_subject,
    stream_of,
)
from agentos.registry.blob import get_blobs

_EMPTY_TREE: Final = b"{}"
_CHAINS: Final = {"revisions": REVISIONS, "principals": PRINCIPALS}


@dataclass(frozen=True, slots=True)
class Scope:
    """What an export was asked for. None means: not narrowed. At most one of the two is given."""

    sessions: tuple[str, ...] | None = None
    """Only these sessions."""
    since_ms: int | None = None
    """Only sessions with an event at or after this time. A session is exported whole or not at all, as its chain is one."""
    withhold: Withhold = NOTHING
    """Which payloads stay out of the pack."""


@dataclass(frozen=True, slots=True)
class RegistryRecord:
    """The registry's side of a pack: stored bytes of both chains in order, and blobs by digest (`sha256:<hex>`)."""

    revisions: Sequence[bytes]
    principals: Sequence[bytes]
    blobs: Mapping[str, bytes] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a pack is made of, and where it stands in the logs (chain → leaf numbers, which are positions less one)."""

    sessions: Mapping[str, list[bytes]] = field(hash=False)
    """session → its records, payloads and all."""
    registry: RegistryRecord
    leaves: Mapping[str, Mapping[str, list[int]]] = field(hash=False)
    """stream → session → leaves."""
    registry_leaves: Mapping[str, list[int]] = field(hash=False)
    """`revisions` and `principals` → leaves of the registry's stream; an empty chain is absent."""


async def gather(log: EventLog, registry: EventLog, *, tenant: str, scope: Scope) -> Gathered:
    """Read what a pack of `tenant` holds: its sessions' records, both registry chains, the blobs of the revisions they name.

    Raises NotFound for a session the log does not have, ChainBroken for bytes that are no event and for a blob that is missing or
    was changed, EvidenceError when it is more than a pack can hold.
    """
    names = scope.sessions
    if names is None and scope.since_ms is not None:
        names = await _active(log, scope.since_ms)
    found = await _read_all(log) if names is None else await _read_named(log, names)
    sessions = {name: [stored.data for stored in events] for name, events in found.items()}
    chains = {name: [stored async for stored in registry.read(at)] for name, at in _CHAINS.items()}
    revisions, principals = ([stored.data for stored in chains[name]] for name in _CHAINS)
    named = {_header(data, session).config_revision for session, stored in sessions.items() for data in stored}
    applied = [_decoded(data, REVISIONS).data for data in revisions]
    # The state that holds nothing is nowhere stored: its tree is known without being read.
    trees = {digest(_EMPTY_TREE): _EMPTY_TREE} if any(body["tree"] == digest(_EMPTY_TREE) for body in applied) else {}
    trees |= await get_blobs(registry, {body["tree"] for body in applied if body["revision"] in named} - trees.keys())
    declared = {wanted for tree in trees.values() for wanted in tree_digests(tree, tenant).values()}
    record = RegistryRecord(revisions, principals, trees | await get_blobs(registry, declared))
    leaves: defaultdict[str, dict[str, list[int]]] = defaultdict(dict)
    for name, events in found.items():
        leaves[stream_of(events[0].subject)][name] = [stored.position - 1 for stored in events]
    named_chains = {name: [stored.position - 1 for stored in events] for name, events in chains.items() if events}
    return Gathered(sessions, record, dict(leaves), named_chains)


async def gather_audit(log: EventLog, size: int) -> list[Stored]:
    """The audit chain as far as a checkpoint of `size` covers it: its first `size` events."""
    async with aclosing(log.read(AUDIT_CHAIN)) as events:
        return [stored async for stored in events if stored.position <= size]


def build_pack(
    *,
    tenant: str,
    sessions: Mapping[str, Sequence[bytes]],
    registry: RegistryRecord,
    audit: Sequence[bytes],
    key: SigningKey,
    clock: Clock,
    exporter: str,
    covered: Covered,
    scope: Scope | None = None,
    not_before_ms: int = 0,
) -> bytes:
    """The pack of `sessions` (id → all records, in order), signed with `key` for `exporter` (`principal/<name>`).

    Payloads that `scope` withholds are left out here, behind the last look at them. `not_before_ms` is when the key came into
    use: a clock that was set back does not say that it signed before.
    Raises ChainBroken for bytes that are no chain (what is broken gets no signature), EvidenceError for what no pack can hold.
    """
    scope = scope or Scope()
    exported_at = rfc3339(max(clock.now_ms(), not_before_ms))
    if not scope.withhold.sessions <= sessions.keys():
        absent = min(scope.withhold.sessions - sessions.keys())
        raise EvidenceError(f"payloads of session {absent} were to be withheld, and it is not in the pack")
    heads: list[Json] = []
    disclosed: dict[str, Sequence[bytes]] = {}
    audited = _chain_head(audit)
    try:
        erased = erased_sessions([_decoded(data, AUDIT_NAME) for data in audit])
    except ValueError as error:
        raise ChainBroken(str(error), where=AUDIT_CHAIN) from error
    for session in sorted(sessions):
        if not is_name(session):
            raise EvidenceError(f"{session!r} is no session id")
        if not sessions[session]:
            raise EvidenceError(f"session {session} has no events")
        head = verify_chain(session, sessions[session])
        disclosed[session] = scope.withhold.disclosed(session, sessions[session])
        gone = count_withheld(sessions[session])
        heads.append(
            {
                "session": session,
                "seq": head.seq,
                "hash": head.hash,
                "withheld": count_withheld(disclosed[session]) - gone,
                "erased": gone if session in erased else 0,
                "lost": 0 if session in erased else gone,
            }
        )
    members = {
        layout.README: _readme(tenant, exported_at, key.id).encode("ascii"),
        layout.REVISIONS: _lines(registry.revisions),
        layout.PRINCIPALS: _lines(registry.principals),
        layout.AUDIT: _lines(audit),
    }
    members |= {layout.blob_member(name): registry.blobs[name] for name in sorted(registry.blobs)}
    members |= {layout.events_member(session): _lines(records) for session, records in disclosed.items()}
    members |= covered.members()
    manifest = canonical(
        {
            "format": layout.FORMAT,
            "tenant": tenant,
            "exported_at": exported_at,
            "exporter": exporter,
            "key": key.id,
            "scope": {
                "sessions": None if scope.sessions is None else sorted(set(scope.sessions)),
                "since": None if scope.since_ms is None else rfc3339(scope.since_ms),
                "withhold": scope.withhold.told(),
            },
            "sessions": heads,
            "registry": {"revisions": _chain_head(registry.revisions), "principals": _chain_head(registry.principals)},
            "audit": audited,
            "members": [{"name": name, "sha256": digest(data), "size": len(data)} for name, data in members.items()],
        }
    )
    signature = key.sign(layout.SIGNED_PREFIX + manifest)
    return layout.zip_members({layout.MANIFEST: manifest, layout.SIGNATURE: signature} | members)


def kept_back(withhold: Withhold, sessions: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
    """How many payloads each part of `withhold` keeps out of a pack of `sessions`, by the text that says it."""
    return {text: kept_out(Withhold.parse([text]), sessions) for text in withhold.told()}


def kept_out(withhold: Withhold, sessions: Mapping[str, Sequence[bytes]]) -> int:
    """How many payloads `withhold` keeps out of a pack of `sessions`."""
    if withhold == NOTHING:
        return 0
    pairs = ((withhold.disclosed(name, records), records) for name, records in sessions.items())
    return sum(count_withheld(left) - count_withheld(records) for left, records in pairs)


def count_withheld(records: Iterable[bytes]) -> int:
    """How many of `records` are headers whose payload is not there."""
    return sum(split(record)[1] is None and "p" in parse_strict(record) for record in records)


def _chain_head(events: Sequence[bytes]) -> dict[str, Json]:
    subject = ""
    if events:
        try:
            subject = str(parse_strict(events[0])["subject"])
        except (NotCanonical, KeyError, TypeError) as error:
            raise EvidenceError(f"a chain begins with no event: {error}") from error
    head = verify_chain(subject, events)
    return {"subject": subject, "seq": head.seq, "hash": head.hash}


def _lines(events: Iterable[bytes]) -> bytes:
    # Canonical JSON holds no line feed, so a line is an event.
    return b"".join(data + b"\n" for data in events)


def _decoded(data: bytes, where: str) -> Event:
    try:
        return Event.from_bytes(data)
    except (NotCanonical, KeyError, ValueError, TypeError) as error:
        raise ChainBroken(f"the log holds bytes that are no event: {type(error).__name__}: {error}", where=where) from error


def _header(data: bytes, where: str) -> Event:
    """What is said without the payload."""
    return _decoded(header_of(data), where)


async def _active(log: EventLog, since_ms: int) -> tuple[str, ...]:
    found = set()
    for stream in filter(is_session_stream, await log.streams()):
        async for stored in log.scan(stream):
            if _header(stored.data, stored.subject).time_ms >= since_ms:
                found.add(session_of(stored.subject))
    return tuple(sorted(found))


async def _read_all(log: EventLog) -> dict[str, list[Stored]]:
    sessions: defaultdict[str, list[Stored]] = defaultdict(list)
    room = _Room()
    for stream in filter(is_session_stream, await log.streams()):
        async for stored in log.scan(stream):
            room.take(stored.data)
            sessions[session_of(stored.subject)].append(stored)
    return dict(sessions)


async def _read_named(log: EventLog, names: Iterable[str]) -> dict[str, list[Stored]]:
    sessions: dict[str, list[Stored]] = {}
    room = _Room()
    for name in names:
        if not is_name(name):
            raise NotFound(f"{name!r} is no session id")
        sessions[name] = []
        async for stored in log.read(session_subject(name)):
            room.take(stored.data)
            sessions[name].append(stored)
        if not sessions[name]:
            raise NotFound(f"no session {name}", mend="list them: agentos ps --all")
    return sessions


class _Room:
    """Stops an export that no pack can hold while it is read, not when it fills the memory."""

    def __init__(self) -> None:
        self._left = layout.MAX_PACK

    def take(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            mend = "narrow the export with --session or --since"
            raise EvidenceError(f"the events are more than the {layout.MAX_PACK} bytes that a pack can hold", mend=mend)


def _readme(tenant: str, exported_at: str, key: str) -> str:
    text = _README
    for name, value in {"format": layout.FORMAT, "tenant": tenant, "exported_at": exported_at, "key": key}.items():
        text = text.replace(f"{{{name}}}", value)
    return text


_README: Final = """AgentOS evidence pack ({format})
tenant {tenant}, exported {exported_at}
signing key {key}

Verify it with a public key that you did NOT get in or with this file:

    agentos evidence verify PACK.zip --trust runtime.pub

By hand, with unzip, openssl 3 and sha256sum:

1. The key. `openssl pkey -pubin -in runtime.pub -outform DER | tail -c 32 | sha256sum`
   prints the hex digits of the signing key above and of "key" in manifest.json.
2. The signature.
       printf 'agentos evidence manifest v1\\0' | cat - manifest.json > signed
       openssl pkeyutl -verify -pubin -inkey runtime.pub -rawin -in signed -sigfile manifest.sig
3. The members. manifest.json lists every other file with its size and SHA-256; `sha256sum` agrees,
   and there is no file that is not listed.
4. The chains. Every line of events/SESSION.jsonl is one event: its header and, behind a TAB, its payload, if that
   is disclosed. Cut the payloads off with `cut -f 1`. A header's "seq" is its line number, its "prev" is "sha256:"
   and the SHA-256 of the header before (without the line feed; 64 zeros for the first). The last header's number and
   SHA-256 stand in manifest.json under "sessions", so that a cut tail shows.
   registry/revisions.jsonl, registry/principals.jsonl and audit/chain.jsonl are chains of the same kind, of whole
   lines ("registry", "audit").
5. The payloads. The SHA-256 of what is behind the TAB is "p" of the header. manifest.json says for each session how
   many payloads are withheld, erased or lost; audit/chain.jsonl says on what basis they were erased.
6. The meaning. agentos.syscall.decided precedes every outcome and says who allowed what by which rules;
   "configrevision" names the revision of the declarations in force, whose tree and blobs are in registry/blobs.
7. The checkpoints. checkpoint/tenant.note and checkpoint/registry.note are C2SP signed notes
   (https://c2sp.org/signed-note): each names the Merkle root of every stream of its log. checkpoint/EV_202611_0.json and so
   on say which leaf each event is, with the hashes from which, together with the headers, the signed root is computed
   (docs/audit.md). checkpoint/rotations.json proves each change of the signing key.

The format, byte by byte, is in docs/evidence.md of the AgentOS sources.
"""
