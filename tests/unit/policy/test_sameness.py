"""Which questions are the same: equal keys only where policy cannot tell the questions apart."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi.canonical import Json
from agentos.policy.adapters import opa
from agentos.policy.adapters.opa import parse
from agentos.policy.bundle import axioms
from agentos.policy.decide import CONTROL, SYSCALL
from agentos.policy.port import Module
from agentos.policy.sameness import APPROVED, COMPARED, NAMED, Sameness, reads
from agentos.policy.syntax import nodes, package

GRANT = {"approval": False, "by": "principal/al", "digest": "sha256:0"}
FACTS: dict[str, Any] = {
    "agentos": {
        "tenant": {"name": "default", "limits": {"sessions": 100}},
        "agents": {
            name: {"model": "small", "tools": ["read", "send"], "budget": {"calls": 3, "tokens": 100}, "governance": {}}
            for name in ("triage", "other")
        },
        "tools": {
            "read": {"effect": "read", "labels": [], "driver": "builtin", "primitive": "read", "workspace_args": ["path"]},
            "send": {"effect": "external", "labels": ["mail"], "driver": "mcp", "workspace_args": []},
            "clean": {"effect": "write", "labels": [], "driver": "builtin", "primitive": "declassify", "workspace_args": []},
        },
        "grants": {
            "triage": {
                "read": [GRANT | {"name": "may-read", "args": {}, "max_uses": 7}],
                "send": [
                    GRANT | {"name": "inside", "args": {"to": {"glob": "*@acme.example"}, "n": {"maximum": 1}}},
                    GRANT | {"name": "early", "args": {"to": {"oneOf": [1, True, "x"]}}, "until": 1000},
                ],
                "clean": [GRANT | {"name": "may-clean", "args": {}}],
            }
        },
        "policies": {},
        "rules": {"syscall": ["budget", "declassify", "grants", "model", "workspace"], "admission": [], "approval": []},
        "roles": {},
    }
}
CALL: dict[str, Any] = {
    "abi": "agentos/v1",
    "syscall": {"tool": "send", "effect": "external", "args": {"to": "bo@acme.example", "n": 1}, "args_digest": "sha256:a"},
    "agent": {"name": "triage", "labels": {"team": "ops"}},
    "session": {"id": "s-1", "tenant": "default", "actor": "principal/al", "labels": ["pii"], "delegation": []},
    "budget": {"calls": 0, "tokens": 0},
    "approvals": [],
    "config_revision": 1,
    "policy_digest": "sha256:b",
    "spent": [],
    "now": 900,
}


def rule(body: str, name: str = "care") -> Module:
    result = '{"rule": "r", "effect": "deny", "reason": ""}'
    source = f"package agentos.syscall.rules.{name}\n\nresults contains {result} if {{ {body} }}\n"
    return Module(f"{name}.rego", source)


@cache
def sameness(*own: Module) -> Sameness:
    told = reads([*axioms(), *own], SYSCALL)
    assert told is not None
    return Sameness(told, FACTS)


def changed(path: str, value: Json) -> dict[str, Any]:
    """The call with one part set, or taken away where `value` is `...`."""
    copied = copy.deepcopy(CALL)
    *parents, last = path.split("/")
    node = copied
    for step in parents:
        node = node[step]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return copied


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("session/id", "s-2"),
        ("session/actor", "principal/bo"),
        ("config_revision", 7),
        ("policy_digest", "sha256:c"),
        ("syscall/args_digest", "sha256:d"),
        ("syscall/args/body", "what no grant constrains"),
        ("now", 999),
        ("budget/calls", 2),
        ("budget/tokens", 99),
    ],
)
def test_what_no_rule_can_tell_apart_has_one_key(path: str, value: Json) -> None:
    """Ids, digests, arguments that nothing constrains, and time and use that pass no limit are not in the key."""
    assert sameness().key(changed(path, value)) == sameness().key(CALL) is not None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("syscall/tool", "read"),
        ("syscall/args/to", "eve@evil.example"),
        ("syscall/args/to", ...),
        ("syscall/args/n", True),
        ("syscall/args/n", 1.0),
        ("syscall/args/n", "1"),
        ("syscall/args/n", None),
        ("syscall/args/labels", ["pii"]),
        ("syscall/args", ["to", "n"]),
        ("agent/name", "other"),
        ("agent/labels", {}),
        ("session/labels", []),
        ("session/labels", ...),
        ("session/delegation", ["s-0"]),
        ("session/delegators", []),
        ("session/delegators", None),
        ("session/tools", ["send"]),
        ("session/children", 1),
        ("approvals", ...),
        ("now", 1000),
        ("budget/calls", 3),
        ("budget/tokens", 100),
    ],
)
def test_what_a_rule_can_tell_apart_has_keys_of_its_own(path: str, value: Json) -> None:
    """Values that are equal to Python and not to policy (1, 1.0, true), absent ones, and the other side of a limit differ."""
    other = sameness().key(changed(path, value))
    assert other is not None
    assert other != sameness().key(CALL)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("approvals", [{"by": "principal/bo"}]),
        ("now", 900.0),
        ("now", True),
        ("now", ...),
        ("budget", None),
        ("syscall/args/to", object()),
        ("session/labels", {"a", object()}),
    ],
)
def test_some_questions_have_no_key(path: str, value: Json) -> None:
    """With approvals, without a number where one is compared, and with what is no JSON the engine is asked."""
    assert sameness().key(changed(path, value)) is None


def test_what_the_grants_of_a_delegator_constrain_is_in_the_key() -> None:
    """An argument that only a grant of somebody above constrains is told apart; one that nobody's does is not."""
    document = changed("agent/name", "other")
    document["session"] |= {"delegation": ["s-0"], "delegators": [LINK]}
    keys = []
    for name, value in (("n", 1), ("n", 2), ("body", "x"), ("body", "y")):
        one = copy.deepcopy(document)
        one["syscall"]["args"][name] = value
        keys.append(sameness().key(one))
    assert None not in keys
    assert keys[0] != keys[1]
    assert keys[2] == keys[3]


def test_odd_delegators_are_told_apart() -> None:
    """What names no agent is in the key as it is, with all arguments."""
    odd: list[Json] = [[{}], ["triage"], [LINK | {"agent": []}], {"0": LINK}, 5, "x", [LINK, None]]
    keys = [sameness().key(changed("session/delegators", one)) for one in odd]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_zeros_infinities_and_surrogates_keep_apart() -> None:
    """Numbers that compare equal and are written otherwise, and texts that one encoding would unite, have keys of their own."""
    values: list[Json] = [0, 0.0, -0.0, False, None, "", "0", "\ud800", "\udc00", "\ufffd", "é", "e\u0301", [], {}, [0], [[]]]
    values += [float("inf"), float("-inf"), float("nan"), 2**53, 2**53 + 1, 2**64]
    keys = [sameness().key(changed("syscall/args/n", value)) for value in values]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_a_long_question_is_kept_by_its_digest() -> None:
    """Keys stay small, whatever is in the arguments."""
    one, other = (sameness().key(changed("syscall/args/to", "x" * 100_000 + end)) for end in ("a", "b"))
    assert one is not None
    assert other is not None
    assert one != other
    assert len(one) < 100


@pytest.mark.parametrize(
    ("body", "path", "value"),
    [
        ("input.now % 2 == 1", "now", 901),
        ("input.budget.calls * 2 > 1", "budget/calls", 1),
        ('input.session["id"] == "s-2"', "session/id", "s-2"),
        ("some text in input.syscall.args; text == 1", "syscall/args/body", 1),
        ("count(input.syscall) > 3", "syscall/args/body", 1),
        ('input.syscall.args.body == "x"', "syscall/args/body", "x"),
        ('input.syscall.args_digest == "sha256:d"', "syscall/args_digest", "sha256:d"),
        ('input.policy_digest == "sha256:d"', "policy_digest", "sha256:d"),
        ('data.agentos.syscall.rules.grants.current({"until": 950})', "now", 960),
        ('data.agentos.syscall.rules.grants.satisfied("body", {"equals": 1})', "syscall/args/body", 1),
        ('some rules in data.agentos.syscall.rules; rules.satisfied("body", {"equals": 1})', "syscall/args/body", 1),
        ("data.agentos.admission.rules.other.x", "session/id", "s-2"),
    ],
)
def test_what_a_tenants_rule_reads_is_in_the_key(body: str, path: str, value: Json) -> None:
    """Also what it reads by way of a shipped function that it calls with limits and names of its own, or of another package."""
    other = Module("other.rego", 'package agentos.admission.rules.other\n\nx if input.session["id"] == "s-2"\n')
    keys = sameness(rule(body), other)
    assert keys.key(changed(path, value)) != keys.key(CALL)


def test_modules_that_are_not_reached_read_nothing() -> None:
    """What admission and approval read does not keep syscalls apart."""
    told = reads(axioms(), SYSCALL)
    assert told is not None
    assert {path[0] for path in told.exact} <= {"agent", "session", "syscall", "approvals", "spent"}
    request = {"tool", "sandbox", "scheme", "host", "port", "method", "path"}
    assert told.named == {"labels", "model", "agent", "tasks", "tools"} | request
    control = reads(axioms("control"), CONTROL)
    assert control is not None
    assert {path[0] for path in control.exact} <= {"abi", "principal", "verb", "tenant"}
    assert control.named is None


def test_what_cannot_be_told_is_not_kept() -> None:
    """A rule that reads the whole input leaves no key."""
    assert reads([*axioms(), rule("walk(input, [_, 1])")], SYSCALL) is None


def lines(module: Module, pattern: str) -> set[str]:
    return {line.strip() for line in module.source.splitlines() if re.search(pattern, line) and not line.startswith("#")}


def dotted(term: Json) -> str:
    """`input.now`; empty for what is no plain reference."""
    parts = [part.get("value") for part in term["value"]] if term.get("type") == "ref" else []
    return ".".join(parts) if all(isinstance(part, str) for part in parts) else ""


def test_shipped_rules_only_compare_the_clock_and_the_budget() -> None:
    """The key holds on which side of the data's limits they lie: no shipped rule may do more than compare them with those.

    An approval's end is no limit of the data: it may be compared because a question with approvals has no key.
    """
    limits = {
        "input.now": {"grant.until", "given.expires"},
        "input.budget.calls": {"limits.calls"},
        "input.budget.tokens": {"limits.tokens"},
    }
    assert set(limits) == {".".join(("input", *path)) for path in COMPARED}
    for module in axioms("syscall"):
        tree = parse(module)
        reads = [dotted(node) for node in nodes(tree) if dotted(node).startswith(("input.now", "input.budget"))]
        assert set(reads) <= set(limits)
        for node in nodes(tree):
            terms = node.get("terms")
            terms = terms if isinstance(terms, list) else node["value"] if node.get("type") == "call" else [{}]
            for term in terms[1:]:
                if (read := dotted(term)) not in limits:
                    continue
                reads.remove(read)
                operator = dotted(terms[0])
                assert operator in {"lt", "is_number"}, (module.path, operator)
                assert operator != "lt" or (term is terms[1] and dotted(terms[2]) in limits[read]), module.path
        assert reads == [], f"{module.path} does something else with it"
        if "given.expires" in module.source:
            assert set(re.findall(r"some given in ([\w.]+)", module.source)) <= {"input.approvals", "approval"}
            assert lines(module, r"\bgiven :?= ") == set()


def test_shipped_rules_read_the_arguments_that_the_data_names() -> None:
    """Every reading of an argument whose name is no constant stands here, with where its name comes from."""
    found = {package(parse(module))[-1]: lines(module, r"input\.syscall\.args(?![_.\w])") for module in axioms("syscall")}
    assert {name: those for name, those in found.items() if those} == {
        # `name` is a key of a grant's `args`:
        "grants": {"value := input.syscall.args[name]"},
        # `name` is one of the tool's `workspace_args`:
        "workspace": {"some value in flat(input.syscall.args[name])", "argument := input.syscall.args[name]"},
        # the constant `model`, which the rule reads as `input.syscall.args.model` too:
        "model": {'[agent, json.marshal(object.get(input.syscall.args, "model", null))],'},
    }
    for module in axioms("syscall"):
        assert lines(module, r"\binput\.syscall(?![.\w])") == set()
        for line in lines(module, r"\bsatisfied\("):
            assert line.startswith(("satisfied(name, constraint)", "unmet := [name | some name, constraint in grant.args;"))
        if "satisfied(" in module.source:
            assert lines(module, r"every .* in grant\.args") == {"every name, constraint in grant.args {"}
        if "flat(input.syscall" in module.source:
            assert lines(module, r"some name in ") == {"some name in names"}
            names = {"default names := []", "names := data.agentos.tools[input.syscall.tool].workspace_args"}
            assert lines(module, r"\bnames :=") == names
    assert NAMED == ("syscall", "args")


def test_shipped_rules_hold_the_digests_against_approvals_only() -> None:
    """The digests are read in comparisons with an approval, which a question that is kept does not have."""
    assert {("syscall", "args_digest"), ("policy_digest",)} == APPROVED
    found = set().union(*(lines(module, r"input\.(?:syscall\.args_digest|policy_digest)") for module in axioms("syscall")))
    assert found == {"given.args_digest == input.syscall.args_digest", "given.policy_digest == input.policy_digest"}


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, 2**53, 1e300]),
    st.sampled_from(["", "1", "a", "../x", "/etc", "a\0", "é", "e\u0301", "small", "bo@acme.example"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=3,
)


def mostly(*right: Json) -> st.SearchStrategy[Json]:
    return st.one_of(st.sampled_from(right), st.sampled_from(right), st.sampled_from(right), VALUES)


LINK: dict[str, Json] = {"session": "s-0", "agent": "triage", "labels": {}, "tool": "hand-on", "tools": None}

QUESTIONS = st.fixed_dictionaries(
    {
        "syscall": st.fixed_dictionaries(
            {
                "tool": mostly("read", "send", "clean", "model-call", "unknown"),
                "args": st.one_of(
                    st.dictionaries(st.sampled_from(["path", "to", "n", "model", "labels", "body"]), VALUES, max_size=4), VALUES
                ),
                "args_digest": st.sampled_from(["sha256:1", "sha256:2"]),
            },
            optional={"effect": mostly("read", "external")},
        ),
        "agent": st.fixed_dictionaries({"name": mostly("triage", "other"), "labels": mostly({}, {"a": "b"})}),
        "session": st.fixed_dictionaries(
            {"labels": mostly([], ["pii"]), "delegation": mostly([], ["s-0"])},
            optional={
                "id": mostly("s-1", "s-2"),
                "delegators": mostly([LINK], [LINK | {"agent": "other"}], []),
                "tools": mostly(["read"], ["send"]),
                "children": mostly(0, 1),
            },
        ),
        "budget": st.fixed_dictionaries({"calls": mostly(0, 2, 3, 4), "tokens": mostly(0, 99, 100)}),
        "now": mostly(0, 999, 1000, 1001),
    },
    optional={
        "approvals": mostly([]),
        "policy_digest": mostly("sha256:1", "sha256:2"),
        "config_revision": mostly(1, 2),
    },
)


@cache
def asked() -> Callable[[Json], Json]:
    """The shipped axioms on real OPA, over the facts."""
    engine = opa.build(axioms("syscall"), FACTS)
    failures = (opa.bindings().OpaError, TypeError)

    def ask(document: Json) -> Json:
        try:
            return engine.eval_document(SYSCALL, document)
        except failures:
            return "none"

    return ask


@settings(max_examples=300, deadline=None)
@given(questions=st.lists(QUESTIONS, min_size=2, max_size=12), repeat=st.data())
def test_equal_keys_get_equal_answers(questions: list[dict[str, Any]], repeat: st.DataObject) -> None:
    """Of questions with the same key the engine answers each alike, also where only unread parts or unpassed limits differ."""
    keys = sameness()
    answers: dict[bytes, Json] = {}
    for question in questions:
        near = copy.deepcopy(question)
        near["syscall"]["args_digest"] = "sha256:near"
        near["session"]["id"] = "s-near"
        near["now"] = repeat.draw(st.sampled_from([near["now"], 0, 998, 1002]))
        near["budget"]["calls"] = repeat.draw(st.sampled_from([near["budget"]["calls"], 1, 2, 5]))
        if isinstance(near["syscall"]["args"], dict):
            near["syscall"]["args"]["body"] = repeat.draw(VALUES)
        for document in (question, near):
            key = keys.key(document)
            if key is not None:
                answer = json.dumps(asked()(document), sort_keys=True)
                assert answers.setdefault(key, answer) == answer


@settings(max_examples=300, deadline=None)
@given(one=VALUES, other=VALUES)
def test_values_with_equal_keys_are_written_alike(one: Json, other: Json) -> None:
    """Two values that are in the key whole have equal keys only if they are the same JSON text, key order aside."""
    keys = sameness(rule("some text in input.syscall.args; text == 1"))
    first, second = (keys.key(changed("syscall/args/body", value)) for value in (one, other))
    if first == second:
        assert json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
