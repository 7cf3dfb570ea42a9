"""The full-text search as a person meets it: words, phrases, narrower questions, and what an erasure leaves of them."""

from __future__ import annotations

from e2e_runtime import Cli


def hello(cli: Cli, goal: str) -> str:
    return str(cli("run", "hello", goal, "--wait", "-o", "json").json["session"])


def test_words_are_found_where_they_were_said(up: Cli) -> None:
    """In a goal, an argument, an answer of the model; narrowed to a session; with operators as they are; nothing is no error."""
    up("apply", "examples/01-hello", "--yes", "--allow-widen")
    first, second = hello(up, "invoice 4711 for the customer"), hello(up, "another matter")

    found = up("audit", "search", "invoice", "4711", "-o", "json").json
    assert {row["session"] for row in found} == {first}
    assert {row["kind"] for row in found} >= {"goal"}
    table = up("audit", "search", "invoice 4711").out
    assert first in table
    assert second not in table
    assert up("audit", "search", "4711 invoice", "-o", "json").json == []
    both = up("audit", "search", "--raw", "invoice OR matter", "-o", "json").json
    assert {row["session"] for row in both} == {first, second}
    only = up("audit", "search", "--raw", "invoice OR matter", "--session", second, "-o", "json").json
    assert {row["session"] for row in only} == {second}
    limited = up("audit", "search", "--raw", "invoice OR matter", "--limit", "1", "-o", "json")
    assert len(limited.json) == 1
    assert "there are older rows" in limited.err

    up("audit", "erase", "--session", first, "--basis", "request 17", "--yes")
    assert up("audit", "search", "invoice", "-o", "json").json == []


def test_a_question_that_is_none(up: Cli) -> None:
    """It is said what is wrong with it; an operator, who may not read payloads, may not search them."""
    up("audit", "search", expect=64)
    up("audit", "search", "--raw", '"open', expect=64)
    up("audit", "search", "x", "--since", "when the moon was full", expect=64)
    up("principal", "create", "ops", "--role", "operator")
    assert "role" in up("--as", "ops", "audit", "search", "x", expect=3).err
