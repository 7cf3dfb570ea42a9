"""Reading a decision: whatever the engine answered, the result is a decision, and only a whole one allows."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.decision import Decision, Verdict, parse_decision

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(list(Verdict)).map(str),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEARLY: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {},
    optional={"effect": JSON, "rules": JSON, "reasons": JSON, "observed": JSON, "grants": JSON, "more": JSON},
)


@given(JSON | NEARLY)
def test_anything_is_read_and_only_a_whole_decision_allows(value: Any) -> None:
    """No value raises; `allow` comes only of a document that says so, with texts for rules and reasons."""
    decision = parse_decision(value)
    assert isinstance(decision, Decision)
    if decision.effect is Verdict.ALLOW:
        assert value["effect"] == "allow"
        assert set(value) <= {"effect", "rules", "reasons", "observed", "grants"}
        assert all(isinstance(item, str) for item in [*value["rules"], *value["reasons"]])
    else:
        assert decision.rules
