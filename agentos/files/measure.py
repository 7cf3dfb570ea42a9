"""How much the places of a tenant take up, measured on disk: the sum that quotas begin with, and what one place comes to.

    held = measure(roots, "acme")      # {"session/s-1": Amount(…), "space/reports": Amount(…), "versions/session/s-1": …}

Nothing is followed, and no name is believed: folders are entered by descriptor. It walks, so it is done once for each tenant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentos.files.quota import Amount
from agentos.files.scan import weigh

_UNBOUNDED = 2**62


@dataclass(frozen=True, slots=True)
class Roots:
    """The folders below which the files of the tenants are, each by tenant."""

    workspaces: Path
    spaces: Path
    versions: Path


def measure(roots: Roots, tenant: str) -> dict[str, Amount]:
    """All places of a tenant, by the name that quotas know them by. A folder that is not there has none."""
    found = dict(_folders(roots.workspaces / tenant, "session/")) | dict(_folders(roots.spaces / tenant, "space/"))
    for folder, kind in (("sessions", "session"), ("spaces", "space")):
        top = roots.versions / tenant / folder
        if top.is_dir():
            for path in top.iterdir():
                if path.suffix == ".db":
                    found[f"versions/{kind}/{path.stem}"] = weigh_versions(path)
    return found


def weigh_versions(path: Path) -> Amount:
    """What is kept of the versions of a place: its file, and what SQLite has not yet written into it. Nothing where none is."""
    size = 0
    for name in (path, path.with_name(f"{path.name}-wal")):
        try:
            size += os.stat(name).st_size  # noqa: PTH116 - called after every change
        except FileNotFoundError:
            continue
    return Amount(size)


def _folders(top: Path, kind: str) -> Iterator[tuple[str, Amount]]:
    if not top.is_dir():
        return
    names = [path.name for path in top.iterdir() if path.is_dir()]
    handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            yield f"{kind}{name}", weigh(handle, name, most=_UNBOUNDED)[0]
    finally:
        os.close(handle)
