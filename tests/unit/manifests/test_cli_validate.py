"""`agentos validate`, `explain` and `schema`: what they print and how they end, without a process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from jsonschema import Draft202012Validator
from syrupy.assertion import SnapshotAssertion
from typer.testing import CliRunner, Result

from agentos.abi.errors import UsageError
from agentos.cli import explain, schema, validate
from agentos.manifests.schema import FILES, flat_schema, schema_names

ASSETS = Path(__file__).parents[2] / "assets" / "manifests"


def agentos(*words: str, given: str = "") -> Result:
    app = typer.Typer()
    for verb in (validate, explain, schema):
        verb.register(app)
    return CliRunner().invoke(app, list(words), input=given)


@pytest.fixture(autouse=True)
def among_the_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ASSETS)


def test_faults_are_printed_on_standard_output(snapshot: SnapshotAssertion) -> None:
    """One line per fault, a summary on standard error, exit code 1."""
    result = agentos("validate", "field_unknown.yaml", "type_number_with_suffix.yaml")
    assert result.exit_code == 1
    assert result.stdout == snapshot
    assert result.stderr == "5 faults in 2 files; 1 declaration without a fault\n"


def test_verbose_shows_the_line_at_fault(snapshot: SnapshotAssertion) -> None:
    """With --verbose each fault comes with its line and a caret below it."""
    assert agentos("validate", "-v", "field_unknown.yaml").stdout == snapshot


def test_annotations_for_github(snapshot: SnapshotAssertion) -> None:
    """Workflow commands, one per fault, escaped."""
    assert agentos("validate", "-o", "github", "field_unknown.yaml", "folder_without_manifests").stdout == snapshot


def test_json_has_the_published_shape() -> None:
    """The output for programs follows `schemas/v1/validate-output.json`, with faults and without."""
    broken = agentos("validate", "-o", "json", ".")
    assert broken.exit_code == 1
    sound = agentos("validate", "-o", "json", "-", given="apiVersion: agentos/v1\nkind: Tenant\nmetadata: {name: acme}\n")
    assert sound.exit_code == 0
    for result in (broken, sound):
        Draft202012Validator(flat_schema("validate-output")).validate(json.loads(result.stdout))
    assert json.loads(sound.stdout) == {"version": 1, "ok": True, "files": 1, "resources": 1, "faults": []}


@pytest.mark.parametrize("words", [("-",), ("-f", "-")])
def test_standard_input(words: tuple[str, ...]) -> None:
    """`-` and `-f -` read standard input."""
    result = agentos("validate", *words, given="apiVersion: agentos/v1\nkind: Tenant\nmetadata: {name: A}\n")
    assert result.exit_code == 1
    assert result.stdout.startswith("-:3:18: tenant/A: metadata.name: ")


def test_nothing_to_read_is_a_usage_error() -> None:
    """Without a path the words of the command are off."""
    result = agentos("validate")
    assert isinstance(result.exception, UsageError)


def test_names_cannot_drive_the_terminal(tmp_path: Path) -> None:
    """A file name with control characters is printed harmlessly."""
    path = tmp_path / "a\x1b[2J\n.yaml"
    path.write_text("kind: Agent\n")
    out = agentos("validate", str(path)).stdout
    assert "\x1b" not in out
    assert all(".yaml:1:1: agent: " in line for line in out.splitlines())


@pytest.mark.parametrize(
    "name",
    [
        "tenant",
        "agent.spec.budget",
        "agent.spec.tools",
        "tool-grants.spec.args.path",
        "ToolGrant.spec.args.path.glob",
        "policy.spec",
        "sandbox.spec.network.allow",
        "tool.spec.driver.exec.command",
        "play.rules.call.args",
        "model.metadata.labels",
    ],
)
def test_explain(name: str, snapshot: SnapshotAssertion) -> None:
    """A field is explained with its type, default, meaning, fields and an example."""
    result = agentos("explain", name)
    assert result.exit_code == 0
    assert result.stdout == snapshot


def test_explain_lists_the_kinds(snapshot: SnapshotAssertion) -> None:
    """Without a name, every kind with what it is for."""
    assert agentos("explain").stdout == snapshot
    assert [kind["kind"] for kind in json.loads(agentos("explain", "-o", "json").stdout)] == list(FILES)


@pytest.mark.parametrize(
    ("name", "said", "mend"),
    [
        ("agnet", "there is no kind 'agnet'", "did you mean Agent?"),
        ("program", "kind program is not supported yet", "agentos explain lists the kinds"),
        ("agent.spec.bugdet", "Agent.spec has no field 'bugdet'", "did you mean budget?"),
        (
            "agent.spec.memory.window",
            "field memory of Agent.spec is not supported yet",
            "agentos explain Agent.spec lists its fields",
        ),
        ("agent.spec.model.x", "Agent.spec.model has no field 'x'", "it has no fields"),
        (".", "there is no kind ''", "agentos explain lists the kinds"),
    ],
)
def test_explain_what_is_not_there(name: str, said: str, mend: str) -> None:
    """A name that is not there is answered with the nearest one that is."""
    error = agentos("explain", name).exception
    assert isinstance(error, UsageError)
    assert (error.message, error.mend) == (said, mend)


def paths(name: str, part: dict[str, object]) -> list[str]:
    inner = part.get("items", part)
    fields = inner.get("properties", {}) if isinstance(inner, dict) else {}
    return [name, *(path for key, child in fields.items() for path in paths(f"{name}.{key}", child))]


@pytest.mark.parametrize("kind", FILES)
def test_every_field_can_be_explained(kind: str) -> None:
    """Each field of each kind has documentation, as text and as JSON."""
    for path in paths(kind, flat_schema(FILES[kind])):
        assert "\n  " in "\n".join(explain._lines(explain.find(path)))
        assert explain._as_json(explain.find(path))["description"]


def test_schemas_are_listed_and_written(tmp_path: Path) -> None:
    """`schema export` gives the files as they are; one alone comes with what it refers to."""
    listed = agentos("schema", "list", "-o", "name").stdout.split()
    assert listed == schema_names()
    assert agentos("schema", "export", "--dir", str(tmp_path / "all")).exit_code == 0
    assert sorted(path.stem for path in (tmp_path / "all").iterdir()) == listed
    agentos("schema", "export", "agents", "--dir", str(tmp_path / "one"))
    assert sorted(path.stem for path in (tmp_path / "one").iterdir()) == ["agent", "common", "play"]
    assert json.loads(agentos("schema", "export", "ToolGrant").stdout)["title"] == "ToolGrant"
    assert isinstance(agentos("schema", "export", "agnet").exception, UsageError)
    assert isinstance(agentos("schema", "export").exception, UsageError)
