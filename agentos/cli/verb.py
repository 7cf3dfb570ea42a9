"""The shape of a verb: its examples, one per line, and the root options, which may also stand after it; and where it is found.

`agentos --tenant acme get agents` and `agentos get agents --tenant acme` are the same command.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

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
        return with_root_options(super().get_params(ctx), ctx)


def with_root_options(own: list[Any], ctx: Any) -> list[Any]:
    """A command's `own` parameters, then those root options whose names it does not use itself."""
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


class Verbs(Mapping[str, Any]):
    """Commands by name, in the order of the help. Only the files that bring a verb are imported when it is asked for.

    Building a verb costs milliseconds for each of its parameters, and what a file imports comes on top: nobody who types one
    verb waits for all. `files` are modules of this package with the names of the verbs that they bring; several may share a
    verb, which is then a group.
    """

    def __init__(self, files: Mapping[str, tuple[str, ...]]) -> None:
        self._files = files
        self._made: dict[tuple[str, ...], Mapping[str, Any]] = {}

    def brought_by(self, file: str) -> tuple[str, ...]:
        """The names of the verbs that `file` brings."""
        return self._files[file]

    def __getitem__(self, name: str) -> Any:
        files = tuple(file for file, names in self._files.items() if name in names)
        if files not in self._made:
            app = typer.Typer(rich_markup_mode=None)
            for file in files:
                import_module(f"agentos.cli.{file}").register(app)
            shape(app)
            self._made[files] = get_group(app).commands
        return self._made[files][name]

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys(name for names in self._files.values() for name in names)
        return iter(sorted(names, key=lambda name: isinstance(self[name], TyperGroup)))

    def __len__(self) -> int:
        return len({name for names in self._files.values() for name in names})
