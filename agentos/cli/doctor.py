"""`agentos doctor`: what this installation and this host really give."""

from __future__ import annotations

from typing import Annotated

import typer

from agentos.cli.command import Output, emit_json, emit_table, emit_yaml, say, settings


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog="Examples: agentos doctor; agentos doctor -o json")(doctor)


def doctor(
    output: Annotated[Output, typer.Option("--output", "-o", help="table, json or yaml")] = Output.TABLE,
) -> int:
    """Look at the installation, the home and the isolation; needs no running runtime. Exit 1 if something fails."""
    from agentos.boot.doctor import examine
    from agentos.boot.home import Home

    found = [finding.to_dict() for finding in examine(Home(settings.home))]
    match output:
        case Output.JSON:
            emit_json(found)
        case Output.YAML:
            emit_yaml(found)
        case _:
            rows = [(item["level"], item["what"], item["found"]) for item in found]
            emit_table(("level", "what", "found"), rows)
            for item in found:
                if item["mend"]:
                    say(f"{item['what']}: {item['mend']}")
    failures = sum(item["level"] == "fail" for item in found)
    if failures:
        say(f"{failures} of {len(found)} findings fail")
    return 1 if failures else 0
