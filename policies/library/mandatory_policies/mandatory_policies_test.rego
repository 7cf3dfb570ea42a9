package agentos.admission.rules.mandatory_policies_test

import data.agentos.admission.rules.mandatory_policies

policy(labels, spec) := {"kind": "Policy", "metadata": {"name": "egress", "labels": labels}, "spec": spec}

marked := {"mandatory": "true", "team": "compliance"}

found(changes, resources) := results if {
	results := mandatory_policies.results with input as {"changes": changes, "resources": resources}
}

weak(mode) := {{
	"rule": "mandatory_policies.weak",
	"effect": "deny",
	"reason": sprintf("policy egress is mandatory and has mode %s; it must enforce", [mode]),
}}

test_a_mandatory_policy_that_binds if {
	found([], [policy(marked, {"mode": "enforce"})]) == set()
	found([], [policy(marked, {})]) == set()
}

test_a_mandatory_policy_that_only_watches if {
	found([], [policy(marked, {"mode": "warn"})]) == weak("warn")
	found([], [policy(marked, {"mode": "dryrun"})]) == weak("dryrun")
}

test_other_policies_may_watch if {
	found([], [policy({}, {"mode": "warn"})]) == set()
	found([], [policy({"mandatory": "false"}, {"mode": "warn"})]) == set()
	found([], [object.union(policy(marked, {"mode": "warn"}), {"kind": "Agent"})]) == set()
}

test_deleting if {
	before := policy(marked, {})
	found([{"action": "delete", "resource": before, "before": before}], []) == {{
		"rule": "mandatory_policies.removed",
		"effect": "deny",
		"reason": "policy egress is mandatory and cannot be deleted",
	}}
	other := policy({}, {})
	found([{"action": "delete", "resource": other, "before": other}], []) == set()
}

test_losing_the_label if {
	change := {"action": "update", "resource": policy({"team": "compliance"}, {}), "before": policy(marked, {})}
	found([change], [change.resource]) == {{
		"rule": "mandatory_policies.unlabelled",
		"effect": "deny",
		"reason": "policy egress is mandatory and must keep the label mandatory",
	}}
}

test_other_changes if {
	found([{"action": "update", "resource": policy(marked, {"mode": "enforce"}), "before": policy(marked, {})}], []) == set()
	found([{"action": "update", "resource": policy(marked, {}), "before": policy({}, {})}], []) == set()
	found([{"action": "update", "resource": policy({}, {}), "before": policy({}, {"mode": "warn"})}], []) == set()
	found([{"action": "create", "resource": policy(marked, {})}], []) == set()
}
