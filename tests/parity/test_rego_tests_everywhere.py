"""Every Rego test of the shipped policies and of the examples is true in every place, and under `opa test` itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from agentos.abi.errors import EngineUnavailable
from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.bundle import TEST_SUFFIX
from agentos.policy.port import Module, PolicyEngine, PolicyEngineFactory

ROOT = Path(__file__).parents[2]
OPA = Path(sys.executable).with_name("opa")
PLACES = ("embedded", "managed", "remote")


def modules(*folders: Path) -> list[Module]:
    """All Rego files below the folders, tests included."""
    found = sorted(path for folder in folders for path in folder.rglob("*.rego"))
    return [Module(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in found]


SETS = {"policies": [ROOT / "policies"]} | {
    f"examples/{folder.name}": [ROOT / "policies", folder]
    for folder in sorted((ROOT / "examples").iterdir())
    if any(folder.rglob(f"*{TEST_SUFFIX}"))
}


@pytest.mark.parametrize("name", SETS)
async def test_each_test_is_true_in_all_places(name: str, places: dict[str, PolicyEngineFactory]) -> None:
    """A rule `test_…` is true in the process, on a managed server, and on a remote one."""
    own = modules(*SETS[name])
    asked = {
        ".".join((*syntax.package(tree), rule))
        for tree in map(opa.parse, modules(SETS[name][-1]))
        for rule in {syntax.rule_name(rule) for rule in syntax.rules(tree)}
        if rule.startswith("test_")
    }
    assert asked
    assert tuple(places) == PLACES
    for place, factory in places.items():
        engine = await factory.load([*own, gathering(asked)], {})
        try:
            failed = await failures(engine, asked)
        finally:
            engine.close()
        assert not failed, f"{place}: " + "\n".join(failed)


def gathering(tests: Iterable[str]) -> Module:
    """A module whose one answer holds all of them: a question to OPA of its own for each test costs a compilation each."""
    return Module(
        "gathering.rego", "package gathering\n\n" + "".join(f'values["{test}"] := data.{test}\n' for test in sorted(tests))
    )


async def failures(engine: PolicyEngine, tests: Iterable[str]) -> list[str]:
    """What is said of each test that is not true."""
    try:
        values = await engine.evaluate("gathering.values", {}, within=60.0)
    except EngineUnavailable:
        # An error in one hides the others: ask for each.
        values = {}
    found = []
    for test in sorted(set(tests) - {test for test, value in values.items() if value is True}):
        try:
            value = await engine.evaluate(test, {}, within=30.0)
        except EngineUnavailable as error:
            found.append(error.message)
        else:
            if value is not True:
                found.append(f"{test} is {value!r}")
    return found


@pytest.mark.parametrize("name", SETS)
def test_opa_test_passes(name: str) -> None:
    """`opa test` on the same files, as a compliance team runs it."""
    folders = [str(folder.relative_to(ROOT)) for folder in SETS[name]]
    ignored = [f"--ignore={pattern}" for pattern in ("*.yaml", "*.yml", "*.json")]
    done = subprocess.run(
        [OPA, "test", "--timeout=60s", *ignored, *folders], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout
