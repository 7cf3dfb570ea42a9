"""The command `agentos`: registers the verbs, reads the root options, turns errors into one line and an exit code.

Exit codes: 0 fine or no change, 1 error, 2 changes or differences, 3 denied by policy, 4 conflict,
5 waiting for approval, 64 usage; as from any command, 130 interrupted and 141 the reader of the output has gone.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.exceptions import TyperException

from agentos import __version__
from agentos.abi.errors import AgentOSError, Denied, ManifestError, UsageError
from agentos.cli.command import paint, say, settings
from agentos.cli.render.text import because, plain
from agentos.cli.verb import Group, Verbs, examples

INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141

VERB_FILES = (
    "validate",
    "explain",
    "schema",
    "tool_import",
    "plan",
    "apply",
    "get",
    "delete",
    "history",
    "up",
    "doctor",
    "principal",
    "secret",
    "run",
    "sessions",
    "session",
    "files",
    "fs",
    "supervise",
    "replay",
    "fork",
    "trigger",
    "approvals",
    "locks",
    "freeze",
    "policy",
    "budget",
    "top",
    "sched",
    "audit",
    "evidence",
    "backup",
    "harness",
    "mcp",
)
"""One file per verb group, in the order in which `agentos --help` lists them."""

_BRINGS: Final = {
    "get": ("get", "describe"),
    "history": ("history", "rollback"),
    "up": ("up", "down", "status"),
    "sessions": ("ps", "logs", "wait", "cancel"),
    "supervise": ("start", "stop", "restart", "enable", "disable"),
    "files": ("session",),
    "replay": ("session",),
    "tool_import": ("tool",),
    "fork": ("session",),
    "freeze": ("freeze", "thaw"),
    "backup": ("backup", "restore"),
}
"""The verbs that a file brings, where it is not one of the file's own name."""

VERBS: Final = Verbs({file: _BRINGS.get(file, (file,)) for file in VERB_FILES})


class Root(Group):
    """The command itself. It knows its verbs by name and imports the one that is asked for."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.commands = VERBS  # type: ignore[assignment] # nobody adds to them


app = typer.Typer(
    name="agentos",
    cls=Root,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="Declare agents in YAML, decide every tool call by policy, prove what happened.\n\n"
    "The options below may stand before or after the verb. Every verb explains itself: agentos VERB --help.",
    epilog=examples(
        "agentos up --detach",
        "agentos apply examples/01-hello",
        "agentos run hello world --wait",
        "agentos audit query",
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentos {__version__}")
        raise typer.Exit


@app.callback()
def root(
    home: Annotated[
        Path, typer.Option("--home", envvar="AGENTOS_HOME", metavar="DIR", help="the runtime's folder: state, keys, log")
    ] = Path("~/.agentos"),
    server: Annotated[
        str | None, typer.Option("--server", envvar="AGENTOS_SERVER", metavar="URL", help="NATS URL of a remote runtime")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", envvar="AGENTOS_IDENTITY", metavar="FILE", help="identity file to act with")
    ] = None,
    principal: Annotated[
        str | None,
        typer.Option(
            "--as", envvar="AGENTOS_PRINCIPAL", metavar="NAME", help="principal of this home to act as (default: operator)"
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", "-t", envvar="AGENTOS_TENANT", metavar="NAME", help="tenant to act on (default: your own)"),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and leave")
    ] = False,
) -> None:
    given = {"home": home, "server": server, "identity": identity, "principal": principal, "tenant": tenant}
    for name, value in given.items():
        settings.choose(name, value)


def print_error(error: AgentOSError) -> None:
    """An expected error: what, where, how to mend it."""
    where = f"{plain(error.where)}: " if error.where else ""
    say(f"{where}{paint('error', err=True, fg='red', bold=True)}[{error.code}] {plain(error.message)}")
    if isinstance(error, Denied):
        for line in because(error.rules, error.reasons):
            say(f"  {plain(line)}")
    if isinstance(error, ManifestError):
        for fault in error.faults:
            text = str(fault.get("text") or fault)
            if text not in error.message:
                say(f"  {plain(text)}")
    if error.mend:
        say(f"  mend: {plain(error.mend)}")


def print_usage(error: TyperException) -> None:
    """A command whose words are off: what is wrong, and where the help is. A command without words shows its help."""
    message = error.format_message()
    if message.startswith("Usage:"):
        say(message)
        return
    context = getattr(error, "ctx", None)
    help_ = f"{context.command_path if context is not None else 'agentos'} --help"
    what, meant = words_of(message)
    say(f"{paint('error', err=True, fg='red', bold=True)}[usage] {what}")
    say(f"  mend: did you mean {meant}? see {help_}" if meant else f"  mend: see {help_}")


_MEANT: Final = re.compile(r"\.? (?:Did you mean|\(Possible options:) (?P<meant>[^)?]+)[)?]$")


def words_of(message: str) -> tuple[str, str]:
    """What the parser says, as the rest of the program says it (lower case, no full stop), and what was probably meant."""
    text = plain(message.replace("Value error, ", "").removeprefix("Invalid value: "))
    found = _MEANT.search(text)
    if found is not None:
        text = text[: found.start()]
    text = text.rstrip(".")
    return text[:1].lower() + text[1:], found["meant"].replace("'", "") if found else ""


def check_encoding(arguments: Sequence[str]) -> None:
    """Raises UsageError for an argument that is neither UTF-8 nor the name of something that exists."""
    for word in arguments:
        if not word.isascii() and any("\ud800" <= char <= "\udfff" for char in word) and not os.path.lexists(word):
            raise UsageError(f"{plain(word)} is not UTF-8", mend="check the locale: LC_ALL=C.UTF-8")


ALIASES: Final = {"help": "--help", "version": "--version"}
"""First words that many know from other commands."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code. Unexpected errors keep their traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] and words[0] in ALIASES:
        words = [*words[1:], ALIASES[words[0]]]
    try:
        check_encoding(words)
        answer = app(args=words, prog_name="agentos", standalone_mode=False)
    except typer.Exit as leave:
        return leave.exit_code
    except TyperException as error:
        print_usage(error)
        return UsageError.exit_code
    except (typer.Abort, KeyboardInterrupt):
        say("interrupted")
        return INTERRUPTED
    except AgentOSError as error:
        print_error(error)
        return error.exit_code
    return answer if isinstance(answer, int) else 0


def run() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character gets its escape, not a traceback.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has gone (`agentos ps | head -1`), which the parser turns into SystemExit when it sees it first:
        # end in silence, like any command that the signal ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = PIPE_CLOSED
    sys.exit(code)
