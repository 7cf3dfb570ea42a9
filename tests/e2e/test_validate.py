"""`agentos validate` as an operator runs it: a process, real files, real OPA, no running system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from syrupy.assertion import SnapshotAssertion

from agentos.manifests.schema import flat_schema

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
AGENTOS = Path(sys.executable).with_name("agentos")


def agentos(*words: str, given: bytes = b"", home: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the console script in the root of the project with a home that does not exist."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("AGENTOS_")} | {
        "AGENTOS_HOME": str(home / "none")
    }
    return subprocess.run([AGENTOS, *words], input=given, capture_output=True, cwd=ROOT, env=env, timeout=60, check=False)


def test_what_ships_is_clean(tmp_path: Path) -> None:
    """The examples and programs have no fault; one example has tools of the same names as a program, and stands alone."""
    alone = "examples/mcp-gateway"
    others = sorted({f"examples/{path.relative_to(EXAMPLES).parts[0]}" for path in EXAMPLES.rglob("*.yaml")} - {alone})
    for paths in (["programs", *others], [alone]):
        result = agentos("validate", *paths, home=tmp_path)
        assert result.returncode == 0, result.stdout.decode()
        assert result.stdout == b""
        assert b"clean" in result.stderr
    assert not (tmp_path / "none").exists()


def test_every_asset_is_told(tmp_path: Path) -> None:
    """A tree of nothing but flaws is told in one go, in the published shape, with exit code 1."""
    result = agentos("validate", "tests/assets/manifests", "-o", "json", home=tmp_path)
    assert result.returncode == 1
    report = json.loads(result.stdout)
    Draft202012Validator(flat_schema("validate-output")).validate(report)
    assert len({fault["code"] for fault in report["faults"]}) > 35


def test_bad_rego_has_a_place(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """Rego that does not parse is refused with file, line and column, in its own file and inside YAML."""
    for asset in ("policy_rego_broken.yaml", "policy_file_broken"):
        result = agentos("validate", f"tests/assets/manifests/{asset}", home=tmp_path)
        assert result.returncode == 1
        assert [line.split(": ")[:4] for line in result.stdout.decode().splitlines()] == snapshot(name=asset)


@pytest.mark.parametrize("words", [("-",), ("-f", "-")])
def test_standard_input(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A stream is validated like a file."""
    good = b"apiVersion: agentos/v1\nkind: Tenant\nmetadata: {name: acme}\n"
    assert agentos("validate", *words, given=good, home=tmp_path).returncode == 0
    assert agentos("validate", *words, given=good.replace(b"acme", b"Acme"), home=tmp_path).returncode == 1


def test_wrong_words_are_a_usage_error(tmp_path: Path) -> None:
    """No path at all, or a kind that does not exist: exit code 64."""
    assert agentos("validate", home=tmp_path).returncode == 64
    assert agentos("explain", "agnet", home=tmp_path).returncode == 64
    assert agentos("schema", "export", "agnet", home=tmp_path).returncode == 64


def test_two_hundred_thousand_brackets(tmp_path: Path) -> None:
    """Input that crashes other YAML readers is a fault, quickly."""
    result = agentos("validate", "-", given=b"[" * 200_000, home=tmp_path)
    assert result.returncode == 1
    assert result.stdout.startswith(b"-:1:101: nested deeper than 100 levels")


def test_a_thousand_manifests(tmp_path: Path) -> None:
    """Ten files with 1,000 manifests between them are one fleet."""
    agent = """apiVersion: agentos/v1
kind: Agent
metadata:
  name: {name}
  labels: {{app: inbox}}
spec:
  instructions: |
    Sort the files.
  model: fast
  tools: [read]
  budget: {{calls: 50, tokens: 20000}}
  governance: {{owner: support, purpose: Sort mail., risk: limited}}
"""
    base = """apiVersion: agentos/v1
kind: Model
metadata: {name: fast}
spec: {provider: anthropic, anthropic: {model: m}}
---
apiVersion: agentos/v1
kind: Tool
metadata: {name: read}
spec: {description: Read., effect: read, driver: {builtin: {primitive: read}}}
"""
    folder = tmp_path / "fleet"
    folder.mkdir()
    (folder / "base.yaml").write_text(base)
    for file in range(10):
        (folder / f"agents-{file}.yaml").write_text("---\n".join(agent.format(name=f"a{file}-{number}") for number in range(100)))
    result = agentos("validate", str(folder), home=tmp_path)
    assert result.returncode == 0, result.stdout.decode()
