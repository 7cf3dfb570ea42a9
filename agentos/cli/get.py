"""`agentos get` and `agentos describe`: what is in the desired state, and all about one resource."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, UsageError
from agentos.abi.resource import KINDS, Key, is_fleet_kind
from agentos.cli.command import Facts, Output, call, emit, emit_json, emit_table, emit_yaml, say, settings
from agentos.cli.render.text import clock, plain
from agentos.cli.verb import examples

ALIASES: Final = {
    "policies": "Policy",
    "grant": "ToolGrant",
    "grants": "ToolGrant",
    "tg": "ToolGrant",
    "priorityclasses": "PriorityClass",
    "pc": "PriorityClass",
    "modelclasses": "ModelClass",
    "mc": "ModelClass",
    "sandboxes": "Sandbox",
    "sb": "Sandbox",
}
"""Words for kinds beside their names and plurals."""

_COLUMNS: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "Tenant": (("description", "description"), ("sessions", "limits.sessions"), ("weight", "weight"), ("models", "models")),
    "PriorityClass": (
        ("description", "description"),
        ("rank", "rank"),
        ("background", "background"),
        ("preemptible", "preemptible"),
        ("headroom %", "headroomPercent"),
    ),
    "Model": (("provider", "provider"), ("model", "anthropic.model"), ("concurrency", "limits.concurrency")),
    "ModelClass": (("description", "description"), ("models", "routes")),
    "Sandbox": (("isolation", "isolation"), ("workspace", "workspace"), ("network", "network"), ("mounts", "mounts")),
    "Secret": (("kept in", "kept"), ("hosts", "hosts"), ("description", "description")),
    "Tool": (("effect", "effect"), ("driver", "driver"), ("labels", "labels")),
    "Agent": (
        ("model", "model"),
        ("tools", "tools"),
        ("class", "priorityClass"),
        ("risk", "governance.risk"),
        ("owner", "governance.owner"),
    ),
    "ToolGrant": (("agents", "agents"), ("tools", "tools"), ("approval", "approval"), ("until", "until")),
    "Trigger": (("agent", "agent"), ("daemon", "daemon"), ("on", "on"), ("overlap", "overlap")),
    "Policy": (("target", "target"), ("mode", "mode"), ("modules", "modules")),
}
"""What a table shows of each kind: the header and the field of `spec`."""


def register(app: typer.Typer) -> None:
    """Add the verbs `get` and `describe`."""
    app.command(
        "get",
        help="List the resources of a kind, or print one. -o yaml prints what can be applied again.",
        epilog=examples(
            "agentos get agents",
            "agentos get agents,toolgrants -o wide",
            "agentos get policy egress -o yaml",
            "agentos get toolgrant/hello-writes -o json",
            "agentos get all -l team=support -o name",
        ),
    )(_get)
    app.command(
        "describe",
        help="Tell all about one resource: fields, relations, last change.",
        epilog=examples("agentos describe agent hello", "agentos describe toolgrant/hello-writes -o json"),
    )(_describe)


def kind_of(word: str) -> str:
    """The kind that `word` (any case, singular or plural) names. Raises UsageError with the one that was probably meant."""
    names = {kind.lower(): kind for kind in KINDS} | {f"{kind.lower()}s": kind for kind in KINDS} | ALIASES
    found = names.get(word.lower().replace("-", ""))
    if found is None:
        near = get_close_matches(word.lower(), names, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no kind {word!r}", mend=f"{meant}kinds are {', '.join(kind.lower() for kind in KINDS)}")
    return found


def key_of(word: str, name: str) -> str:
    """The key of the resource `name` of the kind `word`; without a tenant (`agent/triage`) the caller's own is meant."""
    kind = kind_of(word)
    if is_fleet_kind(kind) or settings.tenant is None:
        return f"{kind.lower()}/{name}"
    return str(Key(kind, settings.tenant, name))


def _get(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="agent, model, toolgrant … (explain lists them), several with commas, or all")
    ],
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="resources of that kind; or write KIND/NAME")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="how to print")] = Output.TABLE,
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", metavar="SELECTOR", help="only what carries these labels (key=value,...)")
    ] = None,
) -> None:
    wanted = (
        [tuple(word.split("/", 1)) for word in [kind, *(names or [])]] if "/" in kind else [(kind, name) for name in names or []]
    )
    if not wanted:
        _print(_list(kind, selector), output, single=False)
        return
    if selector is not None or any(len(pair) == 1 or pair[0].lower() == "all" for pair in wanted):
        raise UsageError("a name already says which resource", mend="leave out the name, or give its kind and no selector")
    _print([one(word, name) for word, name in wanted], output, single=len(wanted) == 1)


def _tenant() -> dict[str, Json]:
    return {"tenant": settings.tenant} if settings.tenant else {}


def _list(words: str, selector: str | None) -> list[dict[str, Json]]:
    """What there is of the kinds that `words` (`agent,tool` or `all`) names, each once."""
    chosen: dict[str, Json] = {"selector": selector} if selector else {}
    kinds = [None] if words.lower() == "all" else list(dict.fromkeys(kind_of(word) for word in words.split(",")))
    return [
        item
        for kind in kinds
        for item in call("registry.list", {**({"kind": kind} if kind else {}), **chosen, **_tenant()})["items"]
    ]


def one(word: str, name: str) -> dict[str, Json]:
    """One resource with what is related to it. Raises NotFound with the name that was probably meant."""
    kind = kind_of(word)
    try:
        item: dict[str, Json] = call("registry.get", {"kind": kind, "name": name, **_tenant()})
    except NotFound as error:
        there = [Key.parse(found["key"]).name for found in _list(kind, None)]
        near = get_close_matches(name, there, n=1)
        if not near:
            raise
        raise NotFound(error.message, where=error.where, mend=f"did you mean {near[0]}?") from error
    return item


def _print(items: Sequence[Mapping[str, Json]], output: Output, *, single: bool) -> None:
    resources = [item["resource"] for item in items]
    if output is Output.JSON:
        emit_json(resources[0] if single else resources)
    elif output is Output.YAML:
        for place, resource in enumerate(resources):
            if place:
                emit("---")
            emit_yaml(resource)
    elif output is Output.NAME:
        for item in items:
            emit(item["key"])
    elif not items:
        say("nothing found; what can be declared: agentos explain")
    else:
        _tables(items, wide=output is Output.WIDE)


def _tables(items: Sequence[Mapping[str, Json]], *, wide: bool) -> None:
    """One table per kind; the tenant is shown where there is more than one, or in the wide form."""
    kinds = [kind for kind in KINDS if any(item["resource"]["kind"] == kind for item in items)]
    for place, kind in enumerate(kinds):
        rows = [item for item in items if item["resource"]["kind"] == kind]
        tenants = {Key.parse(item["key"]).tenant for item in rows}
        more = not is_fleet_kind(kind) and (wide or len(tenants) > 1)
        if place:
            emit("")
        if len(kinds) > 1:
            emit(f"{kind}:")
        headers = [*(["tenant"] if more else []), "name", *(header for header, _ in _COLUMNS[kind])]
        headers += ["labels" if kind != "Tool" else "metadata labels", "revision", "by", "digest"] if wide else []
        shrink = () if wide else ("description", "tools", "labels", "agents", "modules", "models", "owner")
        emit_table(headers, [_row(item, kind, more=more, wide=wide) for item in rows], shrink=shrink)


def _row(item: Mapping[str, Json], kind: str, *, more: bool, wide: bool) -> list[str]:
    key, resource = Key.parse(item["key"]), item["resource"]
    cells = [*([key.tenant] if more else []), key.name, *(_cell(resource["spec"], path) for _, path in _COLUMNS[kind])]
    if wide:
        labels = ",".join(f"{name}={value}" for name, value in sorted(resource["metadata"].get("labels", {}).items()))
        cells += [labels or "-", str(item["revision"]), item["by"], item["digest"].removeprefix("sha256:")[:12]]
    return cells


def _cell(spec: Mapping[str, Json], path: str) -> str:
    if path == "kept":
        return _kept(spec)
    value: Json = spec
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if value is None or value == []:
        return "-"
    if path == "modules":
        return ",".join(module["path"] for module in value)
    if path == "routes":
        return ",".join(dict.fromkeys(model for route in value for model in route["models"]))
    if path == "network":
        return ",".join(dict.fromkeys(place["host"] for place in value["allow"]))
    if path == "mounts":
        return ",".join(mount.get("at", mount["path"]) + (" (write)" if mount.get("write") else "") for mount in value)
    if path == "driver":
        return _driver(value)
    return ",".join(str(part) for part in value) if isinstance(value, list) else str(value)


def _driver(driver: Mapping[str, Json]) -> str:
    """A driver in a cell: its name, and what tells it from others of its kind."""
    if "delegate" in driver:
        return f"delegate {','.join(driver['delegate']['agents'])}"
    if "builtin" in driver:
        return f"builtin {driver['builtin']['primitive']}"
    if "exec" in driver:
        return f"exec {plain(driver['exec']['command'][0])}"
    return f"http {plain(driver['http']['url'])}" if "http" in driver else f"mcp {plain(driver['mcp']['tool'])}"


def _kept(secret: Mapping[str, Json]) -> str:
    """Where the value of a Secret is kept: never the value."""
    if "vault" in secret:
        return f"vault {secret['vault']['path']} {plain(secret['vault']['field'])}"
    if "keyring" in secret:
        return plain(f"keyring {secret['keyring']['service']} {secret['keyring']['username']}")
    return plain(f"env {secret['env']}" if "env" in secret else f"file {secret['file']}")


def _describe(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="its kind; or write KIND/NAME")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="the resource")] = None,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    word, _, inner = kind.partition("/")
    if bool(inner) == (name is not None):
        raise UsageError("say which resource, once", mend="agentos describe KIND NAME, or agentos describe KIND/NAME")
    item = one(word, name or inner)
    match output:
        case Facts.JSON:
            emit_json(item)
        case Facts.YAML:
            emit_yaml(item)
        case _:
            emit(describe_text(item))


def describe_text(item: Mapping[str, Json]) -> str:
    """All about one resource, as lines for people; `item` is the answer of `registry.get`."""
    metadata = {name: value for name, value in item["resource"]["metadata"].items() if name in {"labels", "annotations"}}
    lines = [
        str(item["key"]),
        f"  last changed by {item['by']} at {clock(item['time'])} in revision {item['revision']}",
        f"  digest {item['digest']}",
        *_fields({**metadata, **item["resource"]["spec"]}, "  "),
    ]
    relations = sorted({row["relation"] for row in item["related"]})
    for relation in relations:
        lines.append(f"  {relation}:")
        lines += [
            f"    {row['key']}" + (f"  ({plain(row['detail'])})" if row["detail"] else "")
            for row in item["related"]
            if row["relation"] == relation
        ]
    return "\n".join(lines)


def _fields(value: Mapping[str, Json], indent: str) -> list[str]:
    lines = []
    for name, inner in value.items():
        label = f"{indent}{plain(name)}:"
        if isinstance(inner, Mapping) and inner:
            lines += [label, *_fields(inner, f"{indent}  ")]
        elif isinstance(inner, str) and "\n" in inner.rstrip("\n"):
            lines += [label, *(f"{indent}  | {plain(line)}".rstrip() for line in inner.splitlines())]
        elif isinstance(inner, list) and inner and all(isinstance(part, Mapping) for part in inner):
            for place, part in enumerate(inner):
                lines += [f"{indent}{plain(name)}[{place}]:", *_fields(part, f"{indent}  ")]
        elif isinstance(inner, list) and all(isinstance(part, str) for part in inner):
            lines.append(f"{label} {plain(', '.join(inner)) or '-'}")
        else:
            lines.append(f"{label} {plain(inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False))}")
    return lines
