"""Why a decision is what it is: which rules fired, which did not, and the first condition of each that did not hold.

Made by evaluating the question once more with OPA's trace on. That is a hundred times slower than deciding, so it is done when a
person asks, never on the way of a syscall.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from agentos.abi.canonical import Json
from agentos.abi.decision import Decision, Verdict, parse_decision
from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms, is_test
from agentos.policy.port import Module
from agentos.policy.source import Source


class Outcome(StrEnum):
    """What came of one rule."""

    FIRED = "fired"
    FAILED = "failed"
    """A condition did not hold; `condition_line` and `condition` say which was the first."""
    LEFT_OUT = "left-out"
    """OPA's index told beforehand that one of its equalities cannot hold."""


@dataclass(frozen=True, slots=True, order=True)
class RuleReport:
    """One rule and what came of it. Lines count from 1; `condition_line` is 0 where there is none to show."""

    rule: str
    outcome: Outcome
    path: str
    line: int
    reason: str = ""
    condition_line: int = 0
    condition: str = ""

    def to_dict(self) -> dict[str, Json]:
        """JSON form."""
        return {
            "rule": self.rule,
            "outcome": str(self.outcome),
            "path": self.path,
            "line": self.line,
            "reason": self.reason,
            "condition_line": self.condition_line,
            "condition": self.condition,
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision made anew, and a report per rule: those that fired first, then by id."""

    decision: Decision
    rules: tuple[RuleReport, ...]


@dataclass(frozen=True, slots=True)
class RuleAt:
    """A rule that gives a result: its id, where its head begins and where the next rule begins."""

    rule: str
    tail: str
    module: Module
    line: int
    end: int


def explain(
    modules: Sequence[Module], data: Mapping[str, Json], question: Mapping[str, Json], *, target: str = "syscall"
) -> Explanation:
    """Decide `question` by `modules` and `data` as a decider would, and tell of every rule of `target`.

    Blocks; call it in a worker thread. Raises PolicyError for modules that do not load, EngineUnavailable without OPA or when the
    evaluation fails.
    """
    library = opa.bindings()
    engine = opa.build(modules, dict(data))
    try:
        decision = parse_decision(engine.eval_document(f"agentos.{target}.decision", dict(question), trace=True))
        trace = engine.last_trace or []
        fired: dict[str, str] = {}
        for tail in sorted({rule.tail for rule in rules_of(modules, target)}):
            for result in engine.eval_document(f"agentos.{target}.rules.{tail}.results", dict(question)):
                fired[str(result["rule"])] = str(result["reason"])
    except library.OpaError as error:
        raise opa.policy_error(error, [module.path for module in modules]) from error
    finally:
        engine.close()
    reports = [_report(rule, fired, trace) for rule in rules_of(modules, target)]
    return Explanation(decision, tuple(sorted(reports, key=lambda one: (one.outcome is not Outcome.FIRED, one.rule))))


def rules_of(modules: Sequence[Module], target: str) -> Iterator[RuleAt]:
    """Every rule of `target` that gives a result with a literal id, tests left out."""
    for module in modules:
        if is_test(module):
            continue
        tree = opa.parse(module)
        package = syntax.package(tree)
        if package[:3] != ("agentos", target, "rules") or len(package) != 4:
            continue
        source = Source(module.source, tree)
        heads = [place.line for place in source.places(r"^[A-Za-z_]")]
        for rule in syntax.rules(tree):
            name = _id(rule)
            if name is None:
                continue
            place = source.first(rf'"rule"\s*:\s*{_quoted(name)}')
            line = max((head for head in heads if head <= place.line), default=place.line)
            end = min((head for head in heads if head > line), default=len(source.lines) + 1)
            yield RuleAt(name, package[3], module, line, end)


@cache
def roles_that_may(verb: str, roles: tuple[str, ...]) -> tuple[str, ...]:
    """Which of `roles` the shipped control policy lets use `verb`, each asked by itself. Blocks. Raises EngineUnavailable."""
    engine = opa.build(axioms("control"), {"agentos": {}})
    try:
        return tuple(role for role in roles if _may(engine, verb, role))
    except opa.bindings().OpaError as error:
        raise opa.policy_error(error, []) from error
    finally:
        engine.close()


def _may(engine: Any, verb: str, role: str) -> bool:
    principal = {"name": "somebody", "roles": [role], "tenant": "default"}
    question = {"abi": "agentos/v1", "principal": principal, "verb": verb, "tenant": "default"}
    return parse_decision(engine.eval_document("agentos.control.decision", question)).effect is Verdict.ALLOW


def _id(rule: Json) -> str | None:
    """The literal id of a rule `results contains {"rule": "egress.untrusted", …}`, None for any other rule."""
    if syntax.rule_name(rule) != "results":
        return None
    key = rule["head"].get("key")
    if not isinstance(key, dict) or key.get("type") != "object":
        return None
    for name, value in key["value"]:
        if name.get("value") == "rule" and value.get("type") == "string":
            return str(value["value"])
    return None


def _quoted(text: str) -> str:
    return json.dumps(text).replace(".", r"\.")


def _report(rule: RuleAt, fired: Mapping[str, str], trace: Sequence[Mapping[str, Json]]) -> RuleReport:
    if rule.rule in fired:
        return RuleReport(rule.rule, Outcome.FIRED, rule.module.path, rule.line, reason=fired[rule.rule])
    entered = {event["query_id"] for event in trace if event["op"] == "Enter" and _inside(event, rule)}
    failed = [line for event in trace if event["op"] == "Fail" and (line := _inside(event, rule))]
    # The condition that got furthest down is the one that decided: those above it held for some value.
    furthest = max(failed, default=0)
    if not entered or not furthest:
        return RuleReport(rule.rule, Outcome.LEFT_OUT, rule.module.path, rule.line)
    text = rule.module.source.split("\n")[furthest - 1].strip()
    return RuleReport(rule.rule, Outcome.FAILED, rule.module.path, rule.line, condition_line=furthest, condition=text)


def _inside(event: Mapping[str, Json], rule: RuleAt) -> int:
    """The line of a trace event that lies within `rule`, else 0."""
    path, _, line = str(event["location"]).rpartition(":")
    if path != rule.module.path or not line.isdigit():
        return 0
    return int(line) if rule.line <= int(line) < rule.end else 0
