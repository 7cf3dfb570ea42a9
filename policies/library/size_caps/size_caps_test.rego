package agentos.syscall.rules.size_caps_test

import data.agentos.syscall.rules.size_caps

small := {
	"read": {"text": 3, "items": 2, "all": 40},
	"write": {"text": 6, "items": 3, "all": 40},
	"external": {"text": 4, "items": 2, "all": 40},
}

found(effect, args) := results if {
	results := size_caps.results with input as {"syscall": {"tool": "post", "effect": effect, "args": args}}
		with size_caps.caps as small
}

test_within if {
	found("read", {"a": "äöü", "b": [1, 2]}) == set()
	found("write", {"a": "abcdef", "b": [1, 2, 3]}) == set()
	found("external", {"a": "abcd"}) == set()
	found("external", {}) == set()
}

test_text if {
	found("external", {"mail": {"lines": ["ok", "abcde"]}}) == {{
		"rule": "size_caps.text",
		"effect": "deny",
		"reason": "argument mail.lines.1 of tool post has 5 characters, at most 4",
	}}
}

test_items if {
	found("external", {"to": ["a", "b", "c"]}) == {{
		"rule": "size_caps.items",
		"effect": "deny",
		"reason": "argument to of tool post has 3 items, at most 2",
	}}
	found("external", {"a": 1, "b": 2, "c": 3}) == {{
		"rule": "size_caps.items",
		"effect": "deny",
		"reason": "argument (all) of tool post has 3 items, at most 2",
	}}
}

test_all if {
	found("write", {"a": ["abcdef", "abcdef", "abcdef"], "b": ["abcdef"]}) == {{
		"rule": "size_caps.all",
		"effect": "deny",
		"reason": "the arguments of tool post have 49 characters, at most 40",
	}}
}

test_all_at_the_limit if {
	args := {"a": ["abcdef", "abcdef", "abcdef"], "b": 0}
	count(json.marshal(args)) == 40
	found("write", args) == set()
}

test_an_unknown_effect_has_the_strictest_caps if {
	{result.rule | some result in found("odd", {"a": "abcd"})} == {"size_caps.text"}
	results := size_caps.results with input as {"syscall": {"tool": "post", "args": {"a": "abcd"}}} with size_caps.caps as small
	{result.rule | some result in results} == {"size_caps.text"}
}

test_the_shipped_caps if {
	results := size_caps.results with input as {"syscall": {
		"tool": "post",
		"effect": "external",
		"args": {"body": sprintf("%020001d", [0])},
	}}
	{result.rule | some result in results} == {"size_caps.text"}
}

test_what_is_written_may_be_long if {
	results := size_caps.results with input as {"syscall": {
		"tool": "write-note",
		"effect": "write",
		"args": {"content": sprintf("%0200000d", [0])},
	}}
	results == set()
}
