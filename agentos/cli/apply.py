"""`agentos apply`: show the plan, ask, and make it so as one revision.

What is shown is what happens: the plan itself is sent back, and refused if the registry moved meanwhile. `--yes` answers the
question and nothing more: deleting takes `--allow-destroy`, widening permission `--allow-widen`. A typed yes at a terminal covers
both, as the plan that it answers lists them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Denied, UsageError
from agentos.cli.command import call, confirm, emit, emit_json, interactive, say
from agentos.cli.declared import Declared, read_declarations
from agentos.cli.plan import FILES, PATHS, PRUNE, Form, ask_plan, loud_flags, place_of, show_plan
from agentos.cli.verb import examples
from agentos.registry.plan import Plan

YES = Annotated[bool, typer.Option("--yes", "-y", help="do not ask; never covers deleting or widening permission")]
DESTROY = Annotated[bool, typer.Option("--allow-destroy", help="allow the plan to delete resources")]
WIDEN = Annotated[bool, typer.Option("--allow-widen", help="allow the plan to give more permission")]
DRY_RUN = Annotated[bool, typer.Option("--dry-run", help="do everything, policy included, but store nothing")]
REASON = Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; kept in the history")]
FORM = Annotated[Form, typer.Option("--output", "-o", help="how to print; json: what was done, the plan aside")]


def register(app: typer.Typer) -> None:
    """Add the verb `apply`."""
    app.command(
        "apply",
        help="Show the plan, ask, and apply it: one revision, all or nothing.",
        epilog=examples(
            "agentos apply examples/01-hello",
            "agentos apply examples/01-hello --yes --allow-widen --reason 'first steps'",
            "agentos apply -f - < agents.yaml",
            "agentos apply --plan triage.plan",
        ),
    )(_apply)


def _apply(
    paths: PATHS = None,
    files: FILES = None,
    plan_file: Annotated[Path | None, typer.Option("--plan", metavar="FILE", help="apply a plan saved by plan -o FILE")] = None,
    yes: YES = False,
    allow_destroy: DESTROY = False,
    allow_widen: WIDEN = False,
    dry_run: DRY_RUN = False,
    prune: PRUNE = None,
    reason: REASON = "",
    output: FORM = Form.TEXT,
) -> int:
    paths = [*(paths or []), *(files or [])]
    if plan_file is not None:
        if paths or prune:
            raise UsageError("a saved plan already says what to apply", mend="give either PATH... or --plan FILE")
        plan, declared = load_plan(plan_file), None
        answer = ask_plan({"plan": plan.to_dict()})
    else:
        declared = read_declarations(paths)
        answer = ask_plan({"manifests": declared.manifests, **({"prune": prune} if prune else {})})
        plan = Plan.from_dict(answer["plan"])
    show_plan(plan, answer, declared, form=output)
    if not plan.changes:
        return unchanged(plan, output)
    params: dict[str, Json] = {"plan": plan.to_dict(), "reason": reason}
    allowed = {"allow_destroy": allow_destroy, "allow_widen": allow_widen}
    return settle("registry.apply", params, plan, answer, allowed, yes=yes, dry_run=dry_run, declared=declared, form=output)


def settle(
    verb: str,
    params: dict[str, Json],
    plan: Plan,
    answer: Mapping[str, Json],
    allowed: Mapping[str, bool],
    *,
    yes: bool,
    dry_run: bool,
    declared: Declared | None = None,
    form: Form = Form.TEXT,
) -> int:
    """Ask if need be, send the command for the plan that was shown, say what came of it. Returns the exit code."""
    missing = [word for word in answer["needs"] if not allowed[word]]
    words = dict(allowed)
    if not dry_run:
        if yes or not interactive():
            _require(yes, missing)
        elif confirm(_question(plan)):
            words = dict.fromkeys(allowed, True)
        else:
            say("nothing was changed")
            return 1
    done = send(verb, {**params, **words, "dry_run": dry_run}, plan, declared)
    if form is Form.JSON:
        emit_json(done)
    if dry_run:
        say("dry run: every check passed, nothing was changed")
        return 0
    number, counts = done["revision"]["revision"], done["counts"]
    if form is not Form.JSON:
        emit(f"revision {number} applied: {counts['create']} created, {counts['update']} changed, {counts['delete']} deleted")
        say(f"next: agentos history; to undo: agentos rollback --to {plan.base_revision}")
    return 0


def unchanged(plan: Plan, form: Form) -> int:
    """Nothing to do, told to programs as well. Returns the exit code."""
    if form is Form.JSON:
        emit_json({"revision": None, "counts": dict(plan.counts())})
    return 0


def load_plan(file: Path) -> Plan:
    """A saved plan. Raises AgentOSError when it cannot be read, UsageError when it is no plan or was altered."""
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise AgentOSError(f"the plan cannot be read: {error.strerror}", where=str(file)) from error
    except ValueError as error:
        raise UsageError("is not a saved plan: it is not JSON", where=str(file), mend="agentos plan PATH -o FILE") from error
    return Plan.from_dict(body)


def send(verb: str, params: dict[str, Json], plan: Plan, declared: Declared | None) -> dict[str, Json]:
    """Call `verb`; a refusal by policy is told with the place of the declaration that it speaks of."""
    try:
        answer: dict[str, Json] = call(verb, params)
    except Denied as error:
        reasons: Sequence[str] = [f"{place_of(reason, plan, declared)}{reason}" for reason in error.reasons]
        raise Denied(error.message, rules=error.rules, reasons=reasons, where=error.where, mend=error.mend) from error
    return answer


def _require(yes: bool, missing: Sequence[str]) -> None:
    """Nobody is asked: every word must be there."""
    flags = " ".join([*([] if yes else ["--yes"]), *loud_flags(missing)])
    if missing:
        what = " and ".join(_NEEDS[word] for word in missing)
        covered = ", and --yes does not cover that" if yes else ""
        raise UsageError(f"the plan {what}{covered}; nothing was changed", mend=f"read the plan above, then add {flags}")
    if not yes:
        raise UsageError("nobody can be asked here, so nothing was changed", mend=f"read the plan above, then add {flags}")


_NEEDS = {"allow_destroy": "deletes resources", "allow_widen": "widens permission"}


def _question(plan: Plan) -> str:
    dangers = []
    if plan.destroys:
        dangers.append(f"delete {len(plan.destroys)}")
    if plan.widens:
        dangers.append("widen permission as listed")
    return f"Apply this plan ({' and '.join(dangers)})?" if dangers else "Apply this plan?"
