"""A call that comes again: answered from the log when it is the same, refused when it is another one under its id."""

from __future__ import annotations

from agentos.abi.canonical import NotCanonical, digest_of
from agentos.abi.errors import Conflict
from agentos.abi.syscall import Syscall
from agentos.projections.session import Call, Step


def same(known: Call, syscall: Syscall) -> Call:
    """The recorded call, if `syscall` repeats it: a completed call is answered from the log, never performed again."""
    try:
        repeated = known.tool == syscall.tool[:128] and known.proposed in {"", digest_of(syscall.args)}
    except NotCanonical:
        repeated = known.step is Step.REFUSED
    if not repeated:
        raise taken(known)
    return known


def taken(known: Call) -> Conflict:
    """The error for a call under the id of another one."""
    return Conflict(f"call {known.call} is already another call ({known.tool})")
