"""What of the host stands in a sandbox, and where. Mounts that a Sandbox declares are held open while they are looked at, so that
nobody can put a link in their place afterwards."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agentos.sandbox.inside import RUN, SECRETS, WORKSPACE, Tree
from agentos.sandbox.port import SandboxUnavailable
from agentos.sandbox.profile import Mount

MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders of the root that are links into `/usr` on most hosts, and folders of their own on others."""

_TAKEN: Final = ("/proc", "/dev", "/sys", RUN, SECRETS)
_WHOLE: Final = ("/", "/usr", "/etc", "/run", "/tmp", "/var", WORKSPACE)  # noqa: S108 - places in the sandbox


def system_trees() -> tuple[Tree, ...]:
    """The host's programs and libraries, and the Python that runs this."""
    trees = [Tree("/usr", "/usr")]
    for name in MERGED:
        top = Path("/", name)
        if top.is_symlink():
            # The link itself is made inside; here it only says where a path behind it leads.
            trees.append(Tree(f"/{name}", f"/{name}"))
        elif top.is_dir():
            trees.append(Tree(f"/{name}", f"/{name}"))
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix))):
        if prefix != "/" and not any(_below(prefix, tree.source) for tree in trees):
            trees.append(Tree(prefix, prefix))
    return tuple(trees)


def is_link(tree: Tree) -> bool:
    """Whether it is one of the links into `/usr`."""
    return tree.at.lstrip("/") in MERGED and Path(tree.source).is_symlink()


def declared(mount: Mount, home: Path | None, trees: Sequence[Tree]) -> Tree:
    """A declared mount, if it may be made. Raises SandboxUnavailable."""
    source, at = os.path.normpath(mount.path), os.path.normpath(mount.at)
    if not source.startswith("/") or not at.startswith("/"):
        raise SandboxUnavailable(f"{mount.path} cannot be mounted at {mount.at}", mend="write absolute paths")
    if at in _WHOLE or any(_below(at, place) for place in _TAKEN):
        raise SandboxUnavailable(
            f"nothing can be mounted at {at}: the sandbox has its own there", mend="set `at` to another path"
        )
    real = os.path.realpath(source)
    if real != source:
        # Whoever may write somewhere above it could otherwise lead the next process anywhere.
        raise SandboxUnavailable(f"{source} leads to another place by a link", mend=f"write {real}, if that is what is meant")
    if home is not None:
        top = os.path.realpath(home)
        if _below(real, top) or _below(top, real):
            raise SandboxUnavailable(
                f"{source} cannot be mounted: the runtime's home is there",
                mend="mount folders that do not hold the runtime's home",
            )
    for tree in trees:
        if _below(at, tree.at) and not os.path.lexists(tree.source + at[len(tree.at) :]):
            raise SandboxUnavailable(
                f"nothing can be mounted at {at}: {tree.at} is read-only and has no such path", mend="set `at` to another path"
            )
    return Tree(source, at, mount.write)


def held(source: str) -> int:
    """A descriptor of what stands at `source` now, reached without following a link. Raises SandboxUnavailable."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    above = os.open("/", flags | os.O_DIRECTORY)
    for part in source.strip("/").split("/"):
        try:
            below = os.open(part, flags, dir_fd=above)
        except OSError as error:
            raise SandboxUnavailable(
                f"{source} cannot be mounted: {error.strerror}", mend="look at `mounts` of the Sandbox"
            ) from error
        finally:
            os.close(above)
        above = below
    if stat.S_ISLNK(os.fstat(above).st_mode):
        os.close(above)
        raise SandboxUnavailable(f"{source} leads to another place by a link", mend="write the path that is meant")
    return above


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")
