package agentos.admission.rules.priority_test

import data.agentos.admission.rules.priority

agent(spec) := {"kind": "Agent", "metadata": {"name": "a", "tenant": "acme"}, "spec": spec}

tenant(name, spec) := {"kind": "Tenant", "metadata": {"name": name}, "spec": spec}

found(resources) := results if {
	results := priority.results with input as {"changes": [], "resources": resources}
}

listed := {"priorityClasses": ["batch", "nightly"]}

test_a_class_that_is_listed if found([agent({"priorityClass": "batch"}), tenant("acme", listed)]) == set()

test_a_tenant_that_lists_none_may_have_all if {
	found([agent({"priorityClass": "interactive"}), tenant("acme", {})]) == set()
}

test_another_tenants_list_is_not_its_matter if {
	found([agent({"priorityClass": "interactive"}), tenant("globex", listed)]) == set()
}

test_a_class_that_is_not_listed if {
	found([agent({"priorityClass": "interactive"}), tenant("acme", listed)]) == {{
		"rule": "priority.refused",
		"effect": "deny",
		"reason": "agent a is of the priority class interactive, and tenant acme may have batch, nightly only; an operator of the fleet can list it in the Tenant",
	}}
}

test_an_agent_that_names_none_is_standard if {
	{result.rule | some result in found([agent({}), tenant("acme", listed)])} == {"priority.refused"}
	found([agent({}), tenant("acme", {"priorityClasses": ["standard"]})]) == set()
}

test_an_agent_without_tenant_is_of_default if {
	bare := {"kind": "Agent", "metadata": {"name": "a"}, "spec": {}}
	{result.rule | some result in found([bare, tenant("default", listed)])} == {"priority.refused"}
}
