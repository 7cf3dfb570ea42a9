"""What differs between two sessions: nothing between one and its repetition; otherwise the first event, and each call."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentos.abi import event as ev
from agentos.abi.canonical import digest_of
from agentos.abi.event import Event
from agentos.projections.difference import difference

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def history(name: str) -> list[Event]:
    return [Event.from_bytes(line) for line in (GOLDEN / f"{name}.jsonl").read_bytes().splitlines()]


def renamed(value: Any) -> Any:
    """`value` with other ids of its calls, as a repetition has them."""
    if isinstance(value, dict):
        return {key: renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item) for item in value]
    return f"toolu_{value}" if value in {"c1", "c2"} else value


def repeated(events: list[Event]) -> list[Event]:
    """The same session at another time, with other ids and durations."""
    again = []
    for event in events:
        data = renamed(event.data)
        data |= {"duration_us": 9} if "duration_us" in data else {}
        again.append(replace(event, subject="s-other", time_ms=event.time_ms + 5000, id="e", data=data))
    return again


@pytest.mark.parametrize("name", ["approval", "crash", "revised", "triage"])
def test_a_session_and_its_repetition_do_not_differ(name: str) -> None:
    """Ids, times and durations are of one run alone."""
    found = difference(history(name), repeated(history(name)))
    assert (found["same"], found["first"], found["calls"]) == (True, None, [])


def altered(kind: str, **change: Any) -> list[Event]:
    """`revised`, with the payload of one event of call c1 changed."""
    return [
        replace(event, data={**event.data, **change}) if event.type == kind and event.data.get("call") == "c1" else event
        for event in history("revised")
    ]


def test_other_arguments() -> None:
    """The call in the same place with the same tool is one call that changed."""
    args = {"path": "elsewhere"}
    found = difference(history("revised"), altered(ev.SYSCALL_DECIDED, args=args, args_digest=digest_of(args)))
    assert found["first"]["seq"] == 4
    [call] = found["calls"]
    assert (call["change"], call["differs"], call["b"]["args"]) == ("changed", ["args"], args)


def test_another_outcome_and_its_labels() -> None:
    """What a tool gave back, and what came with it."""
    result = {"content": "other", "is_error": False, "labels": ["pii"]}
    found = difference(history("revised"), altered(ev.SYSCALL_FINISHED, result=result))
    assert [(call["change"], call["differs"]) for call in found["calls"]] == [("changed", ["outcome"])]
    assert found["labels"] == {"removed": [], "added": ["pii"]}


def test_a_session_that_is_shorter() -> None:
    """The first difference is behind its end; the calls that it lacks are removed."""
    events = history("revised")
    found = difference(events, events[:3])
    assert (found["first"]["seq"], found["first"]["b"]) == (4, None)
    assert [(call["change"], call["a"]["call"]) for call in found["calls"]] == [("removed", "c1"), ("removed", "c2")]
    back = difference(events[:3], events)
    assert [call["change"] for call in back["calls"]] == ["added", "added"]
    json.dumps(found)
