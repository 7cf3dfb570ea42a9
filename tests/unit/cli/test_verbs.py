"""A verb is found by its name, and what the others need is not imported for it."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
import typer
from typer.main import get_group

from agentos.cli.main import VERB_FILES, VERBS


@pytest.mark.parametrize("file", VERB_FILES)
def test_a_file_brings_what_it_says(file: str) -> None:
    """A verb that is missing from the table could not be found."""
    app = typer.Typer()
    import_module(f"agentos.cli.{file}").register(app)
    assert set(get_group(app).commands) <= set(VERBS.brought_by(file))


@pytest.mark.parametrize("name", VERBS)
def test_what_a_file_says_it_brings_is_there(name: str) -> None:
    """Under its own name, as a verb or a group of verbs."""
    assert VERBS[name].name == name


def test_the_help_lists_verbs_before_groups() -> None:
    """In the order of the files, each once."""
    names = list(VERBS)
    groups = [name for name in names if hasattr(VERBS[name], "commands")]
    assert len(names) == len(set(names)) == len(VERBS)
    assert names[-len(groups) :] == groups


def test_an_unknown_verb_is_none() -> None:
    """Nothing is made up."""
    assert "aprovals" not in VERBS
    assert VERBS.get("aprovals") is None


@pytest.mark.parametrize(
    ("words", "not_needed"),
    [
        (("ps",), {"agentos.cli.audit", "agentos.cli.policy", "agentos.projections", "agentos.registry"}),
        (("status",), {"agentos.cli.sessions", "agentos.registry", "agentos.boot.runtime"}),
        (("down",), {"agentos.cli.sessions", "agentos.control", "nats"}),
        (("--version",), {"agentos.cli.up", "agentos.control", "agentos.policy", "nats"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_command_does_not_import(words: tuple[str, ...], not_needed: set[str], tmp_path: object) -> None:
    """Commands are typed all day long, and each import is waited for."""
    program = "import sys; from agentos.cli.main import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program, "--home", str(tmp_path), *words], capture_output=True, text=True, timeout=60, check=True
    )
    assert not_needed.isdisjoint(done.stderr.split())


def test_what_a_runtime_does_not_import() -> None:
    """Clients of servers that it may never talk to: 14 MB, and a third of its start."""
    program = """
import sys
from agentos.eventlog.adapters.nats_import import only_for
with only_for(""):
    import agentos.boot.runtime
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert {"aiohttp", "requests", "mcp", "anthropic", "httpx2"}.isdisjoint(done.stdout.split())
