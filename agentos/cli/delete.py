"""`agentos delete`: take one resource out of the desired state, as a revision."""

from __future__ import annotations

from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.cli.apply import DESTROY, DRY_RUN, REASON, WIDEN, YES, settle
from agentos.cli.get import KIND, key_of
from agentos.cli.plan import ask_plan, show_plan
from agentos.registry.plan import Plan


def register(app: typer.Typer) -> None:
    """Add the verb `delete`."""
    app.command(
        "delete",
        help="Delete a resource from the desired state. Refused while another resource names it.",
        epilog="Example: agentos delete toolgrant triage-read --yes --allow-destroy --reason 'triage is retired'",
    )(_delete)


def _delete(
    kind: KIND,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="one or more resources of that kind")],
    yes: YES = False,
    allow_destroy: DESTROY = False,
    allow_widen: WIDEN = False,
    dry_run: DRY_RUN = False,
    reason: REASON = "",
) -> int:
    keys: list[Json] = [key_of(kind, name) for name in names]
    answer = ask_plan({"delete": keys})
    plan = Plan.from_dict(answer["plan"])
    show_plan(plan, answer)
    params: dict[str, Json] = {"keys": keys, "reason": reason, "expect": plan.digest}
    allowed = {"allow_destroy": allow_destroy, "allow_widen": allow_widen}
    return settle("registry.delete", params, plan, answer, allowed, yes=yes, dry_run=dry_run)
