"""Shares the fabricated record of the unit tests with these tests; has the public verifiers built once."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def record() -> ModuleType:
    """The classes that write a record: `tests/unit/audit/conftest.py`."""
    return load("fabricated_record", ROOT / "tests" / "unit" / "audit" / "conftest.py")


@pytest.fixture(scope="session")
def bent() -> ModuleType:
    """`BentLog`: `tests/unit/audit/bent.py`."""
    return load("bent_log", ROOT / "tests" / "unit" / "audit" / "bent.py")


Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def public_verifier() -> Iterator[Ask]:
    """Asks the Go project's `sumdb/tlog` and `sumdb/note`, which know nothing of AgentOS: `tlogcheck/main.go`."""
    with subprocess.Popen([_program()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def ask(op: str, **words: Any) -> dict[str, Any]:
            child.stdin.write(json.dumps({"op": op, **words}) + "\n")
            child.stdin.flush()
            return json.loads(child.stdout.readline())

        yield ask
        child.stdin.close()


def _program() -> Path:
    """The program, built once per version of its sources and kept in the user's cache, as the pinned `opa` is."""
    source = HERE / "tlogcheck"
    names = ("main.go", "go.mod", "go.sum")
    version = hashlib.sha256(b"\0".join((source / name).read_bytes() for name in names)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "agentos" / f"tlogcheck-{version}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            go = shutil.which("go") or load("opa_script", ROOT / "scripts" / "opa.py").toolchain(Path(scratch))
            environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
            made = Path(scratch) / "tlogcheck"
            subprocess.run([go, "build", "-trimpath", "-o", made, "."], cwd=source, env=environment, check=True)
            made.replace(target)
    return target
