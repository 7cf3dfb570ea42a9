"""`agentos policy`: check, test and evaluate Rego; what is in force, why a decision was made, what other rules would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from xml.sax.saxutils import quoteattr

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.cli.command import Facts, call, emit, emit_json, emit_table, emit_yaml, paint, say
from agentos.cli.rego import by_target, opa_check, read_modules
from agentos.cli.render.text import count, plain
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.policy.testing import TestResult

group = typer.Typer(
    no_args_is_help=True,
    help="Check, test and explain policy; try it on history.",
    epilog=examples("agentos policy check policies", "agentos policy why s-0k3v9…", "agentos policy backtest stricter/"),
    rich_markup_mode=None,
)

PATHS = Annotated[list[Path], typer.Argument(metavar="PATH...", help="Rego files, and folders of them")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    from agentos.cli import backtest, why

    why.register(group)
    backtest.register(group)
    app.add_typer(group, name="policy")


@group.command(
    epilog=examples("agentos policy check policies", "agentos policy check stricter/ -o json"),
)
def check(
    paths: PATHS,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> int:
    """Check Rego as apply does.

    Syntax, types, known paths, METADATA, rule ids. Exit code 1: findings.
    """
    from agentos.policy.lint import lint

    modules = read_modules(paths)
    found = [
        finding
        for (target, shipped), group in sorted(by_target(modules).items())
        for finding in lint(group, target=target, shipped=shipped)
    ]
    strict = opa_check(paths)
    if output is Facts.JSON:
        emit_json([finding_dict(one) for one in found])
    elif output is Facts.YAML:
        emit_yaml([finding_dict(one) for one in found])
    else:
        for one in found:
            emit(f"{plain(one.path)}:{one.line}:{one.column}: error[{one.code}] {plain(one.message)}; {plain(one.mend)}")
    for line in strict.lines:
        emit(plain(line))
    say(f"{count(len(modules), 'module')}: {count(len(found), 'finding')}; {strict.ran}")
    return 1 if found or strict.lines else 0


def finding_dict(one: Json) -> dict[str, Json]:
    """A finding as JSON."""
    return {
        "path": one.path,
        "line": one.line,
        "column": one.column,
        "code": one.code,
        "message": one.message,
        "mend": one.mend,
    }


@group.command(
    "test",
    epilog=examples("agentos policy test policies", "agentos policy test policies examples -o junit > report.xml"),
)
def run_tests(
    paths: PATHS,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORM", help="table, json or junit")] = "table",
) -> int:
    """Run the tests of Rego on the engine in use.

    Every rule named `test_…`. Exit code 1: a test failed, or there was none.
    """
    from agentos.policy.testing import run_rego_tests

    results = run_rego_tests(read_modules(paths))
    match output:
        case "json":
            emit_json([_result(one) for one in results])
        case "junit":
            emit(_junit(results))
        case "table":
            for one in results:
                if not one.passed:
                    emit(f"{paint('FAIL', fg='red')}  {one.path}: {one.package}.{one.name}: {plain(one.message)}")
        case _:
            raise UsageError(f"--output {output}: expected table, json or junit")
    failed = sum(not one.passed for one in results)
    say(f"{count(len(results), 'test')}: {len(results) - failed} passed, {failed} failed")
    return 1 if failed or not results else 0


def _result(one: TestResult) -> dict[str, Json]:
    return {"path": one.path, "package": one.package, "name": one.name, "passed": one.passed, "message": one.message}


def _junit(results: list[TestResult]) -> str:
    failed = sum(not one.passed for one in results)
    lines = [f'<testsuite name="rego" tests="{len(results)}" failures="{failed}">']
    for one in results:
        case = f"  <testcase classname={quoteattr(one.package)} name={quoteattr(one.name)} file={quoteattr(one.path)}"
        lines.append(f"{case}/>" if one.passed else f"{case}><failure message={quoteattr(one.message)}/></testcase>")
    return "\n".join([*lines, "</testsuite>"])


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
