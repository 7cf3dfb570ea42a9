package agentos.syscall.rules.self_approval_test

import data.agentos.syscall.rules.self_approval

by(name) := {"tool": "pay", "args_digest": "sha256:1", "by": name, "reason": "fine"}

found(approvals) := results if {
	results := self_approval.results with input as {
		"syscall": {"tool": "pay", "args_digest": "sha256:1"},
		"session": {"actor": "principal/bo"},
		"approvals": approvals,
	}
}

alone := {{
	"rule": "self_approval.alone",
	"effect": "deny",
	"reason": "principal/bo started this session and cannot approve its calls; somebody else has to",
}}

test_nobody_approved if found([]) == set()

test_the_starter_approved if {
	found([by("principal/bo")]) == alone
	found([by("principal/bo"), by("principal/bo")]) == alone
}

test_somebody_else_approved if found([by("principal/al")]) == set()

test_somebody_else_approved_too if found([by("principal/bo"), by("principal/al")]) == set()

test_another_call_is_not_this_one if {
	found([by("principal/bo"), object.union(by("principal/al"), {"tool": "read"})]) == alone
	found([by("principal/bo"), object.union(by("principal/al"), {"args_digest": "sha256:2"})]) == alone
	found([object.union(by("principal/bo"), {"args_digest": "sha256:2"})]) == set()
}
