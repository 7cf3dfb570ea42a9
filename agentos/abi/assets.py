"""Where the files that ship with the code are: `schemas/` and `policies/`, in a checkout or inside the wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def asset(name: str) -> Path:
    """The folder `name` (`schemas` or `policies`). Raises FileNotFoundError when the installation lacks it."""
    for root in (_PACKAGE / "_assets", _PACKAGE.parent):
        folder = root / name
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the installation of agentos lacks its folder {name!r}: install it again")
