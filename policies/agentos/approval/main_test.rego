package agentos.approval_test

import data.agentos.approval

question := {
	"approval": {"by": "principal/bo"},
	"call": {"args_digest": "sha256:1"},
	"session": {"actor": "principal/ann"},
	"approvals": [],
	"now": 1000,
}

refusal := {"rule": "house.refused", "effect": "deny", "reason": "no"}

decided(asked, results, policies) := decision if {
	decision := approval.decision with input as asked
		with data.agentos.approval.rules.requester.results as results
		with data.agentos.policies as policies
}

test_what_nothing_refuses_counts if {
	decided(question, set(), {}) == {"effect": "allow", "rules": [], "reasons": [], "observed": []}
}

test_a_refusal_binds if {
	decided(question, {refusal}, {}) == {"effect": "deny", "rules": ["house.refused"], "reasons": ["no"], "observed": []}
}

test_a_question_that_is_none_is_refused if {
	every part in ["approval", "call", "session", "approvals"] {
		decision := decided(object.remove(question, [part]), set(), {})
		decision.effect == "deny"
		decision.rules == ["approval.default"]
	}
}

test_a_malformed_result_refuses if {
	every result in ["no", object.union(refusal, {"effect": "ask"}), object.union(refusal, {"x": 1}), {"rule": "house.refused"}, object.union(refusal, {"rule": 1}), object.union(refusal, {"reason": 1})] {
		decision := decided(question, {result}, {})
		decision.effect == "deny"
		decision.rules == ["approval.malformed"]
	}
}

test_a_policy_that_warns_is_observed_and_does_not_bind if {
	decided(question, {refusal}, {"requester": {"mode": "warn", "name": "house"}}) == {
		"effect": "allow",
		"rules": [],
		"reasons": [],
		"observed": [{"rule": "house.refused", "effect": "deny", "reason": "no", "mode": "warn"}],
	}
}

listed(tails) := decision.effect if {
	decision := decided(question, {refusal}, {}) with data.agentos.rules as {"approval": tails}
}

test_what_is_loaded_is_what_the_runtime_lists if {
	listed(["requester"]) == "deny"
	listed(["distinct"]) == "allow"
}
