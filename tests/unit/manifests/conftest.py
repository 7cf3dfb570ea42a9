"""What the tests of manifests share: the folder of assets, sound documents, a stand-in for the check of Rego."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentos.manifests import Loaded, load
from agentos.policy.port import Module

ASSETS = Path(__file__).parents[2] / "assets" / "manifests"

MODEL = """apiVersion: agentos/v1
kind: Model
metadata: {name: fast}
spec: {provider: anthropic, anthropic: {model: claude-sonnet-4-5}}
"""
READ = """apiVersion: agentos/v1
kind: Tool
metadata: {name: read}
spec: {description: Read a file., effect: read, driver: {builtin: {primitive: read}}}
"""
AGENT = """apiVersion: agentos/v1
kind: Agent
metadata: {name: triage}
spec:
  instructions: You sort the files.
  model: fast
  tools: [read]
  governance: {owner: support, purpose: Sort mail., risk: limited}
"""
GRANT = """apiVersion: agentos/v1
kind: ToolGrant
metadata: {name: triage-reads}
spec:
  agents: [triage]
  tools: [read]
  args: {path: {glob: "input/**"}}
"""
FLEET = f"{MODEL}---\n{READ}---\n{AGENT}---\n{GRANT}"


@dataclass(frozen=True)
class Found:
    """A finding, as the policy room gives it."""

    path: str
    line: int
    column: int
    code: str
    message: str
    mend: str


def missing_comma(modules: Sequence[Module], target: str) -> list[Found]:
    """Finds `" "` between two texts on one line: a comma is missing there."""
    found = []
    for module in modules:
        for number, line in enumerate(module.source.split("\n"), 1):
            column = line.find('" "') + 3
            if column > 2:
                found.append(
                    Found(module.path, number, column, "policy.parse", f"unexpected text in a {target} rule", "add a comma")
                )
    return found


@pytest.fixture
def read() -> Callable[..., Loaded]:
    """Load one text from standard input."""

    def read(text: str | bytes, **options: object) -> Loaded:
        data = text if isinstance(text, bytes) else text.encode()
        return load(["-"], stdin=data, **options)  # type: ignore[arg-type]

    return read


@pytest.fixture
def rego_check() -> Callable[[Sequence[Module], str], list[Found]]:
    """A check of Rego that needs no engine."""
    return missing_comma
