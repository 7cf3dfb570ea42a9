"""From paths to resources: read, check each document, follow its files, check all together. Every fault is told, none is raised.

    paths ─► texts (gather) ─► documents with marks (compose) ─► schema, agreement ─► files ─► references, Rego ─► resources

`load` serves whoever has files: `validate`, `plan`, `apply`. `validate_resource` and `check_references` run the same checks
over manifests that came without files, as a client sends them: the server trusts no client to have checked.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import BinaryIO, Final

from agentos.abi.canonical import Json, NotCanonical, canonical
from agentos.abi.errors import ManifestError
from agentos.abi.resource import KINDS, Key, Resource
from agentos.manifests.agreement import CheckPlay, check_agreement, check_play_ids
from agentos.manifests.compose import DEFAULT_LIMITS, Composed, Limits, Reading, compose
from agentos.manifests.document import Document, Graft
from agentos.manifests.fault import Fault, Path, Problem, closest, listed, order, shown
from agentos.manifests.gather import STDIN, Gathered, Source, Unreadable, gather, inside, read_text
from agentos.manifests.position import Position, Text
from agentos.manifests.reference import check_references as find_references
from agentos.manifests.rego import CheckPolicies, check_rego
from agentos.manifests.schema import FILES, LATER, check, fill, kind_of


@dataclass(frozen=True)
class Loaded:
    """What a set of manifests holds. `resources` are those without a fault, in the order of `abi.resource.KINDS`, then by key."""

    resources: tuple[Resource, ...]
    faults: tuple[Fault, ...]
    """Sorted by file, line and column; empty if and only if the set may be applied."""
    files: int = 0
    """How many files were read, referenced ones included."""
    documents: Mapping[Key, Document] = field(default_factory=dict, repr=False)

    def position(self, key: Key, path: Path = ()) -> Position | None:
        """Where the part `path` of resource `key` stands, such as `("spec", "tools", 0)`; None when it came without a file.

        A field that was not written, such as a default, stands where the nearest written part above it stands.
        """
        document = self.documents.get(key)
        return document.position(path) if document else None

    @property
    def positions(self) -> dict[Key, Position]:
        """Where each resource begins."""
        found = {resource.key: self.position(resource.key) for resource in self.resources}
        return {key: position for key, position in found.items() if position is not None}


def load(
    paths: Sequence[str | FilePath],
    *,
    stdin: bytes | BinaryIO | None = None,
    existing: Collection[Key] = (),
    check_policies: CheckPolicies | None = None,
    check_play: CheckPlay | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Loaded:
    """Read and check every manifest that `paths` name: files, folders, `-` for `stdin` (read only if it is named).

    References may also be satisfied by `existing`. Without `check_policies` the Rego is not looked into, nor are the
    expressions of plays without `check_play`. Never raises for any content of any file.
    """
    return _Loading(existing, check_policies, check_play, limits).run(gather(paths, stdin, limits))


def validate_resource(body: Json, *, check_play: CheckPlay | None = None) -> tuple[Resource | None, list[Fault]]:
    """One manifest by itself: the resource with its defaults, or None and the faults (empty `file`, `line` 0).

    Schema and agreement only, no references. It must hold its contents: files that it refers to are not read. A resource's
    own manifest gives that resource again.
    """
    try:
        canonical(body)
    except NotCanonical as error:
        return None, [Fault("manifest.value", "", 0, 0, "", "", "", str(error), "send plain JSON values")]
    loading = _Loading((), None, check_play, DEFAULT_LIMITS)
    document = loading.add(body)
    return document.resource if document.sound else None, loading.faults


def check_references(resources: Sequence[Resource], *, existing: Collection[Key] = ()) -> None:
    """Whether `resources` hold together. Raises ManifestError with a fault for each reference that leads nowhere."""
    documents = [Document(resource.key.kind, resource.to_dict(), resource=resource) for resource in resources]
    faults = [document.fault(problem) for document, problem in find_references(documents, existing, ())]
    if faults:
        raise ManifestError(
            f"the declarations do not hold together: {faults[0]}", faults=[fault.to_dict() for fault in sorted(faults, key=order)]
        )


_NAMED: Final = re.compile(r"\bname[\"']?:\s*[\"']?([a-z][a-z0-9-]{0,62})\b")
"""Names in a text that cannot be read as YAML."""


class _Loading:
    """The state of one `load`."""

    def __init__(
        self, existing: Collection[Key], check_policies: CheckPolicies | None, check_play: CheckPlay | None, limits: Limits
    ) -> None:
        self.faults: list[Fault] = []
        self._existing = existing
        self._check_policies = check_policies
        self._check_play = check_play
        self._limits = limits
        self._documents: list[Document] = []
        self._unread: set[str] = set()
        self._lost = False
        """Whether something could not be read at all, so that any name may be declared in it."""
        self._files: dict[FilePath, Text] = {}
        self._referenced: set[FilePath] = set()
        self._strays: list[tuple[Source, Composed]] = []

    def run(self, gathered: Gathered) -> Loaded:
        """Check all that was gathered."""
        self.faults.extend(gathered.faults)
        self._lost = bool(gathered.faults)
        for source in gathered.sources:
            if source.path is not None:
                self._files[source.path] = source.text
            reading = self._compose(source.text)
            given = [composed for composed in reading.documents if composed.value is not None]
            if not given and not reading.flaws and source.direct:
                what = "nothing was read from standard input" if source.text.name == STDIN else "this file holds no manifest"
                mend = "a manifest has apiVersion, kind, metadata and spec"
                self.faults.append(Fault("file.empty", source.text.name, 0, 0, "", "", "", what, mend))
            for composed in given:
                if isinstance(composed.value, dict) and composed.value.keys() & {"apiVersion", "kind"}:
                    self.add(composed.value, source, composed)
                else:
                    self._strays.append((source, composed))
        stdin = sum(source.path is None for source in gathered.sources)
        return self.finish(stdin)

    def add(self, body: Json, source: Source | None = None, composed: Composed | None = None) -> Document:
        """Check one document by itself, keep it and give it back."""
        kind = body.get("kind") if isinstance(body, dict) else None
        mark = composed.mark if composed else None
        if not isinstance(body, dict) or not isinstance(kind, str) or kind not in KINDS:
            refused = Document("", body if isinstance(body, dict) else {}, source, mark)
            self._unread.add(refused.name)
            self._report(refused, [_refusal(body, kind)])
            return refused
        document = Document(kind, body, source, mark, composed is None or composed.whole)
        self._documents.append(document)
        if not document.whole:
            document.sound = False
            return document
        self._report(document, check(FILES[kind], body))
        if document.sound:
            self._report(document, check_agreement(kind, body))
        if document.sound:
            self._make(document)
        return document

    def finish(self, files: int = 0) -> Loaded:
        """Check the documents against each other; give the outcome. `files` are those read besides `self._files`."""
        for source, composed in self._strays:
            if source.path not in self._referenced and (source.direct or not _is_workload(composed.value)):
                self._report(Document("", {}, source, composed.mark), [_stray(composed.value)])
        for document, problem in find_references(self._documents, self._existing, None if self._lost else self._unread):
            self.faults.append(document.fault(problem))
        if self._check_policies is not None:
            self.faults.extend(check_rego(self._documents, self._check_policies))
        documents: dict[Key, Document] = {}
        for document in self._documents:
            documents.setdefault(document.key, document)
        resources = [document.resource for document in self._documents if document.sound and document.resource is not None]
        return Loaded(
            resources=tuple(sorted(resources, key=lambda resource: (KINDS.index(resource.key.kind), resource.key))),
            faults=tuple(sorted(_first_causes(self.faults), key=order)),
            files=files + len(self._files),
            documents=documents,
        )

    def _compose(self, text: Text) -> Reading:
        reading = compose(text, self._limits)
        for flaw in reading.flaws:
            line, column, _, _ = flaw.mark
            self.faults.append(
                Fault(flaw.code, text.name, line, column, "", "", "", flaw.message, flaw.mend, text.excerpt(flaw.mark))
            )
        for part in reading.unread:
            self._unread.update(_NAMED.findall(part))
        return reading

    def _report(self, document: Document, problems: Iterable[Problem]) -> None:
        self.faults.extend(document.fault(problem) for problem in problems)

    def _make(self, document: Document) -> None:
        """Build the resource of a document that its schema accepts: defaults filled in, files replaced by their contents."""
        body = fill(FILES[document.kind], document.body)
        spec = body["spec"]
        if document.kind == "Policy":
            self._include_modules(document, spec)
        elif document.kind == "Model" and "scripted" in spec:
            self._include_play(document, spec["scripted"])
        if document.sound:
            document.resource = Resource.from_dict(body)

    def _include_modules(self, document: Document, spec: dict[str, Json]) -> None:
        if "rego" in spec:
            spec["modules"] = [{"path": f"{document.name}.rego", "source": spec.pop("rego")}]
        if "files" not in spec:
            return
        modules = []
        for index, reference in enumerate(spec.pop("files")):
            text = self._follow(document, reference, ("spec", "files", index))
            if text is not None and not text.content.strip():
                self._report(
                    document,
                    [Problem("file.empty", ("spec", "files", index), "this file is empty", "write the Rego, or remove it here")],
                )
            elif text is not None:
                document.grafts["spec", "modules", index, "source"] = Graft(text, (1, 1, 2, None))
                modules.append({"path": posixpath.normpath(reference), "source": text.content})
        spec["modules"] = modules

    def _include_play(self, document: Document, scripted: dict[str, Json]) -> None:
        path: Path = ("spec", "scripted", "play")
        if "playFile" in scripted:
            text = self._follow(document, scripted.pop("playFile"), ("spec", "scripted", "playFile"))
            if text is None or not self._read_play(document, text, scripted, path):
                return
        if self._check_play is not None:
            wrong = self._check_play(scripted["play"])
            self._report(document, [Problem("play.expression", (*path, *where), message) for where, message in wrong])

    def _read_play(self, document: Document, text: Text, scripted: dict[str, Json], path: Path) -> bool:
        """Put the play in `text` into `scripted`; whether it is sound."""
        reading = self._compose(text)
        if reading.flaws:
            document.sound = False
            return False
        if len(reading.documents) != 1:
            found = len(reading.documents)
            problem = Problem(
                "play.file",
                ("spec", "scripted", "playFile"),
                f"a play file holds one document, found {found}",
                "one play per file",
            )
            self._report(document, [problem])
            return False
        play = reading.documents[0]
        document.grafts[path] = Graft(text, play.mark)
        wrong = check("play", play.value) or list(check_play_ids(play.value, ()))
        self._report(document, [replace(problem, path=(*path, *problem.path)) for problem in wrong])
        if document.sound:
            scripted["play"] = fill("play", play.value)
        return document.sound

    def _follow(self, document: Document, reference: str, path: Path) -> Text | None:
        """The text of the file that `document` names at `path`; None after reporting why it cannot be had."""
        if document.source is None:
            self._report(
                document, [Problem("file.outside", path, "files are not read here", "send the content in place of the path")]
            )
            return None
        try:
            real = inside(document.source, reference)
            self._referenced.add(real)
            if real not in self._files:
                name = os.path.normpath(FilePath(document.source.text.name).parent / reference)
                self._files[real] = Text(name, read_text(real, self._limits))
            return self._files[real]
        except Unreadable as error:
            self._report(document, [Problem(error.code, path, error.message, error.mend)])
            return None


def _first_causes(faults: Iterable[Fault]) -> set[Fault]:
    """`faults`, each once, without those at places whose very text was refused: what it stands in for is of the wrong type."""
    found = set(faults)
    refused = {(fault.file, fault.line, fault.column) for fault in found if fault.code == "yaml.number"}
    return {fault for fault in found if fault.code == "yaml.number" or (fault.file, fault.line, fault.column) not in refused}


def _refusal(body: Json, kind: Json) -> Problem:
    """Why `body`, whose kind is none of ours, is no manifest."""
    if not isinstance(body, dict):
        return Problem(
            "manifest.type", (), f"a manifest is a mapping, got {shown(body)}", "it has apiVersion, kind, metadata and spec"
        )
    if "kind" not in body:
        return Problem("manifest.required", (), "field `kind` is missing", f"add `kind:`, one of {listed(KINDS, 'or')}")
    if not isinstance(kind, str):
        return Problem("manifest.kind", ("kind",), f"expected a kind, got {shown(kind)}", f"one of {listed(KINDS, 'or')}")
    if kind in LATER:
        return Problem("manifest.unsupported", ("kind",), f"kind {kind} is not supported yet", "remove the document")
    meant = kind_of(kind) or closest(kind, KINDS)
    return Problem(
        "manifest.kind",
        ("kind",),
        f"unknown kind {shown(kind)}",
        f"did you mean {meant}?" if meant else f"one of {listed(KINDS, 'or')}",
    )


def _is_workload(value: Json) -> bool:
    """Whether it is what `sched simulate` reads, which may lie beside manifests."""
    return isinstance(value, dict) and value.keys() >= {"endpoints", "classes", "agents"}


def _stray(value: Json) -> Problem:
    mend = "add them, let a manifest refer to this file, or move it elsewhere"
    return Problem("file.stray", (), f"not a manifest: {shown(value)} without apiVersion and kind", mend)
