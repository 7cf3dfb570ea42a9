"""From the paths on a command line to the texts that are read: files, folders and standard input.

A folder is read recursively: every `*.yaml` and `*.yml` in it, in sorted order, hidden entries left out. Each path given is
also a boundary: a manifest found through it may refer to files below it and to nothing else. A link that leads out of it is
a fault.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from agentos.manifests.compose import Limits
from agentos.manifests.fault import Fault, shown
from agentos.manifests.position import Text

STDIN = "-"
"""The path that stands for standard input."""


@dataclass(frozen=True, slots=True)
class Source:
    """A text to read. `path` is its real path, `root` the real folder that its references are confined to.

    Both are None for standard input.
    """

    text: Text
    path: Path | None
    root: Path | None
    direct: bool
    """Whether it was named itself, not found in a folder."""


@dataclass(slots=True)
class Gathered:
    """The sources, and what was wrong with the paths."""

    sources: list[Source] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


class Unreadable(Exception):
    """A file that cannot be read as text; carries code, message and mend."""

    def __init__(self, code: str, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.mend = mend


def gather(paths: Sequence[str | Path], stdin: bytes | BinaryIO | None, limits: Limits) -> Gathered:
    """Read what `paths` name, each file once. Whatever cannot be read becomes a fault; nothing is raised."""
    found = Gathered()
    seen: set[Path] = set()
    for given in paths:
        if str(given) == STDIN:
            _gather_stdin(stdin, limits, found)
            continue
        name = os.path.normpath(given)
        try:
            real = Path(name).resolve(strict=True)
            folder = real.is_dir()
        except (OSError, ValueError, RuntimeError):
            found.faults.append(_fault("file.missing", str(given), "there is no such file or folder", "check the path"))
            continue
        root = real if folder else real.parent
        files = list(_walk(name, real, found)) if folder else [(name, real)]
        if folder and not files and not any(fault.file.startswith(name) for fault in found.faults):
            found.faults.append(_fault("file.empty", name, "this folder holds no manifest", "manifests end in .yaml or .yml"))
        for file, target in files:
            if target not in seen:
                seen.add(target)
                _gather_file(file, target, root, limits, found, direct=not folder)
    return found


def _gather_file(name: str, real: Path, root: Path, limits: Limits, found: Gathered, *, direct: bool) -> None:
    try:
        found.sources.append(Source(Text(name, read_text(real, limits)), real, root, direct))
    except Unreadable as error:
        found.faults.append(_fault(error.code, name, error.message, error.mend))


def _gather_stdin(stdin: bytes | BinaryIO | None, limits: Limits, found: Gathered) -> None:
    if any(source.path is None for source in found.sources):
        return
    data = stdin if isinstance(stdin, bytes) else stdin.read(limits.size + 1) if stdin is not None else b""
    try:
        found.sources.append(Source(Text(STDIN, decode(data, limits)), None, None, direct=True))
    except Unreadable as error:
        found.faults.append(_fault(error.code, STDIN, error.message, error.mend))


def read_text(path: Path, limits: Limits) -> str:
    """The content of the file `path`. Raises Unreadable: no file, no permission, too large, not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(limits.size + 1)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise Unreadable(
            "file.unreadable", f"this file cannot be read: {reason}", "check what it is and who may read it"
        ) from error
    return decode(data, limits)


def decode(data: bytes, limits: Limits) -> str:
    """UTF-8 text without a byte order mark. Raises Unreadable when `data` is too large or not UTF-8."""
    if len(data) > limits.size:
        raise Unreadable(
            "file.size", f"this file is larger than {limits.size} bytes", "split it: documents may stand in any number of files"
        )
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(
            "file.encoding", f"this file is not UTF-8 (byte {error.start}, line {line})", "save it as UTF-8"
        ) from error


def _walk(name: str, root: Path, found: Gathered) -> Iterator[tuple[str, Path]]:
    """The manifests below the folder `name` as (name in messages, real path). Links to folders are not entered: no circles."""
    try:
        with os.scandir(name) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        found.faults.append(_fault("file.unreadable", name, f"this folder cannot be read: {reason}", "check who may read it"))
        return
    for entry in listed:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, root, found)
        elif entry.name.endswith((".yaml", ".yml")) or (entry.is_symlink() and entry.is_dir()):
            yield from _entry(entry, root, found)


def _entry(entry: os.DirEntry[str], root: Path, found: Gathered) -> Iterator[tuple[str, Path]]:
    try:
        real = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):
        found.faults.append(_fault("file.missing", entry.path, "this link leads nowhere", "remove it, or put a file there"))
        return
    if not real.is_relative_to(root):
        found.faults.append(
            _fault("file.outside", entry.path, "this link leads out of the folder", "put the file itself into the folder")
        )
    elif real.is_file():
        # A link to a folder inside the root is passed over: the folder itself is read where it stands.
        yield entry.path, real


def inside(source: Source, reference: str) -> Path:
    """The real path of the file that a manifest in `source` calls `reference`.

    Raises Unreadable: no folder to start from, an absolute path, a path or link out of the root, no such file.
    """
    if source.path is None or source.root is None:
        raise Unreadable(
            "file.outside",
            "a manifest from standard input cannot refer to files",
            "give the file's path, or write the content here",
        )
    if Path(reference).is_absolute() or "\0" in reference:
        raise Unreadable(
            "file.outside", f"{shown(reference)} is not a relative path", "write it relative to the folder of this manifest"
        )
    written = Path(os.path.normpath(source.path.parent / reference))
    if not written.is_relative_to(source.root):
        raise Unreadable(
            "file.outside",
            f"{shown(reference)} leads out of the folder that is being loaded",
            "keep the file beside or below the manifest, or load the folder above",
        )
    try:
        real = written.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise Unreadable(
            "file.missing",
            f"there is no file {shown(reference)} beside this manifest",
            "check the path: it is relative to this manifest",
        ) from error
    if not real.is_relative_to(source.root):
        raise Unreadable(
            "file.outside",
            f"{shown(reference)} is a link out of the folder that is being loaded",
            "put the file itself into the folder",
        )
    if not real.is_file():
        raise Unreadable("file.unreadable", f"{shown(reference)} is not a file", "name a file")
    return real


def _fault(code: str, name: str, message: str, mend: str) -> Fault:
    return Fault(code, name, 0, 0, "", "", "", message, mend)
