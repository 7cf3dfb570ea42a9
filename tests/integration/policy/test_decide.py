"""The decider over the shipped policies and real OPA: what it answers, and that nothing opens it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos.abi.canonical import Json, NotCanonical, digest_of
from agentos.abi.decision import Decision, Verdict, deny
from agentos.abi.errors import EngineUnavailable, PolicyError
from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.bundle import axioms, policy_digest
from agentos.policy.decide import CacheStats, ControlDecider, Decider, data_digest
from agentos.policy.port import Module

PATIENT = 30.0
"""Seconds a decision may take where the deadline is not what is tested: a busy machine is no wrong answer."""

POLICY = """# METADATA
# title: t
# description: d
package agentos.syscall.rules.{name}

results contains {{"rule": "{name}.no", "effect": "{effect}", "reason": "no"}} if {{
	{condition}
}}
"""


def policy(name: str, condition: str, effect: str = "deny") -> Module:
    return Module(f"{name}/{name}.rego", POLICY.format(name=name, condition=condition, effect=effect))


async def test_a_granted_call_is_allowed(factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]) -> None:
    """The whole decision names the grant and who gave it."""
    decider = await Decider.load(factory, axioms(), facts, decision_seconds=PATIENT)
    assert await decider.decide_syscall(call) == Decision(
        Verdict.ALLOW,
        ("grants.allowed",),
        ("grant may-read lets agent triage call tool read (granted by principal/al)",),
        grants=("may-read",),
    )
    assert decider.digest == policy_digest(axioms())
    decider.close()


async def test_a_denied_call_lists_every_rule_that_denied(
    factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]
) -> None:
    """Rules are sorted, reasons stand in their order."""
    decider = await Decider.load(
        factory, [*axioms(), policy("care", 'input.syscall.tool == "read"')], facts, decision_seconds=PATIENT
    )
    call["syscall"]["args"]["path"] = "../x"
    call["budget"] = {"calls": 3, "tokens": 100}
    assert await decider.decide_syscall(call) == Decision(
        Verdict.DENY,
        ("budget.calls", "budget.tokens", "care.no", "workspace.parent"),
        (
            "the session has used up the 3 calls of agent triage; an operator can raise its budget",
            "the session has used up the 100 tokens of agent triage; an operator can raise its budget",
            "no",
            'argument path: "../x" leads upwards; no path may hold a .. step',
        ),
    )
    decider.close()


def approval(call: Mapping[str, Any], **changed: Json) -> dict[str, Any]:
    """A yes to exactly this call, given under the policy in force."""
    return {
        "tool": call["syscall"]["tool"],
        "args_digest": call["syscall"]["args_digest"],
        "by": "principal/bo",
        "reason": "fine",
        "at": call["now"] - 10,
        "expires": call["now"] + 10,
        "policy_digest": call["policy_digest"],
        "scope": "once",
        "rules": ["grants.approval"],
        "uses_left": 1,
    } | changed


async def test_ask_is_satisfied_by_an_approval_of_exactly_this_call(
    factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]
) -> None:
    """An approval binds to tool, arguments, policy and time; neither a question nor an answer that has to do with one is kept."""
    decider = await Decider.load(factory, axioms(), facts, decision_seconds=PATIENT)
    call["syscall"] |= {"tool": "send", "effect": "external", "args": {"to": "bo@acme.example"}}
    call["policy_digest"] = decider.digest
    assert (await decider.decide_syscall(call)).effect is Verdict.ASK
    for other in ({"args_digest": "sha256:" + "1" * 64}, {"expires": call["now"]}, {"policy_digest": "sha256:0"}):
        call["approvals"] = [approval(call, **other)]
        assert (await decider.decide_syscall(call)).effect is Verdict.ASK
    call["approvals"] = [approval(call)]
    decision = await decider.decide_syscall(call)
    assert decision.effect is Verdict.ALLOW
    assert decision.rules == ("grants.approval", "syscall.approved")
    assert decision.grants == (facts["agentos"]["grants"]["triage"]["send"][0]["name"],)
    assert (await decider.decide_syscall(call | {"now": call["now"] + 10})).effect is Verdict.ASK
    assert decider.stats() == CacheStats(hits=0, misses=1, uncached=5, size=0)
    decider.close()


async def test_a_tenant_names_no_grants(factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]) -> None:
    """A tenant's result with `grants` is none: it denies, and no name of its making stands in the decision."""
    source = policy("care", "true", "ask").source.replace('"reason":', '"grants": ["made-up"], "reason":')
    decider = await Decider.load(factory, [*axioms(), Module("care.rego", source)], facts, decision_seconds=PATIENT)
    decision = await decider.decide_syscall(call)
    assert (decision.effect, decision.rules, decision.grants) == (Verdict.DENY, ("syscall.malformed",), ())
    decider.close()


async def test_many_grants_are_still_a_decision(factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]) -> None:
    """Of more grants than a decision may name the first are named; the answer is kept with them."""
    [grant] = facts["agentos"]["grants"]["triage"]["read"]
    names = [f"g-{number}" for number in range(100, 250)]
    facts["agentos"]["grants"]["triage"]["read"] = [grant | {"name": name} for name in reversed(names)]
    decider = await Decider.load(factory, axioms(), facts, decision_seconds=PATIENT)
    decision = await decider.decide_syscall(call)
    assert (decision.effect, decision.grants) == (Verdict.ALLOW, tuple(names[:100]))
    assert await decider.decide_syscall(call) == decision
    assert decider.stats().hits == 1
    decider.close()


async def test_who_asked_for_the_work_does_not_approve_it(factory: EmbeddedFactory, facts: dict[str, Any]) -> None:
    """An approval is decided by the shipped rules and the tenant's own, each time anew."""
    source = POLICY.replace("syscall", "approval").format(name="care", condition='input.approval.reason == ""', effect="deny")
    decider = await Decider.load(factory, [*axioms(), Module("care.rego", source)], facts, decision_seconds=PATIENT)
    asked: dict[str, Any] = {
        "abi": "agentos/v1",
        "approval": {"by": "principal/bo", "roles": ["approver"], "reason": "fine", "scope": "once", "expires": 9, "max_uses": 1},
        "call": {"call": "c-1", "tool": "send", "effect": "external", "args": {}, "args_digest": "sha256:" + "0" * 64},
        "agent": {"name": "triage", "labels": {}},
        "session": {"id": "s-1", "tenant": "default", "actor": "principal/al", "labels": [], "delegation": []},
        "approvals": [],
        "now": 5,
    }
    assert await decider.approve(asked) == Decision(Verdict.ALLOW)
    asked["approval"]["reason"] = ""
    assert (await decider.approve(asked)).rules == ("care.no",)
    asked["approval"] |= {"reason": "fine", "by": "principal/al"}
    assert (await decider.approve(asked)).rules == ("requester.same",)
    assert (await decider.approve({})).effect is Verdict.DENY
    assert decider.stats() == CacheStats(hits=0, misses=0, uncached=0, size=0)
    decider.close()
    assert (await decider.approve(asked)).failed


@pytest.mark.parametrize("mode", ["warn", "dryrun"])
async def test_a_policy_that_does_not_bind_is_observed(
    factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any], mode: str
) -> None:
    """The call goes through, and the decision tells what the policy would have said."""
    facts["agentos"]["policies"] = {"care": {"mode": mode, "name": "care"}}
    decider = await Decider.load(factory, [*axioms(), policy("care", "true", "halt")], facts, decision_seconds=PATIENT)
    decision = await decider.decide_syscall(call)
    assert decision.effect is Verdict.ALLOW
    assert decision.observed == ({"rule": "care.no", "effect": "halt", "reason": "no", "mode": mode},)
    decider.close()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"syscall": None},
        {"syscall": {"tool": 1, "args": []}},
        {"agent": "triage"},
        {"now": "x", "budget": None, "approvals": 3},
    ],
)
async def test_a_malformed_input_is_denied(factory: EmbeddedFactory, facts: dict[str, Any], document: dict[str, Json]) -> None:
    """Whatever is asked, the answer is a denial unless policy said otherwise."""
    decider = await Decider.load(factory, axioms(), facts, decision_seconds=PATIENT)
    assert (await decider.decide_syscall(document)).effect is Verdict.DENY
    decider.close()


async def test_a_policy_that_fails_denies_with_a_sentence(
    factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]
) -> None:
    """An error of evaluation is no decision, and no decision is a denial."""
    decider = await Decider.load(
        factory,
        [*axioms(), policy("care", "startswith(input.config_revision, input.syscall.tool)")],
        facts,
        decision_seconds=PATIENT,
    )
    decision = await decider.decide_syscall(call)
    assert decision.effect is Verdict.DENY
    assert decision.rules == ("policy.failed",)
    assert decision.reasons[0].startswith("policy gave no decision: policy failed to evaluate")
    decider.close()


async def test_a_slow_policy_is_denied_and_denied_at_once_later(
    factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]
) -> None:
    """A policy that loops denies; it does not hang the gate."""
    loop = "count([1 | some a in numbers.range(1, 3000); some b in numbers.range(1, 1000); a * b == input.now]) > 0"
    decider = await Decider.load(factory, [*axioms(), policy("slow", f"input.syscall.tool\n\t{loop}")], facts)
    for said in ("within 100 ms", "within 100 ms", "until one ends"):
        call["now"] += 1
        decision = await decider.decide_syscall(call)
        assert decision.rules == ("policy.failed",)
        assert said in decision.reasons[0]
    decider.close()


async def test_without_an_engine_everything_is_denied(call: dict[str, Any]) -> None:
    """The denial says how to get an engine."""
    decider = Decider.denying(EngineUnavailable("OPA is not installed", mend="install it"))
    expected = deny("policy.failed", "there is no policy engine: OPA is not installed; install it")
    assert await decider.decide_syscall(call) == expected
    assert await decider.admit({}) == expected
    decider.close()


@pytest.mark.parametrize(
    "source",
    [
        'package agentos.syscall.rules.grants\n\nresults contains {"rule": "x", "effect": "allow", "reason": ""}\n',
        'package agentos.syscall\n\ndecision := {"effect": "allow", "rules": [], "reasons": []}\n',
        "package agentos.syscall.rules.care.deep\n\nresults contains 1\n",
        "package agentos.grants\n\nx := 1\n",
        "package agentos.control.rules.care\n\nresults contains 1\n",
        "package agentos.admission.rules.grants\n\nresults contains 1\n",
        "package agentos.approval.rules.workspace\n\nresults contains 1\n",
    ],
)
async def test_a_tenant_cannot_write_into_the_packages_of_the_axioms(
    factory: EmbeddedFactory, facts: dict[str, Any], source: str
) -> None:
    """A module outside of `agentos.<target>.rules.<own name>` is refused before it is loaded."""
    with pytest.raises(PolicyError, match="is not for a tenant's policy"):
        await Decider.load(factory, [*axioms(), Module("p/care.rego", source)], facts, decision_seconds=PATIENT)


async def test_an_allow_of_a_tenants_rule_is_malformed(
    factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]
) -> None:
    """Only grants allow: a rule that tries denies instead."""
    facts["agentos"]["grants"] = {}
    decider = await Decider.load(factory, [*axioms(), policy("care", "true", "allow")], facts, decision_seconds=PATIENT)
    assert (await decider.decide_syscall(call)).rules == ("grants.none", "syscall.malformed")
    decider.close()


async def test_admission_names_the_grant_of_a_high_risk_agent(factory: EmbeddedFactory, facts: dict[str, Any]) -> None:
    """The violation says which grant gives which tool to whom."""
    decider = await Decider.load(factory, axioms(), facts, decision_seconds=PATIENT)
    resources: list[dict[str, Any]] = [
        {
            "apiVersion": "agentos/v1",
            "kind": "Agent",
            "metadata": {"name": "a"},
            "spec": {"governance": {"risk": "high", "retentionDays": 183}},
        },
        {"apiVersion": "agentos/v1", "kind": "Tool", "metadata": {"name": "pay"}, "spec": {"effect": "external"}},
        {"apiVersion": "agentos/v1", "kind": "ToolGrant", "metadata": {"name": "g"}, "spec": {"agents": ["a"], "tools": ["pay"]}},
    ]
    question: dict[str, Any] = {
        "abi": "agentos/v1",
        "principal": {"name": "al", "roles": ["operator"], "tenant": "*"},
        "tenant": "default",
        "changes": [{"action": "create", "resource": resource} for resource in resources],
        "resources": resources,
    }
    assert (await decider.admit(question)).reasons == (
        "toolgrant g gives agent a (risk: high) the external tool pay without approval; set approval: required",
    )
    resources[2]["spec"]["approval"] = "required"
    assert await decider.admit(question) == Decision(Verdict.ALLOW)
    decider.close()


async def test_the_control_door(factory: EmbeddedFactory) -> None:
    """A principal without the role is told which role can."""
    door = await ControlDecider.load(factory)
    question = {
        "abi": "agentos/v1",
        "principal": {"name": "al", "roles": ["auditor"], "tenant": "*"},
        "verb": "registry.apply",
        "tenant": "default",
    }
    assert await door.decide(question) == deny("roles.missing", "principal al may not use registry.apply; role operator can")
    question["principal"] = {"name": "al", "roles": ["operator"], "tenant": "*"}
    assert (await door.decide(question)).effect is Verdict.ALLOW
    assert (await door.decide(question)).effect is Verdict.ALLOW
    assert door.stats() == CacheStats(hits=1, misses=2, uncached=0, size=2)
    door.close()


async def test_the_same_call_of_another_session_is_answered_from_the_cache(
    factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]
) -> None:
    """What no rule reads, and how far a budget or the clock has come without passing a limit, is not in the key."""
    decider = await Decider.load(factory, axioms(), facts, decision_seconds=PATIENT)
    await decider.decide_syscall(call)
    call |= {"now": 9000, "budget": {"calls": 2, "tokens": 99}, "config_revision": 7}
    call["session"]["id"] = "s-2"
    await decider.decide_syscall(call)
    assert decider.stats() == CacheStats(hits=1, misses=1, uncached=0, size=1)
    call["budget"]["calls"] = 3
    assert (await decider.decide_syscall(call)).effect is Verdict.DENY
    decider.close()


async def test_a_policy_that_reads_the_clock_or_everything_is_asked_each_time(
    factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]
) -> None:
    """A tenant's rule may compare the clock with anything: then nothing is reused across moments, or at all."""
    clock = await Decider.load(factory, [*axioms(), policy("clock", "input.now % 2 == 1")], facts, decision_seconds=PATIENT)
    whole = await Decider.load(factory, [*axioms(), policy("whole", "walk(input, [_, 4001])")], facts, decision_seconds=PATIENT)
    for decider in (clock, whole):
        assert (await decider.decide_syscall(call | {"now": 4000})).effect is Verdict.ALLOW
        assert (await decider.decide_syscall(call | {"now": 4001})).effect is Verdict.DENY
        assert decider.stats().hits == 0
        decider.close()
    assert whole.stats().uncached == 2


async def test_the_cache_is_bounded(factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]) -> None:
    """No more decisions are kept than it was told."""
    decider = await Decider.load(factory, axioms(), facts, cache_size=3, decision_seconds=PATIENT)
    for n in range(6):
        call["syscall"]["args"]["path"] = f"f{n}"
        await decider.decide_syscall(call)
    assert decider.stats().size == 3
    decider.close()


OBLIGED = """package agentos.syscall.rules.obliged

results contains {
	"rule": "obliged.all",
	"effect": "oblige",
	"reason": "marked",
	"obligations": [{"kind": "label", "labels": ["seen"]}],
}
"""


async def test_a_decision_with_obligations_is_kept(factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]) -> None:
    """What binds the runtime comes from the cache as it came from the engine."""
    decider = await Decider.load(factory, [*axioms(), Module("obliged.rego", OBLIGED)], facts, decision_seconds=PATIENT)
    first = await decider.decide_syscall(call)
    assert first.effect is Verdict.ALLOW
    assert [one.to_dict() for one in first.obligations] == [{"kind": "label", "rule": "obliged.all", "labels": ["seen"]}]
    assert await decider.decide_syscall(call) == first
    assert decider.stats() == CacheStats(hits=1, misses=1, uncached=0, size=1)
    decider.close()


class Told:
    """An engine that answers what it is told, and counts the questions."""

    version = "told 1"
    answering = True

    def __init__(self, answer: Json) -> None:
        self.answer = answer
        self.asked = 0

    async def load(self, modules: object, data: object) -> Told:
        return self

    async def evaluate(self, path: str, document: Mapping[str, Json], *, within: float = 1.0) -> Json:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ({"effect": "allow", "rules": [], "reasons": []}, 1),
        ({"effect": "deny", "rules": ["a"], "reasons": []}, 1),
        ({"effect": "halt", "rules": ["a"], "reasons": []}, 1),
        ({"effect": "ask", "rules": ["a"], "reasons": []}, 3),
        ({"effect": "allow", "rules": [], "reasons": [], "surprise": 1}, 3),
        ({"effect": "allow", "rules": [], "reasons": [], "obligations": [{"kind": "unknown", "rule": "a"}]}, 3),
        ("allow", 3),
        (None, 3),
        (EngineUnavailable("gone"), 3),
    ],
)
async def test_what_is_kept(facts: dict[str, Any], call: dict[str, Any], answer: Json, asked: int) -> None:
    """A question for a person, an answer that is no decision, and none at all are never kept; the last two deny as failed."""
    engine = Told(answer)
    decider = await Decider.load(engine, axioms(), facts)
    answers = [await decider.decide_syscall(call) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert engine.asked == asked
    readable = isinstance(answer, dict) and not {"surprise", "obligations"} & set(answer)
    assert answers[0].failed is not readable
    decider.close()


async def test_a_closed_decider_has_forgotten(factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]) -> None:
    """After the end of an engine nothing is allowed in its name."""
    decider = await Decider.load(factory, axioms(), facts, decision_seconds=PATIENT)
    assert (await decider.decide_syscall(call)).effect is Verdict.ALLOW
    decider.close()
    assert (await decider.decide_syscall(call)).failed


async def test_a_decider_says_what_it_decides_with(factory: EmbeddedFactory, facts: dict[str, Any]) -> None:
    """Engine, policy and data stand in the log beside each decision."""
    decider = await Decider.load(factory, axioms(), facts)
    assert decider.engine == factory.version
    assert decider.digest == policy_digest(axioms())
    assert decider.data_digest == digest_of(facts)
    decider.close()
    none = Decider.denying(EngineUnavailable("OPA is not installed"))
    assert (none.engine, none.data_digest) == ("none", digest_of({}))


async def test_after_a_move_the_quarantine_is_what_answers(facts: dict[str, Any], call: dict[str, Any]) -> None:
    """A policy that does not keep its deadline is decided elsewhere from then on, and the decider says where."""
    quarantine = Told({"effect": "deny", "rules": ["told"], "reasons": []})
    loop = "count([1 | some a in numbers.range(1, 3000); some b in numbers.range(1, 1000); a * b == input.now]) > 0"
    factory = EmbeddedFactory(quarantine=quarantine)
    decider = await Decider.load(factory, [*axioms(), policy("slow", f"input.syscall.tool\n\t{loop}")], facts)
    assert decider.engine == factory.version
    assert (await decider.decide_syscall(call)).failed
    assert (await decider.decide_syscall(call)).rules == ("told",)
    assert decider.engine == "told 1"
    decider.close()


FACTS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=4),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(facts=st.dictionaries(st.text(max_size=3), FACTS, max_size=4))
def test_the_digest_of_data_is_that_of_its_canonical_form(facts: dict[str, Json]) -> None:
    """Made piece by piece it is the same digest, and refuses the same data."""
    try:
        expected = digest_of(facts)
    except NotCanonical:
        with pytest.raises(PolicyError, match="is not JSON"):
            data_digest(facts)
    else:
        assert data_digest(facts) == expected


async def test_data_of_a_large_tenant_arrives_whole(factory: EmbeddedFactory, call: dict[str, Any]) -> None:
    """Facts that are handed to the engine in pieces are all there."""
    source = """package agentos.syscall.rules.whole

results contains {"rule": "whole.count", "effect": "deny", "reason": reason} if {
	reason := sprintf("%d", [sum([x | some x in data.agentos.agents]) + count(data.agentos.tools) + data.other])
}
"""
    data = {"agentos": {"agents": {f"a{n}": n for n in range(2500)}, "tools": {"t": {}}, "grants": {}}, "other": 1}
    engine = await factory.load([*axioms("syscall"), Module("whole.rego", source)], data)
    answer = await engine.evaluate("agentos.syscall.rules.whole.results", call, within=PATIENT)
    assert answer[0]["reason"] == str(sum(range(2500)) + 2)
    engine.close()


async def test_a_swap_drops_no_call_and_mixes_nothing(
    factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]
) -> None:
    """While a new revision loads, calls go on under the old one; each is decided wholly by the one that it was asked of."""

    def revision(name: str) -> tuple[list[Module], dict[str, Any]]:
        data = copy.deepcopy(facts)
        data["agentos"]["tenant"]["name"] = name
        both = f'data.agentos.tenant.name == "{name}"'
        return [*axioms(), policy(name, both), policy("mixed", f"not {both}")], data

    current = await Decider.load(factory, *revision("old"), decision_seconds=PATIENT, cache_size=0)
    found: list[tuple[str, tuple[str, ...]]] = []
    over = asyncio.Event()

    async def caller(number: int) -> None:
        while not over.is_set():
            decider = current
            decision = await decider.decide_syscall(call | {"now": number})
            found.append((decider.digest, decision.rules))

    callers = [asyncio.create_task(caller(number)) for number in range(8)]
    old = current
    while len(found) < 50:
        await asyncio.sleep(0)
    modules = revision("new")
    fresh = await Decider.load(factory, *modules, decision_seconds=PATIENT, cache_size=0)
    current = fresh
    old.close()
    while (fresh.digest, ("new.no",)) not in found:
        await asyncio.sleep(0)
    over.set()
    await asyncio.gather(*callers)
    assert set(found) == {(old.digest, ("old.no",)), (fresh.digest, ("new.no",))}
    fresh.close()


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2000), st.sampled_from(["", "a", "../x", "in/a.md", "bo@acme.example"])
)


def calls() -> st.SearchStrategy[dict[str, Any]]:
    """Inputs that are mostly right, so that they reach every rule, and sometimes wrong in one part."""
    return st.fixed_dictionaries(
        {
            "syscall": st.fixed_dictionaries(
                {
                    "tool": st.sampled_from(["read", "send", "other", "model-call"]),
                    "effect": st.sampled_from(["read", "external"]),
                    "args": st.dictionaries(st.sampled_from(["path", "to", "model"]), SCALARS, max_size=2),
                    "args_digest": st.sampled_from(["sha256:1", "sha256:2"]),
                }
            ),
            "agent": st.fixed_dictionaries({"name": st.sampled_from(["triage", "ghost"]), "labels": st.just({})}),
            "session": st.fixed_dictionaries(
                {"id": st.sampled_from(["s-1", "s-2"]), "labels": st.lists(st.sampled_from(["pii", "untrusted"]), max_size=2)}
            ),
            "budget": st.fixed_dictionaries(
                {"calls": st.one_of(st.integers(0, 5), SCALARS), "tokens": st.one_of(st.integers(90, 110), SCALARS)}
            ),
            "approvals": st.lists(
                st.fixed_dictionaries(
                    {
                        "tool": st.just("send"),
                        "args_digest": st.sampled_from(["sha256:1", "sha256:2"]),
                        "by": st.just("principal/bo"),
                        "reason": st.just("fine"),
                        "at": st.just(1),
                        "expires": st.sampled_from([995, 1005]),
                        "policy_digest": st.just("sha256:p"),
                        "scope": st.sampled_from(["once", "session"]),
                        "rules": st.just(["grants.approval"]),
                        "uses_left": st.sampled_from([0, 1]),
                    }
                ),
                max_size=1,
            ),
            "now": st.one_of(st.integers(990, 1010), st.just(5.5), SCALARS),
            "policy_digest": st.sampled_from(["sha256:p", "sha256:q"]),
        },
    )


CONDITIONS = st.lists(
    st.sampled_from(
        [
            'input.syscall.tool == "read"',
            '"pii" in input.session.labels',
            'input.session["id"] == "s-1"',
            "input.budget.calls > 1",
            "input.now % 2 == 0",
            'input.syscall.args[_] == "a"',
            "count(input.approvals) == 0",
            "not data.agentos.agents[input.agent.name]",
        ]
    ),
    min_size=1,
    max_size=2,
)
SLOWLY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@SLOWLY
@given(inputs=st.lists(calls(), min_size=1, max_size=12), condition=CONDITIONS)
def test_the_cache_never_changes_an_answer(facts: dict[str, Any], inputs: list[dict[str, Any]], condition: list[str]) -> None:
    """With and without the cache, every input gets the same decision, whatever a tenant's rule reads."""

    async def compare() -> None:
        factory = EmbeddedFactory()
        modules = [*axioms(), policy("care", "\n\t".join(condition))]
        cached = await Decider.load(factory, modules, facts, decision_seconds=PATIENT)
        asked = await Decider.load(factory, modules, facts, cache_size=0, decision_seconds=PATIENT)
        for document in [*inputs, *inputs]:
            assert await cached.decide_syscall(document) == await asked.decide_syscall(document)
        cached.close()
        asked.close()

    asyncio.run(compare())


@SLOWLY
@given(
    inputs=st.lists(calls(), min_size=1, max_size=8),
    condition=CONDITIONS,
    effect=st.sampled_from(["deny", "halt", "ask"]),
)
def test_adding_a_rule_never_turns_a_decision_into_allow(
    facts: dict[str, Any], inputs: list[dict[str, Any]], condition: list[str], effect: str
) -> None:
    """A further rule can only make a decision stricter, and an input that is allowed with it was allowed without it."""
    order = list(Verdict)

    async def compare() -> None:
        factory = EmbeddedFactory()
        before = await Decider.load(factory, axioms(), facts, decision_seconds=PATIENT)
        after = await Decider.load(
            factory, [*axioms(), policy("care", "\n\t".join(condition), effect)], facts, decision_seconds=PATIENT
        )
        for document in inputs:
            without, with_rule = await before.decide_syscall(document), await after.decide_syscall(document)
            assert order.index(with_rule.effect) <= order.index(without.effect)
        before.close()
        after.close()

    asyncio.run(compare())


async def test_removing_a_grant_never_allows(factory: EmbeddedFactory, facts: dict[str, Any], call: dict[str, Any]) -> None:
    """What is denied with all grants is denied with fewer."""
    less: Mapping[str, Any] = copy.deepcopy(facts)
    less["agentos"]["grants"]["triage"].pop("read")
    decider = await Decider.load(factory, axioms(), less, decision_seconds=PATIENT)
    assert (await decider.decide_syscall(call)).rules == ("grants.none",)
    decider.close()


async def test_an_engine_that_is_down_answers_nothing_that_was_kept(facts: dict[str, Any], call: dict[str, Any]) -> None:
    """While the server is known to be down every question goes to it, and is denied; afterwards what was kept counts again."""
    engine = Told({"effect": "allow", "rules": [], "reasons": []})
    decider = await Decider.load(engine, axioms(), facts)
    assert (await decider.decide_syscall(call)).effect is Verdict.ALLOW
    allow, engine.answer, engine.answering = engine.answer, EngineUnavailable("down"), False
    assert (await decider.decide_syscall(call)).failed
    engine.answer, engine.answering = allow, True
    assert (await decider.decide_syscall(call)).effect is Verdict.ALLOW
    assert engine.asked == 2


async def test_two_policies_do_not_share_a_package(factory: EmbeddedFactory, facts: dict[str, Any]) -> None:
    """What one Policy forbids, another cannot take back from within its package; the files of one Policy may share one."""
    rule = policy("care", "exempt").source.replace("exempt", "not exempt")
    helper = "package agentos.syscall.rules.care\n\nexempt if true\n"
    both = [Module("care/a.rego", rule), Module("care/b.rego", helper)]
    (await Decider.load(factory, [*axioms(), *both], facts, decision_seconds=PATIENT)).close()
    with pytest.raises(PolicyError, match="belongs to policy care"):
        await Decider.load(factory, [*axioms(), both[0], Module("notes/b.rego", helper)], facts, decision_seconds=PATIENT)
