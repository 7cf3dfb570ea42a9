package agentos.syscall.rules.egress_hosts_test

import data.agentos.syscall.rules.egress_hosts

found(tool, args, parameters) := results if {
	results := egress_hosts.results with input as {"syscall": {"tool": tool, "args": args}}
		with data.agentos.policies.egress_hosts.parameters as parameters
}

ids(host, parameters) := {result.rule | some result in found("net-request", {"host": host}, parameters)}

test_listed_hosts if {
	every host in ["api.partner.example", "crm.kestrelrow.example", "a.b.kestrelrow.example"] {
		ids(host, {}) == set()
	}
}

test_other_hosts if {
	every host in ["partner.example", "x.api.partner.example", "kestrelrow.example", "evilkestrelrow.example", "", "*.kestrelrow.example.x"] {
		ids(host, {}) == {"egress_hosts.denied"}
	}
	found("net-request", {"host": "evil.example"}, {}) == {{
		"rule": "egress_hosts.denied",
		"effect": "deny",
		"reason": `requests leave for listed hosts alone, and "evil.example" is not among them`,
	}}
}

test_a_host_that_is_none if {
	every args in [{}, {"host": null}, {"host": 7}, {"host": ["api.partner.example"]}] {
		{result.rule | some result in found("net-request", args, {})} == {"egress_hosts.denied"}
	}
}

test_without_a_policy_of_that_name if {
	results := egress_hosts.results with input as {"syscall": {"tool": "net-request", "args": {"host": "evil.example"}}}
	count(results) == 1
}

test_other_calls if {
	found("fetch", {"host": "evil.example"}, {}) == set()
	found("model-call", {}, {}) == set()
}

test_hosts_of_the_policy if {
	ids("pypi.org", {"hosts": ["pypi.org"]}) == set()
	ids("api.partner.example", {"hosts": ["pypi.org"]}) == {"egress_hosts.denied"}
	ids("pypi.org", {"hosts": []}) == {"egress_hosts.denied"}
}

test_parameters_that_are_none if {
	every parameters in [{"hosts": "pypi.org"}, {"hosts": {"a": "pypi.org"}}, {"hosts": [7]}, {"host": ["pypi.org"]}] {
		ids("pypi.org", parameters) == {"egress_hosts.denied", "egress_hosts.parameters"}
	}
}
