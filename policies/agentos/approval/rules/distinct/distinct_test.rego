package agentos.approval.rules.distinct_test

import data.agentos.approval.rules.distinct

asked(by, expires) := {"approval": {"by": by}, "now": 1000, "approvals": [{"by": "principal/bo", "expires": expires}]}

test_the_same_person_counts_once if {
	some result in distinct.results with input as asked("principal/bo", 1001)
	result.rule == "distinct.again"
	result.effect == "deny"
	contains(result.reason, "principal/bo has approved this call already")
}

test_another_person_counts if {
	count(distinct.results) == 0 with input as asked("principal/cy", 1001)
}

test_the_same_person_may_renew_what_has_expired if {
	count(distinct.results) == 0 with input as asked("principal/bo", 1000)
}
