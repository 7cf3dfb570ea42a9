"""Reading Rego and JSON from files for the `policy` verbs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from agentos.abi.assets import asset
from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import AgentOSError, UsageError
from agentos.policy.known import INPUTS
from agentos.policy.port import Module

_TARGET: Final = re.compile(rf"^package\s+agentos\.({'|'.join(INPUTS)})\b", re.MULTILINE)


def read_modules(paths: Sequence[Path]) -> tuple[Module, ...]:
    """Every `*.rego` of `paths`, in order of path; a path of a module is as it was named. Raises UsageError, AgentOSError."""
    files: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files.update({str(found): found for found in path.rglob("*.rego") if not _hidden(found, path)})
        elif path.is_file():
            files[str(path)] = path
        else:
            raise UsageError(f"{path}: no such file or folder", mend=_likely(path))
    if not files:
        raise UsageError("no Rego here", mend="name files or folders that hold *.rego")
    try:
        return tuple(Module(name, files[name].read_text(encoding="utf-8")) for name in _once(files))
    except UnicodeDecodeError as error:
        raise AgentOSError(f"not UTF-8 at byte {error.start}", mend="save the file as UTF-8") from error
    except OSError as error:
        raise AgentOSError(f"{error.filename}: {error.strerror}") from error


def _once(files: dict[str, Path]) -> list[str]:
    """The names in order, without a second name for a file (`policies` and `policies/a.rego` both name the latter)."""
    seen: set[Path] = set()
    names = []
    for name in sorted(files):
        real = files[name].resolve()
        if real not in seen:
            seen.add(real)
            names.append(name)
    return names


def _likely(path: Path) -> str | None:
    """What was probably meant: something beside it with a similar name."""
    parent = path.parent
    if not parent.is_dir():
        return _likely(parent) if parent != path else None
    names = sorted(one.name for one in parent.iterdir() if one.is_dir() or one.suffix == ".rego")
    found = get_close_matches(path.name, names, n=1)
    return f"did you mean {parent / found[0]}?" if found else None


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def by_target(modules: Sequence[Module]) -> dict[tuple[str, bool], list[Module]]:
    """Modules by what they decide (a key of `known.INPUTS`, read from the package), shipped axioms apart."""
    axioms = asset("policies") / "agentos"
    groups: dict[tuple[str, bool], list[Module]] = {}
    for module in modules:
        shipped = Path(module.path).resolve().is_relative_to(axioms)
        found = _TARGET.search(module.source)
        target = found[1] if found is not None else "syscall"
        groups.setdefault((target, shipped), []).append(module)
    return groups


def read_value(path: Path) -> Json:
    """A JSON file, read strictly. Raises AgentOSError."""
    try:
        return parse_strict(path.read_bytes())
    except OSError as error:
        raise AgentOSError(f"{error.strerror}", where=str(path)) from error
    except NotCanonical as error:
        raise AgentOSError(f"not JSON of one meaning: {error}", where=str(path)) from error
