"""Offline verification: does this pack prove what it claims, given a public key that did not come with it?

Imports the ABI, the pack's layout, the standard library and `cryptography`; it runs where no runtime ever ran. One failed check
is a failed pack; checks behind a failed one still run where they can, so that the report names the place that was tampered
with. `verify_pack` returns a report for any bytes whatever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, canonical, digest, parse_strict
from agentos.abi.chain import GENESIS, Head, follow
from agentos.abi.errors import ChainBroken, EvidenceError
from agentos.abi.event import Event, parse_rfc3339
from agentos.abi.ids import is_name
from agentos.audit import covered, layout
from agentos.audit.covered import read_rotations
from agentos.audit.findings import Finding, Roster, check_blobs, check_revisions, check_session
from agentos.audit.note import signed_by
from agentos.audit.trust import Trust, load_trust

CHECKS: Final = {
    "container": "the file is exactly the bytes that its members make",
    "manifest": "the manifest is canonical and complete",
    "signature": "the manifest is signed by the trusted key",
    "members": "every member is listed with its size and digest, and nothing else is in the pack",
    "chains": "every chain is whole and ends at its signed head",
    "revisions": "every decision names a revision that was applied",
    "blobs": "every declaration those revisions hold is in the pack",
    "intent": "every outcome has an earlier decision that allowed it",
    "approvals": "every approved call was approved by a person who was an approver then",
    "actors": "every principal that acted existed and was not revoked",
}
"""The checks by name, in the order in which they are reported, and what each one says when it holds."""

CHECKS_V2: Final = {
    "checkpoint": "the checkpoints of the tenant and of the registry are signed by the trusted key",
    "inclusion": "every event is a leaf under a root that a checkpoint names",
}
"""The checks of packs of format v2, behind the others."""

_MEANING: Final = frozenset({"revisions", "blobs", "intent", "approvals", "actors"})

MAX_MANIFEST: Final = 64 * 1024 * 1024
"""Largest manifest read, in bytes."""

MAX_FAULTS: Final = 200
"""Most faults reported; the last one then says that there are more."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: which check found it, where (a member, a session's event, a byte), and what it is."""

    check: str
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class Check:
    """One check: `ok` is None where an earlier failure kept it from being made, or made whole."""

    name: str
    ok: bool | None
    says: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome. `ok` only if every check was made and held. Counts are of what was read, trusted or not."""

    ok: bool
    tenant: str
    exporter: str
    exported_at: str
    key: str
    sessions: int
    events: int
    checks: tuple[Check, ...]
    faults: tuple[Fault, ...]

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape that `agentos evidence verify -o json` prints."""
        return {
            "ok": self.ok,
            "tenant": self.tenant,
            "exporter": self.exporter,
            "exported_at": self.exported_at,
            "key": self.key,
            "sessions": self.sessions,
            "events": self.events,
            "checks": [{"name": check.name, "ok": check.ok, "says": check.says} for check in self.checks],
            "faults": [{"check": fault.check, "where": fault.where, "message": fault.message} for fault in self.faults],
        }


def verify_pack(data: bytes, trust: bytes) -> Report:
    """Check the pack `data` against the public key `trust` (PEM, or a verifier key), which must come from outside it.

    Raises EvidenceError only for a `trust` that is no such key.
    """
    return _Verifier(data, load_trust(trust)).run()


@dataclass(frozen=True, slots=True)
class _Manifest:
    format: str
    tenant: str
    exporter: str
    exported_at: str
    key: str
    sessions: Mapping[str, Head]
    registry: Mapping[str, tuple[str, Head]]
    """chain → (subject, head), for `revisions` and `principals`."""
    members: tuple[tuple[str, str, int], ...]
    """(name, digest, size)."""


class _Verifier:
    def __init__(self, data: bytes, trust: Trust) -> None:
        self._data = data
        self._trust = trust
        self._keys = trust.keys(())
        self._faults: list[Fault] = []
        self._failed: set[str] = set()
        self._made: set[str] = set()
        self._events = 0

    def run(self) -> Report:
        members = self._container()
        manifest = self._manifest(members) if members is not None else None
        if members is not None and manifest is not None:
            self._signature(members, manifest)
            self._members(members, manifest)
            self._content(members, manifest)
            if manifest.format == layout.FORMAT:
                self._coverage(members, manifest)
        made = CHECKS | (CHECKS_V2 if manifest is not None and manifest.format == layout.FORMAT else {})
        checks = tuple(Check(name, self._outcome(name), says) for name, says in made.items())
        return Report(
            ok=all(check.ok is True for check in checks) and not self._faults,
            tenant=manifest.tenant if manifest else "",
            exporter=manifest.exporter if manifest else "",
            exported_at=manifest.exported_at if manifest else "",
            key=manifest.key if manifest else "",
            sessions=len(manifest.sessions) if manifest else 0,
            events=self._events,
            checks=checks,
            faults=tuple(self._faults),
        )

    def _outcome(self, check: str) -> bool | None:
        if check in self._failed:
            return False
        # What lies behind a break was not looked at: that all of it is in order is then more than anybody knows.
        unseen = check in _MEANING and "chains" in self._failed
        return True if check in self._made and not unseen else None

    def _fault(self, check: str, where: str, message: str) -> None:
        self._failed.add(check)
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(Fault(check, where, message))
        elif len(self._faults) == MAX_FAULTS:
            self._faults.append(Fault(check, where, "more faults follow and are not listed"))

    def _container(self) -> dict[str, bytes] | None:
        self._made.add("container")
        try:
            members = layout.unzip_members(self._data)
            rebuilt = layout.zip_members(members)
        except EvidenceError as error:
            self._fault("container", error.where or "the file", error.message)
            return None
        if rebuilt != self._data:
            at = next((i for i, (one, two) in enumerate(zip(rebuilt, self._data, strict=False)) if one != two), None)
            at = min(len(rebuilt), len(self._data)) if at is None else at
            message = f"the bytes are not those that the members make ({len(self._data)} bytes, expected {len(rebuilt)})"
            self._fault("container", f"byte {at}", message)
        return members

    def _manifest(self, members: Mapping[str, bytes]) -> _Manifest | None:
        self._made.add("manifest")
        data = members.get(layout.MANIFEST)
        if data is None or len(data) > MAX_MANIFEST:
            self._fault("manifest", layout.MANIFEST, "is missing" if data is None else f"is larger than {MAX_MANIFEST} bytes")
            return None
        try:
            body = parse_strict(data)
            if canonical(body) != data:
                self._fault("manifest", layout.MANIFEST, "is not canonical JSON")
            return _read_manifest(body)
        except (NotCanonical, KeyError, ValueError, TypeError, AttributeError) as error:
            self._fault("manifest", layout.MANIFEST, f"cannot be read: {type(error).__name__}: {error}")
            return None

    def _signature(self, members: Mapping[str, bytes], manifest: _Manifest) -> None:
        self._made.add("signature")
        if manifest.format == layout.FORMAT:
            try:
                self._keys = read_rotations(members, self._trust)
            except EvidenceError as error:
                self._fault("signature", error.where or layout.SIGNATURE, error.message)
        signer = next((key for key in self._keys if key.id == manifest.key), None)
        if signer is None:
            self._fault("signature", layout.MANIFEST, f"is signed by key {manifest.key}, you trust {self._trust.id}")
        elif not signer.counts_at(parse_rfc3339(manifest.exported_at)):
            self._fault("signature", layout.MANIFEST, f"is signed by key {manifest.key}, which was not in use at that time")
        public = self._trust.public if signer is None else signer.public
        if not signed_by(public, members.get(layout.SIGNATURE, b""), layout.SIGNED_PREFIX + members[layout.MANIFEST]):
            self._fault("signature", layout.SIGNATURE, "is not the trusted key's signature of the manifest")

    def _members(self, members: Mapping[str, bytes], manifest: _Manifest) -> None:
        self._made.add("members")
        listed = {name: (sha256, size) for name, sha256, size in manifest.members}
        for name, data in members.items():
            if name in {layout.MANIFEST, layout.SIGNATURE}:
                continue
            if name not in listed:
                self._fault("members", name, "is not listed in the manifest: it was added")
            elif listed[name] != (digest(data), len(data)):
                self._fault("members", name, "is not the member that the manifest lists: it was edited, cut or extended")
        for name in listed.keys() - members.keys():
            self._fault("members", name, "is listed in the manifest and missing: it was dropped")
        order = [layout.MANIFEST, layout.SIGNATURE, *(name for name, _, _ in manifest.members)]
        if list(members) != order and set(members) == set(order):
            self._fault("members", "the file", "the members are not in the order of the manifest")
        fixed = {layout.README, layout.REVISIONS, layout.PRINCIPALS}
        wanted = fixed | {layout.events_member(session) for session in manifest.sessions}
        folders: tuple[str, ...] = ("registry/blobs/",)
        if manifest.format == layout.FORMAT:
            wanted |= {covered.TENANT_NOTE, covered.REGISTRY_NOTE, covered.ROTATIONS}
            folders += (covered.FOLDER,)
        for name in sorted(wanted - listed.keys()):
            self._fault("members", name, "is not listed in the manifest, and every pack has it")
        for name in sorted(listed.keys() - wanted):
            if not name.startswith(folders):
                self._fault("members", name, "belongs to no session that the manifest lists")

    def _content(self, members: Mapping[str, bytes], manifest: _Manifest) -> None:
        self._made |= {"chains", *_MEANING}
        chains = {name: list(self._registry_chain(name, members, manifest)) for name in ("revisions", "principals")}
        roster = Roster.of(chains["principals"])
        applied: dict[int, Json] = {}
        self._report("registry/revisions", check_revisions(chains["revisions"], applied))
        self._report("registry/principals", roster.findings)
        named: set[int] = set()
        for session, head in manifest.sessions.items():
            data = members.get(layout.events_member(session))
            if data is None:
                self._fault("chains", session, "its events are missing: the session was dropped")
                continue
            events = list(self._chain(session, data, head, manifest.tenant))
            named.update(event.config_revision for event in events if event.config_revision > 0)
            self._report(session, check_session(events, manifest.tenant, applied.keys(), roster))
        blobs = {name: data for name, data in members.items() if name.startswith("registry/blobs/")}
        self._report("registry/blobs", check_blobs(blobs, {number: applied.get(number) for number in named}, manifest.tenant))

    def _coverage(self, members: Mapping[str, bytes], manifest: _Manifest) -> None:
        self._made |= CHECKS_V2.keys()
        sessions = {name: _split(members.get(layout.events_member(name), b"")) for name in manifest.sessions}
        files = {"revisions": layout.REVISIONS, "principals": layout.PRINCIPALS}
        registry = {name: _split(members.get(file, b"")) for name, file in files.items()}
        covered.Coverage(members, manifest.tenant, self._trust, self._keys, self._fault).check(sessions, registry)

    def _report(self, where: str, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._fault(finding.check, f"{where}{finding.where}", finding.message)

    def _registry_chain(self, name: str, members: Mapping[str, bytes], manifest: _Manifest) -> Iterator[Event]:
        subject, head = manifest.registry[name]
        member = layout.REVISIONS if name == "revisions" else layout.PRINCIPALS
        prefix = "agentos.registry." if name == "revisions" else "agentos.principal."
        for event in self._chain(subject, members.get(member, b""), head, None, shown=f"registry/{name}"):
            if event.type.startswith(prefix):
                yield event
            else:
                self._fault("chains", f"registry/{name}#{event.seq}", f"is of type {event.type!r}, which does not belong there")

    def _chain(self, subject: str, data: bytes, head: Head, tenant: str | None, *, shown: str | None = None) -> Iterator[Event]:
        """The events of one chain, up to the first that does not continue it."""
        shown = shown or subject
        at = Head.empty()
        lines = data.split(b"\n")
        if lines.pop() != b"":
            self._fault("chains", shown, "the last line has no end: the tail was cut")
        for line in lines:
            try:
                at, body = follow(at, line, subject=subject)
                event = Event.from_dict(body)
            except ChainBroken as error:
                self._fault("chains", f"{shown}#{at.seq + 1}", error.message)
                return
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                self._fault("chains", f"{shown}#{at.seq}", f"is no event: {type(error).__name__}: {error}")
                return
            if tenant is not None and event.tenant != tenant:
                self._fault("chains", f"{shown}#{event.seq}", f"belongs to tenant {event.tenant!r}")
            self._events += 1
            yield event
        if at != head:
            message = f"ends at event {at.seq} ({at.hash}), the signed head is event {head.seq} ({head.hash})"
            self._fault("chains", shown, message)


def _read_manifest(body: Json) -> _Manifest:
    keys = {"format", "tenant", "exported_at", "exporter", "key", "scope", "sessions", "registry", "members"}
    if not isinstance(body, dict) or set(body) != keys:
        raise ValueError(f"expected the fields {', '.join(sorted(keys))}")
    if body["format"] not in {layout.FORMAT, layout.FORMAT_V1}:
        raise ValueError(f"format {body['format']!r} is not {layout.FORMAT!r} or {layout.FORMAT_V1!r}")
    sessions: dict[str, Head] = {}
    for item in _objects(body["sessions"], {"session", "seq", "hash"}):
        name, head = _string(item["session"]), _head(item)
        if not is_name(name) or name in sessions or head.seq < 1:
            raise ValueError(f"session {name!r} is listed twice, empty or no name")
        sessions[name] = head
    if list(sessions) != sorted(sessions):
        raise ValueError("sessions are not in the order of their names")
    (scope,) = _objects([body["scope"]], {"sessions", "since"})
    if scope["sessions"] is not None and scope["sessions"] != list(sessions):
        raise ValueError("the sessions are not those that the scope names")
    for moment in (body["exported_at"], *(() if scope["since"] is None else (scope["since"],))):
        parse_rfc3339(_string(moment))
    registry: dict[str, tuple[str, Head]] = {}
    for name in ("revisions", "principals"):
        (item,) = _objects([body["registry"][name]], {"subject", "seq", "hash"})
        registry[name] = (_string(item["subject"]), _head(item))
    members = tuple(
        (_string(item["name"]), _string(item["sha256"]), _count(item["size"]))
        for item in _objects(body["members"], {"name", "sha256", "size"})
    )
    if len({name for name, _, _ in members}) != len(members):
        raise ValueError("a member is listed twice")
    return _Manifest(
        format=body["format"],
        tenant=_string(body["tenant"]),
        exporter=_string(body["exporter"]),
        exported_at=_string(body["exported_at"]),
        key=_string(body["key"]),
        sessions=sessions,
        registry=registry,
        members=members,
    )


def _split(lines: bytes) -> list[bytes]:
    """The events of a member."""
    return lines.split(b"\n")[:-1]


def _objects(value: Json, keys: set[str]) -> list[dict[str, Json]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) and set(item) == keys for item in value):
        raise ValueError(f"expected a list of objects with the fields {', '.join(sorted(keys))}")
    return value


def _string(value: Json) -> str:
    if type(value) is not str:
        raise ValueError(f"expected text, found {type(value).__name__}")
    return value


def _count(value: Json) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a count, found {value!r}")
    return value


def _head(item: Mapping[str, Json]) -> Head:
    head = Head(_count(item["seq"]), _string(item["hash"]))
    if (head.seq == 0) != (head.hash == GENESIS):
        raise ValueError("an empty chain has the hash of no event, and only an empty one")
    return head
