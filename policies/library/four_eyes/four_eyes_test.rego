package agentos.syscall.rules.four_eyes_test

import data.agentos.syscall.rules.four_eyes

found(tool, effect, parameters) := results if {
	results := four_eyes.results with input as {"syscall": {"tool": tool, "effect": effect}}
		with data.agentos.policies.four_eyes as {"parameters": parameters}
}

test_two_people_look_at_what_reaches_outside if {
	found("send-mail", "external", {}) == {{
		"rule": "four_eyes.two",
		"effect": "ask",
		"reason": "tool send-mail has the effect external; 2 people approve each such call",
		"obligations": [{"kind": "approvers", "count": 2}],
	}}
}

test_nobody_looks_at_the_rest if {
	found("read-mail", "read", {}) == set()
	found("write-note", "write", {}) == set()
	found("model-call", "external", {}) == set()
	found("net-request", "external", {}) == set()
}

test_effects_and_people_are_declared if {
	some result in found("write-note", "write", {"effects": ["write"], "people": 3})
	result.obligations == [{"kind": "approvers", "count": 3}]
	found("send-mail", "external", {"effects": ["write"]}) == set()
}

test_a_parameter_that_there_is_not_denies if {
	every parameters in [{"effects": "write"}, {"effects": ["extrenal"]}, {"people": "3"}, {"people": 1.5}, {"people": 0}, {"peopel": 3}] {
		some result in found("send-mail", "external", parameters)
		result.rule == "four_eyes.parameters"
		result.effect == "deny"
	}
}
