package agentos.syscall.rules.declassify_test

import data.agentos.syscall.rules.declassify

tools := {"release": {"primitive": "declassify"}, "read": {"primitive": "read"}}

found(tool, args) := {result.rule | some result in results} if {
	results := declassify.results with input as {
		"syscall": {"tool": tool, "args": args},
		"session": {"labels": ["pii", "untrusted"]},
	}
		with data.agentos.tools as tools
}

test_a_person_is_asked if {
	found("release", {"labels": ["pii"]}) == {"declassify.approval"}
}

test_another_tool_is_no_business_of_ours if {
	found("read", {"labels": ["pii"]}) == set()
	found("unknown", {"labels": ["pii"]}) == set()
}

test_a_label_that_is_not_there_cannot_come_off if {
	"declassify.absent" in found("release", {"labels": ["pii", "secret"]})
}

test_labels_are_named if {
	every args in [{}, {"labels": []}, {"labels": "pii"}, {"labels": [1]}, {"labels": ["pii", null]}] {
		found("release", args) == {"declassify.unnamed"}
	}
}

test_the_reason_names_the_labels if {
	some result in declassify.results with input as {
		"syscall": {"tool": "release", "args": {"labels": ["untrusted", "pii"]}},
		"session": {"labels": ["pii", "untrusted"]},
	}
		with data.agentos.tools as tools
	result.effect == "ask"
	contains(result.reason, "(pii, untrusted)")
}
