"""What the checks of Rego find, and what they look at: a module that parses, with the places of its rules."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from agentos.abi.canonical import Json
from agentos.policy import syntax
from agentos.policy.port import Module
from agentos.policy.source import Place, Source, Span


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One flaw. `line` and `column` start at 1 and are 1 where the place is not known."""

    path: str
    line: int
    column: int
    code: str
    message: str
    mend: str

    def to_dict(self) -> dict[str, Json]:
        """JSON form."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.code}: {self.message}; {self.mend}"


@dataclass(frozen=True, slots=True)
class Read:
    """A module that parses: its tree, its source to find places in, its package, and the target it speaks to."""

    module: Module
    tree: Json
    source: Source
    package: tuple[str, ...]
    target: str

    @property
    def tail(self) -> str:
        """The last part of the package: what the ids of its rules begin with."""
        return self.package[-1]

    def rules(self) -> list[tuple[Json, Span]]:
        """Each rule with its place, in the order of the file."""
        return list(zip(syntax.rules(self.tree), self.source.spans, strict=True))

    def finding(self, place: Place, code: str, message: str, mend: str) -> Finding:
        """A flaw of this module; `code` without its prefix."""
        return Finding(self.module.path, place.line, place.column, f"policy.{code}", message, mend)


def read(module: Module, tree: Json, target: str) -> Read:
    """A parsed module, ready to be looked at."""
    return Read(module, tree, Source(module.source, tree), syntax.package(tree), target)
