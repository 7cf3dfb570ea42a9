"""Tools and outcomes in the words of MCP."""

from __future__ import annotations

import pytest

from agentos.abi.errors import Conflict
from agentos.gateway.offer import hints, refusal_of, result_of, tool_of
from agentos.gateway.upstream import Done, Tool


@pytest.mark.parametrize(
    ("effect", "idempotent", "expected"),
    [
        ("read", False, (True, False, True, False)),
        ("write", False, (False, True, False, False)),
        ("write", True, (False, True, True, False)),
        ("external", False, (False, True, False, True)),
    ],
)
def test_hints_follow_from_what_the_operator_declared(effect: str, idempotent: bool, expected: tuple[bool, ...]) -> None:
    """Reads, destroys, may be repeated, reaches out."""
    told = hints(effect, idempotent=idempotent)
    assert (told.read_only_hint, told.destructive_hint, told.idempotent_hint, told.open_world_hint) == expected


def test_a_tool_is_offered_with_its_digest_and_promises_no_shape_of_results() -> None:
    """Policy may mask or cut a result, so no output schema is offered."""
    told = tool_of(Tool("list", "List.", {"type": "object"}, "read", True, "sha256:a"))
    assert told.meta == {"agentos/digest": "sha256:a"}
    assert told.output_schema is None


def test_structured_content_is_an_object_or_nothing() -> None:
    """The protocol of 2025 takes objects alone, and an error has none."""
    assert result_of(Done("c", "finished", "t", False, {"a": 1})).structured_content == {"a": 1}
    assert result_of(Done("c", "finished", "t", False, [1])).structured_content is None
    assert result_of(Done("c", "failed", "t", True, {"a": 1})).structured_content is None


def test_an_error_of_the_runtime_is_for_the_model_to_read() -> None:
    """What, and how to mend it; its code for programs."""
    told = refusal_of(Conflict("the tool has changed", mend="list again"))
    assert told.is_error
    assert told.content[0].text == "the tool has changed (list again)"  # type: ignore[union-attr]
    assert told.meta == {"agentos/code": "conflict"}
