"""A decision explained in lines for people: the same text in the terminal, in the log and wherever else it is shown.

Pure: it is given the answer of `policy.why` and gives text without colour. What a tool or a model said is written so that it
cannot drive a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.policy.granting import settled_by_grant

ARGS: Final = 200
"""Most characters of a call's arguments; the JSON form has them all."""

_PARTS: Final = {"redact": "path", "mask": "path", "cap": "path", "sandbox": "profile", "rate": "name", "approvers": "count"}
"""The field of an obligation that tells most of it."""


def why_lines(answer: Mapping[str, Json]) -> list[str]:
    """The explanation of one decision: what was asked, what fired, what did not and why, and who could grant it."""
    return [*_head(answer), *_because(answer), *_silent(answer.get("rules", ())), *_grants(answer), *_notes(answer)]


def _head(answer: Mapping[str, Json]) -> Iterator[str]:
    question = answer.get("question")
    if "tenant" in answer:
        policy = f"decided by the policy of revision {answer['decided_by']}"
        yield f"{answer['id']} in tenant {answer['tenant']} ({answer['time']}, {policy})"
        if question is None:
            yield f"{_plain(answer['actor'])} changed the registry"
        else:
            asker, changes = question["principal"], question["changes"]
            yield f"{answer['actor']} ({', '.join(asker['roles'])}) changed {len(changes)}: {_changes(changes)}"
        return
    revision = answer["revision"] if question is None else question["config_revision"]
    yield f"{answer['id']} ({_plain(answer['call'])}, {answer['time']}, revision {revision})"
    if question is None:
        yield f"agent {answer['agent'] or '(erased)'} called {_plain(str(answer['tool']))}(arguments not to be told)"
        return
    syscall, session = question["syscall"], question["session"]
    args = json.dumps(syscall["args"], ensure_ascii=False)
    more = "…" if len(args) > ARGS else ""
    yield f"agent {question['agent']['name']} called {_plain(syscall['tool'])}({_plain(args[:ARGS])}{more})"
    labels = ", ".join(session["labels"]) or "none"
    budget = f"{question['budget']['calls']} calls, {question['budget']['tokens']} tokens"
    yield f"session labels: {_plain(labels)}; budget used: {budget}"
    for given in question["approvals"]:
        yield f"approval by {given['by']}: {_plain(given['reason'])}"


def _changes(changes: Sequence[Mapping[str, Json]]) -> str:
    named = [f"{one['action']} {one['resource']['kind']} {one['resource']['metadata']['name']}" for one in changes[:5]]
    return ", ".join(named) + (" …" if len(changes) > len(named) else "")


def _because(answer: Mapping[str, Json]) -> Iterator[str]:
    decision, rules = answer.get("decision"), answer.get("rules")
    yield ""
    if not isinstance(decision, Mapping):
        yield "what was decided is not recorded"
        return
    overruled = answer.get("overruled")
    if rules is None or overruled is not None:
        yield f"{decision['effect']} because" if decision["rules"] else f"{decision['effect']}: no rule fired"
        yield from (f"  + {_plain(rule)}" for rule in decision["rules"])
        yield from (f"      {_plain(reason)}" for reason in decision["reasons"])
    said = decision if overruled is None else overruled
    if overruled is not None:
        yield ""
        yield "the runtime could not meet an obligation; before that, policy had said"
    if rules is not None:
        yield from _told(said, rules)
    yield from (f"  grant: {_plain(name)}" for name in said.get("grants", ()))
    yield from _duties(said, met=overruled is None and said["effect"] == "allow")


def _told(decision: Mapping[str, Json], rules: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    fired = [rule for rule in rules if rule["outcome"] == "fired"]
    deciding = [rule for rule in fired if rule["rule"] in decision["rules"]]
    yield f"{decision['effect']} because" if deciding else f"{decision['effect']}: no rule fired"
    yield from _fired(deciding)
    other = [rule for rule in fired if rule not in deciding]
    if other:
        yield ""
        yield "fired too, and binds less"
        yield from _fired(other, {one["rule"]: one["mode"] for one in decision.get("observed", ())})


def _fired(rules: Sequence[Mapping[str, Json]], watched: Mapping[str, str] | None = None) -> Iterator[str]:
    for rule in rules:
        mode = (watched or {}).get(rule["rule"])
        yield f"  + {rule['rule']}  {_plain(rule['path'])}:{rule['line']}{f'  ({mode})' if mode else ''}"
        yield f"      {_plain(rule['reason'])}"


def _duties(decision: Mapping[str, Json], *, met: bool) -> Iterator[str]:
    """Obligations, and whether they were met: a call goes out only when all of them are."""
    duties = decision.get("obligations", ())
    if duties:
        yield ""
        yield "obliged to, all of it done" if met else "obliged to"
    for duty in duties:
        part = duty.get(_PARTS.get(duty["kind"], ""), "")
        place = f" of {duty['in']}" if "in" in duty else ""
        yield f"  * {duty['kind']}{f' {_plain(str(part))}' if part != '' else ''}{place}, by {_plain(duty['rule'])}"


def _silent(rules: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    silent = [rule for rule in rules if rule["outcome"] != "fired"]
    if silent:
        yield ""
        yield "did not fire"
    for rule in silent:
        if rule["outcome"] == "failed":
            place = f"{_plain(rule['path'])}:{rule['condition_line']}"
            yield f"  - {rule['rule']}  {place}  does not hold: {_plain(rule['condition'])}"
    for rule in silent:
        if rule["outcome"] == "left-out":
            yield f"  - {rule['rule']}  {_plain(rule['path'])}:{rule['line']}  is about other calls"


def _grants(answer: Mapping[str, Json]) -> Iterator[str]:
    if "grants" not in answer:
        return
    yield ""
    tool, agent = answer["question"]["syscall"]["tool"], answer["question"]["agent"]["name"]
    if answer["grants"]:
        yield f"grants of {_plain(tool)} to {agent}"
        for grant in answer["grants"]:
            conditions = json.dumps(grant.get("args", {}), ensure_ascii=False)
            uses = f", at most {grant['max_uses']} times" if grant.get("max_uses") is not None else ""
            approval = "with approval" if grant["approval"] else "without approval"
            yield f"  {grant['name']} by {grant['by']}: arguments {_plain(conditions)}, {approval}{uses}"
    else:
        yield f"no grant gives {_plain(tool)} to {agent}"
    decision = answer["decision"]
    if decision["effect"] == "allow" or "overruled" in answer:
        return
    roles = " or ".join(answer["granters"]["roles"]) or "(none)"
    people = ", ".join(answer["granters"]["principals"]) or "nobody now"
    others = [rule for rule in decision["rules"] if not settled_by_grant(rule)]
    if others:
        yield f"a grant would not change it, {_plain(', '.join(others))} would have to"
        yield f"who could change a tenant's policy: role {roles} ({people})"
    else:
        yield f"who could grant it: role {roles} may apply a ToolGrant ({people})"


def _notes(answer: Mapping[str, Json]) -> Iterator[str]:
    notes = []
    if "undecidable" in answer:
        notes.append(f"it cannot be decided again: {_plain(answer['undecidable'])}")
    if answer.get("same_policy") is False:
        notes.append("the shipped policies have changed since: this is what today's would say of the revision in force then")
    if answer.get("same") is False:
        again = answer["replayed"]
        notes.append(f"decided again it is {again['effect']}: {', '.join(again['rules']) or 'no rule'}")
    if notes:
        yield ""
        yield from notes


def _plain(text: str) -> str:
    """`text` on one line, its control characters escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
