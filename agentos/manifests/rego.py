"""The Rego of Policy documents, checked by whoever knows Rego, and what it finds, put where the author wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentos.abi.errors import AgentOSError
from agentos.manifests.document import Document
from agentos.manifests.fault import Fault, Path, Problem, dotted
from agentos.manifests.position import Mark, Text
from agentos.policy.port import Module


class Finding(Protocol):
    """One thing wrong with a module. `line` and `column` count from 1; 0 when not known."""

    @property
    def path(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...
    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def mend(self) -> str | None: ...


CheckPolicies = Callable[[Sequence[Module], str], Sequence[Finding]]
"""Checks the modules of one tenant with one target (`syscall` or `admission`). May raise AgentOSError when it cannot tell."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A module with the part of a document that holds it; the mark is None when the file is the module itself."""

    document: Document
    path: Path
    text: Text | None
    mark: Mark | None


def check_rego(documents: Sequence[Document], check: CheckPolicies) -> Iterator[Fault]:
    """Faults in the Rego of all sound policies among `documents`."""
    groups: dict[tuple[str, str], dict[str, tuple[Module, _Placed]]] = {}
    for document in documents:
        if document.kind == "Policy" and document.resource is not None:
            spec = document.resource.spec
            group = groups.setdefault((document.tenant, spec["target"]), {})
            for index, module in enumerate(spec["modules"]):
                placed = _place(document, index)
                name = placed.text.name if placed.text and placed.mark is None else f"{document.name}/{module['path']}"
                if name in group:
                    other = group[name][1].document.name
                    said = (
                        "policy.shared",
                        placed.path,
                        f"this file already belongs to policy/{other}",
                        "a file belongs to one policy",
                    )
                    yield document.fault(Problem(*said))
                else:
                    group[name] = (Module(name, module["source"]), placed)
    for (_, target), group in groups.items():
        modules = [module for module, _ in group.values()]
        try:
            findings = check(modules, target)
        except AgentOSError as error:
            first = next(iter(group.values()))[1]
            yield first.document.fault(
                Problem(error.code, ("spec",), f"the Rego cannot be checked: {error.message}", error.mend or "", at="key")
            )
            continue
        for finding in findings:
            placed = group[finding.path][1] if finding.path in group else next(iter(group.values()))[1]
            yield _fault(finding, placed, next((module for module in modules if module.path == finding.path), modules[0]))


def _place(document: Document, index: int) -> _Placed:
    """Where the module `index` of `document` was written."""
    if "files" in document.spec:
        path: Path = ("spec", "files", index)
        return _Placed(document, path, document.grafts["spec", "modules", index, "source"].text, None)
    path = ("spec", "rego") if "rego" in document.spec else ("spec", "modules", index, "source")
    place = document.place(path)
    return _Placed(document, path, *place) if place else _Placed(document, path, None, None)


def _fault(finding: Finding, placed: _Placed, module: Module) -> Fault:
    document = placed.document
    document.sound = False
    line, column = max(finding.line, 1), max(finding.column, 1)
    if placed.text is not None and placed.mark is not None:
        line, column = _in_scalar(placed.text, placed.mark, module.source, (line, column))
    name = placed.text.name if placed.text else ""
    excerpt = placed.text.excerpt((line, max(column, 1), column + 1, None)) if placed.text else ""
    if placed.text is None:
        line = column = 0
    return Fault(
        finding.code,
        name,
        line,
        column,
        "Policy",
        document.name,
        dotted(placed.path),
        finding.message,
        finding.mend or "",
        excerpt,
    )


def _in_scalar(text: Text, mark: Mark, source: str, place: tuple[int, int]) -> tuple[int, int]:
    """The place in the file of `place` in `source`, a literal block (`|`) that begins at `mark`.

    Other styles fold lines: for them, and for a place outside, the beginning is given.
    """
    line, column = place
    if not text.line(mark[0]).startswith("|", mark[1] - 1):
        return mark[0], mark[1]
    for number, written in enumerate(source.split("\n"), 1):
        if written.strip():
            shift = len(text.line(mark[0] + number)) - len(written)
            return mark[0] + line, max(shift, 0) + column
    return mark[0], mark[1]
