"""`agentos freeze` and `agentos thaw`: the kill switch of an agent, a program, a tenant or the fleet."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.cli.command import Facts, call, emit_table, say, show
from agentos.cli.render.text import clock, plain
from agentos.cli.verb import Group, examples, with_root_options

EXAMPLES = examples(
    "agentos freeze --agent triage --reason 'it mails the wrong people'",
    "agentos freeze --tenant-wide --reason 'incident 12'",
    "agentos freeze list",
)

Shape = Annotated[Facts, typer.Option("--output", "-o", help="how to print")]


class Freezes(Group):
    """A group that is a verb by itself as well, and so takes the root options."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own parameters, and the root options."""
        return with_root_options(super().get_params(ctx), ctx)


group = typer.Typer(rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="freeze")
    app.command(
        "thaw",
        epilog=examples("agentos thaw FREEZE --reason 'the rule is mended'", "agentos thaw --all --reason 'incident 12 is over'"),
    )(thaw)


@group.callback(cls=Freezes, invoke_without_command=True, epilog=EXAMPLES)
def freeze(
    context: typer.Context,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="NAME", help="every session of this agent, and on its behalf")
    ] = None,
    program: Annotated[str | None, typer.Option("--program", metavar="NAME", help="every agent of this program")] = None,
    tenant_wide: Annotated[bool, typer.Option("--tenant-wide", help="the whole tenant")] = False,
    fleet: Annotated[bool, typer.Option("--fleet", help="every tenant")] = False,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="why; stands in the audit chain beside your name")
    ] = None,
    output: Shape = Facts.TABLE,
) -> None:
    """Freeze an agent, a program, the tenant or the fleet: nothing of it decides or acts any more, until somebody thaws it.

    It is in force within moments and asks nothing first. Sessions are not denied anything: they park where they are, also over a
    restart, and go on by themselves afterwards. What a tool or a model had already been asked for is not called back.
    """
    if context.invoked_subcommand is not None:
        return
    wide: list[dict[str, Json]] = [{"kind": "tenant"}] * tenant_wide + [{"kind": "fleet"}] * fleet
    scopes = [{"kind": kind, "name": name} for kind, name in (("agent", agent), ("program", program)) if name is not None] + wide
    if len(scopes) != 1:
        raise UsageError("say what to freeze: --agent, --program, --tenant-wide or --fleet", mend="see agentos freeze --help")
    if not reason:
        raise UsageError("say why: --reason", mend="it stands in the audit chain beside your name")
    made = call("freeze.set", {"scope": scopes[0], "reason": reason})

    def told() -> None:
        times = f"in force after {_ms(made['in_force_us'])}, recorded after {_ms(made['durable_us'])}"
        say(f"{_scope(made['scope'])} is frozen: {times}")
        say(f"next: agentos thaw {made['freeze']} --reason '…'")

    show(made, output, told)


@group.command("list", epilog=examples("agentos freeze list", "agentos freeze list -o json"))
def list_(output: Shape = Facts.TABLE) -> None:
    """List what is frozen, oldest first."""
    found = call("freeze.list", {})
    rows = [[one["freeze"], _scope(one["scope"]), plain(one["reason"]), one["by"], clock(one["since"])] for one in found]
    show(
        found,
        output,
        lambda: emit_table(["freeze", "of", "reason", "by", "since"], rows, shrink=["reason"], empty="nothing is frozen"),
    )


def thaw(
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the audit chain beside your name")],
    freeze: Annotated[
        str | None, typer.Argument(metavar="[FREEZE]", help="the freeze, as `agentos freeze list` names it")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="all that hold something of the tenant")] = False,
    output: Shape = Facts.TABLE,
) -> None:
    """Take a freeze back: what nothing else holds goes on by itself."""
    if (freeze is None) != every:
        raise UsageError("name one freeze, or say --all", mend="list them: agentos freeze list")
    params: dict[str, Json] = {"all": True} if every else {"freeze": freeze}
    lifted = call("freeze.lift", {**params, "reason": reason})

    def told() -> None:
        for one in lifted:
            say(f"{_scope(one['scope'])} is not frozen by {one['freeze']} any more")
        if not lifted:
            say("nothing was frozen")

    show(lifted, output, told)


def _scope(scope: Json) -> str:
    return f"{scope['kind']} {plain(scope['name'])}" if "name" in scope else f"the {scope['kind']}"


def _ms(microseconds: int) -> str:
    return f"{microseconds / 1000:.1f} ms"
