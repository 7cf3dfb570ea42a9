"""`agentos policy eval` and `why`: one question decided here, and one recorded decision explained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.decision import Verdict
from agentos.abi.errors import PolicyError, UsageError
from agentos.cli import rule
from agentos.cli.command import Facts, call, emit, emit_json, paint, show
from agentos.cli.rego import read_modules, read_value
from agentos.cli.verb import examples

TARGET = Annotated[str, typer.Option("--target", metavar="NAME", help="what is decided: syscall, admission or control")]


def register(group: typer.Typer) -> None:
    """Add the verbs to `agentos policy`."""
    group.command(
        "eval",
        epilog=examples(
            "agentos policy eval --input question.json", "agentos policy eval stricter/ --input question.json --data facts.json"
        ),
    )(eval_)
    group.command(
        epilog=examples(
            "agentos policy why s-0k3v9…",
            "agentos policy why s-0k3v9… call-8-2",
            "agentos policy why 's-0k3v9…#41' -o json",
            "agentos policy why revision/12",
        ),
    )(why)
    rule.register(group)


def eval_(
    input_: Annotated[Path, typer.Option("--input", "-i", metavar="FILE", help="the question, as JSON")],
    paths: Annotated[list[Path] | None, typer.Argument(metavar="PATH...", help="more Rego, beside the axioms")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", metavar="FILE", help="the root document, as JSON")] = None,
    target: TARGET = "syscall",
) -> None:
    """Decide one question here, by the axioms and more Rego.

    Prints the decision and a report on every rule.
    """
    from agentos.policy.bundle import axioms
    from agentos.policy.explain import explain

    modules = (*axioms(target), *(read_modules(paths) if paths else ()))
    facts = read_value(data) if data is not None else {"agentos": {}}
    question = read_value(input_)
    if not isinstance(question, dict) or not isinstance(facts, dict):
        raise PolicyError("the question and the data are JSON objects")
    found = explain(modules, facts, question, target=target)
    emit_json({"decision": found.decision.to_dict(), "rules": [one.to_dict() for one in found.rules]})


def why(
    decision: Annotated[
        str,
        typer.Argument(
            metavar="DECISION", help="SESSION#SEQ, revision/NUMBER, or a session: then its last call that was stopped"
        ),
    ],
    call_id: Annotated[str | None, typer.Argument(metavar="[CALL]", help="of a session: id of the call, or #SEQ")] = None,
    output: Annotated[Facts, typer.Option("--output", "-o", help="how to print")] = Facts.TABLE,
) -> None:
    """Explain a recorded decision.

    From the log: which rules fired, which did not and why, which grants there are, and who could grant it.
    """
    answer = call("policy.why", _asked(decision, call_id))

    def lines() -> None:
        for line in answer["text"]:
            emit(_painted(line))

    show(answer, output, lines)


def _asked(decision: str, call_id: str | None) -> dict[str, Json]:
    """What is asked for: `s-…#41` is one event of a session, `revision/12` a change of the registry."""
    head, slash, number = decision.partition("/")
    if slash and head == "revision":
        if call_id is not None or not number.isascii() or not number.isdigit():
            raise UsageError(f"{decision!r} is no revision", mend="write revision/12")
        return {"revision": int(number)}
    session, hash_, seq = decision.partition("#")
    if hash_ and call_id is not None:
        raise UsageError(f"{decision} names one decision; the call {call_id} is one too many")
    found: dict[str, Json] = {"session": session}
    chosen = f"#{seq}" if hash_ else call_id
    return found if chosen is None else {**found, "call": chosen}


def _painted(line: str) -> str:
    """The line that says how it was decided, in colour."""
    effect = line.removesuffix(" because")
    if effect == line or effect not in set(Verdict):
        return line
    return f"{paint(effect, fg='green' if effect == 'allow' else 'red', bold=True)} because"
