# METADATA
# title: tenant
# description: a resource belongs to a tenant that exists
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/agentos/admission/rules/tenant/README.md
package agentos.admission.rules.tenant

# METADATA
# title: undeclared
# description: a changed resource names a tenant that no Tenant declares
results contains {"rule": "tenant.undeclared", "effect": "deny", "reason": reason} if {
	some change in input.changes
	change.action != "delete"
	not change.resource.kind in fleet
	name := owner(change.resource)
	not name in declared
	reason := sprintf(
		"%s %s belongs to tenant %s, which is not declared; add a Tenant",
		[lower(change.resource.kind), change.resource.metadata.name, name],
	)
}

# METADATA
# title: foreign
# description: a principal of one tenant changes what belongs to another, or to the fleet
results contains {"rule": "tenant.foreign", "effect": "deny", "reason": reason} if {
	home := input.principal.tenant
	home != "*"
	some change in input.changes
	not home == owner(change.resource)
	reason := sprintf(
		"principal %s of tenant %s may not change %s %s; a principal of the fleet can",
		[input.principal.name, home, lower(change.resource.kind), change.resource.metadata.name],
	)
}

# What belongs to no tenant: whoever may declare one may declare the other.
fleet := {"Tenant", "PriorityClass"}

owner(resource) := "*" if {
	resource.kind in fleet
} else := object.get(resource, ["metadata", "tenant"], "default")

declared contains "default"

declared contains resource.metadata.name if {
	some resource in input.resources
	resource.kind == "Tenant"
}
