"""Provenance: which labels of a session's input files a call touches, from the paths that its arguments name.

Meant to say too much rather than too little: a folder stands for all that is below it, a path that is left out or makes no
sense for the whole workspace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.drivers import confine
from agentos.drivers.port import ToolSpec
from agentos.drivers.primitives import FILE_PRIMITIVES


def input_labels(tool: ToolSpec, args: Mapping[str, Json], inputs: Sequence[Mapping[str, Json]]) -> tuple[str, ...]:
    """The labels of every input file at or below a path that the call names, sorted. `inputs` as in `session.created`."""
    labelled = [item for item in inputs if item.get("labels")]
    if not labelled:
        return ()
    places = [_names(path) for path in _paths(tool, args)]
    return tuple(sorted({label for item in labelled if _below(item["path"], places) for label in item["labels"]}))


def place_holds(place: str, path: str) -> bool:
    """Whether the input file `path` (`input/mail/a.md`) is at or below `place`, which is relative to `input/` (`mail`, `.`)."""
    names = _names(place)
    return bool(place.strip()) and _names(path)[1 : 1 + len(names)] == names


def _paths(tool: ToolSpec, args: Mapping[str, Json]) -> Iterator[Json]:
    if tool.driver.get("builtin", {}).get("primitive") in FILE_PRIMITIVES:
        yield args.get("path")
    for name in tool.driver.get("mcp", {}).get("workspaceArgs", ()):
        value = args.get(name)
        yield from value if isinstance(value, list) and value else (value,)


def _names(path: Json) -> tuple[str, ...]:
    if not isinstance(path, str):
        return ()
    try:
        return confine.split(path)
    except DriverError:
        return ()


def _below(path: str, places: Iterable[tuple[str, ...]]) -> bool:
    names = _names(path)
    return any(names[: len(place)] == place for place in places)
