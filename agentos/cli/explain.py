"""`agentos explain KIND[.path]`: the documentation of a field, from the schema that checks it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.cli.command import emit, emit_json
from agentos.cli.verb import examples

WIDTH: Final = 100


class Format(StrEnum):
    """How the documentation is printed."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Topic:
    """What is explained: its path as written in a manifest, its schema, and whether it must be given."""

    path: str
    schema: Mapping[str, Json] = field(hash=False)
    required: bool


def register(app: typer.Typer) -> None:
    """Add the verb `explain`."""
    app.command(
        "explain",
        help="Explain a kind or a field, from the schema that checks it. Without a name: list the kinds.",
        epilog=examples("agentos explain", "agentos explain agent.spec.budget", "agentos explain tool-grant.spec.args"),
    )(_explain)


def _explain(
    name: Annotated[str | None, typer.Argument(metavar="KIND[.PATH]", help="such as agent.spec.budget")] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="text or json")] = Format.TEXT,
) -> None:
    if name is None:
        _list_kinds(output)
        return
    topic = find(name)
    if output is Format.JSON:
        emit_json(_as_json(topic))
    else:
        emit("\n".join(_lines(topic)))


def _list_kinds(output: Format) -> None:
    from agentos.manifests.schema import FILES, flat_schema

    about = {kind: str(flat_schema(file)["description"]) for kind, file in FILES.items()}
    if output is Format.JSON:
        emit_json([{"kind": kind, "description": text} for kind, text in about.items()])
        return
    for kind, text in about.items():
        emit(textwrap.fill(text, WIDTH, initial_indent=f"{kind:<13} ", subsequent_indent=" " * 14))


def find(name: str) -> Topic:
    """The part of a schema that `name` (`agent.spec.budget`) means. Raises UsageError with the nearest name there is.

    Lists are stepped into without an index; below a mapping with free keys any one step stands for a key.
    """
    from agentos.manifests.fault import closest
    from agentos.manifests.schema import FILES, LATER, flat_schema, kind_of

    first, *steps = [part for part in name.replace("[]", "").split(".") if part] or [""]
    kind = kind_of(first)
    if kind is None and first.lower() != "play":
        if first.lower() in {later.lower() for later in LATER}:
            raise UsageError(f"kind {first} is not supported yet", mend="agentos explain lists the kinds")
        meant = closest(first, [*FILES, "Play"])
        raise UsageError(
            f"there is no kind {first!r}", mend=f"did you mean {meant}?" if meant else "agentos explain lists the kinds"
        )
    topic = Topic(kind or "Play", flat_schema(FILES[kind] if kind else "play"), required=True)
    for step in steps:
        topic = _step(topic, step)
    return topic


def _step(topic: Topic, step: str) -> Topic:
    from agentos.manifests.fault import closest, listed

    path, schema = topic.path, topic.schema
    if isinstance(schema.get("items"), dict):
        path, schema = f"{path}[]", schema["items"]
    known = schema.get("properties", {})
    if step in known:
        return Topic(f"{path}.{step}", known[step], step in schema.get("required", ()))
    if isinstance(schema.get("additionalProperties"), dict):
        return Topic(f"{path}.{step}", schema["additionalProperties"], required=False)
    if step in schema.get("x-agentos-later", ()):
        raise UsageError(f"field {step} of {path} is not supported yet", mend=f"agentos explain {topic.path} lists its fields")
    meant = closest(step, known)
    hint = f"did you mean {meant}?" if meant else f"its fields: {listed(known)}" if known else "it has no fields"
    raise UsageError(f"{path} has no field {step!r}", mend=hint)


def type_of(schema: Mapping[str, Json]) -> str:
    """`text`, `list of text`, `whole number` … as a person says it."""
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}
    words |= {"number": "number", "array": "list"}
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(words[one] for one in kind)
    if kind == "array":
        return f"list of {type_of(schema['items'])}s".replace("falses", "false").replace("texts", "text")
    return words.get(str(kind), "text")


def _facts(topic: Topic) -> Iterator[tuple[str, str]]:
    schema = topic.schema
    yield "type", type_of(schema)
    yield "required", "yes" if topic.required else "no"
    if "default" in schema:
        yield "default", _compact(schema["default"])
    if "const" in schema:
        yield "always", _compact(schema["const"])
    if "enum" in schema:
        yield "one of", ", ".join(map(str, schema["enum"]))
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None or most is not None:
        yield "range", f"{'' if least is None else least} … {'' if most is None else most}".strip()
    if "x-agentos-expect" in schema:
        yield "form", str(schema["x-agentos-expect"])
    if "oneOf" in schema:
        yield "exactly one", "of " + ", ".join(key for branch in schema["oneOf"] for key in branch["required"])


def _lines(topic: Topic) -> Iterator[str]:
    schema = topic.schema
    yield f"{topic.path}: {schema.get('title', '')}"
    yield ""
    yield from textwrap.wrap(str(schema.get("description", "")), WIDTH, initial_indent="  ", subsequent_indent="  ")
    yield ""
    for word, fact in _facts(topic):
        yield f"  {word + ':':<12} {fact}"
    fields = _fields(topic)
    if fields:
        yield ""
        yield "FIELDS"
        for child in fields:
            yield from _field_lines(child)
    examples = schema.get("examples", ())
    if examples:
        yield ""
        yield "EXAMPLE" if len(examples) == 1 else "EXAMPLES"
        key = topic.path.rpartition(".")[2]
        for example in examples:
            yield from textwrap.indent(_yaml(example, key if "." in topic.path else None), "  ").splitlines()


def _field_lines(child: Topic) -> Iterator[str]:
    name = child.path.rpartition(".")[2]
    schema = child.schema
    notes = [type_of(schema)]
    if child.required:
        notes.append("required")
    if "default" in schema and not isinstance(schema["default"], dict):
        notes.append(f"default {_compact(schema['default'])}")
    if "enum" in schema:
        notes.append(" | ".join(map(str, schema["enum"])))
    yield f"  {name}  ({'; '.join(notes)})"
    yield from textwrap.wrap(str(schema.get("description", "")), WIDTH, initial_indent="      ", subsequent_indent="      ")


def _fields(topic: Topic) -> list[Topic]:
    path, schema = topic.path, topic.schema
    if isinstance(schema.get("items"), dict):
        path, schema = f"{path}[]", schema["items"]
    needed = schema.get("required", ())
    found = [Topic(f"{path}.{name}", part, name in needed) for name, part in schema.get("properties", {}).items()]
    free = schema.get("additionalProperties")
    if isinstance(free, dict):
        found.append(Topic(f"{path}.<key>", free, required=False))
    return found


def _compact(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _yaml(value: Json, key: str | None) -> str:
    import yaml

    shown = value if key is None else {key: value}
    return str(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=WIDTH)).rstrip()


def _as_json(topic: Topic) -> dict[str, Json]:
    schema = topic.schema
    body: dict[str, Json] = {
        "path": topic.path,
        "title": schema.get("title", ""),
        "description": schema.get("description", ""),
        "required": topic.required,
        "type": schema.get("type", "string"),
    }
    for keyword in ("default", "const", "enum", "minimum", "maximum", "pattern", "examples"):
        if keyword in schema:
            body[keyword] = schema[keyword]
    body["fields"] = [
        {"name": child.path.rpartition(".")[2], "required": child.required, "description": child.schema.get("description", "")}
        for child in _fields(topic)
    ]
    return body
