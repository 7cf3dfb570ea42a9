"""Provenance: every labelled input that a path can reach is counted, in every spelling of the path."""

from __future__ import annotations

from typing import Any

import pytest

from agentos.abi.syscall import ToolEffect
from agentos.drivers.port import ToolSpec
from agentos.kernel.provenance import input_labels

INPUTS = [
    {"path": "input/hr/pay.csv", "labels": ["pii", "secret"]},
    {"path": "input/hr2/a.md", "labels": ["internal"]},
    {"path": "input/web.html", "labels": ["untrusted"]},
    {"path": "input/plain.txt"},
]
ALL = ("internal", "pii", "secret", "untrusted")
PAY = ("pii", "secret")


def builtin(primitive: str) -> ToolSpec:
    return ToolSpec(primitive, "", ToolEffect.READ, True, {}, {"builtin": {"primitive": primitive}})


def server(*names: str) -> ToolSpec:
    return ToolSpec("x", "", ToolEffect.READ, True, {}, {"mcp": {"server": {}, "tool": "x", "workspaceArgs": list(names)}})


@pytest.mark.parametrize(
    ("tool", "args", "expected"),
    [
        (builtin("read"), {"path": "input/hr/pay.csv"}, PAY),
        (builtin("read"), {"path": "./input/.//hr/pay.csv"}, PAY),
        (builtin("read"), {"path": "input/plain.txt"}, ()),
        (builtin("read"), {"path": "input/hr"}, PAY),
        (builtin("read"), {"path": "input/h"}, ()),
        (builtin("read"), {"path": "input/hr/../web.html"}, ALL),
        (builtin("list"), {}, ALL),
        (builtin("list"), {"path": "input/hr/"}, PAY),
        (builtin("search"), {"pattern": "x", "path": "."}, ALL),
        (builtin("search"), {"pattern": "x", "path": ""}, ALL),
        (builtin("write"), {"path": "out/x", "content": "input/hr/pay.csv"}, ()),
        (builtin("declassify"), {"labels": ["pii"], "reason": "r"}, ()),
        (server("file"), {"file": "input/web.html"}, ("untrusted",)),
        (server("files"), {"files": ["input/web.html", "input/hr2"]}, ("internal", "untrusted")),
        (server("files"), {"files": ["out", 7]}, ALL),
        (server("files"), {"files": []}, ALL),
        (server("file"), {}, ALL),
        (server("file"), {"file": "/input/plain.txt"}, ALL),
        (server("file"), {"file": {"odd": 1}}, ALL),
        (server(), {"file": "input/web.html"}, ALL),
        (server(), {}, ALL),
    ],
)
def test_what_a_call_touches(tool: ToolSpec, args: dict[str, Any], expected: tuple[str, ...]) -> None:
    """A folder stands for what is below it, no path or a senseless one for everything, a neighbour of like name for nothing.

    A server that declares no paths may read its whole working directory.
    """
    assert input_labels(tool, args, INPUTS) == expected
    assert input_labels(tool, args, INPUTS[3:]) == ()
