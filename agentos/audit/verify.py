"""Offline verification: does this pack prove what it claims, given a public key that did not come with it?

Imports the ABI, the pack's layout, the standard library and `cryptography`; it runs where no runtime ever ran. One failed check
is a failed pack; checks behind a failed one still run where they can, so that the report names the place that was tampered
with. `verify_pack` returns a report for any bytes whatever.

Payloads may be withheld or erased: chains, coverage and what headers tell are checked all the same, and the report counts, by
check, the events for which more could not be looked at, and why. Such a pack can hold; what was not looked at is never called
checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, canonical, digest, parse_strict
from agentos.abi.chain import Head, follow
from agentos.abi.errors import ChainBroken, EvidenceError
from agentos.abi.event import Event, parse_rfc3339
from agentos.abi.record import header_of
from agentos.audit import covered, layout
from agentos.audit.covered import read_rotations
from agentos.audit.finding import Finding, Unseen
from agentos.audit.findings import Roster, check_actors, check_blobs, check_revisions, check_session, erased_sessions
from agentos.audit.headers import check_headers
from agentos.audit.manifest import AUDIT_SUBJECT, REASONS, Manifest, read_manifest
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

CHECKS_V3: Final = {
    "headers": "every header is true of its payload",
    "withheld": "the manifest says which payloads are not there, and the audit chain why they were erased",
}
"""The checks of packs of format v3, behind those of v2."""

CHECKS_V2: Final = {
    "checkpoint": "the checkpoints of the tenant and of the registry are signed by the trusted key",
    "inclusion": "every event is a leaf under a root that a checkpoint names",
}
"""The checks of packs of format v2 and later, behind the others."""

_MEANING: Final = frozenset({"revisions", "blobs", "intent", "approvals", "actors", "headers", "withheld"})

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
class NotMade:
    """A check that could not be made whole for so many events, as their payload is not there; `reason` says why it is not."""

    check: str
    reason: str
    events: int


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome. `ok` only if every check held for all that is there. Counts are of what was read, trusted or not."""

    ok: bool
    tenant: str
    exporter: str
    exported_at: str
    key: str
    sessions: int
    events: int
    checks: tuple[Check, ...]
    faults: tuple[Fault, ...]
    absent: Mapping[str, int]
    """Payloads that are not there, by reason: `withheld`, `erased`, `lost`."""
    not_made: tuple[NotMade, ...]

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
            "absent": dict(self.absent),
            "not_made": [{"check": one.check, "reason": one.reason, "events": one.events} for one in self.not_made],
        }


def verify_pack(data: bytes, trust: bytes) -> Report:
    """Check the pack `data` against the public key `trust` (PEM, or a verifier key), which must come from outside it.

    Raises EvidenceError only for a `trust` that is no such key.
    """
    return _Verifier(data, load_trust(trust)).run()


class _Verifier:
    def __init__(self, data: bytes, trust: Trust) -> None:
        self._data = data
        self._trust = trust
        self._keys = trust.keys(())
        self._faults: list[Fault] = []
        self._failed: set[str] = set()
        self._made: set[str] = set()
        self._events = 0
        self._audit: list[Event] = []
        self._absent: Counter[str] = Counter()
        self._not_made: Counter[tuple[str, str]] = Counter()

    def run(self) -> Report:
        members = self._container()
        manifest = self._manifest(members) if members is not None else None
        if members is not None and manifest is not None:
            self._signature(members, manifest)
            self._members(members, manifest)
            self._content(members, manifest)
            if manifest.covered:
                self._coverage(members, manifest)
        made = dict(CHECKS)
        made |= CHECKS_V2 if manifest is not None and manifest.covered else {}
        made |= CHECKS_V3 if manifest is not None and manifest.records else {}
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
            absent={reason: self._absent[reason] for reason in REASONS},
            not_made=tuple(NotMade(*key, count) for key, count in sorted(self._not_made.items())),
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

    def _manifest(self, members: Mapping[str, bytes]) -> Manifest | None:
        self._made.add("manifest")
        data = members.get(layout.MANIFEST)
        if data is None or len(data) > MAX_MANIFEST:
            self._fault("manifest", layout.MANIFEST, "is missing" if data is None else f"is larger than {MAX_MANIFEST} bytes")
            return None
        try:
            body = parse_strict(data)
            if canonical(body) != data:
                self._fault("manifest", layout.MANIFEST, "is not canonical JSON")
            return read_manifest(body)
        except (NotCanonical, KeyError, ValueError, TypeError, AttributeError) as error:
            self._fault("manifest", layout.MANIFEST, f"cannot be read: {type(error).__name__}: {error}")
            return None

    def _signature(self, members: Mapping[str, bytes], manifest: Manifest) -> None:
        self._made.add("signature")
        if manifest.covered:
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

    def _members(self, members: Mapping[str, bytes], manifest: Manifest) -> None:
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
        wanted |= {layout.AUDIT} if manifest.records else set()
        folders: tuple[str, ...] = ("registry/blobs/",)
        if manifest.covered:
            wanted |= {covered.TENANT_NOTE, covered.REGISTRY_NOTE, covered.ROTATIONS}
            folders += (covered.FOLDER,)
        for name in sorted(wanted - listed.keys()):
            self._fault("members", name, "is not listed in the manifest, and every pack has it")
        for name in sorted(listed.keys() - wanted):
            if not name.startswith(folders):
                self._fault("members", name, "belongs to no session that the manifest lists")

    def _content(self, members: Mapping[str, bytes], manifest: Manifest) -> None:
        self._made |= {"chains", *_MEANING}
        erased = self._audited(members, manifest)
        chains = {name: list(self._registry_chain(name, members, manifest)) for name in ("revisions", "principals")}
        roster = Roster.of(chains["principals"])
        self._report("audit/chain", check_actors(self._audit, manifest.tenant, roster))
        applied: dict[int, Json] = {}
        self._report("registry/revisions", check_revisions(chains["revisions"], applied))
        self._report("registry/principals", roster.findings)
        named: set[int] = set()
        for session, head in manifest.sessions.items():
            data = members.get(layout.events_member(session))
            if data is None:
                self._fault("chains", session, "its events are missing: the session was dropped")
                continue
            records: set[int] | None = set() if manifest.records else None
            events = list(self._chain(session, data, head, manifest.tenant, records=records))
            named.update(event.config_revision for event in events if event.config_revision > 0)
            unseen: Unseen = set()
            self._report(session, check_session(events, manifest.tenant, applied.keys(), roster, unseen))
            if records and len(records) < len(events):
                self._fault("chains", session, "holds open events among those whose payload stands apart")
            if records:
                self._report(session, check_headers(events, unseen))
            if manifest.records:
                self._told_absent(session, events, manifest.absent[session], unseen, erased=session in erased)
        blobs = {name: data for name, data in members.items() if name.startswith("registry/blobs/")}
        self._report("registry/blobs", check_blobs(blobs, {number: applied.get(number) for number in named}, manifest.tenant))

    def _audited(self, members: Mapping[str, bytes], manifest: Manifest) -> frozenset[str]:
        """The sessions whose payloads were erased, as the audit chain says; its events are kept for the check of their actors."""
        if not manifest.records:
            return frozenset()
        data, where = members.get(layout.AUDIT, b""), "audit/chain"
        for event in self._chain(AUDIT_SUBJECT, data, manifest.audit, manifest.tenant, shown=where):
            if event.type.startswith("agentos.audit."):
                self._audit.append(event)
            else:
                self._fault("chains", f"{where}#{event.seq}", f"is of type {event.type!r}, which does not belong there")
        try:
            return erased_sessions(self._audit)
        except ValueError as error:
            self._fault("withheld", where, str(error))
            return frozenset()

    def _told_absent(
        self, session: str, events: Sequence[Event], told: Mapping[str, int], unseen: Unseen, *, erased: bool
    ) -> None:
        """Compare what the manifest says of absent payloads with what is there, and count what could not be checked for them."""
        there = sum(event.withheld for event in events)
        if there != sum(told.values()):
            self._fault("withheld", session, f"{there} payloads are not there, the manifest says {sum(told.values())}")
        if told["erased"] and not erased:
            self._fault("withheld", session, "its payloads are said to be erased, and the audit chain does not say so")
        self._absent.update(told)
        reason = " or ".join(reason for reason in REASONS if told[reason]) or REASONS[0]
        self._not_made.update((check, reason) for check, _ in unseen)

    def _coverage(self, members: Mapping[str, bytes], manifest: Manifest) -> None:
        self._made |= CHECKS_V2.keys()
        records = {name: _lines(members.get(layout.events_member(name), b"")) for name in manifest.sessions}
        sessions = {name: [header_of(record) for record in lines] for name, lines in records.items()}
        audit = _lines(members.get(layout.AUDIT, b"")) if manifest.records else None
        files = {"revisions": layout.REVISIONS, "principals": layout.PRINCIPALS}
        registry = {name: _lines(members.get(file, b"")) for name, file in files.items()}
        covered.Coverage(members, manifest.tenant, self._trust, self._keys, self._fault).check(sessions, registry, audit)

    def _report(self, where: str, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._fault(finding.check, f"{where}{finding.where}", finding.message)

    def _registry_chain(self, name: str, members: Mapping[str, bytes], manifest: Manifest) -> Iterator[Event]:
        subject, head = manifest.registry[name]
        member = layout.REVISIONS if name == "revisions" else layout.PRINCIPALS
        prefix = "agentos.registry." if name == "revisions" else "agentos.principal."
        for event in self._chain(subject, members.get(member, b""), head, None, shown=f"registry/{name}"):
            if event.type.startswith(prefix):
                yield event
            else:
                self._fault("chains", f"registry/{name}#{event.seq}", f"is of type {event.type!r}, which does not belong there")

    def _chain(
        self,
        subject: str,
        data: bytes,
        head: Head,
        tenant: str | None,
        *,
        shown: str | None = None,
        records: set[int] | None = None,
    ) -> Iterator[Event]:
        """The events of one chain, up to the first that does not continue it. Adds the `seq` of records to `records`."""
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
            if "p" in body and records is not None:
                records.add(event.seq)
            elif "p" in body:
                self._fault("chains", f"{shown}#{event.seq}", "is a header with a payload apart, in a chain of open events")
            self._events += 1
            yield event
        if at != head:
            message = f"ends at event {at.seq} ({at.hash}), the signed head is event {head.seq} ({head.hash})"
            self._fault("chains", shown, message)


def _lines(data: bytes) -> list[bytes]:
    """The events of a member."""
    return data.split(b"\n")[:-1]
