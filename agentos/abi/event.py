"""Events: what the log is made of. CloudEvents 1.0 in JSON, canonical bytes, chained per subject.

Attributes beyond CloudEvents' own (extension names must be lower-case letters and digits):

    seq             1, 2, 3 … within the subject
    prev            hash of the stored bytes of the event before, `abi.chain.GENESIS` for the first
    actor           who did it: `operator/alice`, `agent/triage`, `system/kernel` (an authenticated identity)
    configrevision  the revision of the desired state in force (0: none yet)
    policydigest    digest of the policy in force, absent before a policy exists

`subject` is a session id, or `registry`. `data` is the payload; its fields are documented with the types below. The event of a
session is stored as a record (`abi.record`): a header with the attributes of `abi.attributes` and the digest `p` of the payload,
which stands apart from it. An event of the registry is open: its `data` stands among the attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from agentos.abi.canonical import Json, canonical, digest
from agentos.abi.chain import Head
from agentos.abi.record import decode, header_of, join, make_opening

# Session life.
# agent, goal, inputs [{path, bytes, digest, labels?}], labels?, priority?, deadline_ms?, deferred?, parent?, and where it came
# from: forked?, firing? {trigger, id, at_ms}, standing? {agent, number},
# delegated? {parent, call, index, decided, tool, lineage, delegators, tools, budget}
SESSION_CREATED: Final = "agentos.session.created"
SESSION_BEGUN: Final = "agentos.session.begun"  # outcomes {session: state}: what a deferred session waited for holds
SESSION_OWNED: Final = "agentos.session.owned"  # epoch: the runtime (re)took the session
SESSION_REVISED: Final = "agentos.session.revised"  # from, to: the session moved to another revision
SESSION_WAITING: Final = "agentos.session.waiting"  # call, args_digest, expires, needed, given: parked at no cost
SESSION_PAUSED: Final = "agentos.session.paused"  # reason: a person keeps it from making another syscall
SESSION_RESUMED: Final = "agentos.session.resumed"  # reason: and lets it go on
SESSION_SIGNALLED: Final = "agentos.session.signalled"  # name, data?, labels?, id?: somebody has told it something
SESSION_FROZEN: Final = "agentos.session.frozen"  # freeze, held?: it came to a kill switch, and stays there until that is lifted
SESSION_FINISHED: Final = "agentos.session.finished"  # result
SESSION_FAILED: Final = "agentos.session.failed"  # error {code, message}
SESSION_CANCELLED: Final = "agentos.session.cancelled"  # reason
SESSION_HALTED: Final = "agentos.session.halted"  # rules, reasons: policy stopped the session

# Syscalls. `decided` with effect `allow` is the record of intent: it is durable before the tool acts.
SYSCALL_REFUSED: Final = "agentos.syscall.refused"  # call, tool, args, error: malformed, never reached policy
SYSCALL_DECIDED: Final = "agentos.syscall.decided"  # call, tool, effect, args, args_digest, decision {...}
SYSCALL_FINISHED: Final = "agentos.syscall.finished"  # call, tool, result {...}, result_digest, duration_us, consumed?
SYSCALL_FAILED: Final = "agentos.syscall.failed"  # call, tool, error {code, message, partial?}, duration_us
SYSCALL_UNKNOWN: Final = "agentos.syscall.unknown"  # call, tool: a crash hid the outcome
SYSCALL_RECONCILED: Final = "agentos.syscall.reconciled"  # call, tool, outcome, reason, result?: a person found out

# The harness. Also after the session is over: what was wrong shows only then.
# reason: network, home or after-finish; message, code? (exit code), after? (how the session had ended before)
HARNESS_STOPPED: Final = "agentos.harness.stopped"

# Delegation. The children of a call are named by its `decided`; this is in the log of the session that delegates.
DELEGATION_REFUSED: Final = "agentos.delegation.refused"  # call, child, code, message: the receiver did not begin it

# Policy.
POLICY_FAILED: Final = "agentos.policy.failed"  # call, tool, reason, engine: policy gave no decision, so the call is denied
POLICY_NOTIFIED: Final = "agentos.policy.notified"  # call, tool, rule, to, text: an obligation to tell somebody

# Approvals.
APPROVAL_GRANTED: Final = "agentos.approval.granted"  # call, args_digest, reason, decided, expires, scope, max_uses?, decision
APPROVAL_DENIED: Final = "agentos.approval.denied"  # call, args_digest, reason, decided
APPROVAL_EXPIRED: Final = "agentos.approval.expired"  # call, args_digest, decided: nobody answered in time, which is a no

# The registry.
REVISION_APPLIED: Final = "agentos.registry.applied"  # revision, tree, reason, counts
PRINCIPAL_CREATED: Final = "agentos.principal.created"  # name, tenant, roles, public_key
PRINCIPAL_REVOKED: Final = "agentos.principal.revoked"  # name, reason
PRINCIPAL_ROTATED: Final = "agentos.principal.rotated"  # name, public_key, reason

# A tenant's audit chain: what was done to its log.
AUDIT_ERASED: Final = "agentos.audit.erased"  # sessions, keys (hex), basis, overruled: their payloads are gone for good
AUDIT_HELD: Final = "agentos.audit.held"  # hold, session or agent or period, reason: what must not be erased or retired
AUDIT_RELEASED: Final = "agentos.audit.released"  # hold, reason
AUDIT_EXPORTED: Final = "agentos.audit.exported"  # pack, sessions, events, ends, withheld: an evidence pack left the runtime
AUDIT_UNLOCKED: Final = "agentos.audit.unlocked"  # lock (digest of its resource), session, token, reason: taken from its holder
AUDIT_FROZEN: Final = "agentos.audit.frozen"  # freeze, scope {kind, name?}, reason, in_force_us: a kill switch was thrown
AUDIT_THAWED: Final = "agentos.audit.thawed"  # freeze, reason: and taken back
AUDIT_SWITCHED: Final = "agentos.audit.switched"  # what (agent or trigger), name, on, reason: enabled or disabled
AUDIT_REFUSED: Final = "agentos.audit.refused"  # what, code, count, first_ms, last_ms: envelopes that named no decision of ours
AUDIT_FILES: Final = "agentos.audit.files"  # place, op, reason: a person changes files of a workspace or a space
AUDIT_RETIRED: Final = "agentos.audit.retired"  # period, stream, size, root, packs, note, basis, overruled: dropped whole

TERMINAL: Final = frozenset({SESSION_FINISHED, SESSION_FAILED, SESSION_CANCELLED, SESSION_HALTED})
"""After one of these a session's subject never grows again, but for `HARNESS_STOPPED`: a harness went on when it was over."""


def end_told(kind: str, attributes: Mapping[str, str | int]) -> str | None:
    """How a session has ended (finished, failed, cancelled, halted) if an event of it says so; `attributes`: of its header."""
    if kind in TERMINAL:
        return kind.rpartition(".")[2]
    after = attributes.get("outcome") if kind == HARNESS_STOPPED else None
    return after if isinstance(after, str) else None


_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
"""https://www.rfc-editor.org/rfc/rfc3339#section-5.6; `datetime.fromisoformat` takes more of ISO 8601."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, decoded. `data` must not be changed by its readers."""

    id: str
    type: str
    tenant: str
    subject: str
    seq: int
    prev: str
    time_ms: int
    actor: str
    config_revision: int
    policy_digest: str | None
    data: dict[str, Json] = field(hash=False)
    attributes: Mapping[str, str | int] = field(default_factory=dict, hash=False)
    """What the header of a record says of the payload, and of the session (`abi.attributes`); empty for an open event."""
    withheld: bool = False
    """Whether only the header is known: `data` is empty then, and says nothing."""

    def to_bytes(self) -> bytes:
        """The canonical bytes of an open event, all of which are hashed. Raises canonical.NotCanonical."""
        return canonical(self._envelope() | {"data": self.data})

    def to_record(self, salt: bytes) -> bytes:
        """The record of a session's event: header, TAB, opening. `salt` is 16 random bytes. Raises canonical.NotCanonical."""
        opening = make_opening(self.data, salt)
        return join(canonical(self._envelope() | {"p": digest(opening)}), opening)

    def _envelope(self) -> dict[str, Json]:
        body: dict[str, Json] = {
            **self.attributes,
            "specversion": "1.0",
            "id": self.id,
            "source": f"agentos/{self.tenant}",
            "type": self.type,
            "subject": self.subject,
            "time": rfc3339(self.time_ms),
            "datacontenttype": "application/json",
            "seq": self.seq,
            "prev": self.prev,
            "actor": self.actor,
            "configrevision": self.config_revision,
        }
        if self.policy_digest is not None:
            body["policydigest"] = self.policy_digest
        return body

    @classmethod
    def from_bytes(cls, data: bytes) -> Event:
        """Decode a record or an open event. Raises canonical.NotCanonical, KeyError or ValueError on a foreign message."""
        return cls.from_dict(decode(data))

    @classmethod
    def from_dict(cls, body: dict[str, Json]) -> Event:
        """Build an event from its decoded JSON form, `data` among the attributes, or `p` where it is withheld.

        Raises KeyError or ValueError on a foreign one.
        """
        if not isinstance(body, dict):
            raise ValueError("an event is a JSON object")  # noqa: TRY004 - one class for whatever is foreign
        source = _text(body, "source")
        if not source.startswith("agentos/"):
            raise ValueError(f"source {source!r} is not AgentOS")
        withheld = "p" in body and "data" not in body
        data = {} if withheld else body["data"]
        if not isinstance(data, dict):
            raise ValueError("`data` of an event is a JSON object")  # noqa: TRY004
        return cls(
            id=_text(body, "id"),
            type=_text(body, "type"),
            tenant=source.removeprefix("agentos/"),
            subject=_text(body, "subject"),
            seq=_whole(body, "seq"),
            prev=_text(body, "prev"),
            time_ms=parse_rfc3339(_text(body, "time")),
            actor=_text(body, "actor"),
            config_revision=_whole(body, "configrevision"),
            policy_digest=_text(body, "policydigest") if "policydigest" in body else None,
            data=data,
            attributes=_extensions(body),
            withheld=withheld,
        )

    def head(self, stored: bytes) -> Head:
        """The chain's head once this event is stored as `stored`, a record or the bytes of an open event."""
        return Head(self.seq, digest(header_of(stored)))


_ENVELOPE: Final = frozenset(
    {
        *("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "seq", "prev", "actor"),
        *("configrevision", "policydigest", "data", "p"),
    }
)


def _extensions(body: dict[str, Json]) -> dict[str, str | int]:
    """The attributes of a header that are not every event's."""
    found = {name: value for name, value in body.items() if name not in _ENVELOPE}
    if not _SIMPLE.issuperset(map(type, found.values())):
        raise ValueError("the attributes of an event are texts and whole numbers")
    return found


_SIMPLE: Final = frozenset({str, int})


def _text(body: dict[str, Json], key: str) -> str:
    value = body[key]
    if not isinstance(value, str):
        raise ValueError(f"`{key}` of an event is text")  # noqa: TRY004
    return value


def _whole(body: dict[str, Json], key: str) -> int:
    value = body[key]
    if type(value) is not int:
        raise ValueError(f"`{key}` of an event is a whole number")
    return value


def rfc3339(time_ms: int) -> str:
    """`2026-11-21T08:30:00.125Z` for milliseconds since the epoch."""
    return f"{_second(time_ms // 1000)}.{time_ms % 1000:03d}Z"


@lru_cache(maxsize=64)
def _second(time_s: int) -> str:
    """The text of a second; events come many in one, and writing a date takes longer than all the rest of it."""
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%S}"


def parse_rfc3339(text: str) -> int:
    """Milliseconds since the epoch. Raises ValueError when `text` is no RFC 3339 time with an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone: end it with Z")
    if _RFC3339.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not of the form 2026-11-21T08:30:00Z")
    return round(moment.timestamp() * 1000)
