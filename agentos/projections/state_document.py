"""The canonical state document of a session: all that its events add up to, in bytes that are the same wherever they are made.

It is what a replay must reach. In it stands every field of `SessionState` under its name, but those that only count its calls, as
JSON (what a run gave it, where it came from, whom it delegated to and what it was told only where there is such): sets sorted,
absent values as null, `calls` as a list in the order in which the session first knew them, each with its arguments, decision,
outcome and approvals. Not in it: times at which the document is made, anything of the runtime that is not in the log. Its bytes
are canonical JSON (RFC 8785) behind `{"abi": "agentos/v1", …}`, its digest is their SHA-256.

    >>> read_state(state_document(SessionState())) == SessionState()
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from agentos.abi.canonical import Json, canonical, digest
from agentos.projections.grown import Grown
from agentos.projections.session_state import Call, SessionState, State, Step, counts

ABI: Final = "agentos/v1"

_COUNTED: Final = frozenset(counts(()))
"""Fields that only count what stands in `calls`."""

_MARKS: Final = ("since", "frozen", "held")
"""What waits and freezes leave in a session."""

_ORIGIN: Final = ("delegated", "firing", "standing", "served")
_GIVEN: Final = frozenset({"priority", "deadline_ms", "deferred", *_ORIGIN, "delegations", "signals", "stopped", *_MARKS})
"""Fields that stand in it only where a session has them, so that a document of one without them never changes."""

_SESSION: Final = tuple(field.name for field in fields(SessionState) if field.name not in _COUNTED | _GIVEN)
_CALL: Final = tuple(field.name for field in fields(Call))


def state_document(state: SessionState) -> dict[str, Json]:
    """The document as a value."""
    body: dict[str, Json] = {name: _plain(getattr(state, name)) for name in _SESSION}
    body |= {name: value for name in sorted(_GIVEN) if (value := _plain(getattr(state, name)))}
    body["calls"] = [{name: _plain(getattr(call, name)) for name in _CALL} for call in state.calls.values()]
    return {"abi": ABI, **body}


def state_bytes(state: SessionState) -> bytes:
    """The document's canonical bytes."""
    return canonical(state_document(state))


def digest_of_state(state: SessionState) -> str:
    """`sha256:…` of the canonical bytes."""
    return digest(state_bytes(state))


def read_state(document: Mapping[str, Json]) -> SessionState:
    """The state that a document tells. Raises KeyError, TypeError or ValueError for what is none of this version."""
    if document["abi"] != ABI or set(document) - _GIVEN != {"abi", *_SESSION}:
        raise ValueError("a state document of another version")
    body = {name: document[name] for name in (*_SESSION, *(_GIVEN & set(document)))}
    calls = [_call(call) for call in body.pop("calls")]
    return SessionState(
        **{
            **body,
            "state": State(body["state"]),
            "inputs": tuple(body["inputs"]),
            "labels": frozenset(body["labels"]),
            "approvals": tuple(body["approvals"]),
            "since": dict(body.get("since", {})),
            "signals": tuple(body.get("signals", ())),
            "frozen": tuple(body.get("frozen", ())),
            "held": frozenset(body.get("held", ())),
            "calls": Grown({call.call: call for call in calls}),
            **counts(calls),
        }
    )


def _call(body: Mapping[str, Json]) -> Call:
    if set(body) != set(_CALL):
        raise ValueError("a call of another version")
    return Call(**{**body, "step": Step(body["step"]), "approvals": tuple(body["approvals"])})


def _plain(value: Json) -> Json:
    if isinstance(value, State | Step):
        return str(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
