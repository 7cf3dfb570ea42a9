"""`agentos doctor`: what this installation and this host really give."""

from __future__ import annotations

from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.cli.command import Facts, emit_table, say, settings, show
from agentos.cli.verb import examples


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=examples("agentos doctor", "agentos doctor --escape", "agentos doctor -o json"))(doctor)


def doctor(
    escape: Annotated[bool, typer.Option("--escape", help="try to get out of the sandbox of tools, in every known way")] = False,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> int:
    """Check the installation, the home and the isolation.

    Needs no running runtime. Exit code 1: something fails; what is weak is said and is no failure. With --escape, processes in a
    sandbox try to reach what is laid out for them on this host, and to use more than they may: one row for each attempt, with who
    refused it; what gets out, and what could not be tried, fails.
    """
    from agentos.boot.doctor import examine
    from agentos.boot.escapes import try_escapes
    from agentos.boot.home import Home

    found = [finding.to_dict() for finding in (try_escapes() if escape else examine(Home(settings.home)))]
    show(found, output, lambda: _escapes(found) if escape else _findings(found))
    failures = sum(item["level"] == "fail" for item in found)
    if failures:
        say(f"{failures} of {len(found)} {'attempts' if escape else 'checks'} fail")
    return 1 if failures else 0


def _findings(found: list[dict[str, Json]]) -> None:
    emit_table(("level", "what", "found"), [(item["level"], item["what"], item["found"]) for item in found])
    for item in found:
        if item["mend"]:
            say(f"mend {item['what']}: {item['mend']}")


def _escapes(found: list[dict[str, Json]]) -> None:
    rows = []
    for item in found:
        tried = item["escape"]
        rows.append((tried["outcome"], item["what"], tried["tried"], ", ".join(tried["by"]) or "–"))  # noqa: RUF001 - a dash
    emit_table(("outcome", "attempt", "tried", "refused by"), rows, shrink=("tried",))
    for item in found:
        if item["level"] != "ok":
            say(f"{item['what']} {item['found']}")
    refused = sum(item["level"] == "ok" for item in found)
    kinds = ", ".join(sorted({item["escape"]["isolation"] for item in found}))
    say(f"{refused} of {len(found)} attempts refused in {kinds}")
