package agentos.admission.rules.tenant_test

import data.agentos.admission.rules.tenant

model(home) := {"kind": "Model", "metadata": {"name": "m", "tenant": home}, "spec": {}}

acme := {"kind": "Tenant", "metadata": {"name": "acme"}, "spec": {}}

found(home, action, resource, resources) := results if {
	results := tenant.results with input as {
		"principal": {"name": "al", "roles": ["operator"], "tenant": home},
		"tenant": "default",
		"changes": [{"action": action, "resource": resource}],
		"resources": resources,
	}
}

test_default_always_exists if found("*", "create", model("default"), []) == set()

test_a_resource_without_tenant_is_of_default if {
	found("*", "create", {"kind": "Model", "metadata": {"name": "m"}, "spec": {}}, []) == set()
}

test_a_declared_tenant if found("*", "create", model("acme"), [acme]) == set()

test_an_undeclared_tenant if {
	found("*", "update", model("acme"), []) == {{
		"rule": "tenant.undeclared",
		"effect": "deny",
		"reason": "model m belongs to tenant acme, which is not declared; add a Tenant",
	}}
}

test_leaving_with_its_tenant if found("*", "delete", model("acme"), []) == set()

test_a_tenant_belongs_to_itself if found("*", "create", acme, [acme]) == set()

test_a_principal_at_home if found("acme", "create", model("acme"), [acme]) == set()

test_a_principal_abroad if {
	found("acme", "create", model("default"), [acme]) == {{
		"rule": "tenant.foreign",
		"effect": "deny",
		"reason": "principal al of tenant acme may not change model m; a principal of the fleet can",
	}}
}

nightly := {"kind": "PriorityClass", "metadata": {"name": "nightly"}, "spec": {"rank": 1}}

test_a_priority_class_needs_no_tenant if found("*", "create", nightly, [nightly]) == set()

test_a_principal_of_a_tenant_changes_no_priority_class if {
	{result.rule | some result in found("acme", "create", nightly, [acme, nightly])} == {"tenant.foreign"}
}

test_a_principal_of_a_tenant_changes_no_tenant if {
	{result.rule | some result in found("acme", "update", acme, [acme])} == {"tenant.foreign"}
}
