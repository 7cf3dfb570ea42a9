"""There is one list of what a policy may not use: lint, engines and `opa check --capabilities` refuse the same."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from agentos.policy.adapters import opa
from agentos.policy.adapters.opa_program import find_opa
from agentos.policy.port import Module
from agentos.policy.syntax import UNSTEADY

ROOT = Path(__file__).parents[3]
FILE = ROOT / "policies" / "capabilities.json"


def test_the_file_is_what_the_script_makes() -> None:
    """The pinned `opa` without the banned builtins, byte for byte: `python scripts/capabilities.py` makes it anew."""
    spec = importlib.util.spec_from_file_location("capabilities", ROOT / "scripts" / "capabilities.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.capabilities(find_opa()) == FILE.read_text("utf-8")


def test_every_builtin_that_opa_calls_nondeterministic_is_banned() -> None:
    """So is what reaches outside; every banned name is one that the pinned OPA knows."""
    done = subprocess.run([find_opa(), "capabilities", "--current"], capture_output=True, text=True, check=True)
    builtins = json.loads(done.stdout)["builtins"]
    assert {one["name"] for one in builtins if one.get("nondeterministic")} <= UNSTEADY
    assert {one["name"] for one in builtins} >= UNSTEADY
    left = json.loads(FILE.read_text("utf-8"))
    assert {one["name"] for one in left["builtins"]} == {one["name"] for one in builtins} - UNSTEADY
    assert left["allow_net"] == []


@pytest.mark.parametrize("name", sorted(UNSTEADY))
def test_opa_check_and_the_engines_refuse_it(name: str, tmp_path: Path) -> None:
    """`opa check` says that it is undefined; an engine does not load it."""
    source = f"package a\n\nx if count([1]) == 1 with count as {name}\n"
    file = tmp_path / "a.rego"
    file.write_text(source)
    words = [find_opa(), "check", "--strict", "--capabilities", str(FILE), str(file)]
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0
    from agentos.abi.errors import PolicyError

    with pytest.raises(PolicyError, match=name):
        opa.refuse_unsteady([Module("a.rego", source)])


def test_json_schemas_reach_the_network() -> None:
    """Why the two that read JSON Schemas are banned: a `$ref` is fetched. Seen on a file, as no test opens the network."""
    engine = opa.bindings().OpaEngine()
    try:
        (answer,) = engine.eval_query(f'x := json.match_schema({{}}, {{"$ref": "file://{FILE}"}})')
    finally:
        engine.close()
    assert answer["x"][0] is True
