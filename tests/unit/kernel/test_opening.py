"""The first event of a session, and the labels on it."""

from __future__ import annotations

import pytest

from agentos.abi.errors import UsageError
from agentos.kernel.opening import opening
from agentos.kernel.port import AgentSpec
from agentos.kernel.provenance import place_holds
from agentos.kernel.workspace import InputFile

FILES = [InputFile("input/crm/berg.md", 3, "sha256:1"), InputFile("input/mail/a.md", 5, "sha256:2")]


def agent(goal=(), files=None):
    return AgentSpec("clerk", "m", "x", (), {}, goal_labels=tuple(goal), file_labels=files or {})


def labels(data):
    return {item["path"]: item.get("labels", []) for item in data["inputs"]}


def test_without_labels_nothing_is_said_of_them():
    """An event is no longer than it need be."""
    data = opening(agent(), "go", FILES, (), {})
    assert data == {"agent": "clerk", "goal": "go", "inputs": [item.to_dict() for item in FILES]}


def test_what_is_declared_and_what_is_given_add_up():
    """The operator's labels of the agent's work and the starter's of this run are both carried."""
    data = opening(agent(["internal"], {"mail": ("untrusted",)}), "go", FILES, ["urgent"], {".": ["eu"], "crm": ["pii"]})
    assert data["labels"] == ["internal", "urgent"]
    assert labels(data) == {"input/crm/berg.md": ["eu", "pii"], "input/mail/a.md": ["eu", "untrusted"]}


def test_a_place_without_a_file_is_told():
    """A label that is meant for a file and reaches none is a mistake of the one who gives it, not of the one who declares."""
    with pytest.raises(UsageError, match="no input file at 'mial'"):
        opening(agent(), "go", FILES, (), {"mial": ["untrusted"]})
    assert labels(opening(agent(files={"mial": ("untrusted",)}), "go", FILES, (), {}))["input/mail/a.md"] == []


@pytest.mark.parametrize(
    ("place", "holds"),
    [
        ("mail", True),
        ("mail/", True),
        ("./mail/a.md", True),
        (".", True),
        ("mai", False),
        ("mail/a.md/b", False),
        ("", False),
        ("../x", True),
    ],
)
def test_a_place_holds_what_is_at_or_below_it(place, holds):
    """A folder stands for all that is below it, and what makes no sense for everything."""
    assert place_holds(place, "input/mail/a.md") is holds
