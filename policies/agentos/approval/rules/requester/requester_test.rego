package agentos.approval.rules.requester_test

import data.agentos.approval.rules.requester

asked(by) := {"approval": {"by": by}, "session": {"actor": "principal/ann"}}

test_the_requester_never_approves if {
	some result in requester.results with input as asked("principal/ann")
	result.rule == "requester.same"
	result.effect == "deny"
	contains(result.reason, "principal/ann started this session")
}

test_somebody_else_may if {
	count(requester.results) == 0 with input as asked("principal/bo")
}
