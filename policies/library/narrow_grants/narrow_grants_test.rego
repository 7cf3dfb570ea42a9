package agentos.admission.rules.narrow_grants_test

import data.agentos.admission.rules.narrow_grants

tools := [
	{"kind": "Agent", "metadata": {"name": "clerk"}, "spec": {"tools": ["send-mail"]}},
	{"kind": "Tool", "metadata": {"name": "send-mail"}, "spec": {"effect": "external"}},
	{"kind": "Tool", "metadata": {"name": "read-mail"}, "spec": {"effect": "read"}},
	{"kind": "Tool", "metadata": {"name": "fetch", "tenant": "acme"}, "spec": {"effect": "external"}},
]

found(names, spec) := results if {
	results := narrow_grants.results with input as {"resources": array.concat(tools, [{
		"kind": "ToolGrant",
		"metadata": {"name": "g"},
		"spec": object.union({"agents": ["clerk"], "tools": names}, spec),
	}])}
}

open := {{
	"rule": "narrow_grants.open",
	"effect": "deny",
	"reason": "toolgrant g lets agents call tool send-mail with any arguments; constrain one, or set approval: required",
}}

test_bounded_by_an_argument if {
	every constraint in [{"equals": "bo@x.example"}, {"oneOf": ["a", "b"]}, {"glob": "*@x.example"}, {"pattern": "[a-z]+@x"}] {
		found(["send-mail"], {"args": {"to": constraint}}) == set()
	}
}

test_bounded_by_a_person if found(["send-mail"], {"approval": "required"}) == set()

test_open if {
	found(["send-mail"], {}) == open
	found(["read-mail", "send-mail"], {"approval": "none", "args": {}}) == open
}

test_constraints_that_bound_nothing if {
	every constraint in [{"glob": "**"}, {"glob": "*"}, {"pattern": ".*"}, {"maxLength": 2000}, {"minimum": 0}, {}] {
		found(["send-mail"], {"args": {"to": constraint}}) == open
	}
}

test_one_that_bounds_is_enough if {
	found(["send-mail"], {"args": {"body": {"glob": "**"}, "to": {"glob": "*@x.example", "maxLength": 100}}}) == set()
}

test_a_tool_that_stays_inside if found(["read-mail"], {}) == set()

test_another_tenants_tool if found(["fetch"], {}) == set()
