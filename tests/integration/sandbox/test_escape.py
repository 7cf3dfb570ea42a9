"""Getting out of a sandbox, for real; and the same without one, which shows that the attempts would get something."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from agentos.boot.escapes import escapes
from agentos.boot.system import SystemRandom
from agentos.sandbox.escape import ATTEMPTS, Outcome
from agentos.sandbox.profile import Isolation

HARMLESS = {"files", "descriptors", "processes", "signals", "network", "names", "unix-sockets"}
"""Attempts that get something wherever there is no sandbox, and take nothing of the machine."""


def traces() -> set[str]:
    folders = ("/usr", "/usr/bin", "/etc", "/var", "/opt", "/tmp", "/dev/shm", "/run", "/dev", "/", tempfile.gettempdir())
    return {str(path) for folder in folders for path in Path(folder).glob("agentos-escape*")}


async def test_nothing_gets_out() -> None:
    """Every attempt is refused; only what all processes of a call use together may be weak, where there are no control groups."""
    before = traces()
    tried = await escapes(SystemRandom())
    assert [one.attempt for one in tried] == [attempt.name for attempt in ATTEMPTS]
    not_refused = {one.attempt: (one.outcome, one.found) for one in tried if one.outcome is not Outcome.REFUSED}
    weak_without_groups = {"memory", "memory-together"}
    assert not_refused.keys() <= weak_without_groups, not_refused
    assert all(outcome is Outcome.WEAK for outcome, _ in not_refused.values())
    assert all(one.by for one in tried if one.outcome is Outcome.REFUSED)
    assert traces() == before


async def test_without_a_sandbox_they_get_out() -> None:
    """The attempts find what is laid out for them when nothing keeps them from it: a refusal means something."""
    before = traces()
    only = [attempt for attempt in ATTEMPTS if attempt.name in HARMLESS]
    tried = await escapes(SystemRandom(), [Isolation.UNSAFE_NONE], only)
    assert {one.attempt: one.outcome for one in tried} == dict.fromkeys(sorted(HARMLESS), Outcome.ESCAPED)
    assert traces() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may do these without a sandbox")
async def test_without_a_sandbox_root_may_do_anything() -> None:
    """And what only the user keeps one from."""
    names = {"passwords", "tracing", "setuid", "large-file"}
    tried = await escapes(SystemRandom(), [Isolation.UNSAFE_NONE], [attempt for attempt in ATTEMPTS if attempt.name in names])
    outcomes = {one.attempt: one.outcome for one in tried}
    # A plain process has limits too.
    assert outcomes.pop("large-file") is Outcome.REFUSED
    assert set(outcomes.values()) == {Outcome.ESCAPED}
