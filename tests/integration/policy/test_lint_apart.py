"""The checks of Rego in a process that can be killed."""

from __future__ import annotations

import asyncio

import pytest

from agentos.abi.errors import PolicyError
from agentos.policy.lint import lint_tenant
from agentos.policy.lint_apart import Linter
from agentos.policy.port import Module

HEAD = """# METADATA
# title: care
# description: care
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.care

"""
RULE = """# METADATA
# title: found
# description: found
results contains {"rule": "care.found", "effect": "deny", "reason": "no"} if {
	%s
}
"""
SOUND = Module("care/care.rego", HEAD + RULE % 'input.syscall.tool == "send"')
WRONG = Module("care/care.rego", HEAD + RULE % 'input.syscall.tol == "send"')
LOOP = "some a in numbers.range(1, 100000)\n\tsome b in numbers.range(1, 100000)\n\ta * b == -1"
ENDLESS = Module("care/care.rego", HEAD + RULE % LOOP)


async def test_the_findings_are_those_of_the_lint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apart or not, the same is found; what is clean is asked once: no process is started for it again."""
    linter = Linter()
    assert await linter.lint({"syscall": [WRONG]}) == lint_tenant({"syscall": [WRONG]})
    assert await linter.lint({"syscall": [SOUND]}) == []
    monkeypatch.setattr(asyncio, "create_subprocess_exec", None)
    assert await linter.lint({"syscall": [SOUND]}) == []
    assert await linter.lint({}) == []


async def test_checks_that_do_not_end_are_ended() -> None:
    """A rule that loops for hours is refused in time, and holds nobody else up."""
    with pytest.raises(PolicyError, match=r"could not be checked within 3 s"):
        await Linter(within_s=3).lint({"syscall": [ENDLESS]})
