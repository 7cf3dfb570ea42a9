"""A session's state in bytes, for a snapshot: quick to write and to read, exact, and of use to this version of the fold alone.

    lines = list(write_state(state))
    read_state_lines(lines) == state                             # with what the canonical state document leaves out

One line of JSON with the fields of the session, then lines with CALLS calls each, every call a list of its fields in order; what
an obliged call has beside those stands behind them. The pieces are small, so that others go on between while a thread writes.

Who reads a state that another fold made would go on from what this one would never have come to. So a snapshot carries FOLD: a
digest of the sources of whatever decides what a state is. Changed code asks for the log, and nobody has to raise a number.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from importlib import import_module
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from agentos import __version__
from agentos.abi.canonical import Json, digest
from agentos.projections.grown import Grown
from agentos.projections.session_state import Call, ObligedCall, SessionState, State, Step

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CALLS: Final = 64
"""Calls of a line: about 60 kB, half a millisecond."""

_SESSION: Final = tuple(field.name for field in fields(SessionState) if field.name != "calls")
_CALL: Final = tuple(field.name for field in fields(Call))
_MORE: Final = tuple(field.name for field in fields(ObligedCall))[len(_CALL) :]
_STEP: Final = _CALL.index("step")
_STEPS: Final = {str(step): step for step in Step}


def _declared(kind: type[DataclassInstance], start: str) -> tuple[str, ...]:
    """The fields of a class whose declared type begins with `start`."""
    return tuple(field.name for field in fields(kind) if str(field.type).startswith(start))


_TUPLES: Final = _declared(SessionState, "tuple[")
_SETS: Final = _declared(SessionState, "frozenset[")
_CALL_TUPLES: Final = tuple(map(_CALL.index, _declared(Call, "tuple[")))
_MORE_TUPLES: Final = tuple(map((_CALL + _MORE).index, set(_declared(ObligedCall, "tuple[")) - set(_CALL)))

_call_values: Final = attrgetter(*_CALL)
_more_values: Final = attrgetter(*_MORE)
_write: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode


_DECIDING: Final = (
    *(f"agentos.abi.{name}" for name in ("attributes", "canonical", "decision", "event", "exact", "record", "syscall")),
    *(f"agentos.projections.{name}" for name in ("forked", "grown", "session", "session_state", "state_document")),
    __name__,
)
"""The modules that decide what a state is, from the stored event on."""


def _fold_version() -> str:
    try:
        sources = [inspect.getsource(import_module(name)) for name in _DECIDING]
    except OSError:  # installed without sources: then nobody edits them between two releases
        sources = []
    return digest("\0".join([__version__, *sources]).encode())


FOLD: Final = _fold_version()
"""Which fold a state is of; another one's is not to be read."""


def write_state(state: SessionState) -> Iterator[bytes]:
    """The lines of a state, whose values are those of events: what has no canonical form never came to be in one."""
    body = {name: getattr(state, name) for name in _SESSION}
    yield _write({name: sorted(value) if isinstance(value, frozenset) else value for name, value in body.items()}).encode()
    calls = iter(state.calls.values())
    while some := list(islice(calls, CALLS)):
        yield _write([_row(call) for call in some]).encode()


def read_state_lines(lines: Iterable[bytes]) -> SessionState:
    """The state that `write_state` has written. Raises LookupError, TypeError or ValueError for anything else."""
    first, *rest = lines
    body = json.loads(first)
    if not isinstance(body, dict) or body.keys() != set(_SESSION):
        raise ValueError("a state of another version")
    calls = {call.call: call for line in rest for call in map(_call, json.loads(line))}
    return SessionState(
        **{
            **body,
            **{name: tuple(body[name]) for name in _TUPLES},
            **{name: frozenset(body[name]) for name in _SETS},
            "state": State(body["state"]),
            "calls": Grown(calls),
        }
    )


def _row(call: Call) -> list[Json]:
    values = _call_values(call)
    return [*values, *_more_values(call)] if isinstance(call, ObligedCall) else list(values)


def _call(row: list[Json]) -> Call:
    row[_STEP] = _STEPS[row[_STEP]]
    for place in _CALL_TUPLES:
        row[place] = tuple(row[place])
    if len(row) == len(_CALL):
        return Call(*row)
    if len(row) != len(_CALL) + len(_MORE):
        raise ValueError("a call of another version")
    for place in _MORE_TUPLES:
        row[place] = tuple(row[place])
    return ObligedCall(*row)
