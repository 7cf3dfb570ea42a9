"""Reading Rego and JSON from files for the `policy` verbs, and asking a real `opa` where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos.abi.assets import asset
from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import AgentOSError, UsageError
from agentos.policy.port import Module

_TARGET: Final = re.compile(r"^package\s+agentos\.(syscall|admission|control)\b", re.MULTILINE)


def read_modules(paths: Sequence[Path]) -> tuple[Module, ...]:
    """Every `*.rego` of `paths`, in order of path; a path of a module is as it was named. Raises UsageError, AgentOSError."""
    files: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files.update({str(found): found for found in path.rglob("*.rego") if not _hidden(found, path)})
        elif path.is_file():
            files[str(path)] = path
        else:
            raise UsageError(f"{path}: no such file or folder")
    if not files:
        raise UsageError("no Rego here", mend="name files or folders that hold *.rego")
    try:
        return tuple(Module(name, files[name].read_text(encoding="utf-8")) for name in sorted(files))
    except UnicodeDecodeError as error:
        raise AgentOSError(f"not UTF-8 at byte {error.start}", mend="save the file as UTF-8") from error
    except OSError as error:
        raise AgentOSError(f"{error.filename}: {error.strerror}") from error


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def by_target(modules: Sequence[Module]) -> dict[tuple[str, bool], list[Module]]:
    """Modules by what they decide (`syscall`, `admission`, `control`, read from the package), shipped axioms apart."""
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


@dataclass(frozen=True, slots=True)
class Strict:
    """What a real `opa check --strict` said: its lines, and a sentence on whether it ran."""

    lines: tuple[str, ...]
    ran: str


def opa_check(paths: Sequence[Path]) -> Strict:
    """Run `opa check --strict` with our schemas over `paths`, if an `opa` is beside Python or on PATH."""
    beside = Path(sys.executable).with_name("opa")
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("opa")
    if program is None:
        return Strict((), "checked by our lint; `opa check` is not at hand (make opa)")
    axioms = asset("policies") / "agentos"
    # The axioms go along, once: `opa` refuses a file that it is given twice.
    beyond = [path for path in paths if not path.resolve().is_relative_to(axioms)]
    covered = any(axioms.is_relative_to(path.resolve()) for path in beyond)
    sources = [*(() if covered else (axioms,)), *beyond]
    words = [program, "check", "--strict", "-s", str(asset("schemas") / "v1"), *map(str, sources)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    lines = tuple(line for line in done.stderr.splitlines() if line.strip()) if done.returncode else ()
    return Strict(lines, "checked by our lint and by `opa check --strict`")
