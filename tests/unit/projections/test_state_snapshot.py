"""A state in the bytes of a snapshot: exact at every event of every history, and read by nobody who would misread it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from agentos.abi.event import Event
from agentos.projections import state_snapshot
from agentos.projections.session import SessionState, fold
from agentos.projections.session_state import Call, ObligedCall
from agentos.projections.state_document import state_bytes
from agentos.projections.state_snapshot import CALLS, FOLD, read_state_lines, write_state

sys.path.insert(0, str(Path(__file__).parent))

from session_histories import History, histories

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.jsonl"))


def again(state: SessionState) -> SessionState:
    """The state, written and read."""
    return read_state_lines(list(write_state(state)))


def prefixes(events: list[Event]) -> list[SessionState]:
    states = [SessionState()]
    for event in events:
        states.append(fold(states[-1], event))
    return states


@given(histories())
def test_what_is_written_is_read(history: History) -> None:
    """At every event, and what follows is folded alike: the state from there equals the state from the first event."""
    states = prefixes(list(history.events))
    for cut, state in enumerate(states):
        read = again(state)
        assert read == state
        for event in history.events[cut:]:
            read = fold(read, event)
        assert read == states[-1]
        assert state_bytes(read) == state_bytes(states[-1])
        assert list(read.calls) == list(states[-1].calls)


@pytest.mark.parametrize("name", NAMES)
def test_recorded_histories_are_read_too(name: str) -> None:
    """Forks, obligations that still bind, notices that were given: with all that no state document holds."""
    events = [Event.from_bytes(line) for line in (GOLDEN / f"{name}.jsonl").read_bytes().splitlines()]
    states = prefixes(events)
    for cut, state in enumerate(states):
        read = again(state)
        assert read == state
        assert [type(call) for call in read.calls.values()] == [type(call) for call in state.calls.values()]
        for event in events[cut:]:
            read = fold(read, event)
        assert read == states[-1]
    if name == "obligations":
        assert any(isinstance(call, ObligedCall) for call in states[-1].calls.values())


@pytest.mark.parametrize("kind", [SessionState, Call, ObligedCall])
def test_every_field_is_of_a_kind_that_is_read_back(kind: type[Any]) -> None:
    """Text, numbers, tuples, sets, JSON objects, and the three that are named: a field of another kind needs a way of its own."""
    known = r"(str|int|None|bool|tuple\[(Mapping\[str, Json\]|str), \.\.\.\]|frozenset\[str\]|Mapping\[str, (Json|int)\])"
    for one in fields(kind):
        assert re.fullmatch(rf"{known}( \| None)?|State|Step|Grown\[Call\]", str(one.type)), one.name


def test_a_long_state_is_written_in_pieces() -> None:
    """No line has more than CALLS calls, so nobody waits for the whole of it."""
    events = [Event.from_bytes(line) for line in (GOLDEN / "triage.jsonl").read_bytes().splitlines()]
    state = prefixes(events)[-1]
    call = next(iter(state.calls.values()))
    for number in range(3 * CALLS):
        state = _with(state, f"c-{number}", call)
    lines = list(write_state(state))
    assert max(len(json.loads(line)) for line in lines[1:]) == CALLS
    assert again(state) == state


def _with(state: SessionState, name: str, call: Call) -> SessionState:
    return replace(state, calls=state.calls.put(name, replace(call, call=name)))


@pytest.mark.parametrize(
    "lines",
    [
        [b"{}"],
        [b"[]"],
        [b"no JSON"],
        [b'{"more":1}'],
        [*write_state(SessionState()), b'[["c-1"]]'],
        [*write_state(SessionState()), b'[["c-1","t",{},"","asleep",0,null,null,null,"","",0,0,null,[]]]'],
        [*write_state(SessionState()), b'[["c-1","t",{},"","denied",0,null,null,null,"","",0,0,null,[],[]]]'],
    ],
)
def test_what_no_fold_of_this_version_wrote_is_refused(lines: list[bytes]) -> None:
    """Nothing is guessed."""
    with pytest.raises((LookupError, TypeError, ValueError)):
        read_state_lines(lines)


def test_another_fold_has_another_name(tmp_path: Path) -> None:
    """FOLD is the same in every process, and changes with the code that folds."""
    program = "from agentos.projections.state_snapshot import FOLD; print(FOLD)"
    there = Path(state_snapshot.__file__).parents[2]
    assert _printed(program, there) == FOLD
    copy = tmp_path / "agentos"
    for source in [*(there / "agentos" / "projections").glob("*.py"), *(there / "agentos" / "abi").glob("*.py")]:
        target = copy / source.relative_to(there / "agentos")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (copy / "__init__.py").write_bytes((there / "agentos" / "__init__.py").read_bytes())
    (copy / "eventlog").symlink_to(there / "agentos" / "eventlog")
    assert _printed(program, tmp_path) == FOLD
    for name in state_snapshot._DECIDING:
        module = tmp_path / f"{name.replace('.', '/')}.py"
        before = module.read_text()
        module.write_text(f"{before}\n_CHANGED = True\n")
        assert _printed(program, tmp_path) != FOLD, name
        module.write_text(before)
    assert _printed(program, tmp_path) == FOLD


def _printed(program: str, root: Path) -> str:
    script = f"import sys; sys.path.insert(0, {str(root)!r}); {program}"
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=root).stdout.strip()
