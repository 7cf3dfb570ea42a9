"""The library of policies: every rule is sound, tested, documented and ready to apply, and none ever weakens a decision."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi.canonical import Json, digest_of
from agentos.abi.decision import Decision, Verdict, parse_decision
from agentos.manifests import load
from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms
from agentos.policy.decide import ADMISSION, SYSCALL
from agentos.policy.known import schema
from agentos.policy.lint import lint
from agentos.policy.port import Module
from agentos.policy.testing import TestResult, run_rego_tests

ROOT = Path(__file__).parents[3]
LIBRARY = ROOT / "policies" / "library"
OPA = Path(sys.executable).with_name("opa")
AXIOMS = {
    target: [
        found[1]
        for module in axioms(target)
        if (found := re.search(r"^package agentos\.\w+\.rules\.(\w+)", module.source, re.MULTILINE))
    ]
    for target in ("syscall", "admission", "approval")
}
STRENGTH = {Verdict.ALLOW: 0, Verdict.ASK: 1, Verdict.DENY: 2, Verdict.HALT: 3}
OUTCOMES = {"allowed": Verdict.ALLOW, "obliged": Verdict.ALLOW, "asked": Verdict.ASK, "denied": Verdict.DENY}


@dataclass(frozen=True)
class Rule:
    """A folder of the library."""

    name: str
    target: str
    rego: Module
    test: Module

    @property
    def folder(self) -> Path:
        return LIBRARY / self.name

    @property
    def ids(self) -> set[str]:
        return set(re.findall(r'"rule": "([a-z_]+\.[a-z]+)"', self.rego.source))


def _rule(folder: Path) -> Rule:
    def module(suffix: str) -> Module:
        path = folder / f"{folder.name}{suffix}"
        return Module(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))

    rego = module(".rego")
    target = re.findall(rf"^package agentos\.(syscall|admission)\.rules\.{folder.name}$", rego.source, re.MULTILINE)
    assert len(target) == 1, f"{folder.name}.rego is in another package"
    return Rule(folder.name, target[0], rego, module("_test.rego"))


RULES = [_rule(folder) for folder in sorted(LIBRARY.iterdir()) if folder.is_dir()]
SAMPLES = [(rule, path) for rule in RULES for path in sorted((rule.folder / "samples").iterdir())]
FACTS: dict[str, Json] = json.loads((LIBRARY / "facts.json").read_text("utf-8"))
RESULTS = [result for rule in RULES for result in run_rego_tests([rule.rego, rule.test])]


class Engines:
    """The axioms alone and with one rule each, loaded when they are first asked."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def decide(self, rule: Rule | None, target: str, document: Mapping[str, Json]) -> Decision:
        """The whole decision. An error of evaluation is raised, not turned into a denial."""
        name = rule.name if rule else target
        if name not in self._loaded:
            facts: dict[str, Json] = copy.deepcopy(FACTS)
            facts["agentos"]["rules"] = {
                one: [*AXIOMS[one], *([rule.name] if rule and rule.target == one else [])]
                for one in ("syscall", "admission", "approval")
            }
            self._loaded[name] = opa.build([*axioms(target), *([rule.rego] if rule else [])], facts)
        return parse_decision(self._loaded[name].eval_document(SYSCALL if target == "syscall" else ADMISSION, document))

    def close(self) -> None:
        for engine in self._loaded.values():
            engine.close()


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    made = Engines()
    yield made
    made.close()


def document_of(sample: Path) -> dict[str, Json]:
    loaded: dict[str, Json] = json.loads((sample / "input.json").read_text("utf-8"))
    return loaded


def approval_of(question: Mapping[str, Any], by: str, rules: Iterable[str] = ()) -> dict[str, Json]:
    """A yes to exactly this call, for which `rules` asked, that holds."""
    return {
        "tool": question["syscall"]["tool"],
        "args_digest": question["syscall"]["args_digest"],
        "by": by,
        "reason": "seen",
        "at": question["now"],
        "expires": question["now"] + 1,
        "policy_digest": question["policy_digest"],
        "scope": "once",
        "rules": sorted(rules),
        "uses_left": 1,
    }


def named(rule: Rule) -> str:
    return rule.name


def test_there_is_something_to_start_from() -> None:
    """At least fifteen rules, of both targets, none of which decides unless somebody applies it."""
    assert len(RULES) >= 15
    assert {rule.target for rule in RULES} == {"syscall", "admission"}
    assert not [module.path for module in axioms() if "/library/" in module.path]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: f"{result.package}.{result.name}")
def test_the_rego_tests(result: TestResult) -> None:
    """A Rego test is true."""
    assert result.passed, str(result)


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_the_lint_has_no_findings(rule: Rule) -> None:
    """A rule passes what `agentos policy check` and `apply` ask of a tenant's policy."""
    assert lint([rule.rego, rule.test], target=rule.target) == []


def test_opa_has_no_complaints() -> None:
    """`opa check --strict` with our schemas, and `opa fmt`, as a compliance team runs them."""
    for words in (["check", "--strict", "-s", "schemas/v1", "policies"], ["fmt", "--list", "policies/library"]):
        done = subprocess.run([OPA, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_the_page(rule: Rule) -> None:
    """The page has the four headings in order, and names each id and nothing else as one."""
    page = (rule.folder / "README.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["Avoid", "Prefer", "Rationale", "Configuration"]
    assert page.startswith(f"# {rule.name.replace('_', ' ')}\n")
    assert rule.ids
    assert set(re.findall(rf"`({rule.name}\.[a-z]+)`", page)) - {f"{rule.name}.rego"} == rule.ids
    assert f"ref: policies/library/{rule.name}/README.md" in rule.rego.source


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_the_manifest(rule: Rule) -> None:
    """`policy.yaml` is sound by itself, binds, and holds exactly the rule."""
    loaded = load([rule.folder / "policy.yaml"])
    assert [str(fault) for fault in loaded.faults] == []
    (policy,) = loaded.resources
    assert policy.key.name == rule.name.replace("_", "-")
    assert policy.spec == {
        "target": rule.target,
        "mode": "enforce",
        "modules": [{"path": f"{rule.name}.rego", "source": rule.rego.source}],
    }
    modeline = (rule.folder / "policy.yaml").read_text("utf-8").partition("\n")[0]
    written = modeline.removeprefix("# yaml-language-server: $schema=")
    assert (rule.folder / written).resolve() == ROOT / "schemas" / "v1" / "manifest.json"


def test_all_of_them_can_be_in_force_together() -> None:
    """The manifests of the whole library agree, and so do their modules."""
    loaded = load([LIBRARY])
    assert [str(fault) for fault in loaded.faults] == []
    assert len(loaded.resources) == len(RULES)
    for target in ("syscall", "admission"):
        assert lint([rule.rego for rule in RULES if rule.target == target], target=target) == []


def test_the_facts_are_policy_data() -> None:
    """The facts of the samples are what policies see of a registry."""
    jsonschema.validate(FACTS, dict(schema("policy-data")))


def test_which_rules_cost_the_decision_cache() -> None:
    """Only the rules whose pages say so read the clock or the budget; of every rule it is known what it reads."""
    read = {rule.name: syntax.input_paths([opa.parse(rule.rego)]) for rule in RULES if rule.target == "syscall"}
    assert None not in read.values()
    costly = {name for name, paths in read.items() if any(path[0] in {"now", "budget"} for path in paths or ())}
    assert costly == {"business_hours", "change_freeze", "spend_asks"}
    for rule in RULES:
        assert ("decision cache" in (rule.folder / "README.md").read_text("utf-8")) == (rule.name in costly)


@pytest.mark.parametrize(("rule", "sample"), SAMPLES, ids=lambda part: part.name)
def test_a_sample_is_decided_as_it_is_named(engines: Engines, rule: Rule, sample: Path) -> None:
    """Axioms and rule decide as the folder says; and it is the rule that makes the difference."""
    document = document_of(sample)
    jsonschema.validate(document, dict(schema("policy-input" if rule.target == "syscall" else "admission-input")))
    if rule.target == "syscall":
        assert document["syscall"]["args_digest"] == digest_of(document["syscall"]["args"])
    wanted = OUTCOMES[sample.name.partition("_")[0]]
    found = engines.decide(rule, rule.target, document)
    assert found.effect is wanted, found
    assert engines.decide(None, rule.target, document).effect is Verdict.ALLOW
    if wanted is not Verdict.ALLOW:
        assert set(found.rules) <= rule.ids
    obliged = {one.rule for one in found.obligations}
    assert obliged <= rule.ids
    assert bool(obliged) or not sample.name.startswith("obliged")


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_the_samples_show_the_rule(engines: Engines, rule: Rule) -> None:
    """There is a sample that passes, one that does not, and, for a rule that asks, what an approval does."""
    samples = [path for one, path in SAMPLES if one is rule]
    outcomes = {path.name.partition("_")[0] for path in samples}
    assert "allowed" in outcomes
    assert outcomes & {"asked", "denied", "obliged"}
    for sample in samples:
        document = document_of(sample)
        if sample.name.startswith("asked"):
            document["approvals"] = [approval_of(document, by, rule.ids) for by in ("principal/cy", "principal/di")]
            assert engines.decide(rule, rule.target, document).effect is Verdict.ALLOW


WORDS = st.sampled_from(
    [
        "", "a", "untrusted", "pii", "confidential", "bo@partner.example", "eve@elsewhere.example", "https://api.partner.example/",
        "http://localhost/", "//x", "http:\\\\127.1", "outbox/a.md", "input/a.md", "../x", ".git/config", "4111 1111 1111 1111",
        "passwd=hunter2!", "inhouse-large", "hosted-large", "principal/ada", "principal/bo", "read-only", "ä\u2028\0", "x" * 5000,
    ]
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["path", "to", "CC", "url", "body", "content", "model", "paths", ""])
QUESTIONS = [document_of(sample) for rule, sample in SAMPLES if rule.target == "syscall" and rule.name != "size_caps"]


@st.composite
def valid_questions(draw: st.DrawFn) -> dict[str, Json]:
    """A question that the gate could ask: a sample, with anything at all in its arguments and any state of its session."""
    question = copy.deepcopy(draw(st.sampled_from(QUESTIONS)))
    call, session = question["syscall"], question["session"]
    tools = FACTS["agentos"]["tools"]
    call["tool"] = draw(st.sampled_from([call["tool"], *tools, "model-call", "ghost"]))
    call["effect"] = tools.get(call["tool"], {"effect": "external"})["effect"]
    call["args"] = draw(st.just(call["args"]) | st.dictionaries(NAMES, VALUES, max_size=4))
    call["args_digest"] = digest_of(json.dumps(call["args"]))
    question["agent"] = {
        "name": draw(st.sampled_from(["clerk", "hosted-clerk", "payer", "ghost"])),
        "labels": draw(st.dictionaries(st.sampled_from(["access", "data", "x"]), WORDS, max_size=2)),
    }
    session["labels"] = draw(st.lists(WORDS, max_size=4, unique=True))
    session["actor"] = draw(st.sampled_from(["principal/ada", "principal/bo"]))
    chain = ["s-1", "s-2", "s-3"][: draw(st.integers(0, 3))]
    desk = {"agent": "desk", "labels": {}, "tool": "ask-clerk", "tools": None}
    session["delegation"] = chain
    session["delegators"] = [{"session": one, **desk} for one in chain]
    session["unknown"] = draw(st.lists(st.sampled_from(["fetch", "pay", "ghost"]), max_size=2, unique=True))
    question["budget"] = {"calls": draw(st.integers(0, 120)), "tokens": draw(st.integers(0, 120_000))}
    question["now"] = draw(st.integers(0, 2**63))
    question["approvals"] = [
        approval_of(question, by) for by in draw(st.lists(st.sampled_from(["principal/bo", "principal/cy"])))
    ]
    return question


@settings(max_examples=100, deadline=None)
@given(valid_questions())
def test_a_rule_never_makes_a_decision_weaker(engines: Engines, question: dict[str, Json]) -> None:
    """Metamorphic: whatever is asked, axioms and a rule answer, and at least as strictly as the axioms alone."""
    alone = STRENGTH[engines.decide(None, "syscall", question).effect]
    for rule in RULES:
        if rule.target == "syscall":
            assert STRENGTH[engines.decide(rule, "syscall", question).effect] >= alone, rule.name


def _paths(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        yield (*path, step)
        yield from _paths(inner, (*path, step))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_broken_opens_nothing(engines: Engines, data: st.DataObject) -> None:
    """Any part of a question dropped or replaced: with the rule it is answered as strictly as without, or not at all."""
    rule, sample = data.draw(st.sampled_from(SAMPLES))
    document = document_of(sample)
    path = data.draw(st.sampled_from(list(_paths(document))))
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    if data.draw(st.booleans()):
        del place[path[-1]]
    else:
        place[path[-1]] = data.draw(VALUES)
    error = opa.bindings().OpaError
    try:
        found = STRENGTH[engines.decide(rule, rule.target, document).effect]
    except error:
        return
    assert found >= STRENGTH[engines.decide(None, rule.target, document).effect]
