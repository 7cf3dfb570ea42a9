package agentos.syscall.rules.delegation_depth_test

import data.agentos.syscall.rules.delegation_depth

found(tool, effect, delegation) := results if {
	results := delegation_depth.results with input as {
		"syscall": {"tool": tool, "effect": effect},
		"session": {"delegation": delegation},
	}
}

denied := {
	"rule": "delegation_depth.denied",
	"effect": "deny",
	"reason": "the session stands 3 deep in a chain of delegation, at most 2",
}

external(depth) := {
	"rule": "delegation_depth.external",
	"effect": "deny",
	"reason": sprintf(
		"the session stands %d deep in a chain of delegation; tool send-mail reaches outside from at most 1",
		[depth],
	),
}

test_not_delegated if {
	found("read-mail", "read", []) == set()
	found("send-mail", "external", []) == set()
}

test_at_the_limit if {
	found("send-mail", "external", ["s-1"]) == set()
	found("write-note", "write", ["s-1", "s-2"]) == set()
}

test_too_deep_to_reach_outside if found("send-mail", "external", ["s-1", "s-2"]) == {external(2)}

test_too_deep if {
	found("read-mail", "read", ["s-1", "s-2", "s-3"]) == {denied}
	found("send-mail", "external", ["s-1", "s-2", "s-3"]) == {denied, external(3)}
}

test_a_deep_session_does_not_think_either if found("model-call", "external", ["s-1", "s-2", "s-3"]) == {denied}
