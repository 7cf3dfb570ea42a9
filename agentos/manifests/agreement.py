"""Rules within one document that a schema cannot say: blocks that agree, schemas that are schemas, expressions that compile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.event import parse_rfc3339
from agentos.abi.ids import DEFAULT_TENANT
from agentos.abi.retention import FLOORS, days_kept
from agentos.manifests.agreement_sandbox import check_sandbox
from agentos.manifests.agreement_secret import check_secret
from agentos.manifests.agreement_tool import check_tool
from agentos.manifests.fault import Path, Problem, shown
from agentos.manifests.regex import refused_glob, refused_pattern
from agentos.scheduler.cron import schedule

CheckPlay = Callable[[Json], list[tuple[Path, str]]]
"""Checks the expressions of a play: gives (path in the play, what is wrong) for each fault."""


def check_agreement(kind: str, body: Mapping[str, Json]) -> list[Problem]:
    """Problems of a document that its schema accepts."""
    check = _CHECKS.get(kind)
    return list(check(body)) if check else []


def _model(body: Mapping[str, Json]) -> Iterator[Problem]:
    spec = body["spec"]
    provider = spec["provider"]
    for other in ("scripted", "anthropic"):
        if other == provider and other not in spec:
            yield Problem(
                "model.provider", ("spec",), f"provider {provider} needs the block `{provider}`", f"add `{provider}:`", at="key"
            )
        elif other != provider and other in spec:
            mend = f"remove it, or write provider: {other}"
            yield Problem(
                "model.provider", ("spec", other), f"block `{other}` does not belong to provider {provider}", mend, at="key"
            )
    if "batch" in spec and provider != "anthropic":
        message = f"provider {provider} takes no batches"
        yield Problem("model.batch", ("spec", "batch"), message, "remove it, or write provider: anthropic", at="key")
    yield from _model_tokens(spec)
    if "play" in spec.get("scripted", {}):
        yield from check_play_ids(spec["scripted"]["play"], ("spec", "scripted", "play"))


_MAX_TOKENS: Final = 4096
"""The most tokens of an answer where a Model does not say."""


def _model_tokens(spec: Mapping[str, Json]) -> Iterator[Problem]:
    """The largest answer must be one that the provider is asked for, and leave room for a request."""
    provider: int = spec.get("anthropic", {}).get("maxTokens", _MAX_TOKENS)
    largest = spec.get("maxOutputTokens", provider)
    if "anthropic" in spec and largest > provider:
        message = f"an answer has at most {provider} tokens, as anthropic.maxTokens says"
        yield Problem("model.output", ("spec", "maxOutputTokens"), message, "remove it, or raise anthropic.maxTokens")
    if largest >= spec.get("contextTokens", largest + 1):
        message = f"an answer of {largest} tokens leaves no room for a request"
        yield Problem("model.context", ("spec", "contextTokens"), message, f"write more than {largest}, or lower maxOutputTokens")


def check_play_ids(play: Mapping[str, Json], path: Path) -> Iterator[Problem]:
    """Rule ids that stand twice in one play."""
    seen: dict[str, int] = {}
    for index, rule in enumerate(play["rules"]):
        first = seen.setdefault(rule["id"], index)
        if first != index:
            yield Problem(
                "play.rule",
                (*path, "rules", index, "id"),
                f"rule {rule['id']} stands twice (first as number {first + 1})",
                "give it another id",
            )


def _agent(body: Mapping[str, Json]) -> Iterator[Problem]:
    governance = body["spec"]["governance"]
    floor = FLOORS.get(governance["risk"], 0)
    if days_kept(governance) > governance.get("retentionDays", 0):
        named = "retentionDays" in governance
        yield Problem(
            "agent.retention",
            ("spec", "governance", "retentionDays") if named else ("spec", "governance"),
            f"the log of an agent with risk {governance['risk']} is kept for at least {floor} days",
            f"write {'' if named else 'retentionDays: '}{floor} or more",
            at="value" if named else "key",
        )


_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _grant(body: Mapping[str, Json]) -> Iterator[Problem]:
    spec = body["spec"]
    for name, constraint in spec.get("args", {}).items():
        yield from _constraint(constraint, ("spec", "args", name))
    until = spec.get("until")
    if until is not None and not _is_time(until):
        yield Problem(
            "grant.until",
            ("spec", "until"),
            f"expected a time with an offset, got {shown(until)}",
            "for example 2027-01-31T18:00:00Z",
        )


def _is_time(text: str) -> bool:
    try:
        return _TIME.fullmatch(text) is not None and parse_rfc3339(text) >= 0
    except (ValueError, OverflowError):
        return False


def _constraint(constraint: Mapping[str, Json], path: Path) -> Iterator[Problem]:
    if "pattern" in constraint and (reason := refused_pattern(constraint["pattern"])):
        yield Problem(
            "grant.pattern",
            (*path, "pattern"),
            f"{shown(constraint['pattern'])} is not an RE2 expression: {reason}",
            "escape what is meant literally with \\",
        )
    if "glob" in constraint and (reason := refused_glob(constraint["glob"])):
        yield Problem(
            "grant.pattern",
            (*path, "glob"),
            f"{shown(constraint['glob'])} is not a glob: {reason}",
            "escape what is meant literally with \\",
        )
    if constraint.get("minimum", 0) > constraint.get("maximum", constraint.get("minimum", 0)):
        yield Problem("grant.range", (*path, "minimum"), "minimum is greater than maximum: nothing is allowed", "swap them")


def _policy(body: Mapping[str, Json]) -> Iterator[Problem]:
    if "scope" in body["spec"] and body["spec"].get("target", "syscall") != "syscall":
        yield Problem(
            "policy.scope",
            ("spec", "scope"),
            f"a policy for {body['spec']['target']} has no scope: it is asked about everything of its target",
            "remove scope, or look at the input in the rules",
            at="key",
        )
    seen: set[str] = set()
    for index, module in enumerate(body["spec"].get("modules", ())):
        if module["path"] in seen:
            yield Problem(
                "policy.path",
                ("spec", "modules", index, "path"),
                f"{shown(module['path'])} stands twice in this policy",
                "give each module its own path",
            )
        seen.add(module["path"])


def _priority_class(body: Mapping[str, Json]) -> Iterator[Problem]:
    spec = body["spec"]
    if spec.get("background", False) and "agingSeconds" in spec:
        message = "a background class never rises, so it has no agingSeconds"
        yield Problem("priority.aging", ("spec", "agingSeconds"), message, "remove it, or background", at="key")


def _model_class(body: Mapping[str, Json]) -> Iterator[Problem]:
    for index, route in enumerate(body["spec"]["routes"]):
        when = route.get("when", {})
        for label in when.get("labels", ()):
            if label in when.get("withoutLabels", ()):
                path: Path = ("spec", "routes", index, "when", "withoutLabels", when["withoutLabels"].index(label))
                message = f"label {label} stands in labels too: the route never holds"
                yield Problem("class.never", path, message, "remove one of the two")


def _trigger(body: Mapping[str, Json]) -> Iterator[Problem]:
    spec = body["spec"]
    if "daemon" in spec:
        for field in ("agent", "goal", "priorityClass", "deadlineSeconds"):
            if field in spec:
                yield Problem("trigger.daemon", ("spec", field), f"a daemon takes no {field}", "remove it, or daemon", at="key")
        if "cron" not in spec["on"]:
            message = "a daemon goes by a schedule alone"
            yield Problem("trigger.daemon", ("spec", "on"), message, "write `cron: {schedule: ...}`", at="key")
        tenant = body["metadata"].get("tenant", DEFAULT_TENANT)
        if tenant != DEFAULT_TENANT:
            message = f"daemons are the runtime's, and tenant {tenant} may not schedule them"
            yield Problem("trigger.daemon", ("spec", "daemon"), message, f"declare it in the tenant {DEFAULT_TENANT}")
    else:
        for field in ("agent", "goal"):
            if field not in spec:
                yield Problem("trigger.agent", ("spec",), f"needs the field `{field}`", f"add `{field}:`, or `daemon:`", at="key")
    on = spec["on"]
    if "cron" in on:
        try:
            schedule(on["cron"]["schedule"], on["cron"].get("timeZone", "UTC"))
        except ValueError as error:
            field = "timeZone" if "time zone" in str(error) else "schedule"
            mend = "a name of the IANA list, such as Europe/Zurich" if field == "timeZone" else "for example `0 7 * * MON-FRI`"
            yield Problem("trigger.schedule", ("spec", "on", "cron", field), str(error), mend)
    for index, name in enumerate(on.get("run", {}).get("agents", ())):
        if name == spec.get("agent"):
            message = f"the end of each run of {name} would start another run of {name}"
            yield Problem("trigger.cycle", ("spec", "on", "run", "agents", index), message, "name another agent")
    if "workspace" in on and (reason := refused_glob(on["workspace"]["glob"])):
        yield Problem("trigger.glob", ("spec", "on", "workspace", "glob"), reason, "for example invoices/*.pdf")


_CHECKS: Final[Mapping[str, Callable[[Mapping[str, Json]], Iterator[Problem]]]] = {
    "Agent": _agent,
    "Model": _model,
    "ModelClass": _model_class,
    "PriorityClass": _priority_class,
    "Sandbox": check_sandbox,
    "Secret": check_secret,
    "Tool": check_tool,
    "ToolGrant": _grant,
    "Trigger": _trigger,
    "Policy": _policy,
}
