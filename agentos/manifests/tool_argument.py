"""A name in a Tool's driver that has to be one of the tool's own arguments: words, standard input, paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agentos.abi.canonical import Json
from agentos.manifests.fault import Path, Problem, closest, listed, shown


def argument_named(spec: Mapping[str, Json], name: str, path: Path) -> Iterator[Problem]:
    """A Problem unless `name`, which stands at `path`, is a property of the Tool's inputSchema; none where there is no schema."""
    schema = spec.get("inputSchema")
    if schema is None:
        return
    known = schema.get("properties", {})
    names = list(known) if isinstance(known, dict) else []
    if name not in names:
        meant = closest(name, names)
        mend = f"did you mean {meant}?" if meant else f"known: {listed(names) or 'none'}"
        yield Problem("tool.argument", path, f"{shown(name)} is no property of inputSchema", mend)
