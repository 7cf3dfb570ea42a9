"""Evidence: a signed pack of sessions, the desired state they ran under and the principals that acted, for a third party.

`gather` reads the log itself, never a projection; `build_pack` makes the bytes: the same input, key and time always make the same
pack. What a pack holds, byte by byte, is in `docs/evidence.md`; `agentos.audit.verify` checks it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, canonical, digest, parse_strict
from agentos.abi.chain import Head
from agentos.abi.chain import verify as verify_chain
from agentos.abi.errors import ChainBroken, EvidenceError, NotFound
from agentos.abi.event import Event, rfc3339
from agentos.abi.ids import Clock, is_name
from agentos.audit import layout
from agentos.audit.covered import Covered
from agentos.audit.findings import tree_digests
from agentos.audit.keys import SigningKey
from agentos.eventlog.port import EventLog, Stored
from agentos.eventlog.subject import EVENT_STREAMS, PRINCIPALS, REVISIONS, session_of, session_subject, stream_of
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
    registry: RegistryRecord
    leaves: Mapping[str, Mapping[str, list[int]]] = field(hash=False)
    """stream → session → leaves."""
    registry_leaves: Mapping[str, list[int]] = field(hash=False)
    """`revisions` and `principals` → leaves of the registry's stream; an empty chain is absent."""


async def gather(log: EventLog, registry: EventLog, *, tenant: str, scope: Scope) -> Gathered:
    """Read what a pack of `tenant` holds: its sessions' stored bytes, both registry chains, the blobs of the revisions they name.

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
    named = {_decoded(data, session).config_revision for session, stored in sessions.items() for data in stored}
    applied = [_decoded(data, REVISIONS).data for data in revisions]
    # The state that holds nothing is nowhere stored: its tree is known without being read.
    trees = {digest(_EMPTY_TREE): _EMPTY_TREE} if any(body["tree"] == digest(_EMPTY_TREE) for body in applied) else {}
    trees |= await get_blobs(registry, {body["tree"] for body in applied if body["revision"] in named} - trees.keys())
    declared = {wanted for tree in trees.values() for wanted in tree_digests(tree, tenant).values()}
    record = RegistryRecord(revisions, principals, trees | await get_blobs(registry, declared))
    leaves: defaultdict[str, dict[str, list[int]]] = defaultdict(dict)
    for name, events in found.items():
        leaves[stream_of(session_subject(name))][name] = [stored.position - 1 for stored in events]
    named_chains = {name: [stored.position - 1 for stored in events] for name, events in chains.items() if events}
    return Gathered(sessions, record, dict(leaves), named_chains)


def build_pack(
    *,
    tenant: str,
    sessions: Mapping[str, Sequence[bytes]],
    registry: RegistryRecord,
    key: SigningKey,
    clock: Clock,
    exporter: str,
    scope: Scope | None = None,
    covered: Covered | None = None,
    not_before_ms: int = 0,
) -> bytes:
    """The pack of `sessions` (id → all stored bytes, in order), signed with `key` for `exporter` (`principal/<name>`).

    With `covered` it is a pack of format v2, else of v1, whose events no checkpoint is shown to cover. `not_before_ms` is when
    the key came into use: a clock that was set back does not say that it signed before.
    Raises ChainBroken for bytes that are no chain (what is broken gets no signature), EvidenceError for what no pack can hold.
    """
    scope = scope or Scope()
    exported_at = rfc3339(max(clock.now_ms(), not_before_ms))
    heads: dict[str, Head] = {}
    for session in sorted(sessions):
        if not is_name(session):
            raise EvidenceError(f"{session!r} is no session id")
        if not sessions[session]:
            raise EvidenceError(f"session {session} has no events")
        heads[session] = verify_chain(session, sessions[session])
    revisions, principals = _registry_head(registry.revisions), _registry_head(registry.principals)
    members = {
        layout.README: _readme(tenant, exported_at, key.id, covered=covered is not None).encode("ascii"),
        layout.REVISIONS: _lines(registry.revisions),
        layout.PRINCIPALS: _lines(registry.principals),
    }
    members |= {layout.blob_member(name): registry.blobs[name] for name in sorted(registry.blobs)}
    members |= {layout.events_member(session): _lines(sessions[session]) for session in heads}
    members |= {} if covered is None else covered.members()
    manifest = canonical(
        {
            "format": layout.FORMAT_V1 if covered is None else layout.FORMAT,
            "tenant": tenant,
            "exported_at": exported_at,
            "exporter": exporter,
            "key": key.id,
            "scope": {
                "sessions": None if scope.sessions is None else sorted(set(scope.sessions)),
                "since": None if scope.since_ms is None else rfc3339(scope.since_ms),
            },
            "sessions": [{"session": name, "seq": head.seq, "hash": head.hash} for name, head in heads.items()],
            "registry": {"revisions": revisions, "principals": principals},
            "members": [{"name": name, "sha256": digest(data), "size": len(data)} for name, data in members.items()],
        }
    )
    signature = key.sign(layout.SIGNED_PREFIX + manifest)
    return layout.zip_members({layout.MANIFEST: manifest, layout.SIGNATURE: signature} | members)


def _registry_head(events: Sequence[bytes]) -> dict[str, Json]:
    subject = ""
    if events:
        try:
            subject = str(parse_strict(events[0])["subject"])
        except (NotCanonical, KeyError, TypeError) as error:
            raise EvidenceError(f"a chain of the registry begins with no event: {error}") from error
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


async def _active(log: EventLog, since_ms: int) -> tuple[str, ...]:
    found = set()
    for stream in EVENT_STREAMS:
        async for stored in log.scan(stream):
            if _decoded(stored.data, stored.subject).time_ms >= since_ms:
                found.add(session_of(stored.subject))
    return tuple(sorted(found))


async def _read_all(log: EventLog) -> dict[str, list[Stored]]:
    sessions: defaultdict[str, list[Stored]] = defaultdict(list)
    room = _Room()
    for stream in EVENT_STREAMS:
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


def _readme(tenant: str, exported_at: str, key: str, *, covered: bool) -> str:
    words = {"format": layout.FORMAT if covered else layout.FORMAT_V1, "tenant": tenant, "exported_at": exported_at, "key": key}
    text = _README.replace("{covered}", _README_COVERED if covered else "")
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    return text


_README_COVERED: Final = """6. The checkpoints. checkpoint/tenant.note and checkpoint/registry.note are C2SP signed notes
   (https://c2sp.org/signed-note): each names the Merkle root of every stream of its log. checkpoint/EV_0.json and so on
   say which leaf each event is, with the hashes from which, together with the events, the signed root is computed
   (docs/audit.md). checkpoint/rotations.json proves each change of the signing key.
"""

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
4. The chains. Every line of events/SESSION.jsonl is one event. Its "seq" is its line number, its "prev" is
   "sha256:" and the SHA-256 of the line before (without the line feed; 64 zeros for the first). The last line's
   number and SHA-256 stand in manifest.json under "sessions", so that a cut tail shows.
   registry/revisions.jsonl and registry/principals.jsonl are chains of the same kind ("registry").
5. The meaning. agentos.syscall.decided precedes every outcome and says who allowed what by which rules;
   "configrevision" names the revision of the declarations in force, whose tree and blobs are in registry/blobs.
{covered}
The format, byte by byte, is in docs/evidence.md of the AgentOS sources.
"""
