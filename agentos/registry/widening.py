"""What a change permits that was not permitted before, in sentences for the person who has to allow it.

What cannot be told apart for certain (another glob, another pattern, another Rego module, another command) counts as wider: the
question is asked once too often rather than once too seldom. What never counts: anything that only asks for more where a grant
is still needed (a new Agent but for its harness, Tool, Secret, Model, ModelClass, or Tenant but for models that it is lent),
and whatever binds nothing (a Policy in `warn` or `dryrun`). Not judged are labels and annotations of `metadata`: only policies of
the operator's own give them a meaning. Shares, limits and budgets are judged in `registry.shares`, sandboxes and secrets in
`registry.hands`.

A Policy that stays enforced is wider when one of its modules is removed or changed, or when a module is added to a package that
it already had (a helper rule there may exempt); a module in a package of its own can only deny, ask or halt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.event import parse_rfc3339
from agentos.abi.resource import Resource
from agentos.registry import hands, shares
from agentos.registry.diff import same
from agentos.registry.hands import driver_text
from agentos.sandbox.profile import DEFAULT

_EFFECTS: Final = ("read", "write", "external")
_RISKS: Final = ("minimal", "limited", "high")
_ENFORCE: Final = "enforce"
_DEFAULT_SESSIONS: Final = 100
_PATIENCE: Final = (
    ("timeoutSeconds", "a call waits for people", 86_400),
    ("validSeconds", "an approval counts for", 3_600),
)
_PACKAGE: Final = re.compile(r"^package[ \t]+([A-Za-z0-9_.\[\]\"-]+)", re.MULTILINE)
_ANNOTATIONS: Final = frozenset({"title", "description", "examples", "default", "$comment", "deprecated"})
_OF_PROPERTIES: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def widens(before: Resource | None, after: Resource | None) -> tuple[str, ...]:
    """The sentences for one change, in reading order; empty when nothing becomes permitted that was not.

    `before` is None for a resource that is created, `after` for one that is deleted.
    """
    one = after or before
    if one is None:
        return ()
    old = before.spec if before is not None else None
    new = after.spec if after is not None else None
    if one.key.kind == "PriorityClass":
        found = shares.of_priority_class(one.key.name, old, new)
    elif one.key.kind == "Sandbox":
        found = hands.of_sandbox(one.key.name, old, new)
    else:
        found = _JUDGES[one.key.kind](old, new)
    return tuple(f"{one.key}: {sentence}" for sentence in found)


def _grant(before: Mapping[str, Json] | None, after: Mapping[str, Json] | None) -> Iterator[str]:
    if after is None:
        return
    if before is None:
        yield f"lets {_names(after['agents'])} call {_names(after['tools'])}{_terms(after)}"
        return
    agents, tools = _gained(before, after, "agents"), _gained(before, after, "tools")
    if agents:
        yield f"lets {_names(agents)} call {_names(after['tools'])} too"
    if tools:
        yield f"lets {_names(after['agents'])} call {_names(tools)} too"
    old_args, new_args = before.get("args", {}), after.get("args", {})
    for name in sorted(old_args):
        yield from _constraint(name, old_args[name], new_args.get(name))
    if before.get("approval", "none") == "required" and after.get("approval", "none") != "required":
        yield "no longer asks a person for approval"
    old_end, new_end = before.get("until"), after.get("until")
    if old_end is not None and new_end is None:
        yield f"no longer ends (it ended at {old_end})"
    elif old_end is not None and new_end is not None and parse_rfc3339(new_end) > parse_rfc3339(old_end):
        yield f"lasts longer: until {new_end} (was {old_end})"
    old_uses, new_uses = before.get("maxUses"), after.get("maxUses")
    if old_uses is not None and new_uses is None:
        yield f"no longer ends after {old_uses} uses"
    elif old_uses is not None and not same(dict(before), dict(after)):
        yield f"counts its {new_uses} uses anew (was {old_uses})"


def _constraint(name: str, before: Mapping[str, Json], after: Mapping[str, Json] | None) -> Iterator[str]:
    """What the constraint of one argument lets through that it did not; every part of a constraint must hold."""
    if after is None:
        yield f"no longer constrains the argument {name!r}"
        return
    old_values, new_values = _allowed(before), _allowed(after)
    if old_values is not None and new_values is None:
        yield f"the argument {name!r} may be more than {_values(old_values)}"
    elif old_values is not None and new_values is not None:
        more = [value for value in new_values if not any(same(value, old) for old in old_values)]
        if more:
            yield f"the argument {name!r} may also be {_values(more)}"
    for part in ("glob", "pattern"):
        if part in before and before[part] != after.get(part):
            now = f"{part} {after[part]!r}" if part in after else f"no {part}"
            yield f"the argument {name!r} is held by {now} instead of {part} {before[part]!r}"
    for part, sign in (("maximum", 1), ("maxLength", 1), ("minimum", -1)):
        if part in before and part not in after:
            yield f"the argument {name!r} has no {part} any more (was {before[part]})"
        elif part in before and sign * after[part] > sign * before[part]:
            yield f"the argument {name!r} has {part} {after[part]} (was {before[part]})"


def _allowed(constraint: Mapping[str, Json]) -> list[Json] | None:
    """The values that `equals` and `oneOf` leave, None when neither stands there."""
    listed: list[Json] | None = list(constraint["oneOf"]) if "oneOf" in constraint else None
    if "equals" not in constraint:
        return listed
    wanted = constraint["equals"]
    return [wanted] if listed is None or any(same(wanted, value) for value in listed) else []


def _agent(before: Mapping[str, Json] | None, after: Mapping[str, Json] | None) -> Iterator[str]:
    yield from hands.of_gateway(before or {}, after or {})
    if before is None and after is not None:
        yield from hands.of_harness({}, after)
    if before is None or after is None:
        return
    tools = _gained(before, after, "tools")
    if tools:
        yield f"asks for {_names(tools)} too"
    if before["model"] != after["model"]:
        yield f"may call model {after['model']} (was {before['model']})"
    yield from hands.in_sandbox("its tools work", DEFAULT, before, after)
    yield from hands.of_harness(before, after)
    yield from shares.of_agent(before, after)
    lost = sorted(_input_labels(before) - _input_labels(after))
    if lost:
        yield f"its work no longer carries {_names([label for _, label in lost])}"
    yield from _delegates(before.get("delegates"), after.get("delegates"))
    old_risk, new_risk = (side.get("governance", {}).get("risk") for side in (before, after))
    if _lowered(_RISKS, old_risk, new_risk):
        yield f"is declared as risk {new_risk} (was {old_risk})"


def _delegates(before: Mapping[str, Json] | None, after: Mapping[str, Json] | None) -> Iterator[str]:
    if after is None:
        return
    if before is None:
        yield "may have others work for it"
    for name, what, least in (("maxDepth", "levels below it", 1), ("maxChildren", "sessions that one of it begins", 16)):
        old, new = (before or {}).get(name, least), after.get(name, least)
        if before is not None and new > old:
            yield f"may have {new} {what} (was {old})"


def _input_labels(agent: Mapping[str, Json]) -> set[tuple[str, str]]:
    """(place, label) of what is declared of the agent's work; the goal's place is empty."""
    inputs = agent.get("inputs", {})
    files = {(place, label) for place, labels in inputs.get("fileLabels", {}).items() for label in labels}
    return files | {("", label) for label in inputs.get("goalLabels", [])}


def _tool(before: Mapping[str, Json] | None, after: Mapping[str, Json] | None) -> Iterator[str]:
    if before is None or after is None:
        return
    if _lowered(_EFFECTS, before["effect"], after["effect"]):
        yield f"is declared as effect {after['effect']} (was {before['effect']})"
    lost = [label for label in before.get("labels", []) if label not in after.get("labels", [])]
    if lost:
        yield f"what it returns no longer carries the labels {_names(lost)}"
    if after.get("idempotent", False) and not before.get("idempotent", False):
        yield "may be repeated after a crash"
    if not same(before["driver"], after["driver"]):
        yield f"does something else: its driver is {driver_text(after['driver'])} (was {driver_text(before['driver'])})"
    if not same(_shape(before.get("inputSchema")), _shape(after.get("inputSchema"))):
        yield "takes other arguments: its inputSchema changed"
    yield from hands.of_tool(before, after)
    yield from shares.of_tool(before, after)


def _shape(schema: Json) -> Json:
    """A JSON Schema without what only people read."""
    if isinstance(schema, dict):
        return {
            key: {name: _shape(item) for name, item in value.items()}
            if key in _OF_PROPERTIES and isinstance(value, dict)
            else _shape(value)
            for key, value in schema.items()
            if key not in _ANNOTATIONS
        }
    if isinstance(schema, list):
        return [_shape(item) for item in schema]
    return schema


def _model(before: Mapping[str, Json] | None, after: Mapping[str, Json] | None) -> Iterator[str]:
    if before is None or after is None:
        return
    yield from shares.of_model(before, after)
    if after["provider"] == "scripted":
        return
    if before["provider"] != after["provider"]:
        yield f"sends conversations to {after['provider']} (was {before['provider']})"
        return
    old, new = before.get(before["provider"], {}), after.get(after["provider"], {})
    for name, what in (("model", "model"), ("baseUrl", "address"), ("apiKeyEnv", "key from")):
        if old.get(name) != new.get(name):
            yield f"uses another {what}: {new.get(name, 'the default')} (was {old.get(name, 'the default')})"


def _model_class(before: Mapping[str, Json] | None, after: Mapping[str, Json] | None) -> Iterator[str]:
    if before is not None and after is not None:
        yield from shares.of_model_class(before, after)


def _policy(before: Mapping[str, Json] | None, after: Mapping[str, Json] | None) -> Iterator[str]:
    if before is None or before.get("mode", _ENFORCE) != _ENFORCE:
        return
    if after is None:
        yield "what it forbids is no longer forbidden"
        return
    mode = after.get("mode", _ENFORCE)
    if mode != _ENFORCE:
        yield f"is no longer enforced, only {'warned about' if mode == 'warn' else 'observed'} (mode {mode})"
        return
    old_target, new_target = (side.get("target", "syscall") for side in (before, after))
    if old_target != new_target:
        yield f"no longer decides {old_target} (it decides {new_target})"
    if after.get("scope") and not same(before.get("scope"), after.get("scope")):
        yield f"is about {_scope(after['scope'])} only (was {_scope(before.get('scope', {}))})"
    if not same(before.get("parameters", {}), after.get("parameters", {})):
        yield "decides with other parameters"
    old, new = ({module["path"]: module["source"] for module in side.get("modules", [])} for side in (before, after))
    changed = [path for path in sorted(old) if path not in new or old[path] != new[path]]
    packages = {_package(source) for source in old.values()}
    changed += [path for path in sorted(new) if path not in old and _package(new[path]) in packages]
    if changed:
        yield f"changes what policy decides: {_names(changed)}"


def _scope(scope: Mapping[str, Json]) -> str:
    parts = [f"{part} {json.dumps(value, ensure_ascii=False)}" for part, value in sorted(scope.items())]
    return ", ".join(parts) or "everything"


def _package(source: str) -> str:
    found = _PACKAGE.search(source)
    return found.group(1) if found else ""


def _tenant(before: Mapping[str, Json] | None, after: Mapping[str, Json] | None) -> Iterator[str]:
    yield from shares.lent(before or {}, after or {})
    if before is None:
        return
    yield from shares.of_tenant(before, after or {})
    old = before.get("limits", {}).get("sessions", _DEFAULT_SESSIONS)
    new = (after or {}).get("limits", {}).get("sessions", _DEFAULT_SESSIONS)
    if new > old:
        yield f"may run {new} sessions at a time (was {old})"
    for name, what, default in _PATIENCE:
        old, new = (side.get("approvals", {}).get(name, default) for side in (before, after or {}))
        if new > old:
            yield f"{what} {new} s (was {old})"


def _trigger(before: Mapping[str, Json] | None, after: Mapping[str, Json] | None) -> Iterator[str]:
    """A trigger starts runs that nobody asks for, so a new one, and one that waits for something else, is wider."""
    if after is None or "daemon" in after:
        return
    if before is None or "daemon" in before:
        yield f"starts runs of {after['agent']} by itself, on {_on(after)}"
        return
    if before["agent"] != after["agent"]:
        yield f"starts runs of {after['agent']} instead of {before['agent']}"
    if before["goal"] != after["goal"]:
        yield f"gives {after['agent']} another goal"
    if not same(before["on"], after["on"]):
        yield f"starts runs on {_on(after)} instead of {_on(before)}"
    gone = [label for label in before.get("labels", ()) if label not in after.get("labels", ())]
    if gone:
        yield f"its runs begin without the labels {_names(gone)}"
    if after.get("overlap", "skip") == "allow" and before.get("overlap", "skip") != "allow":
        yield "starts runs beside those that are not over"


def _on(spec: Mapping[str, Json]) -> str:
    kind, told = next(iter(spec["on"].items()))
    return f"{kind} {json.dumps(told, ensure_ascii=False, sort_keys=True)}"


_JUDGES: Final[dict[str, Callable[[Mapping[str, Json] | None, Mapping[str, Json] | None], Iterator[str]]]] = {
    "Tenant": _tenant,
    "Model": _model,
    "ModelClass": _model_class,
    "Secret": hands.of_secret,
    "Tool": _tool,
    "Agent": _agent,
    "ToolGrant": _grant,
    "Trigger": _trigger,
    "Policy": _policy,
}


def _gained(before: Mapping[str, Json], after: Mapping[str, Json], name: str) -> list[str]:
    return [item for item in after.get(name, []) if item not in before.get(name, [])]


def _lowered(order: Sequence[str], before: Json, after: Json) -> bool:
    return before in order and after in order and order.index(after) < order.index(before)


def _terms(grant: Mapping[str, Json]) -> str:
    args = "".join(f", {name} {_held(held)}" for name, held in sorted(grant.get("args", {}).items()))
    approval = ", with approval" if grant.get("approval", "none") == "required" else ""
    until = f", until {grant['until']}" if grant.get("until") else ""
    uses = f", {grant['maxUses']} times" if grant.get("maxUses") else ""
    return f"{args}{approval}{until}{uses}"


def _held(constraint: Mapping[str, Json]) -> str:
    return " ".join(f"{part} {json.dumps(value, ensure_ascii=False)}" for part, value in sorted(constraint.items()))


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _values(values: Sequence[Json]) -> str:
    return " or ".join(json.dumps(value, ensure_ascii=False) for value in values) or "nothing"
