package agentos.admission.rules.grants_expire_test

import data.agentos.admission.rules.grants_expire

tools := [
	{"kind": "Agent", "metadata": {"name": "clerk"}, "spec": {"tools": ["pay"]}},
	{"kind": "Tool", "metadata": {"name": "pay"}, "spec": {"effect": "external"}},
	{"kind": "Tool", "metadata": {"name": "read-mail", "tenant": "default"}, "spec": {"effect": "read"}},
	{"kind": "Tool", "metadata": {"name": "fetch", "tenant": "acme"}, "spec": {"effect": "external"}},
]

found(names, spec) := results if {
	results := grants_expire.results with input as {"resources": array.concat(tools, [{
		"kind": "ToolGrant",
		"metadata": {"name": "g"},
		"spec": object.union({"agents": ["clerk"], "tools": names}, spec),
	}])}
}

endless := {{
	"rule": "grants_expire.endless",
	"effect": "deny",
	"reason": "toolgrant g of tool pay has no end; write until: with a date",
}}

test_with_an_end if found(["pay"], {"until": "2027-01-31T00:00:00Z"}) == set()

test_without_an_end if {
	found(["pay"], {}) == endless
	found(["read-mail", "pay"], {"until": null}) == endless
}

test_a_tool_that_stays_inside if found(["read-mail"], {}) == set()

test_another_tenants_tool if found(["fetch"], {}) == set()
