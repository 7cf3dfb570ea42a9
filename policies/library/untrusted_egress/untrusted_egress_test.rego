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
