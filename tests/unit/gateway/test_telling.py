"""What people are asked and clients are told: whole, plain, and nothing but a yes is one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateway_desk import waiting

from agentos.gateway.telling import LONGEST, REASON, Said, question, said, text_of, waits
from agentos.gateway.upstream import Done, Waiting


def asked(call: str = "mcp-1", **more: object) -> Waiting:
    body = waiting(call, **more)
    return Waiting(body["call"], body["question"])


def test_a_question_shows_the_whole_call_with_nothing_hidden_in_it() -> None:
    """Arguments, reasons and names; what would turn the text round or hide it is written as an escape."""
    text = question(asked(args={"path": "a\u202etxt", "x": "\x1b[2J"}, reasons=["why\n\u200bnot"]), "desk")
    assert text is not None
    assert '"path": "a\\u202etxt"' in text
    assert "\x1b" not in text
    assert "\u200b" not in text
    assert "Agent desk wants to call the tool write" in text


def test_a_client_that_reads_markdown_shows_the_call_as_it_is() -> None:
    """Nothing of a call gets out of the block: no line is a fence but ours, whatever is in arguments and reasons."""
    text = question(asked(args={"x": "\n```\n<!--", "y": "a\ufe0f\u3164\U000e0101b"}, reasons=["```", "\n```\n**fine**"]), "desk")
    assert text is not None
    lines = text.split("\n")
    assert [number for number, line in enumerate(lines) if line.strip() == "```"] == [1, len(lines) - 1]
    assert '"y": "a\\ufe0f\\u3164\\udb40\\udd01b"' in text


def test_what_cannot_be_shown_whole_is_not_asked() -> None:
    """Neither a call that is too long to be read here, nor another one than the client's own."""
    assert question(asked(args={"x": "y" * LONGEST}), "desk") is None
    assert question(asked("mcp-2", asked="mcp-1"), "desk") is None


@pytest.mark.parametrize("content", [None, {}, {"approve": False}, {"approve": "true"}, {"approve": 1}, {"reason": "yes"}])
def test_anything_but_a_plain_yes_is_a_no(content: dict[str, object] | None) -> None:
    """A yes is the boolean that was asked for."""
    assert not said(content, "editor").granted


def test_a_reason_is_bounded_and_says_where_it_was_given() -> None:
    """The log tells that it came through a client."""
    given = said({"approve": True, "reason": " ok " + "x" * 9999}, "ed\x1bitor")
    assert given.granted
    assert given.reason.endswith("(asked through MCP client ed\\x1bitor)")
    assert len(given.reason) < REASON + 60
    assert said({"approve": True, "reason": "a\ud800\n\u202eb"}, "e").reason.startswith("a\\ud800\\n\\u202eb (")
    assert said({"approve": True, "reason": 3}, "e") == Said(True, "no reason given (asked through MCP client e)")


def test_who_waits_is_told_for_what_and_what_to_type() -> None:
    """The command, the reason, how many people, and behind which call it stands."""
    assert "agentos approvals approve s-1 --reason" in waits(asked())
    assert "by 2 people" in waits(asked(needed=2))
    assert "of call mcp-1 (write), behind which it stands, by a person" in waits(asked("mcp-2", asked="mcp-1"))
    assert "not settled by it: no\\nyes" in waits(asked(), "no\nyes")
    assert "by a person" in waits(asked(needed=None, given=None))


def test_what_no_text_can_hold_is_escaped() -> None:
    """A lone surrogate of a tool's output does not break the line to the client."""
    assert text_of(Done("mcp-1", "finished", "a\ud800b", is_error=False)) == "a\\ud800b"
