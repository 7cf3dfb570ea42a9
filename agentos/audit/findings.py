"""What the events of a pack mean, checked: authority behind every outcome, approval and actor. Pure; used by `verify`.

A chain that is whole proves that nothing was changed since; these checks look at whether what was recorded was in order: an
outcome needs an earlier decision that allowed it, an approved call a person who was an approver at that moment, a decision a
revision that was applied. Times of different chains are compared as the events state them, in milliseconds.

Where a payload is withheld or erased, the header tells enough to see that an outcome has its decision and an approval its person;
what cannot be compared then is put among `unseen`, so that it is not taken for checked.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json, NotCanonical, digest, digest_of, parse_strict
from agentos.abi.erased import erased_by
from agentos.abi.event import Event
from agentos.audit.consent import Call, Consent, said_of
from agentos.audit.finding import Finding, Unseen
from agentos.audit.layout import blob_member

FLEET: Final = "*"


@dataclass(frozen=True, slots=True)
class _Term:
    """One principal from its creation until it was revoked."""

    tenant: str
    roles: frozenset[str]
    from_ms: int
    until_ms: int | None


@dataclass(slots=True)
class Roster:
    """Who was a principal, with which roles, when. `findings` are the faults of the principals' chain itself."""

    terms: dict[str, list[_Term]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, events: Sequence[Event]) -> Roster:
        """Fold the chain of principals."""
        roster, findings = cls(), []
        for event in events:
            try:
                roster._take(event)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                findings.append(Finding("actors", f"#{event.seq}", f"{event.type}: {type(error).__name__}: {error}"))
        roster.findings = tuple(findings)
        return roster

    def _take(self, event: Event) -> None:
        name = _text(event.data, "name")
        terms = self.terms.setdefault(name, [])
        live = terms[-1] if terms and terms[-1].until_ms is None else None
        if event.type == ev.PRINCIPAL_CREATED:
            if live is not None:
                raise ValueError(f"principal {name} is created while there is one")
            terms.append(_Term(_text(event.data, "tenant"), frozenset(event.data["roles"]), event.time_ms, None))
        elif event.type == ev.PRINCIPAL_REVOKED:
            if live is None:
                raise ValueError(f"principal {name} is revoked while there is none")
            terms[-1] = _Term(live.tenant, live.roles, live.from_ms, event.time_ms)
        elif event.type == ev.PRINCIPAL_ROTATED:
            if live is None:
                raise ValueError(f"principal {name} is given another key while there is none")
        else:
            raise ValueError("a type that this version does not know")

    def roles(self, actor: str, tenant: str, time_ms: int) -> frozenset[str] | None:
        """The roles that `principal/<name>` held in `tenant` at that time; None for nobody."""
        for term in self.terms.get(actor.removeprefix("principal/"), ()):
            if term.from_ms <= time_ms and (term.until_ms is None or time_ms <= term.until_ms):
                return term.roles if term.tenant in {tenant, FLEET} else None
        return None


def check_revisions(events: Sequence[Event], applied: dict[int, Json]) -> Iterator[Finding]:
    """Fold the chain of revisions into `applied` (revision → tree digest); they count up from 1 without a gap."""
    for event in events:
        number, tree = event.data.get("revision"), event.data.get("tree")
        if type(number) is not int or number != len(applied) + 1:
            yield Finding("revisions", f"#{event.seq}", f"expected revision {len(applied) + 1}, found {number!r}")
        if type(number) is int:
            applied[number] = tree


def check_blobs(blobs: Mapping[str, bytes], trees: Mapping[int, Json], tenant: str) -> Iterator[Finding]:
    """Every blob is what its name says, and every declaration of `tenant` in the trees (revision → digest) is there."""
    for name, data in blobs.items():
        if name != blob_member(digest(data)):
            yield Finding("blobs", f": {name}", "its name is not the digest of its content")
    for revision, tree in sorted(trees.items()):
        if tree is None:
            continue
        found = blobs.get(blob_member(tree)) if isinstance(tree, str) else None
        if found is None:
            yield Finding("blobs", f": revision {revision}", f"its tree {tree!r} is not in the pack")
            continue
        try:
            wanted = tree_digests(found, tenant)
        except (NotCanonical, KeyError, ValueError, TypeError, AttributeError) as error:
            yield Finding("blobs", f": revision {revision}", f"its tree cannot be read: {type(error).__name__}: {error}")
            continue
        for key, blob in wanted.items():
            if blob_member(blob) not in blobs:
                yield Finding("blobs", f": revision {revision}", f"the declaration {key} ({blob}) is not in the pack")


def tree_digests(tree: bytes, tenant: str) -> dict[str, str]:
    """The declarations in a tree that concern `tenant`, its own `tenant/*/<name>` among them: `agent/default/triage` → digest.

    Raises NotCanonical, KeyError, ValueError, TypeError or AttributeError for bytes that are no tree.
    """
    wanted = {}
    for key, entry in parse_strict(tree).items():
        kind, owner, name = key.split("/")
        if owner == tenant or (owner == FLEET and kind == "tenant" and name == tenant):
            wanted[key] = _text(entry, "digest")
    return wanted


def check_actors(events: Iterable[Event], tenant: str, roster: Roster) -> Iterator[Finding]:
    """Every principal among the actors was one at that time."""
    for event in events:
        if event.actor.startswith("principal/") and roster.roles(event.actor, tenant, event.time_ms) is None:
            said = f"{event.actor} acted and was no principal of the tenant at that time"
            yield Finding("actors", f"#{event.seq}", said)


def erased_sessions(audit: Iterable[Event]) -> frozenset[str]:
    """The sessions whose payloads were erased, as the audit chain says. Raises ValueError for an erasure of another shape."""
    return frozenset(name for event in audit for name in erased_by(event))


class _Session:
    def __init__(self, tenant: str, revisions: Container[int], roster: Roster, unseen: Unseen) -> None:
        self._tenant = tenant
        self._revisions = revisions
        self._unseen = unseen
        self._calls: dict[str, Call] = {}
        self._consent = Consent(roster.roles, tenant, unseen)

    def take(self, event: Event) -> Iterator[Finding]:
        where = f"#{event.seq}"
        match event.type:
            case ev.SESSION_CREATED:
                self._consent.actor = event.actor
            case ev.SYSCALL_DECIDED:
                yield from self._decided(event, where)
            case ev.SYSCALL_FINISHED | ev.SYSCALL_FAILED | ev.SYSCALL_UNKNOWN:
                yield from self._outcome(event, where)
            case ev.SESSION_WAITING:
                self._consent.waits(event, self._calls.get(said_of(event)["call"]))
            case ev.APPROVAL_GRANTED | ev.APPROVAL_DENIED | ev.APPROVAL_EXPIRED:
                call = self._calls.get(_text(said_of(event), "call"))
                yield from (Finding("approvals", where, problem) for problem in self._consent.answered(event, call))

    def _decided(self, event: Event, where: str) -> Iterator[Finding]:
        said = said_of(event)
        name, tool = _text(said, "call"), _text(said, "tool")
        before = self._calls.get(name)
        call = Call.decided_by(event, before)
        if call.effect not in {"allow", "deny", "ask", "halt"}:
            yield Finding("intent", where, f"decision {call.effect!r} is none")
        if event.config_revision not in self._revisions:
            yield Finding(
                "revisions", where, f"call {name} was decided under revision {event.config_revision}, which was never applied"
            )
        if before is not None and before.tool != tool:
            yield Finding("intent", where, f"call {name} was decided before as another call: {before.tool}")
        if event.withheld or (before is not None and before.proposed is None):
            self._unseen.add(("intent", event.seq))
        elif before is not None and before.proposed != call.proposed:
            yield Finding("intent", where, f"call {name} was decided before with other arguments")
        if not event.withheld:
            if digest_of(event.data["args"]) != _text(event.data, "args_digest"):
                yield Finding("intent", where, f"call {name}: args_digest is not the digest of the arguments")
            yield from (Finding("intent", where, problem) for problem in _overruled(name, event.data))
        self._calls[name] = call
        if call.effect == "allow":
            yield from (Finding("approvals", where, problem) for problem in self._consent.allowed(event, call))

    def _outcome(self, event: Event, where: str) -> Iterator[Finding]:
        said = said_of(event)
        name, tool = _text(said, "call"), _text(said, "tool")
        call = self._calls.get(name)
        if call is None or call.effect != "allow" or call.tool != tool:
            yield Finding("intent", where, f"call {name} ({tool}) has an outcome and no earlier decision that allowed it")
        elif not call.open:
            yield Finding("intent", where, f"call {name} ({tool}) has two outcomes of one decision")
        else:
            call.open = False


_KERNEL: Final = frozenset({"kernel.model-ask", "kernel.budget", "kernel.budget-held"})
"""Rules by which the runtime itself denies what policy allowed or asked about."""


def _overruled(name: str, data: Mapping[str, Json]) -> Iterator[str]:
    """What the runtime may make of a decision of policy: a denial that names the obligation or a rule of its own, and no more."""
    decision, policy = data["decision"], data.get("overruled")
    if policy is not None and (decision["effect"] != "deny" or policy["effect"] not in {"allow", "ask"}):
        yield f"call {name}: policy decided {policy['effect']} and the runtime made it {decision['effect']}"
    if policy is not None and not all(rule.startswith("obligation.") or rule in _KERNEL for rule in decision["rules"]):
        yield f"call {name}: the runtime overruled policy and names no obligation that could not be met"
    if data.get("charged") and decision["effect"] != "allow":
        yield f"call {name} was charged for and not allowed"


def check_session(
    events: Sequence[Event], tenant: str, revisions: Container[int], roster: Roster, unseen: Unseen
) -> Iterator[Finding]:
    """Check the events of one session, in order. Adds to `unseen` what could not be compared."""
    session = _Session(tenant, revisions, roster, unseen)
    over: Event | None = None
    yield from check_actors(events, tenant, roster)
    for event in events:
        where = f"#{event.seq}"
        if (event.seq == 1) != (event.type == ev.SESSION_CREATED):
            yield Finding("chains", where, "a session begins with its creation, and is created once")
        if over is not None and event.type != ev.HARNESS_STOPPED:
            yield Finding("chains", where, f"the session was over since event {over.seq}")
        try:
            yield from session.take(event)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            yield Finding("intent", where, f"{event.type} has another shape: {type(error).__name__}: {error}")
        if event.type in ev.TERMINAL:
            over = event


def _text(body: Json, key: str) -> str:
    value = body[key]
    if type(value) is not str:
        raise ValueError(f"{key} is not text")
    return value
