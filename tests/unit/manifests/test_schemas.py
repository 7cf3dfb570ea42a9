"""The published schemas teach: every property has words and an example, and every example is right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from agentos.abi.assets import asset
from agentos.abi.canonical import Json
from agentos.abi.resource import KINDS
from agentos.manifests.load import validate_resource
from agentos.manifests.schema import FILES, LATER, flat_schema, read_schema

OURS = [
    "agent",
    "fault",
    "model",
    "model-class",
    "play",
    "policy",
    "priority-class",
    "sandbox",
    "secret",
    "tenant",
    "tool",
    "tool-grant",
    "validate-output",
    "workload",
]
KIND_SCHEMAS = [*FILES.values(), "play"]
ROOT = Path(__file__).parents[3]


def properties(schema: Json, path: str) -> Iterator[tuple[str, dict[str, Json]]]:
    """Every property, list entry and free value below `schema`, with its path."""
    for key, part in schema.get("properties", {}).items():
        yield f"{path}.{key}", part
        yield from properties(part, f"{path}.{key}")
    for keyword in ("items", "additionalProperties"):
        part = schema.get(keyword)
        if isinstance(part, dict):
            yield f"{path}[{keyword}]", part
            yield from properties(part, f"{path}[{keyword}]")


def all_properties() -> list[tuple[str, dict[str, Json]]]:
    return [found for name in OURS for found in properties(flat_schema(name), name)]


def registry() -> Registry[Json]:
    """The schemas as another program reads them, by the names of their files."""
    files = (asset("schemas") / "v1").glob("*.json")
    return Registry().with_resources([(path.name, Resource(read_schema(path.stem), DRAFT202012)) for path in files])


@pytest.mark.parametrize("name", [*OURS, "common", "manifest"])
def test_each_schema_is_a_schema(name: str) -> None:
    """Each file is JSON Schema 2020-12 with a title and a description."""
    schema = read_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["title"]
    assert schema["description"].endswith(".")


@pytest.mark.parametrize(("path", "schema"), [pytest.param(*found, id=found[0]) for found in all_properties()])
def test_each_property_is_documented(path: str, schema: dict[str, Json]) -> None:
    """A property has a title, a description in sentences, and examples that it accepts itself; so is its default."""
    assert schema.get("title"), path
    assert str(schema.get("description", "")).endswith("."), path
    assert schema.get("examples"), path
    validator = Draft202012Validator(schema)
    for value in [*schema["examples"], *([schema["default"]] if "default" in schema else [])]:
        assert validator.is_valid(value), (path, value)


@pytest.mark.parametrize("name", KIND_SCHEMAS)
def test_nothing_unknown_is_let_in(name: str) -> None:
    """An object either names all its fields or says that its keys are free."""
    for path, schema in [(name, flat_schema(name)), *properties(flat_schema(name), name)]:
        if schema.get("type") == "object":
            assert "additionalProperties" in schema, path


@pytest.mark.parametrize("kind", KINDS)
def test_examples_are_manifests(kind: str) -> None:
    """The examples of each kind are sound manifests, also for a program that follows the references between the files."""
    for name in (FILES[kind], "manifest"):
        schema = registry().get_or_retrieve(f"{name}.json").value.contents
        validator = Draft202012Validator({**schema, "$id": f"{name}.json"}, registry=registry())
        for body in read_schema(FILES[kind])["examples"]:
            validator.validate(body)
    for body in read_schema(FILES[kind])["examples"]:
        resource, faults = validate_resource(body)
        if "File" not in str(body) and "files" not in body["spec"]:
            assert resource is not None, faults


def test_kinds_have_schemas() -> None:
    """Each interpreted kind has a schema; none of the later ones has."""
    assert set(FILES) == set(KINDS)
    assert not set(LATER) & set(KINDS)


def code_of(reader: str) -> str:
    """The text of the room or policies that a schema names as a reader."""
    folder = ROOT.joinpath(*reader.split("."))
    return "".join(file.read_text() for file in [*folder.rglob("*.py"), *folder.rglob("*.rego")])


@pytest.mark.parametrize("name", KIND_SCHEMAS)
def test_each_property_is_read_by_someone(name: str) -> None:
    """A property names who reads it, and that room has the word in its code; or what holds it is handed on whole."""
    whole: set[str] = set()
    for path, schema in properties(flat_schema(name), name):
        parent, _, word = path.rpartition(".")
        if schema.get("x-agentos-read-whole"):
            whole.add(path)
        if parent in whole or "[" in word or path.startswith("tool.spec.inputSchema."):
            continue
        source = code_of(schema["x-agentos-read-by"])
        assert f'"{word}"' in source or f".{word}" in source, f"{path}: nothing in {schema['x-agentos-read-by']} reads {word}"
