"""`agentos delete`: take resources out of the desired state, as one revision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import ManifestError, UsageError
from agentos.cli.apply import DESTROY, DRY_RUN, FORM, REASON, WIDEN, YES, settle
from agentos.cli.get import key_of
from agentos.cli.plan import Form, ask_plan, show_plan
from agentos.cli.verb import examples
from agentos.registry.plan import Plan


def register(app: typer.Typer) -> None:
    """Add the verb `delete`."""
    app.command(
        "delete",
        help="Delete resources, as one revision. Refused while another resource names one of them.",
        epilog=examples(
            "agentos delete toolgrant hello-writes --yes --allow-destroy --reason 'hello is retired'",
            "agentos delete agent/hello toolgrant/hello-writes",
        ),
    )(_delete)


def _delete(
    words: Annotated[list[str], typer.Argument(metavar="KIND NAME", help="a kind and names of it, or KIND/NAME for each")],
    yes: YES = False,
    allow_destroy: DESTROY = False,
    allow_widen: WIDEN = False,
    dry_run: DRY_RUN = False,
    reason: REASON = "",
    output: FORM = Form.TEXT,
) -> int:
    keys: list[Json] = list(keys_of(words))
    answer = _ask(keys)
    plan = Plan.from_dict(answer["plan"])
    show_plan(plan, answer, form=output)
    params: dict[str, Json] = {"keys": keys, "reason": reason, "expect": plan.digest}
    allowed = {"allow_destroy": allow_destroy, "allow_widen": allow_widen}
    return settle("registry.delete", params, plan, answer, allowed, yes=yes, dry_run=dry_run, form=output)


def keys_of(words: Sequence[str]) -> list[str]:
    """The keys that `agent a b` or `agent/a toolgrant/b` name. Raises UsageError when it is neither."""
    if all("/" in word for word in words):
        return [key_of(*word.split("/", 1)) for word in words]
    kind, *names = words
    if not names or any("/" in word for word in words):
        raise UsageError("say what to delete", mend="write KIND NAME... (agent hello) or KIND/NAME... (agent/hello tool/read)")
    return [key_of(kind, name) for name in names]


def _ask(keys: list[Json]) -> dict[str, Json]:
    """The plan; where something left over names what would go, the way out is to delete both."""
    try:
        return ask_plan({"delete": keys})
    except ManifestError as error:
        naming = {f"{str(fault['kind']).lower()}/{fault['name']}" for fault in error.faults if fault.get("kind")}
        if not naming:
            raise
        raise ManifestError(
            f"still named by {', '.join(sorted(naming))}; nothing was changed",
            mend=f"change what names it first, or delete both: agentos delete {' '.join([*map(str, keys), *sorted(naming)])}",
        ) from error
