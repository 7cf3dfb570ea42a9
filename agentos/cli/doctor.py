"""`agentos doctor`: what this installation and this host really give."""

from __future__ import annotations

from typing import Annotated

import typer

from agentos.cli.command import Facts, emit_json, emit_table, emit_yaml, say, settings
from agentos.cli.verb import examples


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog=examples("agentos doctor", "agentos doctor -o json"))(doctor)


def doctor(
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> int:
    """Check the installation, the home and the isolation.

    Needs no running runtime. Exit code 1: something fails; what is weak is said and is no failure.
    """
    from agentos.boot.doctor import examine
    from agentos.boot.home import Home

    found = [finding.to_dict() for finding in examine(Home(settings.home))]
    match output:
        case Facts.JSON:
            emit_json(found)
        case Facts.YAML:
            emit_yaml(found)
        case _:
            rows = [(item["level"], item["what"], item["found"]) for item in found]
            emit_table(("level", "what", "found"), rows)
            for item in found:
                if item["mend"]:
                    say(f"mend {item['what']}: {item['mend']}")
    failures = sum(item["level"] == "fail" for item in found)
    if failures:
        say(f"{failures} of {len(found)} checks fail")
    return 1 if failures else 0
