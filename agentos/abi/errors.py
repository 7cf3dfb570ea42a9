"""The one error tree of AgentOS.

    AgentOSError                 code                exit  what happened
    ├── ManifestError            manifest.invalid     1    a declaration is wrong (carries its faults)
    ├── PolicyError              policy.invalid       1    Rego that does not load or breaks a rule of ours
    ├── EngineUnavailable        policy.unavailable   1    no policy engine: everything is denied
    ├── NotFound                 not-found            1    no such resource, session, revision …
    ├── IdentityError            identity             1    credentials missing, unreadable or refused
    ├── EvidenceError            evidence             1    a pack that does not prove what it claims
    ├── Unavailable              unavailable          1    the runtime or its log cannot be reached (retry may help)
    │   ├── LogUnavailable       log.unavailable      1    the event log did not store an event
    │   └── TooOften             rate.limited         1    asked more often than is allowed; nothing was done
    ├── TooLarge                 log.too-large        1    an event or a blob is larger than the log takes (retry cannot help)
    ├── ChainBroken              log.chain            1    stored events do not form the chain they must form
    ├── PayloadErased            log.erased           1    the header of an event is there, its payload was erased
    ├── NotKept                  files.not-kept       1    (`files.versions`) a content that is asked for was never kept
    ├── SourceFault              credential.source    1    (`credentials.source`) why operators' Secret cannot be fetched
    ├── Crowded                  gateway.crowded      1    (`gateway.seat`) more clients or calls than there may be at a time
    ├── DriverError              driver               1    a tool failed in a way its caller should read
    │   ├── OutcomeUnknown       driver.unknown       1    a tool may or may not have acted
    │   ├── ModelUnavailable     driver.model         1    (`drivers.port`) a model that may answer if asked again
    │   │   ├── ReplyBroken      driver.reply         1    (`drivers.port`) a model's answer that cannot be read
    │   │   └── GivenUp          driver.batch-late    1    (`drivers.batch_flight`) a batch was waited for long enough
    │   ├── OpenApiFault         driver.openapi       1    (`drivers.openapi_schema`) a document does not give an operation
    │   ├── BatchGone            driver.batch-gone    1    (`drivers.batching`) a batch that the endpoint does not have any more
    │   ├── BatchUnsure          driver.batch-unsure  1    (`drivers.batching`) nobody can say whether a batch was made
    │   ├── SubmissionUnreadable driver.batch-unreadable 1  (`drivers.batching`) what is stored of a batch is no record of one
    │   ├── Preempted            preempted            1    (`kernel.failures`) stopped in favour of a call of a higher class
    │   ├── LockDeadlock         lock.deadlock        1    (`drivers.locks`) waiting for a lock would have closed a cycle
    │   ├── LockHeld             lock.held            1    (`drivers.locks`) a lock was not to be had in time
    │   ├── LockLost             lock.lost            1    (`drivers.locks`) the token is not that of the lock's holder
    │   ├── LockUnreadable       lock.unreadable      1    (`drivers.locks`) what is stored of a lock is no record of one
    │   ├── FileConflict         file.conflict        1    (`drivers.editing`) a file is not the one that was meant
    │   │   └── SpaceConflict    space.conflict       1    (`drivers.spaces`) a file of a space is not the one that was meant
    │   ├── QuotaExceeded        quota.exceeded       1    (`files.quota`) the files of a tenant would be, or are, too much
    │   ├── VersionsUnavailable  files.unavailable    1    (`files.versions`) what was kept of files cannot be read or added to
    │   ├── SpaceUnlabelled      space.unlabelled     1    (`drivers.spaces`) what the files of a space carry cannot be told
    │   ├── ProgressUnreadable   trigger.unreadable   1    (`supervisor.progress`) what is stored of a trigger is no record of one
    │   ├── SandboxUnavailable   driver.sandbox       1    (`sandbox.port`) a process cannot be set apart here as it is declared
    │   ├── NetDenied            driver.net           1    (`egress.asking`) a request may not leave
    │   ├── CredentialUnavailable driver.credential   1    (`credentials.lease`) a tool cannot be used now; no more is said
    │   ├── SignalLate           signal.late          1    (`drivers.signals`) a signal did not come in time
    │   ├── SignalStopped        signal.stop          1    (`drivers.signals`) asked to stop while waiting for another signal
    │   └── DelegationFailed     delegation           1    (`drivers.delegating`) nothing came of a delegation
    │       ├── DelegationLate      delegation.late     1  (`drivers.delegating`) its children did not end in time
    │       └── DelegationDeadlock  delegation.deadlock 1  (`drivers.delegating`) a child waits for whom it works for
    ├── Denied                   denied               3    policy said no (carries rules and reasons)
    ├── Conflict                 conflict             4    somebody else was first
    │   ├── Frozen               frozen               4    a kill switch holds whoever this is for
    │   ├── ChangedMeanwhile     files.changed        4    others have changed later what is to be replaced or taken back
    │   └── SequenceConflict     log.conflict         4    a subject has moved past the expected position
    │       └── Relieved         log.relieved         4    a newer runtime serves the tenant: this one lets go
    └── UsageError               usage               64    the command's words are off

Every error knows its stable `code`, may know `where` (`file:line:column` or a resource) and `mend` (what to do
about it), and whether trying again can help (`retryable`). Errors of vendors stop in the adapter and stay chained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Final

_CODE: Final = re.compile(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)*", re.ASCII)


class AgentOSError(Exception):
    """An expected failure: printed in one line (plus `mend`), never as a traceback."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.mend = mend

    def to_dict(self) -> dict[str, object]:
        """JSON shape of an error (`schemas/v1/error.json`)."""
        body: dict[str, object] = {"code": self.code, "message": self.message, "exit_code": self.exit_code}
        if self.where is not None:
            body["where"] = self.where
        if self.mend is not None:
            body["mend"] = self.mend
        body.update(self.details())
        return body

    def details(self) -> dict[str, object]:
        """More fields of `to_dict`, per class."""
        return {}


class ManifestError(AgentOSError):
    code = "manifest.invalid"

    def __init__(
        self,
        message: str,
        *,
        faults: Sequence[Mapping[str, object]] = (),
        where: str | None = None,
        mend: str | None = None,
    ) -> None:
        super().__init__(message, where=where, mend=mend)
        self.faults = tuple(faults)

    def details(self) -> dict[str, object]:
        return {"faults": [dict(fault) for fault in self.faults]}


class PolicyError(AgentOSError):
    code = "policy.invalid"


class EngineUnavailable(AgentOSError):
    code = "policy.unavailable"


class NotFound(AgentOSError):
    code = "not-found"


class IdentityError(AgentOSError):
    code = "identity"


class EvidenceError(AgentOSError):
    code = "evidence"


class Unavailable(AgentOSError):
    code = "unavailable"
    retryable = True


class LogUnavailable(Unavailable):
    code = "log.unavailable"


class TooOften(Unavailable):
    """Asked more often than is allowed. Nothing was done: asking again after `retry_after_ms` is safe."""

    code = "rate.limited"

    def __init__(self, message: str, *, retry_after_ms: int = 0, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(message, where=where, mend=mend)
        self.retry_after_ms = retry_after_ms

    def details(self) -> dict[str, object]:
        return {"retry_after_ms": self.retry_after_ms}


class TooLarge(AgentOSError):
    code = "log.too-large"


class ChainBroken(AgentOSError):
    code = "log.chain"


class PayloadErased(AgentOSError):
    code = "log.erased"


class DriverError(AgentOSError):
    code = "driver"
    answered = False
    """Whether a model had begun to answer, so that it has used what nobody has counted."""
    acted: Mapping[str, Any] = MappingProxyType({})
    """How the call was acted on, for the log alone: as `Result.acted`."""


class OutcomeUnknown(DriverError):
    code = "driver.unknown"


class Denied(AgentOSError):
    code = "denied"
    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        rules: Sequence[str] = (),
        reasons: Sequence[str] = (),
        where: str | None = None,
        mend: str | None = None,
    ) -> None:
        super().__init__(message, where=where, mend=mend)
        self.rules = tuple(rules)
        self.reasons = tuple(reasons)

    def details(self) -> dict[str, object]:
        return {"rules": list(self.rules), "reasons": list(self.reasons)}


class Conflict(AgentOSError):
    code = "conflict"
    exit_code = 4


class Frozen(Conflict):
    """A kill switch holds it: it can be asked for again once that is taken back. `where` is the freeze."""

    code = "frozen"


class ChangedMeanwhile(Conflict):
    """Files that are to be taken back or replaced are not what was meant any more. Nothing was changed."""

    code = "files.changed"

    def __init__(self, message: str, *, paths: Sequence[str] = (), where: str | None = None, mend: str | None = None) -> None:
        super().__init__(message, where=where, mend=mend)
        self.paths = tuple(paths)

    def details(self) -> dict[str, object]:
        return {"paths": list(self.paths)}


class SequenceConflict(Conflict):
    code = "log.conflict"


class Relieved(SequenceConflict):
    code = "log.relieved"


class UsageError(AgentOSError):
    code = "usage"
    exit_code = 64


def _tree(root: type[AgentOSError]) -> dict[str, type[AgentOSError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


def error_from_dict(body: Mapping[str, object]) -> AgentOSError:
    """Rebuild an error that crossed the wire; an unknown code becomes an `AgentOSError` with that code."""

    def text(key: str) -> str | None:
        value = body.get(key)
        return value if isinstance(value, str) else None

    def texts(key: str) -> tuple[str, ...]:
        value = body.get(key)
        return tuple(str(item) for item in value) if isinstance(value, list) else ()

    message = text("message") or "the runtime answered with an error it did not explain"
    where, mend = text("where"), text("mend")
    kind = _tree(AgentOSError).get(text("code") or "", AgentOSError)
    if issubclass(kind, Denied):
        return kind(message, rules=texts("rules"), reasons=texts("reasons"), where=where, mend=mend)
    if issubclass(kind, ChangedMeanwhile):
        return kind(message, paths=texts("paths"), where=where, mend=mend)
    if issubclass(kind, TooOften):
        after = body.get("retry_after_ms")
        return kind(message, retry_after_ms=after if type(after) is int and after >= 0 else 0, where=where, mend=mend)
    if issubclass(kind, ManifestError):
        faults = body.get("faults")
        listed = [fault for fault in faults if isinstance(fault, dict)] if isinstance(faults, list) else []
        return kind(message, faults=listed, where=where, mend=mend)
    error = kind(message, where=where, mend=mend)
    code = text("code") or ""
    if kind is AgentOSError and _CODE.fullmatch(code):
        # Of a class that this process has not loaded, or that is newer than it. Its code is told all the same.
        vars(error)["code"] = code
    return error
