package agentos.syscall.rules.untrusted_egress_test

import data.agentos.syscall.rules.untrusted_egress

found(tool, effect, labels) := results if {
	results := untrusted_egress.results with input as {"syscall": {"tool": tool, "effect": effect}, "session": {"labels": labels}}
}

test_outside_after_untrusted if {
	found("send-mail", "external", ["pii", "untrusted"]) == {{
		"rule": "untrusted_egress.asks",
		"effect": "ask",
		"reason": "tool send-mail reaches outside, and the session has read content labelled untrusted; a person looks first",
	}}
}

test_outside_after_other_content if found("send-mail", "external", ["pii"]) == set()

test_inside_after_untrusted if {
	found("write-note", "write", ["untrusted"]) == set()
	found("read-mail", "read", ["untrusted"]) == set()
}

test_the_model_is_not_its_matter if found("model-call", "external", ["untrusted"]) == set()

asked_for(tool, labels) := {result.rule | some result in results} if {
	results := untrusted_egress.results with input as {
		"syscall": {"tool": "net-request", "effect": "external", "args": {"tool": tool}},
		"session": {"labels": labels},
	}
		with data.agentos.tools as {"send-mail": {"effect": "external"}, "count": {"effect": "read"}}
}

test_a_request_of_a_call_that_was_looked_at if asked_for("send-mail", ["untrusted"]) == set()

test_a_request_of_a_call_that_nobody_looked_at if {
	asked_for("count", ["untrusted"]) == {"untrusted_egress.unseen"}
	asked_for("ghost", ["untrusted"]) == {"untrusted_egress.unseen"}
	asked_for("count", ["pii"]) == set()
}

test_whose_request_is_told if {
	some result in untrusted_egress.results with input as {
		"syscall": {"tool": "net-request", "effect": "external", "args": {"tool": "count"}},
		"session": {"labels": ["untrusted"]},
	}
	startswith(result.reason, "tool count is not declared as effect external")
}

test_a_request_of_which_nothing_is_told if {
	results := untrusted_egress.results with input as {
		"syscall": {"tool": "net-request", "effect": "external"},
		"session": {"labels": ["untrusted"]},
	}
	count(results) == 1
}
