"""A document on its way to becoming a resource: its content, what it claims to be, and where each part of it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentos.abi.canonical import Json
from agentos.abi.ids import DEFAULT_TENANT
from agentos.abi.resource import Key, Resource, is_fleet_kind
from agentos.manifests.fault import Fault, Path, Problem, dotted
from agentos.manifests.gather import Source
from agentos.manifests.position import Mark, Position, Text, find


@dataclass(frozen=True, slots=True)
class Graft:
    """A part of a document that stands in another file."""

    text: Text
    mark: Mark


@dataclass(slots=True, eq=False)
class Document:
    """One declaration. `source` and `mark` are None when it came without a file."""

    kind: str
    body: dict[str, Json]
    source: Source | None = None
    mark: Mark | None = None
    whole: bool = True
    """Whether all of it could be read; otherwise fields may be missing that its author wrote."""
    sound: bool = True
    """Whether nothing is wrong with it so far."""
    grafts: dict[Path, Graft] = field(default_factory=dict)
    resource: Resource | None = None

    @property
    def name(self) -> str:
        """`metadata.name`, or nothing when it has none."""
        return _text(self.body.get("metadata"), "name", "")

    @property
    def tenant(self) -> str:
        """`metadata.tenant`; `*` for what is of the fleet."""
        return "*" if is_fleet_kind(self.kind) else _text(self.body.get("metadata"), "tenant", DEFAULT_TENANT)

    @property
    def key(self) -> Key:
        """What it is called, as far as it says."""
        return Key(self.kind, self.tenant, self.name)

    @property
    def spec(self) -> Mapping[str, Json]:
        """`spec`, or nothing when that is no mapping."""
        spec = self.body.get("spec")
        return spec if isinstance(spec, dict) else {}

    def place(self, path: Path, *, key: bool = False) -> tuple[Text, Mark] | None:
        """The file and the mark of `path`; None without a file."""
        for start, graft in self.grafts.items():
            if path[: len(start)] == start:
                return graft.text, find(graft.mark, path[len(start) :], key=key)
        if self.source is None or self.mark is None:
            return None
        return self.source.text, find(self.mark, path, key=key)

    def position(self, path: Path) -> Position | None:
        """Where `path` stands; None without a file."""
        place = self.place(path)
        return None if place is None else Position(place[0].name, place[1][0], place[1][1])

    def fault(self, problem: Problem) -> Fault:
        """`problem` with its place. The document is no longer sound."""
        self.sound = False
        place = self.place(problem.path, key=problem.at == "key")
        said = (self.kind, self.name, dotted(problem.path), problem.message, problem.mend)
        if place is None:
            return Fault(problem.code, "", 0, 0, *said)
        text, mark = place
        return Fault(problem.code, text.name, mark[0], mark[1], *said, text.excerpt(mark))


def _text(holder: Json, key: str, default: str) -> str:
    value = holder.get(key, default) if isinstance(holder, dict) else default
    return value if isinstance(value, str) else default
