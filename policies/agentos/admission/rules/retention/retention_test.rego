package agentos.admission.rules.retention_test

import data.agentos.admission.rules.retention

found(governance) := results if {
	agent := {"kind": "Agent", "metadata": {"name": "payer"}, "spec": {"governance": governance}}
	results := retention.results with input as {"resources": [agent]}
}

short(declared) := {{
	"rule": "retention.short",
	"effect": "deny",
	"reason": sprintf(
		"agent payer has risk high and keeps its log %v days; declare governance.retentionDays of 183 or more",
		[declared],
	),
}}

test_half_a_year_and_more if {
	found({"risk": "high", "retentionDays": 183}) == set()
	found({"risk": "high", "retentionDays": 3650}) == set()
}

test_less if found({"risk": "high", "retentionDays": 182}) == short(182)

test_nothing_declared if found({"risk": "high"}) == short(0)

test_no_number if found({"risk": "high", "retentionDays": "183"}) == short("183")

test_less_risk if {
	found({"risk": "limited"}) == set()
	found({"risk": "minimal", "retentionDays": 1}) == set()
}

test_another_kind if {
	tool := {"kind": "Tool", "metadata": {"name": "pay"}, "spec": {"governance": {"risk": "high"}}}
	results := retention.results with input as {"resources": [tool]}
	results == set()
}
