"""The command `agentos`: registers the verbs, reads the root options, turns errors into one line and an exit code.

Exit codes: 0 fine or no change, 1 error, 2 changes or differences, 3 denied by policy, 4 conflict,
5 waiting for approval, 64 usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from agentos import __version__
from agentos.abi.errors import AgentOSError, Denied, ManifestError, UsageError
from agentos.cli.command import paint, say, settings

VERB_FILES = (
    "validate",
    "explain",
    "schema",
    "plan",
    "apply",
    "get",
    "delete",
    "history",
    "up",
    "doctor",
    "principal",
    "run",
    "sessions",
    "approvals",
    "audit",
    "evidence",
)
"""One file per verb group, in the order in which `agentos --help` lists them."""

app = typer.Typer(
    name="agentos",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="Declare agents, decide every tool call by policy, prove what happened.",
    epilog="Start with: agentos up --detach; agentos apply examples/01-hello; agentos run hello 'say hello'",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentos {__version__}")
        raise typer.Exit


@app.callback()
def root(
    home: Annotated[Path, typer.Option("--home", envvar="AGENTOS_HOME", help="the runtime's folder: state, keys, log")] = Path(
        "~/.agentos"
    ),
    server: Annotated[str | None, typer.Option("--server", envvar="AGENTOS_SERVER", help="NATS URL of a remote runtime")] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", envvar="AGENTOS_IDENTITY", help="identity file to act with")
    ] = None,
    principal: Annotated[
        str | None,
        typer.Option("--as", envvar="AGENTOS_PRINCIPAL", help="principal of this home to act as (default: operator)"),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", envvar="AGENTOS_TENANT", help="tenant to act on (default: your own)")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and leave")
    ] = False,
) -> None:
    settings.home = home.expanduser().absolute()
    settings.server = server
    settings.identity = identity.expanduser().absolute() if identity else None
    settings.principal = principal
    settings.tenant = tenant


for _file in VERB_FILES:
    import_module(f"agentos.cli.{_file}").register(app)


def print_error(error: AgentOSError) -> None:
    """An expected error: what, where, how to mend it."""
    where = f"{error.where}: " if error.where else ""
    say(f"{where}{paint('error', err=True, fg='red', bold=True)}[{error.code}] {error.message}")
    if isinstance(error, Denied):
        for rule, reason in zip(error.rules, error.reasons, strict=False):
            say(f"  {rule}: {reason}")
    if isinstance(error, ManifestError):
        for fault in error.faults:
            say(f"  {fault.get('text') or fault}")
    if error.mend:
        say(f"  mend: {error.mend}")


def print_usage(error: TyperException) -> None:
    """A command whose words are off: what is wrong, and where the help is. A command without words shows its help."""
    message = error.format_message()
    if message.startswith("Usage:"):
        say(message)
        return
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "agentos"
    say(f"{paint('error', err=True, fg='red', bold=True)}[usage] {message.replace('Value error, ', '')}")
    say(f"  mend: {command} --help")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code. Unexpected errors keep their traceback."""
    try:
        answer = app(args=arguments, prog_name="agentos", standalone_mode=False)
    except typer.Exit as leave:
        return leave.exit_code
    except TyperException as error:
        print_usage(error)
        return UsageError.exit_code
    except (typer.Abort, KeyboardInterrupt):
        say("interrupted")
        return 130
    except AgentOSError as error:
        print_error(error)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return answer if isinstance(answer, int) else 0


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
