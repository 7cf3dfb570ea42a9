"""`agentos policy explain`: what a rule is, where it stands, what governs it, and why it is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import Denied, IdentityError, Unavailable
from agentos.cli.command import Facts, call, emit, paint, say, show
from agentos.cli.render.text import plain
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.policy.rule_page import RulePage


def register(group: typer.Typer) -> None:
    """Add the verb to `agentos policy`."""
    group.command(
        epilog=examples(
            "agentos policy explain grants.none",
            "agentos policy explain workspace --source",
            "agentos policy explain read_only -o json",
        )
    )(explain)


def explain(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="id of a rule, or the last part of its package")],
    source: Annotated[bool, typer.Option("--source", help="print the Rego too")] = False,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """Explain a rule.

    What it says, where it stands, what governs it, its page. Without a runtime: the rules that ship.
    """
    from agentos.policy.bundle import axioms
    from agentos.policy.port import Module
    from agentos.policy.rule_page import rule_pages

    try:
        facts = call("policy.facts", {})
    except (Unavailable, IdentityError, Denied) as error:
        say(f"only the rules that ship are explained: {error.message}")
        pages = rule_pages(rule, axioms(), {})
    else:
        pages = rule_pages(rule, [Module(item["path"], item["source"]) for item in facts["modules"]], facts["data"])

    def lines() -> None:
        for place, page in enumerate(pages):
            _show(page, source=source, last=place == len(pages) - 1)

    show([page.to_dict() for page in pages], output, lines)


def _show(page: RulePage, *, source: bool, last: bool) -> None:
    emit(f"{paint(page.rule, bold=True)}  {plain(page.description)}")
    emit(f"  {plain(page.path)}:{page.line}  {_origin(page)}")
    governs: Json = page.governs or {}
    for key in ("scope", "parameters"):
        if governs.get(key):
            emit(f"  {key}: {plain(json.dumps(governs[key], ensure_ascii=False))}")
    if source:
        emit("")
        for line in page.source.split("\n"):
            emit(f"    {plain(line.replace(chr(9), '    '))}".rstrip())
    if not last:
        return
    emit("")
    for line in (page.page or f"{page.about}\n").rstrip("\n").split("\n"):
        emit(plain(line))


def _origin(page: RulePage) -> str:
    if page.origin == "library":
        return "in the library, not in force: apply its policy.yaml"
    if page.origin == "axiom":
        return f"ships with agentos, always in force, decides about {page.target}"
    mode = page.governs["mode"] if page.governs is not None else "enforce"
    return f"{page.origin} of the tenant, {mode}, decides about {page.target}"
