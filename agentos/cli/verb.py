"""The shape of a verb: its examples, one per line, and the root options, which may also stand after it.

`agentos --tenant acme get agents` and `agentos get agents --tenant acme` are the same command.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from agentos.cli.command import settings

ROOT_OPTIONS: Final = ("home", "server", "identity", "principal", "tenant")
"""Parameters of the root command that every verb takes too; each sets the attribute of that name in `settings`."""


def examples(*lines: str) -> str:
    """The end of a verb's help: commands that can be typed as they stand."""
    # \b tells the help formatter to leave the lines of a paragraph as they are.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


class Group(TyperGroup):
    """A command that holds verbs."""

    def get_help_option(self, ctx: Any) -> Any:
        """`--help`, in the words of this program."""
        return _worded(super().get_help_option(ctx))


class Verb(TyperCommand):
    """A command that takes the root options as well, without listing them again in its help."""

    def get_help_option(self, ctx: Any) -> Any:
        """`--help`, in the words of this program."""
        return _worded(super().get_help_option(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS] KIND [NAME]...`: what must be given plain, what may be left out in brackets."""
        return ["[OPTIONS]", *(_piece(param) for param in self.params if param.param_type_name == "argument")]

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own parameters, then those root options whose names it does not use itself."""
        own = super().get_params(ctx)
        taken = {option for param in own for option in param.opts}
        shared = [param for param in ctx.find_root().command.params if param.name in ROOT_OPTIONS]
        return [*own, *(_behind(param) for param in shared if not taken & set(param.opts))]


def _piece(argument: Any) -> str:
    word = (argument.metavar or argument.name.upper()).strip("[].")
    return f"{word if argument.required else f'[{word}]'}{'' if argument.nargs == 1 else '...'}"


def _worded(option: Any) -> Any:
    if option is not None:
        option.help = "show this and leave"
    return option


def _behind(param: Any) -> Any:
    """A root option as it stands behind a verb: absent unless written there, and then it wins."""
    twin = copy.copy(param)
    twin.name, twin.default, twin.envvar = f"root_{param.name}", None, None
    twin.hidden, twin.expose_value, twin.required = True, False, False

    def keep(_: typer.Context, __: object, value: Any) -> None:
        if value is not None:
            settings.choose(param.name, value)

    twin.callback = keep
    return twin


def shape(app: typer.Typer) -> None:
    """Make every verb of `app` and of its groups a `Verb`, and each of them a `Group`."""
    app.info.cls = Group
    for command in app.registered_commands:
        command.cls = Verb
    for group in app.registered_groups:
        if group.typer_instance is not None:
            shape(group.typer_instance)
