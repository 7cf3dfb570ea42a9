"""`agentos policy eval` and `why`: one question decided here, and one recorded decision explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import PolicyError
from agentos.cli.command import Output, call, emit, emit_json, emit_yaml, paint
from agentos.cli.rego import read_modules, read_value
from agentos.cli.render.text import plain
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
            "agentos policy why s-0k3v9…", "agentos policy why s-0k3v9… call-8-2", "agentos policy why s-0k3v9… '#41' -o json"
        ),
    )(why)


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
    session: Annotated[str, typer.Argument(metavar="SESSION", help="the session")],
    call_id: Annotated[
        str | None, typer.Argument(metavar="[CALL]", help="id of the call, or #SEQ of its event; default: the last one stopped")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="how to print")] = Output.TABLE,
) -> None:
    """Explain a recorded decision.

    From the log: which rules fired, which did not and why, and which grants there are.
    """
    params: dict[str, Json] = {"session": session, **({"call": call_id} if call_id is not None else {})}
    answer = call("policy.why", params)
    if output is Output.JSON:
        emit_json(answer)
    elif output is Output.YAML:
        emit_yaml(answer)
    else:
        for line in why_lines(answer):
            emit(line)


def why_lines(answer: Json) -> list[str]:
    """The explanation for people."""
    question, decision = answer["question"], answer["decision"]
    syscall = question["syscall"]
    args = json.dumps(syscall["args"], ensure_ascii=False)
    effect = decision["effect"]
    budget = f"{question['budget']['calls']} calls, {question['budget']['tokens']} tokens"
    lines = [
        f"{answer['session']} {answer['call']} (#{answer['seq']}, {answer['time']}, revision {question['config_revision']})",
        f"agent {question['agent']['name']} called {plain(syscall['tool'])}({plain(args[:200])}{'…' if len(args) > 200 else ''})",
        f"session labels: {', '.join(question['session']['labels']) or 'none'}; budget used: {budget}",
        "",
        f"{paint(effect, fg='green' if effect == 'allow' else 'red', bold=True)} because",
    ]
    for rule in answer["rules"]:
        if rule["outcome"] == "fired":
            lines.append(f"  + {rule['rule']}  {plain(rule['path'])}:{rule['line']}")
            lines.append(f"      {plain(rule['reason'])}")
    lines += ["", "did not fire"]
    for rule in answer["rules"]:
        if rule["outcome"] == "failed":
            place = f"{plain(rule['path'])}:{rule['condition_line']}"
            lines.append(f"  - {rule['rule']}  {place}  does not hold: {plain(rule['condition'])}")
        elif rule["outcome"] == "left-out":
            lines.append(f"  - {rule['rule']}  {plain(rule['path'])}:{rule['line']}  is about other calls")
    lines.append("")
    if answer["grants"]:
        lines.append("grants of this tool to this agent")
        for grant in answer["grants"]:
            conditions = json.dumps(grant.get("args", {}), ensure_ascii=False)
            lines.append(
                f"  {grant['name']} by {grant['by']}: args {plain(conditions)}, approval {'yes' if grant['approval'] else 'no'}"
            )
    else:
        lines.append("no grant gives this tool to this agent; an operator can add a ToolGrant")
    if not answer["same_policy"]:
        lines.append("the shipped policies have changed since: this is what today's would say of the revision in force then")
    if not answer["same"]:
        lines.append(f"decided again it is {answer['replayed']['effect']}: {', '.join(answer['replayed']['rules'])}")
    return lines
