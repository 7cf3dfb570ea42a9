"""A call is told which Secrets earlier calls of its session were lent: so a runtime that did not lend them masks them too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kernel_in_memory import ALLOW, Kernel, RecordingDriver, tool

from agentos.abi.decision import deny
from agentos.abi.errors import DriverError
from agentos.abi.syscall import Result
from agentos.credentials.reference import Credential, SecretRef
from agentos.drivers.port import CallContext, ToolSpec
from agentos.kernel.port import Configuration
from agentos.kernel.workspace import Workspaces

GITHUB = SecretRef("github", "env", "GITHUB")


class Told(RecordingDriver):
    """Remembers what each call was told of earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.lent: list[set[str]] = []

    async def call(self, tool: ToolSpec, args: Mapping[str, Any], context: CallContext) -> Result:
        self.lent.append(set(context.lent))
        return await super().call(tool, args, context)


class Keyed(Kernel):
    """A kernel with a tool that has a credential."""

    def current(self, tenant: str) -> Configuration:
        return replace(super().current(tenant), secrets={"github": GITHUB})


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    made = Keyed(Workspaces(tmp_path), driver=Told())
    made.tools["push"] = replace(tool("push"), credentials=(Credential("github", env="T"), Credential("gone", env="U")))
    return made


async def test_later_calls_know_what_was_lent(kernel: Kernel) -> None:
    """From the first one on that was let through with credentials, whether it worked or not; not of its own, nor of a denied one.
    Whoever loads the session knows it from the log.
    """
    driver, gate, journal = kernel.driver, kernel.gate(), await kernel.journal()
    assert isinstance(driver, Told)
    kernel.policy.decide = lambda document: deny("no", "no") if document["syscall"]["args"]["path"] == "denied" else ALLOW
    await kernel.perform(gate, journal, "c1", "push", path="denied")
    await kernel.perform(gate, journal, "c2", "read", path="a")
    driver.answers["push"] = DriverError("it broke")
    await kernel.perform(gate, journal, "c3", "push", path="a")
    await kernel.perform(gate, journal, "c4", "read", path="a")
    again = await type(journal).load(kernel.log, "default", "s-1", kernel.timer, journal._random)
    await kernel.perform(kernel.gate(), again, "c5", "read", path="a")
    assert driver.lent == [set(), set(), {"github"}, {"github"}]
