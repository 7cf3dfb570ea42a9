package agentos.admission.rules.host_test

import data.agentos.admission.rules.host

found(tenant, kind, spec) := results if {
	results := host.results with input as {
		"principal": {"name": "bo", "tenant": tenant},
		"changes": [{"action": "create", "resource": {"kind": kind, "metadata": {"name": "x"}, "spec": spec}}],
	}
}

ids(tenant, kind, spec) := {result.rule | some result in found(tenant, kind, spec)}

shared := [
	["Sandbox", {"isolation": "unsafe-none"}, "host.isolation"],
	["Sandbox", {"isolation": "container", "image": "debian"}, "host.isolation"],
	["Sandbox", {"mounts": [{"path": "/opt/models"}]}, "host.mounts"],
	["Sandbox", {"network": {"allow": [], "private": ["10.1.0.0/16"]}}, "host.private"],
	["Tool", {"driver": {"http": {"url": "https://x", "private": ["10.1.0.0/16"]}}}, "host.private"],
	["Tool", {"driver": {"mcp": {"server": {"url": "https://x", "private": ["127.0.0.0/8"]}}}}, "host.private"],
	["Secret", {"env": "AWS_SECRET_ACCESS_KEY"}, "host.secret"],
	["Secret", {"file": "/run/secrets/x"}, "host.secret"],
	["Secret", {"keyring": {"service": "x", "username": "y"}}, "host.secret"],
	["Secret", {"vault": {"address": "https://x", "path": "p", "field": "f"}}, "host.secret"],
	["Trigger", {"on": {"webhook": {"path": "a", "secretEnv": "AWS_SECRET_ACCESS_KEY"}}}, "host.webhook"],
	["Model", {"provider": "anthropic", "anthropic": {"model": "m"}}, "host.model"],
	["Model", {"provider": "anthropic", "anthropic": {"baseUrl": "http://10.1.0.1", "apiKeyEnv": "AGENTOS_MODEL_X"}}, "host.model"],
	["Model", {"provider": "scripted", "scripted": {"play": {}}}, "host.model"],
]

test_a_principal_of_one_tenant_does_not_open_the_machine if {
	every one in shared {
		ids("acme-eu", one[0], one[1]) == {one[2]}
	}
}

test_a_principal_of_the_fleet_does if {
	every one in shared {
		ids("*", one[0], one[1]) == set()
	}
}

test_what_a_tenant_may_declare_by_itself if {
	every one in [
		["Sandbox", {}],
		["Sandbox", {"isolation": "bubblewrap", "mounts": [], "network": {"allow": [{"host": "pypi.org"}], "private": []}}],
		["Tool", {"driver": {"exec": {"command": ["sort"]}}, "sandbox": "x"}],
		["Tool", {"driver": {"http": {"url": "https://x"}}}],
		["Tool", {"driver": {"exec": {"command": ["sort"]}}, "credentials": [{"secret": "github", "env": "TOKEN"}]}],
		["ModelClass", {"routes": [{"model": "lent"}]}],
		["Trigger", {"on": {"signal": {"name": "go"}}}],
		["Agent", {"isolation": "unsafe-none", "mounts": [1], "env": "X", "network": {"private": ["10.1.0.0/16"]}}],
	] {
		ids("acme-eu", one[0], one[1]) == set()
	}
}

test_the_reason if {
	found("acme", "Sandbox", {"mounts": [{"path": "/opt/a"}, {"path": "/opt/b"}]}) == {{
		"rule": "host.mounts",
		"effect": "deny",
		"reason": "sandbox x names mounts of /opt/a, /opt/b, which principal bo of tenant acme may not give; a principal of the fleet can",
	}}
}

test_what_is_deleted_opens_nothing if {
	results := host.results with input as {
		"principal": {"name": "bo", "tenant": "acme"},
		"changes": [{"action": "delete", "resource": {"kind": "Sandbox", "metadata": {"name": "x"}, "spec": {"isolation": "unsafe-none"}}}],
	}
	results == set()
}
