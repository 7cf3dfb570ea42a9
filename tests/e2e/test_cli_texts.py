"""What the command says of itself: every verb has a help with examples and stands in the README; wrong words end with 64."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from e2e_runtime import AGENTOS, ROOT, Cli
from syrupy.assertion import SnapshotAssertion
from typer.main import get_command

from agentos.cli.main import app

README = ROOT / "README.md"
PROPER = {"Rego"}
"""Words that keep their capital at the beginning of a help."""


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every group and verb below `command` with the words that call it."""
    for name, inner in getattr(command, "commands", {}).items():
        yield (*words, name), inner
        yield from walk(inner, (*words, name))


ROOT_COMMAND = get_command(app)
COMMANDS = dict(walk(ROOT_COMMAND))
VERBS = {words: command for words, command in COMMANDS.items() if not hasattr(command, "commands")}


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The console script on a home that does not exist."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("AGENTOS_")}
    home = str(ROOT / "no-such-home")
    return subprocess.run(
        [AGENTOS, *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env={**env, "AGENTOS_HOME": home, "COLUMNS": "80", **environment},
        timeout=60,
        check=False,
    )


def test_the_help_of_the_root(snapshot: SnapshotAssertion) -> None:
    """What a newcomer reads first."""
    assert run("--help").stdout == snapshot


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_verb_explains_itself(words: tuple[str, ...]) -> None:
    """A summary of one line that fits beside the name, a capital first, and examples that call this very verb."""
    command = COMMANDS[words]
    summary = command.get_short_help_str(200)
    assert summary[:1].isupper()
    assert summary.endswith(".")
    assert "\b\nExamples:\n  agentos " in command.epilog
    calls = re.findall(r"^  .*agentos (.+)$", command.epilog, flags=re.MULTILINE)
    assert any(call.startswith(" ".join(words)) for call in calls)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_parameter_is_described(words: tuple[str, ...]) -> None:
    """Each option and argument has a help that begins in lower case and is no sentence; arguments are named in capitals."""
    for param in VERBS[words].params:
        assert param.help, param.name
        assert not param.help[0].isupper() or param.help.split()[0] in PROPER or param.help.split()[0].isupper(), param.help
        assert not param.help.endswith("."), param.help
        if param.param_type_name == "argument":
            assert param.metavar == param.metavar.upper()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_verb_stands_in_the_readme(words: tuple[str, ...]) -> None:
    """The table of verbs is complete."""
    assert f"`{' '.join(words)}" in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("option", ["--output", "--reason", "--yes", "--limit", "--allow-widen", "--allow-destroy", "--dry-run"])
def test_options_are_spelled_alike(option: str) -> None:
    """An option has the same short form wherever it stands."""
    spellings = {
        tuple(sorted({*param.opts} - {"--out"})) for command in VERBS.values() for param in command.params if option in param.opts
    }
    assert len(spellings) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("aprovals",), "did you mean approvals?"),
        (("approvals", "lst"), "did you mean list?"),
        (("ps", "--limt", "3"), "did you mean --limit?"),
        (("ps", "-o", "jsn"), "is not one of"),
        (("status", "-o", "name"), "is not one of"),
        (("get",), "missing argument 'KIND'"),
        (("get", "agnet"), "did you mean agent?"),
        (("get", "agent/a", "tool"), "a name already says"),
        (("describe", "agent"), "say which resource"),
        (("delete", "agent"), "say what to delete"),
        (("run", "hello"), "missing argument 'GOAL'"),
        (("up", "--nats", "nats://127.0.0.1:1"), "go together"),
        (("up", "--port", "many"), "invalid value for '--port'"),
        (("rollback", "--to", "-1"), "invalid value for '--to'"),
        (("history", "-n", "0"), "invalid value for '--limit'"),
        (("logs", "s-x", "-f", "-o", "json"), "--follow prints lines"),
        (("evidence", "verify", "pack.zip"), "--trust is missing"),
        (("principal", "create", "ann"), "missing option '--role'"),
        (("explain", "agent.spec.bugdet"), "did you mean budget?"),
        (("schema", "export"), "all schemas do not fit"),
        (("plan",), "nothing to read"),
        (("apply",), "nothing to read"),
        (("validate",), "nothing to read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_words(words: tuple[str, ...], said: str) -> None:
    """Exit code 64, one line that says what and one that says how to mend it, on standard error; in our own manner."""
    done = run(*words)
    assert done.returncode == 64, done.stderr
    assert done.stdout == ""
    assert said in done.stderr
    first, mend, *rest = done.stderr.splitlines()
    assert first.startswith("error[usage] ")
    assert not first.split()[1][0].isupper() or first.split()[1].startswith("Agent.")
    assert not first.endswith(".")
    assert mend.startswith("  mend: ")
    assert rest == []


@pytest.mark.parametrize("words", [(), ("approvals",), ("audit",)], ids=["root", "approvals", "audit"])
def test_no_words(words: tuple[str, ...]) -> None:
    """A command that needs a verb shows its help, on standard error, with exit code 64."""
    done = run(*words)
    assert (done.returncode, done.stdout) == (64, "")
    assert "Commands:" in done.stderr


def test_words_known_from_elsewhere() -> None:
    """`agentos help ps` and `agentos version` do what they do elsewhere."""
    assert run("help", "ps").stdout == run("ps", "--help").stdout
    assert run("version").stdout == run("--version").stdout


def test_a_reader_that_goes_away() -> None:
    """`agentos explain | head -1` ends in silence with the code of every command that a closed pipe ends."""
    child = subprocess.Popen([AGENTOS, "explain", "agent"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read() == b""
    assert child.wait(timeout=30) == 141


def test_bytes_that_are_no_text() -> None:
    """An argument that is not UTF-8 is an error of usage, and what is shown of it cannot drive the terminal."""
    done = subprocess.run([os.fsencode(AGENTOS), b"run", b"hello", b"\xff\x1b[31m"], capture_output=True, timeout=30, check=False)
    assert done.returncode == 64
    assert b"is not UTF-8" in done.stderr
    assert b"\x1b" not in done.stderr


def test_nothing_that_is_typed_drives_the_terminal(up: Cli) -> None:
    """Control characters in names, goals and paths come back escaped, in tables, errors and JSON."""
    hostile = "\x1b[31mred\x9b31m\u202e"
    up("apply", "examples/01-hello", "--yes", "--allow-widen")
    up("run", "hello", hostile, "--wait")
    for words in (
        ("get", "agent", hostile),
        ("get", hostile),
        ("--tenant", hostile, "ps"),
        ("--as", hostile, "ps"),
        ("logs", hostile),
        ("cancel", hostile),
        ("plan", hostile),
        ("ps", "--all", "-o", "wide"),
        ("ps", "--all", "-o", "json"),
        ("ps", "--all", "-o", "yaml"),
        ("audit", "query", "-o", "json"),
        ("audit", "query", "-o", "csv"),
    ):
        done = up(*words, expect=None)
        text = (done.out + done.err).replace("\n", "")
        assert text
        assert not set(text) & set("\x1b\x9b\u202e"), words


def test_root_options_stand_before_or_behind_the_verb(up: Cli) -> None:
    """`--tenant`, `--as` and `--home` mean the same in both places."""
    up("principal", "create", "ann", "--role", "approver")
    assert up("--as", "ann", "status", "-o", "json").json["principal"] == "ann"
    assert up("status", "-o", "json", "--as", "ann").json["principal"] == "ann"
    assert "no tenant acme" in up("ps", "-t", "acme", expect=1).err
    assert "belongs to tenant default" in up("plan", "examples/01-hello", "-t", "acme", expect=64).err
    assert "no runtime runs" in up("ps", "--home", str(up.home / "other"), expect=1).err


def test_empty_lists_say_so_beside_the_data(up: Cli) -> None:
    """Where there is nothing, a table is a line on standard error, and JSON is an empty list."""
    for words in (
        ("ps",),
        ("ps", "--all"),
        ("get", "agents"),
        ("get", "all"),
        ("history",),
        ("approvals", "list"),
        ("audit", "query"),
    ):
        done = up(*words)
        assert (done.out, len(done.err.splitlines())) == ("", 1), words
        assert up(*words, "-o", "json").json == []


def test_the_module_is_the_command() -> None:
    """`python -m agentos.cli` is `agentos`."""
    done = subprocess.run(
        [sys.executable, "-m", "agentos.cli", "--version"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.startswith("agentos ")
