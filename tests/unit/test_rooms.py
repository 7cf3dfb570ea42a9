"""The house itself: rooms say what they are for, the map shows them all, and the kernel reaches for nothing it is not handed."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "agentos"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py") if not path.parent.name.startswith("_"))
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_assets" not in path.parts)
MAX_LINES = 450


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_tells_its_story(path: Path) -> None:
    """A docstring that is a sentence and not the module's own name, and no more lines than one concept needs."""
    told = ast.get_docstring(tree(path)) or ""
    assert len(told.split()) >= (1 if path.name == "__init__.py" and "adapters" in path.parts else 3), "no story"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, "look for the second concept"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_shows_what_it_means_to_show(room: str) -> None:
    """`__all__` is sorted (by name, or constants first) and is exactly what the `__init__` makes public."""
    body = tree(PACKAGE / room / "__init__.py").body
    public = {
        alias.asname or alias.name
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    public |= {alias.asname or alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    public |= {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    public |= {
        target.id for node in body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)
    }
    public = {one for one in public if not one.startswith("_")}
    module = importlib.import_module(f"agentos.{room}")
    declared = list(getattr(module, "__all__", ()))
    assert declared in (sorted(set(declared)), sorted(set(declared), key=lambda one: (not one.isupper(), one[0].islower(), one)))
    assert set(declared) == public
    assert all(hasattr(module, one) for one in declared)


def test_the_map_lists_exactly_the_rooms() -> None:
    """The table of ARCHITECTURE.md, the layers of the import linter and the folders name the same rooms, in one order."""
    import tomllib

    rows = re.findall(r"^\| `agentos/(\w+)/` \|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == ROOMS
    assert len(rows) == len(set(rows))
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert [one.strip() for layer in layers for one in layer.split("|")] == rows


FORBIDDEN = {"time", "random", "uuid", "secrets", "subprocess", "multiprocessing", "socket", "datetime"}
KERNEL = [path for path in MODULES if path.parent.name in {"kernel", "supervisor"}]


def imported(path: Path) -> set[str]:
    """The top names of all that a module imports, late imports included."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module.partition(".")[0])
    return found


def called(path: Path) -> set[str]:
    """The dotted names of all that a module calls: `asyncio.sleep`."""
    return {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", KERNEL, ids=name)
def test_the_kernel_has_no_clock_chance_or_process_of_its_own(path: Path) -> None:
    """Time, randomness and processes are handed in, so that a test jumps the clock and repeats a run exactly."""
    assert not imported(path) & FORBIDDEN
    assert not {one for one in called(path) if one in {"asyncio.sleep", "os.urandom", "os.system", "os.fork", "sleep"}}
    assert not {one for one in called(path) if one.startswith("asyncio.create_subprocess")}


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent.name == "abi"], ids=name)
def test_the_nouns_need_the_standard_library_only(path: Path) -> None:
    """Whoever reads the log or speaks the ABI needs nothing else installed."""
    assert imported(path) <= set(sys.stdlib_module_names) | {"agentos"}
    inner = {
        node.module
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agentos")
    }
    assert all(module.startswith("agentos.abi") for module in inner if module)


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in {"boot", "cli"}])
def test_a_room_opens_without_vendors(room: str) -> None:
    """Importing a room loads no client of a server, no engine and no provider's SDK: those wait in adapters."""
    vendors = ("nats", "opa_bindings", "mcp", "anthropic", "jinja2")
    code = f"import sys, agentos.{room}; print(*[one for one in {vendors!r} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
