package agentos.admission_test

import data.agentos.admission

change := {"principal": {"name": "al", "roles": ["operator"]}, "tenant": "default", "changes": [], "resources": []}

deny := {"rule": "tenant.x", "effect": "deny", "reason": "no"}

decided(question, results, policies) := decision if {
	decision := admission.decision with input as question
		with data.agentos.admission.rules.tenant.results as results
		with data.agentos.policies as policies
}

test_what_no_rule_refuses_is_allowed if {
	decided(change, set(), {}) == {"effect": "allow", "rules": [], "reasons": [], "observed": []}
}

test_a_violation_denies if {
	decided(change, {deny}, {}) == {"effect": "deny", "rules": ["tenant.x"], "reasons": ["no"], "observed": []}
}

test_what_is_no_question_is_denied if {
	decided({}, set(), {}) == {
		"effect": "deny",
		"rules": ["admission.default"],
		"reasons": ["the question names no changes and no resources"],
		"observed": [],
	}
}

test_an_allow_of_a_rule_is_malformed if {
	decided(change, {object.union(deny, {"effect": "allow"})}, {}).rules == ["admission.malformed"]
}

test_a_policy_in_dryrun_is_observed if {
	decided(change, {deny}, {"tenant": {"mode": "dryrun", "name": "x"}}) == {
		"effect": "allow",
		"rules": [],
		"reasons": [],
		"observed": [{"rule": "tenant.x", "effect": "deny", "reason": "no", "mode": "dryrun"}],
	}
}
