"""Decisions are read strictly: only exactly an allow is an allow."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jsonschema
import pytest
from abi_values import JSON, TEXT
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.assets import asset
from agentos.abi.decision import Decision, Verdict, parse_decision
from agentos.abi.obligation import parse_obligation

SCHEMA = jsonschema.Draft202012Validator(json.loads((asset("schemas") / "v1" / "policy-decision.json").read_text()))

NAME = re.compile("[a-z][a-z0-9-]{0,62}")
OBSERVED = st.lists(st.dictionaries(TEXT, TEXT, max_size=3), max_size=2)
DECISIONS = st.builds(
    Decision,
    st.sampled_from(Verdict),
    st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    st.lists(TEXT, max_size=3).map(tuple),
    OBSERVED.map(tuple),
    st.lists(
        st.sampled_from(
            [
                {"kind": "redact", "rule": "r.a", "in": "args", "path": "/a/*/b"},
                {"kind": "mask", "rule": "r.a", "in": "result", "path": "/iban", "keep": 4},
                {"kind": "cap", "rule": "r.a", "path": "/amount", "maximum": -1},
                {"kind": "sandbox", "rule": "r.a", "profile": "tight"},
                {"kind": "label", "rule": "r.a", "labels": ["pii"]},
                {"kind": "rate", "rule": "r.a", "name": "n", "limit": 0, "seconds": 1, "per": "tenant"},
                {"kind": "uses", "rule": "r.a", "grants": [{"name": "g", "digest": "sha256:1", "maximum": 1}]},
                {"kind": "approvers", "rule": "r.a", "count": 2},
                {"kind": "notify", "rule": "r.a", "to": ["ciso"], "text": "look"},
            ]
        ),
        max_size=3,
    ).map(lambda bodies: tuple(one for body in bodies if (one := parse_obligation(body)) is not None)),
)
NAMES = st.from_regex(NAME, fullmatch=True)
RESTING = st.builds(
    lambda decision, effect, names: replace(decision, effect=effect, grants=tuple(sorted(names))),
    DECISIONS,
    st.sampled_from([Verdict.ALLOW, Verdict.ASK]),
    st.sets(NAMES, min_size=1, max_size=4),
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "effect": st.sampled_from(["allow", "ALLOW", " allow", "allow\n", "deny", "ask", "halt", True, None, ["allow"]]) | JSON,
        "rules": st.lists(TEXT | JSON, max_size=2) | JSON,
        "reasons": st.lists(TEXT | JSON, max_size=2) | JSON,
        "observed": OBSERVED | JSON,
        "obligations": JSON,
        "grants": st.lists(NAMES | JSON, max_size=3) | JSON,
    },
)


def is_allow(value: Any) -> bool:
    """Whether `value` is exactly an allow, said a second time and in other words than the code."""
    return (
        isinstance(value, dict)
        and {"effect", "rules", "reasons"} <= set(value) <= {"effect", "rules", "reasons", "observed", "obligations", "grants"}
        and value.get("obligations", []) == []
        and isinstance(value.get("grants", []), list)
        and all(isinstance(name, str) and NAME.fullmatch(name) for name in value.get("grants", []))
        and all(one < other for one, other in pairwise(value.get("grants", [])))
        and value["effect"] == "allow"
        and all(
            isinstance(value[key], list) and all(isinstance(item, str) for item in value[key]) for key in ("rules", "reasons")
        )
        and isinstance(value.get("observed", []), list)
        and all(isinstance(item, dict) and all(isinstance(x, str) for x in item.values()) for item in value.get("observed", []))
    )


@given(JSON | NEARLY)
def test_nothing_but_an_allow_is_an_allow(value: Any) -> None:
    """Whatever the engine answers: allow only for a whole, well-formed allow; the rest names a rule."""
    decision = parse_decision(value)
    assert (decision.effect is Verdict.ALLOW) == is_allow(value)
    if decision.effect is not Verdict.ALLOW:
        assert decision.rules


@given(DECISIONS | RESTING)
def test_a_decision_survives_the_log(decision: Decision) -> None:
    """`parse_decision` inverts `to_dict`."""
    assert parse_decision(json.loads(json.dumps(decision.to_dict()))) == decision


@given(NEARLY)
def test_what_is_read_as_itself_fits_the_published_schema(value: Any) -> None:
    """A document that the schema of decisions refuses is never taken at its word."""
    if not SCHEMA.is_valid(value):
        decision = parse_decision(value)
        assert decision.effect is not Verdict.ALLOW or "observed" in value


@pytest.mark.parametrize("effect", ["deny", "ask", "halt"])
def test_a_no_that_names_no_rule_is_a_malformed_denial(effect: str) -> None:
    """Who is refused can always be told by which rule."""
    decision = parse_decision({"effect": effect, "rules": [], "reasons": []})
    assert (decision.effect, decision.rules) == (Verdict.DENY, ("policy.failed",))


BODY = {"kind": "mask", "rule": "r.a", "in": "args", "path": "/iban", "keep": 4}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "erase"},
        {"kind": None},
        {"rule": ""},
        {"in": "reply"},
        {"path": "iban"},
        {"path": "/~2"},
        {"keep": -1},
        {"keep": True},
        {"keep": 1.0},
        {"more": 1},
    ],
)
def test_an_obligation_that_is_not_known_denies(change: dict[str, Any]) -> None:
    """Another kind, another field, another type: the whole decision is a denial, and so says the schema where it can tell."""
    whole = {"effect": "allow", "rules": ["r.a"], "reasons": [], "obligations": [BODY | change]}
    decision = parse_decision(whole)
    assert (decision.effect, decision.rules) == (Verdict.DENY, ("policy.failed",))
    lost = {key: value for key, value in BODY.items() if key != "keep"}
    assert parse_decision({**whole, "obligations": [lost]}).failed
    assert not parse_decision({**whole, "obligations": [BODY]}).failed
    assert parse_decision({**whole, "obligations": {}}).failed
    assert parse_decision({**whole, "obligations": [BODY] * 101}).failed


@pytest.mark.parametrize(
    "grants",
    [
        "mails",
        {"mails": 1},
        None,
        [1],
        ["b", "a"],
        ["a", "a"],
        [""],
        ["Mails"],
        ["a,b"],
        ["a\n"],
        ["a" * 64],
        [f"g{n}" for n in range(100, 201)],
    ],
)
def test_grants_that_are_not_names_in_order_deny(grants: Any) -> None:
    """Another type, another order, a name twice, a name that is none, too many: no decision at all."""
    assert parse_decision({"effect": "allow", "rules": ["r.a"], "reasons": [], "grants": grants}).failed


@pytest.mark.parametrize("effect", ["deny", "halt"])
def test_a_no_rests_on_no_grant(effect: str) -> None:
    """A denial with grants is malformed; with an empty list it is what it says, and is stored without one."""
    body = {"effect": effect, "rules": ["r.a"], "reasons": []}
    assert parse_decision({**body, "grants": ["mails"]}).failed
    assert parse_decision({**body, "grants": []}).to_dict() == body


def test_what_rests_on_no_grant_is_stored_as_before() -> None:
    """Without grants the bytes of a decision have no such field; with them they name each."""
    body = {"effect": "allow", "rules": ["grants.model"], "reasons": ["agent triage may call its model"]}
    assert parse_decision({**body, "grants": []}).to_dict() == body
    assert parse_decision({**body, "grants": ["all", "mails"]}).to_dict() == {**body, "grants": ["all", "mails"]}


def test_a_record_without_grants_agrees_with_the_decision_made_again() -> None:
    """A record that says nothing of grants is no difference; one that names others is."""
    body = {"effect": "allow", "rules": ["grants.allowed"], "reasons": ["as granted"]}
    again = parse_decision({**body, "grants": ["mails"]})
    assert again.agrees(body)
    assert again.agrees({**body, "grants": ["mails"]})
    assert not again.agrees({**body, "grants": ["all"]})
    assert not again.agrees({**body, "effect": "ask"})
    assert not parse_decision(body).agrees({**body, "grants": ["mails"]})
