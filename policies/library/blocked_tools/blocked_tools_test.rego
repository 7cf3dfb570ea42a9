package agentos.syscall.rules.blocked_tools_test

import data.agentos.syscall.rules.blocked_tools

found(tool) := results if {
	results := blocked_tools.results with input as {"syscall": {"tool": tool}} with data.agentos.tools as {
		"forecast": {"labels": ["finance", "experimental"]},
		"old-pay": {"labels": ["recalled", "experimental"]},
		"read-mail": {"labels": ["untrusted"]},
	}
}

denied(tool, labels) := {{
	"rule": "blocked_tools.denied",
	"effect": "deny",
	"reason": sprintf("tool %s is labelled %s, and such tools are blocked", [tool, labels]),
}}

test_a_blocked_label if found("forecast") == denied("forecast", "experimental")

test_two_blocked_labels if found("old-pay") == denied("old-pay", "experimental, recalled")

test_other_labels if found("read-mail") == set()

test_what_is_no_tool_is_not_its_matter if found("model-call") == set()
