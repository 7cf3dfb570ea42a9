"""`agentos policy`: check, test and evaluate Rego; what is in force, why a decision was made, what other rules would do."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.canonical import Json
from agentos.cli.command import Facts, call, emit, emit_json, emit_table, emit_yaml, paint, say
from agentos.cli.rego import by_target, read_modules
from agentos.cli.render.text import count
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.policy.finding import Finding
    from agentos.policy.port import Module
    from agentos.policy.testing import TestRun

group = typer.Typer(
    no_args_is_help=True,
    help="Check, test and explain policy; try it on history.",
    epilog=examples("agentos policy check policies", "agentos policy why s-0k3v9…", "agentos policy backtest stricter/"),
    rich_markup_mode=None,
)

PATHS = Annotated[list[Path], typer.Argument(metavar="PATH...", help="Rego files, and folders of them")]


class Runner(StrEnum):
    """What runs the tests."""

    IN_PROCESS = "in-process"
    OPA = "opa"


class Form(StrEnum):
    """How results of tests are printed."""

    TABLE = "table"
    JSON = "json"
    JUNIT = "junit"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    from agentos.cli import backtest, bundle, why

    why.register(group)
    backtest.register(group)
    bundle.register(group)
    app.add_typer(group, name="policy")


@group.command(
    epilog=examples("agentos policy check policies", "agentos policy check stricter/ -o json"),
)
def check(
    paths: PATHS,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> int:
    """Check Rego as apply does.

    Syntax, types, known paths, METADATA, rule ids, results. The pinned `opa` checks as well, where it is at hand.
    Exit code 1: findings.
    """
    from agentos.cli.opa import opa_check
    from agentos.cli.render.rego_text import findings_text

    modules = read_modules(paths)
    strict = opa_check(modules)
    own = _lint(modules)
    # Where both speak of one line, ours says more.
    told = {(one.path, one.line) for one in own}
    found = sorted({*own, *(one for one in strict.complaints if (one.path, one.line) not in told)})
    if output is Facts.JSON:
        emit_json([one.to_dict() for one in found])
    elif output is Facts.YAML:
        emit_yaml([one.to_dict() for one in found])
    else:
        for line in findings_text(found, {module.path: module.source for module in modules}, _paint):
            emit(line)
    say(f"{count(len(modules), 'module')}: {count(len(found), 'finding')}; {strict.ran}")
    return 1 if found else 0


def _lint(modules: tuple[Module, ...]) -> list[Finding]:
    from agentos.policy.lint import lint, lint_tenant

    groups = by_target(modules)
    shipped = [one for (target, own), group in groups.items() if own for one in lint(group, target=target, shipped=True)]
    return [*shipped, *lint_tenant({target: group for (target, own), group in groups.items() if not own})]


def _paint(text: str, style: str) -> str:
    return paint(text, bold=True) if style == "bold" else paint(text, fg=style)


@group.command(
    "test",
    epilog=examples(
        "agentos policy test policies",
        "agentos policy test policies --coverage --fail-under 90",
        "agentos policy test policies examples -o junit > report.xml",
    ),
)
def run_tests(
    paths: PATHS,
    output: Annotated[Form, typer.Option("--output", "-o", help="how to print")] = Form.TABLE,
    covered: Annotated[bool, typer.Option("--coverage", help="tell which rules and lines the tests reach")] = False,
    fail_under: Annotated[
        float | None,
        typer.Option("--fail-under", metavar="PERCENT", min=0, max=100, help="exit code 1 if fewer lines are covered"),
    ] = None,
    engine: Annotated[Runner, typer.Option("--engine", help="our runner, or the pinned `opa test`")] = Runner.IN_PROCESS,
) -> int:
    """Run the tests of Rego.

    Every rule named `test_…`, on OPA in the process or with the pinned `opa` program.
    Exit code 1: a test failed, there was none, or too little is covered.
    """
    run = _run(read_modules(paths), engine, covered or fail_under is not None)
    match output:
        case Form.JSON:
            emit_json(_as_json(run))
        case Form.JUNIT:
            from agentos.policy.junit import junit

            emit(junit(run.results))
        case Form.TABLE:
            from agentos.cli.render.rego_text import coverage_text, failures_text

            for line in (*failures_text(run.results, _paint), *(coverage_text(run.coverage, _paint) if run.coverage else ())):
                emit(line)
    return _told(run, covered or fail_under is not None, fail_under)


def _run(modules: tuple[Module, ...], engine: Runner, covered: bool) -> TestRun:
    if engine is Runner.OPA:
        from agentos.cli.opa import opa_test

        return opa_test(modules, covered=covered)
    from agentos.policy.testing import run_tests as in_process

    return in_process(modules, covered=covered)


def _as_json(run: TestRun) -> Json:
    results = [one.to_dict() for one in run.results]
    return {"results": results, "coverage": run.coverage.to_dict()} if run.coverage else results


def _told(run: TestRun, asked: bool, fail_under: float | None) -> int:
    """The summary on standard error, and the exit code."""
    from agentos.cli.render.rego_text import coverage_line

    passed = sum(one.passed for one in run.results)
    skipped = len(run.results) - passed - run.failed
    say(f"{count(len(run.results), 'test')}: {passed} passed, {run.failed} failed" + (f", {skipped} skipped" if skipped else ""))
    low = False
    if run.coverage is None and asked:
        say("coverage: none is told where a test fails")
    if run.coverage is not None:
        low = fail_under is not None and run.coverage.percent < fail_under
        say(coverage_line(run.coverage) + (f"; {fail_under:g} % were asked for" if low else ""))
    return 1 if run.failed or not passed or low else 0


@group.command(epilog=examples("agentos policy status", "agentos policy status -o json"))
def status(
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """What decides for the tenant now.

    Engine, revision, digest, modules, and how the decision cache fares.
    """
    facts = call("policy.status", {})
    if output is Facts.JSON:
        emit_json(facts)
    elif output is Facts.YAML:
        emit_yaml(facts)
    else:
        cache = facts["cache"]
        asked = cache["hits"] + cache["misses"]
        rows = [
            ("tenant", facts["tenant"]),
            ("engine", facts["engine"]),
            ("revision", facts["revision"]),
            ("digest", facts["digest"]),
            ("modules", len(facts["modules"])),
            ("cache", f"{cache['hits']} of {asked} answered ({100 * cache['hits'] // asked} %)" if asked else "not asked yet"),
            *((f"policy {one['name']}", f"{one['target']}, {one['mode']}") for one in facts["policies"]),
        ]
        emit_table(("what", "value"), rows)
