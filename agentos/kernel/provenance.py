"""Provenance: which labels the outcome of a call carries: its tool's, and those of the session's input files that it touches.

What it touches is told by the paths that its arguments name. Meant to say too much rather than too little: a folder stands for
all that is below it, a path that is left out or makes no sense for the whole workspace. The workspace is the home and the working
directory of a process that a tool starts, so it may read all of it: its tools touch every input file, unless `workspaceArgs` are
declared. With these the operator says what the tool reads, and is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.drivers.port import ToolSpec
from agentos.drivers.primitives import FILE_PRIMITIVES
from agentos.drivers.spaces import space_of
from agentos.files import confine


def input_labels(tool: ToolSpec, args: Mapping[str, Json], inputs: Sequence[Mapping[str, Json]]) -> tuple[str, ...]:
    """The labels of every input file at or below a path that the call names, sorted. `inputs` as in `session.created`."""
    labelled = [item for item in inputs if item.get("labels")]
    if not labelled:
        return ()
    places = [_names(path) for path in _paths(tool, args)]
    return tuple(sorted({label for item in labelled if _below(item["path"], places) for label in item["labels"]}))


def outcome_labels(tool: ToolSpec, args: Mapping[str, Json], inputs: Sequence[Mapping[str, Json]]) -> tuple[str, ...]:
    """What a call's outcome carries, be it a result or a failure: the words of both are the tool's. Each label once."""
    return tuple(dict.fromkeys((*tool.labels, *input_labels(tool, args, inputs))))


def labels_field(tool: ToolSpec | None, args: Mapping[str, Json], inputs: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """The field `labels` of an outcome; no field where there are none, as for a tool that is not declared (any more)."""
    labels = outcome_labels(tool, args, inputs) if tool is not None else ()
    return {"labels": list(labels)} if labels else {}


def place_holds(place: str, path: str) -> bool:
    """Whether the input file `path` (`input/mail/a.md`) is at or below `place`, which is relative to `input/` (`mail`, `.`)."""
    names = _names(place)
    return bool(place.strip()) and _names(path)[1 : 1 + len(names)] == names


def holds(above: str, path: str) -> bool:
    """Whether `path` is `above`, or is in the folder that it is; both are paths in the workspace."""
    names = _names(above)
    return bool(names) and _names(path)[: len(names)] == names


def _paths(tool: ToolSpec, args: Mapping[str, Json]) -> Iterator[Json]:
    if tool.driver.get("builtin", {}).get("primitive") in FILE_PRIMITIVES and space_of(tool.driver) is None:
        yield args.get("path")
    server = tool.driver.get("mcp", tool.driver.get("exec"))
    if server is None or "url" in server.get("server", {}):
        return
    declared = server.get("workspaceArgs") or ()
    if not declared:
        yield "."
    for name in declared:
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
    """Whether what is labelled at `path` is at or below one of the places, or is a folder that one of them is in."""
    names = _names(path)
    return any(names[: len(place)] == place[: len(names)] for place in places)
