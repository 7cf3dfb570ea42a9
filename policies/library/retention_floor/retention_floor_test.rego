package agentos.admission.rules.retention_floor_test

import data.agentos.admission.rules.retention_floor

agent(governance) := {"kind": "Agent", "metadata": {"name": "payer"}, "spec": {"governance": governance}}

found(governance) := results if {
	results := retention_floor.results with input as {"resources": [
		{"kind": "Model", "metadata": {"name": "m"}, "spec": {}},
		agent(governance),
	]}
}

short(days) := {{
	"rule": "retention_floor.short",
	"effect": "deny",
	"reason": sprintf(
		"agent payer has risk high and keeps its log %v days; declare governance.retentionDays of 365 or more",
		[days],
	),
}}

test_a_year if {
	found({"risk": "high", "retentionDays": 365}) == set()
	found({"risk": "high", "retentionDays": 3650}) == set()
}

test_less if found({"risk": "high", "retentionDays": 183}) == short(183)

test_nothing_declared if found({"risk": "high"}) == short(0)

test_no_number if found({"risk": "high", "retentionDays": "365"}) == short("365")

test_little_risk if {
	found({"risk": "limited"}) == set()
	found({"risk": "minimal"}) == set()
}

test_the_floors_are_declared if {
	results := found({"risk": "limited", "retentionDays": 29}) with data.agentos.policies.retention_floor.parameters as {"days": {"limited": 30}}
	count(results) == 1
}

test_a_parameter_that_there_is_not_denies if {
	every parameters in [{"days": []}, {"days": {"huge": 1}}, {"days": {"high": "183"}}, {"day": {}}] {
		results := found({"risk": "minimal"}) with data.agentos.policies.retention_floor.parameters as parameters
		{result.rule | some result in results} == {"retention_floor.parameters"}
	}
}
