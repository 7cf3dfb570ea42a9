package agentos.syscall.rules.trifecta_test

import data.agentos.syscall.rules.trifecta

tools := {
	"write-note": {"workspace_args": ["path"]},
	"copy": {"workspace_args": ["paths"]},
	"send-mail": {"effect": "external"},
	"count": {"effect": "read"},
}

found(tool, effect, args, labels) := results if {
	results := trifecta.results with input as {
		"syscall": {"tool": tool, "effect": effect, "args": args},
		"session": {"labels": labels},
	}
		with data.agentos.tools as tools
}

closed(tool, private) := {{
	"rule": "trifecta.closed",
	"effect": "deny",
	"reason": sprintf(
		"tool %s is a way out, and the session has read both private data (%s) and content of strangers",
		[tool, private],
	),
}}

test_all_three if found("send-mail", "external", {}, ["pii", "untrusted"]) == closed("send-mail", "pii")

test_all_private_labels_are_told if {
	found("send-mail", "external", {}, ["pii", "health", "untrusted"]) == closed("send-mail", "health, pii")
}

test_two_of_three if {
	found("send-mail", "external", {}, ["pii"]) == set()
	found("send-mail", "external", {}, ["untrusted"]) == set()
	found("write-note", "read", {"path": "outbox/a.md"}, ["pii", "untrusted"]) == set()
}

test_what_is_carried_out_is_a_way_out if {
	every path in ["outbox/a.md", "./Outbox/a.md", "x//outbox/a.md"] {
		found("write-note", "write", {"path": path}, ["pii", "untrusted"]) == closed("write-note", "pii")
	}
	found("copy", "write", {"paths": [7, "outbox/a.md"]}, ["pii", "untrusted"]) == closed("copy", "pii")
}

test_notes_stay_inside if {
	found("write-note", "write", {"path": "notes/a.md", "content": "x/outbox/y"}, ["pii", "untrusted"]) == set()
}

test_the_model_is_not_its_matter if found("model-call", "external", {}, ["pii", "untrusted"]) == set()

declared(parameters) := {[result.rule, result.effect] | some result in results} if {
	results := found("send-mail", "external", {}, ["pii", "untrusted"])
		with data.agentos.policies.trifecta.parameters as parameters
}

test_a_person_may_be_asked_instead if {
	declared({"effect": "ask"}) == {["trifecta.asks", "ask"]}
}

test_an_effect_that_is_none_denies if {
	every effect in ["allow", "Ask", null] {
		declared({"effect": effect}) == {["trifecta.closed", "deny"], ["trifecta.parameters", "deny"]}
	}
	every parameters in [{}, {"effect": "deny"}] {
		declared(parameters) == {["trifecta.closed", "deny"]}
	}
}

test_a_parameter_that_there_is_not_denies if {
	declared({"effekt": "ask"}) == {["trifecta.closed", "deny"], ["trifecta.parameters", "deny"]}
}

requested(tool, parameters) := asked_with({"tool": tool}, parameters)

asked_with(args, parameters) := {result.rule | some result in results} if {
	results := found("net-request", "external", args, ["pii", "untrusted"])
		with data.agentos.policies.trifecta.parameters as parameters
}

test_a_request_is_a_way_out if {
	every tool in ["send-mail", "count", "ghost"] {
		requested(tool, {}) == {"trifecta.closed"}
	}
}

test_where_a_person_may_be_asked_a_request_goes_with_its_call if {
	requested("send-mail", {"effect": "ask"}) == set()
	requested("count", {"effect": "ask"}) == {"trifecta.closed"}
	requested("ghost", {"effect": "ask"}) == {"trifecta.closed"}
	asked_with({}, {"effect": "ask"}) == {"trifecta.closed"}
}
