"""The file primitives: what an agent may do with the files of its workspace, as plain functions that block.

`read`, `write`, `search` and `list` each take the workspace, the arguments of the call and a `Guard`, and give a Result whose
`content` is for the model and whose `data` is for programs. They know nothing of sessions, policy or the event loop:
`adapters/builtin.py` runs them in a thread. Every bound is a constant below, and whoever meets one is told. What is written over,
and that it is recorded, is `drivers.editing`; `propose` is a `write` that a person decides about.

Some are no file primitives, and only have their shapes here: `declassify` acts on the labels of the session, which are the
gate's; `lock` and `unlock` on what all sessions of a tenant share (`drivers.locks`); `wait`, `signal` and `fire` on what sessions
and triggers are told (`drivers.signals`).
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.abi.syscall import Result, ToolEffect
from agentos.drivers import signals
from agentos.drivers.editing import MAX_WRITE, Editor, as_known, as_meant
from agentos.drivers.locks import LEASE_S, LONGEST_NAME, MAX_LEASE_S, MAX_TOKEN, MAX_WAIT_S
from agentos.files import confine
from agentos.files.guard import Guard
from agentos.files.versions import Author, Place
from agentos.files.walk import Walk, printable

MAX_READ: Final = 256 * 1024
"""Most bytes of a file that `read` returns; the rest is cut with a notice."""

MAX_ENTRIES: Final = 1000
"""Most files that `list` names."""

MAX_MATCHES: Final = 200
"""Most lines that `search` returns."""

MAX_LINE: Final = 400
"""Most characters of a matching line that `search` shows."""

MAX_SEARCHED: Final = 1024 * 1024
"""Files above this many bytes are not searched."""

MAX_SEARCH_TOTAL: Final = 64 * 1024 * 1024
"""Most bytes that one search reads."""

MAX_PATTERN: Final = 1000
"""Longest pattern of `search`, in characters."""

_CHUNK: Final = 64 * 1024
_PATH: Final[Mapping[str, Json]] = {
    "type": "string",
    "description": "Path inside the workspace, relative to its top, such as `inbox/mail.md`.",
    "maxLength": confine.MAX_PATH,
}
_CONTENT: Final[Mapping[str, Json]] = {
    "type": "string",
    "description": f"The whole new text of the file; at most {MAX_WRITE >> 20} MiB as UTF-8.",
}
_RESOURCE: Final[Mapping[str, Json]] = {
    "type": "string",
    "description": "What is locked, by a name that all who use it agree on, such as `ledger` or `reports/2026`.",
    "minLength": 1,
    "maxLength": LONGEST_NAME,
    "pattern": r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$",
}
_SIGNAL: Final[Mapping[str, Json]] = {
    "type": "string",
    "description": "The name of the signal, such as `go`; `stop` asks a session to come to an end.",
    "pattern": rf"^[a-z][a-z0-9-]{{0,{signals.LONGEST_NAME - 1}}}$",
}
_SCHEMAS: Final[Mapping[str, tuple[str, Mapping[str, Mapping[str, Json]], tuple[str, ...]]]] = {
    "read": ("Read a text file of the workspace.", {"path": _PATH}, ("path",)),
    "write": (
        "Write a text file of the workspace: it is made, or replaced as a whole. Missing folders are made.",
        {
            "path": _PATH,
            "content": _CONTENT,
            "expected": {
                "type": "string",
                "description": "To replace exactly the file that you mean: its digest, as reading it gave; `any` for whatever is "
                "there. Without it the file is written unless somebody else has changed it since you wrote or read it.",
                "pattern": r"^(sha256:[0-9a-f]{64}|any)$",
            },
        },
        ("path", "content"),
    ),
    "propose": (
        "Propose a new text for a file of the workspace. A person sees what it would change, and decides; then it is written.",
        {
            "path": _PATH,
            "content": _CONTENT,
            "expected": {
                "type": "string",
                "description": "To replace a file: its digest, as reading it gave. Without it only a new file is written.",
                "pattern": r"^sha256:[0-9a-f]{64}$",
            },
        },
        ("path", "content"),
    ),
    "search": (
        "Find lines that contain a text, in all text files of the workspace or of a folder.",
        {
            "pattern": {
                "type": "string",
                "description": "The text to find: taken literally (no wildcards), upper and lower case alike, within one line.",
                "minLength": 1,
                "maxLength": MAX_PATTERN,
            },
            "path": {**_PATH, "description": "Folder or file to search; the whole workspace if it is left out."},
        },
        ("pattern",),
    ),
    "list": (
        "List the files of the workspace or of a folder, with their sizes, folders below included.",
        {"path": {**_PATH, "description": "Folder to list; the whole workspace if it is left out."}},
        (),
    ),
    "declassify": (
        "Take labels off this session, so that rules about them bind no longer. A person decides about each call.",
        {
            "labels": {
                "type": "array",
                "description": "The labels to take off, as the session carries them.",
                "items": {"type": "string", "minLength": 1, "maxLength": 63},
                "minItems": 1,
                "maxItems": 100,
                "uniqueItems": True,
            },
            "reason": {
                "type": "string",
                "description": "Why what the session has read may be treated as if it did not carry them.",
                "minLength": 1,
                "maxLength": 2000,
            },
        },
        ("labels", "reason"),
    ),
    "lock": (
        "Take a lock on a shared resource, or wait for it. It is yours until you unlock it, the session ends, or its lease ends.",
        {
            "resource": _RESOURCE,
            "waitSeconds": {
                "type": "integer",
                "description": "How long to wait while somebody else holds it; as long as the tool may take if it is left out.",
                "minimum": 0,
                "maximum": MAX_WAIT_S,
            },
            "leaseSeconds": {
                "type": "integer",
                "description": f"How long it is yours unless you lock it again, which renews it; {LEASE_S} if it is left out.",
                "minimum": 1,
                "maximum": MAX_LEASE_S,
            },
        },
        ("resource",),
    ),
    "unlock": (
        "Let go of a lock, so that the next one who waits for it gets it.",
        {
            "resource": _RESOURCE,
            "token": {
                "type": "integer",
                "description": "The token that locking it gave; give it along with every change to the resource too.",
                "minimum": 1,
                "maximum": MAX_TOKEN,
            },
        },
        ("resource", "token"),
    ),
    "wait": (
        "Wait until this session is told the signal of this name. One that came before, and was not waited for, counts.",
        {
            "signal": _SIGNAL,
            "timeoutSeconds": {
                "type": "integer",
                "description": "How long to wait; as long as the tool may take if it is left out.",
                "minimum": 1,
                "maximum": signals.LONGEST_WAIT_S,
            },
        },
        ("signal",),
    ),
    "signal": (
        "Tell another session something, or all live sessions of an agent, or fire the triggers that wait for the signal.",
        {
            "session": {"type": "string", "description": "The session to tell.", "minLength": 1, "maxLength": 63},
            "agent": {"type": "string", "description": "Tell all live sessions of this agent.", "minLength": 1, "maxLength": 63},
            "triggers": {"description": "Fire the triggers that wait for a signal of this name.", "const": True},
            "name": _SIGNAL,
            "data": {"type": "string", "description": "What it says.", "maxLength": signals.LONGEST_DATA},
        },
        ("name",),
    ),
    "fire": (
        "Fire the triggers that wait for the signal of this name.",
        {
            "signal": _SIGNAL,
            "data": {"type": "string", "description": "What it says.", "maxLength": signals.LONGEST_DATA},
        },
        ("signal",),
    ),
}

PRIMITIVES: Final = tuple(_SCHEMAS)
"""The names of the primitives."""

LOCK_PRIMITIVES: Final = ("lock", "unlock")
"""Those that act on locks."""

SIGNAL_PRIMITIVES: Final = ("wait", "signal", "fire")
"""Those that wait for signals and send them."""

_OF_SESSIONS: Final = ("declassify", *LOCK_PRIMITIVES, *SIGNAL_PRIMITIVES)

FILE_PRIMITIVES: Final = tuple(name for name in PRIMITIVES if name not in _OF_SESSIONS)
"""Those that act on files."""

WRITE_PRIMITIVES: Final = ("write", "propose")
"""Those that change files."""


def conditions(driver: Mapping[str, Json]) -> frozenset[str]:
    """The arguments of a tool with this driver that say on which condition it acts, and nothing of what it does."""
    return frozenset({"expected"} if driver.get("builtin", {}).get("primitive") in WRITE_PRIMITIVES else ())


def input_schema(primitive: str) -> dict[str, Json]:
    """The JSON Schema (2020-12) of the arguments of `primitive`. Raises DriverError if there is no such primitive."""
    _known(primitive)
    description, properties, required = _SCHEMAS[primitive]
    schema: dict[str, Json] = {
        "type": "object",
        "description": description,
        "properties": {name: dict(shape) for name, shape in properties.items()},
        "additionalProperties": False,
    }
    if required:
        schema["required"] = list(required)
    return schema


def default_effect(primitive: str) -> ToolEffect:
    """What `primitive` does to the world: those that write, and those that act on no file, change something; the others read.

    Raises DriverError if there is no such primitive.
    """
    _known(primitive)
    return ToolEffect.WRITE if primitive in {*WRITE_PRIMITIVES, *_OF_SESSIONS} else ToolEffect.READ


def perform(primitive: str, workspace: Path, args: Mapping[str, Json], guard: Guard) -> Result:
    """Run one primitive; blocks. Raises DriverError when it could not be done (nothing was changed then), Stopped by `guard`."""
    _known(primitive)
    if primitive == "declassify":
        # The gate records which labels went; a session has no other way to lose one.
        return Result(f"taken off this session: {', '.join(sorted(args['labels']))}")
    if primitive in _OF_SESSIONS:
        raise DriverError(f"{primitive} acts on no file")
    path = _text(args, "path", "" if primitive in ("list", "search") else None)
    if primitive == "read":
        return read(workspace, path, guard)
    if primitive in WRITE_PRIMITIVES:
        return write(workspace, path, _text(args, "content", None), guard, args.get("expected"), exact=primitive == "propose")
    if primitive == "search":
        return search(workspace, _text(args, "pattern", None), path, guard)
    return listing(workspace, path, guard)


def read(workspace: Path, path: str, guard: Guard) -> Result:
    """The text of a file. `data` is `{path, bytes, truncated, digest, binary}`: size and SHA-256 are of the whole file."""
    names = _file_names(path)
    shown = "/".join(names)
    with confine.open_folder(workspace, names[:-1]) as folder:
        descriptor = confine.open_file(folder, names[-1], shown)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        head, size, sha = b"", 0, hashlib.sha256()
        while chunk := _read_some(file.fileno(), shown):
            guard.check()
            sha.update(chunk)
            size += len(chunk)
            head += chunk[: MAX_READ - len(head)]
    whole = f"sha256:{sha.hexdigest()}"
    truncated = size > len(head)
    text = _decode(head, complete=not truncated)
    data: dict[str, Json] = {"path": shown, "bytes": size, "truncated": truncated, "digest": whole, "binary": text is None}
    if text is None:
        return Result(f"[a binary file of {size} bytes, {whole}: it has no text to show]", data)
    if truncated:
        shown_bytes = len(text.encode("utf-8"))
        text += f"\n[cut here: the first {shown_bytes} of {size} bytes are shown; the whole file has {whole}]"
    return Result(text, data)


def write(workspace: Path, path: str, content: str, guard: Guard, expected: Json = None, *, exact: bool = False) -> Result:
    """Make or replace a file as a whole: other readers see the old text or the new one. `data` is `{path, bytes, digest}`.

    Nothing is recorded. `exact`: a file that is there is replaced only if `expected` names it. Raises FileConflict.
    """
    place, shown = Place("default", "session", "nobody"), printable(path)
    may = as_meant(expected, shown) if exact else as_known("", expected, shown)
    return Editor().write(place, workspace, path, content, Author("agent/"), guard, may)


def search(workspace: Path, pattern: str, path: str, guard: Guard, seen: Callable[[str, bytes], None] | None = None) -> Result:
    """Lines that contain `pattern` (literal, any case), file by file. `data` is `[{path, line, text}]`, lines from 1.

    `seen` is told path and content of every file that was looked into.
    """
    if not 0 < len(pattern) <= MAX_PATTERN or "\n" in pattern:
        raise DriverError(f"a pattern is one line of 1 to {MAX_PATTERN} characters")
    needle = pattern.casefold()
    walk = Walk(guard)
    matches: list[Json] = []
    skipped = total = 0
    cut = ""
    for shown, folder, name, size in walk.files(workspace, path):
        if size > MAX_SEARCHED:
            skipped += 1
            continue
        total += size
        if total > MAX_SEARCH_TOTAL:
            cut = f"the search stopped after {MAX_SEARCH_TOTAL} bytes of files"
            break
        text = _whole_text(folder, name, shown)
        if text is None:
            skipped += 1
            continue
        if seen is not None:
            seen(shown, text.encode("utf-8"))
        matches += _matches(text, needle, shown, MAX_MATCHES - len(matches))
        if len(matches) == MAX_MATCHES:
            cut = f"only the first {MAX_MATCHES} matching lines are shown"
            break
    lines = [f"{printable(match['path'])}:{match['line']}: {match['text']}" for match in matches] or ["[no line matches]"]
    if skipped:
        lines.append(f"[not searched: {skipped} files that are binary or larger than {MAX_SEARCHED} bytes]")
    return Result("\n".join([*lines, *walk.notes(cut)]), matches)


def listing(workspace: Path, path: str, guard: Guard) -> Result:
    """All regular files below `path`, folder by folder in the order of their names. `data` is `[{path, bytes}]`."""
    walk = Walk(guard)
    entries: list[Json] = []
    cut = ""
    for shown, _, _, size in walk.files(workspace, path):
        if len(entries) == MAX_ENTRIES:
            cut = f"only the first {MAX_ENTRIES} files are listed: name a folder to see the others"
            break
        entries.append({"path": shown, "bytes": size})
    lines = [f"{entry['bytes']:>9}  {printable(entry['path'])}" for entry in entries] or ["[no files]"]
    return Result("\n".join([*lines, *walk.notes(cut)]), entries)


def _matches(text: str, needle: str, shown: str, most: int) -> list[Json]:
    hits = ((number, line) for number, line in enumerate(text.splitlines(), 1) if needle in line.casefold())
    return [{"path": shown, "line": number, "text": line[:MAX_LINE]} for number, line in itertools.islice(hits, most)]


def _known(primitive: str) -> None:
    if primitive not in _SCHEMAS:
        raise DriverError(f"there is no file primitive {primitive!r}", mend=f"one of: {', '.join(PRIMITIVES)}")


def _text(args: Mapping[str, Json], name: str, default: str | None) -> str:
    value = args.get(name, default)
    if not isinstance(value, str):
        raise DriverError(f"argument `{name}` must be text")
    return value


def _file_names(path: str) -> tuple[str, ...]:
    names = confine.split(path)
    if not names or path.endswith("/"):
        raise DriverError("the path names a folder, not a file", where=printable(path)[:200])
    return names


def _read_some(descriptor: int, shown: str) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except OSError as error:
        raise DriverError(f"cannot be read: {error.strerror}", where=printable(shown)) from error


def _whole_text(folder: int, name: str, shown: str) -> str | None:
    """The text of a small file; None if it is binary, changed its kind meanwhile or cannot be read."""
    try:
        descriptor = confine.open_file(folder, name, shown)
    except DriverError:
        return None
    body = b""
    try:
        while len(body) <= MAX_SEARCHED and (chunk := _read_some(descriptor, shown)):
            body += chunk
    except DriverError:
        return None
    finally:
        os.close(descriptor)
    return _decode(body, complete=True)


def _decode(body: bytes, *, complete: bool) -> str | None:
    """UTF-8 text, or None if `body` is something else. An unfinished character at the end is dropped unless `complete`."""
    if b"\0" in body:
        return None
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(body, final=complete)
    except UnicodeDecodeError:
        return None
