"""Getting out of a sandbox, for real; and the same without one, which shows that the attempts would get something."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentos.boot.escapes import escapes
from agentos.boot.system import SystemRandom
from agentos.sandbox.escape import ATTEMPTS, Outcome
from agentos.sandbox.profile import Isolation

HARMLESS = {"files", "descriptors", "processes", "signals", "network", "names", "unix-sockets"}
"""Attempts that get something wherever there is no sandbox, and take nothing of the machine."""


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is laid out is gone afterwards, and nothing has appeared beside it."""
    # Addresses of unix sockets are short, and so must be the way to them.
    with tempfile.TemporaryDirectory(prefix="ground-") as ground:
        monkeypatch.setattr(tempfile, "tempdir", ground)
        yield
        monkeypatch.undo()
        assert not list(Path(ground).glob("agentos-escape*"))
    assert not [
        path for folder in ("/", "/usr", "/usr/bin", "/etc", "/var", "/opt") for path in Path(folder).glob("agentos-escape*")
    ]


async def test_nothing_gets_out() -> None:
    """Every attempt is refused; only what all processes of a call use together may be weak, where there are no control groups."""
    tried = await escapes(SystemRandom())
    assert [one.attempt for one in tried] == [attempt.name for attempt in ATTEMPTS]
    not_refused = {one.attempt: (one.outcome, one.found) for one in tried if one.outcome is not Outcome.REFUSED}
    weak_without_groups = {"memory", "memory-together"}
    assert not_refused.keys() <= weak_without_groups, not_refused
    assert all(outcome is Outcome.WEAK for outcome, _ in not_refused.values())
    assert all(one.by for one in tried if one.outcome is Outcome.REFUSED)


async def test_without_a_sandbox_they_get_out() -> None:
    """The attempts find what is laid out for them when nothing keeps them from it: a refusal means something."""
    only = [attempt for attempt in ATTEMPTS if attempt.name in HARMLESS]
    tried = await escapes(SystemRandom(), [Isolation.UNSAFE_NONE], only)
    assert {one.attempt: one.outcome for one in tried} == dict.fromkeys(sorted(HARMLESS), Outcome.ESCAPED)


async def test_without_a_sandbox_the_user_is_all_that_keeps_one() -> None:
    """Root gets everything. Limits are kept without a sandbox too, and the proxy leads nowhere it should not."""
    names = {"passwords", "tracing", "setuid", "large-file", "proxied"}
    tried = await escapes(SystemRandom(), [Isolation.UNSAFE_NONE], [attempt for attempt in ATTEMPTS if attempt.name in names])
    outcomes = {one.attempt: one.outcome for one in tried}
    assert (outcomes.pop("large-file"), outcomes.pop("proxied")) == (Outcome.REFUSED, Outcome.REFUSED), [
        one.found for one in tried
    ]
    if os.geteuid() == 0:
        assert set(outcomes.values()) == {Outcome.ESCAPED}
    else:
        assert outcomes["passwords"] is Outcome.REFUSED
