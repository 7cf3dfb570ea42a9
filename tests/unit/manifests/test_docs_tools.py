"""The examples of docs/tools.md are declarations that hold."""

from __future__ import annotations

import re
from pathlib import Path

from agentos.manifests import load

PAGE = Path(__file__).parents[3] / "docs" / "tools.md"


def test_every_example_holds() -> None:
    """All of them together, as they stand on the page: no fault, and one of each driver but `delegate`, which has a page."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    loaded = load(["-"], stdin="---\n".join(blocks).encode())
    assert [str(fault) for fault in loaded.faults] == []
    tools = [resource for resource in loaded.resources if resource.key.kind == "Tool"]
    assert {next(iter(tool.spec["driver"])) for tool in tools} == {"builtin", "exec", "mcp", "http"}
