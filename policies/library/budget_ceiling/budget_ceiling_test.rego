package agentos.admission.rules.budget_ceiling_test

import data.agentos.admission.rules.budget_ceiling

found(risk, budget) := results if {
	results := budget_ceiling.results with input as {"resources": [
		{"kind": "Tool", "metadata": {"name": "t"}, "spec": {"budget": {"calls": 999999}}},
		{"kind": "Agent", "metadata": {"name": "clerk"}, "spec": object.union({"governance": {"risk": risk}}, budget)},
	]}
}

above(given, what, risk, most) := {
	"rule": "budget_ceiling.above",
	"effect": "deny",
	"reason": sprintf("agent clerk may use %d %s in a session; at risk %s at most %d", [given, what, risk, most]),
}

test_at_the_ceiling if {
	found("minimal", {"budget": {"calls": 5000, "tokens": 5000000}}) == set()
	found("limited", {"budget": {"calls": 1000, "tokens": 2000000}}) == set()
	found("high", {"budget": {"calls": 100, "tokens": 500000}}) == set()
}

test_above if {
	found("limited", {"budget": {"calls": 1001, "tokens": 1}}) == {above(1001, "calls", "limited", 1000)}
	found("minimal", {"budget": {"calls": 1, "tokens": 5000001}}) == {above(5000001, "tokens", "minimal", 5000000)}
}

test_defaults_count if {
	found("limited", {}) == set()
	found("high", {}) == {above(200, "calls", "high", 100), above(1000000, "tokens", "high", 500000)}
	found("high", {"budget": {"calls": 50}}) == {above(1000000, "tokens", "high", 500000)}
}
