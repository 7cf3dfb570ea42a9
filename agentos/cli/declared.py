"""What an operator declares on the command line: files and folders, read and validated before the runtime is asked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentos.abi.canonical import Json
from agentos.abi.errors import ManifestError, UsageError


@dataclass(frozen=True, slots=True)
class Declared:
    """Manifests as they are sent, and where each stands: `agent/default/triage` → `agents.yaml:14:1`."""

    manifests: list[Json] = field(hash=False)
    positions: Mapping[str, str] = field(hash=False)


def read_declarations(paths: Sequence[str]) -> Declared:
    """Read and validate `paths` (`-`: standard input). Raises ManifestError with every fault, UsageError for no path at all."""
    from agentos.manifests.load import load

    if not paths:
        raise UsageError("nothing to read", mend="name files or folders of manifests, or - for standard input")
    loaded = load(paths, stdin=sys.stdin.buffer)
    if loaded.faults:
        faults = [{**fault.to_dict(), "text": str(fault)} for fault in loaded.faults]
        count = len(faults)
        raise ManifestError(f"{count} fault{'s' if count != 1 else ''} in the declarations; nothing was changed", faults=faults)
    return Declared(
        [resource.to_dict() for resource in loaded.resources],
        {str(key): str(position) for key, position in loaded.positions.items()},
    )
