"""Whose files are: what the runtime makes in a folder belongs to whoever the folder belongs to.

A runtime that is root lets each sandbox work as a user of its own, and the workspace is that user's. A file that root made there
would be one that the session's own tools cannot change; so it is given away, to the owner of the folder that it is in. Any other
runtime owns what it makes, and so do its sandboxes.
"""

from __future__ import annotations

import os


def give(descriptor: int, parent: int) -> None:
    """Give what is open as `descriptor`, and was just made, to the owner of the folder open as `parent`. Raises OSError."""
    if os.geteuid() != 0:
        return
    above = os.fstat(parent)
    if (above.st_uid, above.st_gid) != (0, 0):
        os.fchown(descriptor, above.st_uid, above.st_gid)


def give_name(name: str, parent: int) -> None:
    """The same for the link `name` that was just made in the folder open as `parent`. Raises OSError."""
    if os.geteuid() != 0:
        return
    above = os.fstat(parent)
    if (above.st_uid, above.st_gid) != (0, 0):
        os.chown(name, above.st_uid, above.st_gid, dir_fd=parent, follow_symlinks=False)
