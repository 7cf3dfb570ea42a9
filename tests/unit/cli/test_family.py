"""Sessions and those that they have delegated to, as they are told of."""

from __future__ import annotations

from agentos.abi.canonical import Json
from agentos.cli.family import came_from, children, summary, tree


def row(name: str, parent: str | None = None, origin: str | None = None, **more: Json) -> Json:
    return {"id": name, "parent": parent, "origin": origin, "agent": "a", "state": "running", "goal": f"goal of {name}", **more}


def test_children_stand_below_their_parents() -> None:
    """Rows come newest first: the top keeps that order, children come in the order of their making, and nobody is lost."""
    rows = [
        row("s-7", "s-gone", "delegated"),
        row("s-6", "s-2", "delegated"),
        row("s-5", "s-3", "delegated"),
        row("s-4", "s-1", "forked"),
        row("s-3", "s-1", "delegated"),
        row("s-2", "s-1", "delegated"),
        row("s-1"),
    ]
    placed = [(depth, one["id"]) for depth, one in tree(rows)]
    assert placed == [(0, "s-7"), (0, "s-4"), (0, "s-1"), (1, "s-2"), (2, "s-6"), (1, "s-3"), (2, "s-5")]
    assert tree([]) == []


def test_where_a_session_came_from() -> None:
    """By its parent, its trigger or its standing; nothing for one that somebody ran."""
    assert came_from(row("s-2", "s-1", "delegated")) == "s-1"
    assert came_from(row("s-2", "s-1", "forked")) == "fork of s-1"
    assert came_from(row("s-2", origin="trigger", trigger_name="monday")) == "trigger monday"
    assert came_from(row("s-2", origin="standing")) == "standing"
    assert came_from(row("s-2")) == "-"


def test_each_child_that_was_named_is_told_of() -> None:
    """Also one that was refused, and one that is on its way, of which there is no session."""
    refused = {"type": "agentos.delegation.refused", "data": {"child": "s-3"}}
    rows = [row("s-4", state="running", frozen="f-1"), row("s-1", state="finished"), row("s-fork", state="running")]
    found = children({"c1": ["s-1", "s-2"], "c2": ["s-3", "s-4"]}, [{"type": "other", "data": {}}, refused], rows)
    assert [(one["call"], one["session"], one["state"]) for one in found] == [
        ("c1", "s-1", "finished"),
        ("c1", "s-2", "not begun"),
        ("c2", "s-3", "refused"),
        ("c2", "s-4", "running, frozen"),
    ]
    assert (found[0]["agent"], found[0]["goal"], found[1]["agent"]) == ("a", "goal of s-1", "")
    assert summary(found) == "4: 1 finished, 1 not begun, 1 refused, 1 running, frozen"
