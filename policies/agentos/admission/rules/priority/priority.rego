# METADATA
# title: priority
# description: an agent is of a priority class that its tenant may have
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/agentos/admission/rules/priority/README.md
package agentos.admission.rules.priority

# METADATA
# title: refused
# description: the Tenant lists its priority classes, and the agent's is not among them
results contains {"rule": "priority.refused", "effect": "deny", "reason": reason} if {
	some agent in input.resources
	agent.kind == "Agent"
	some tenant in input.resources
	tenant.kind == "Tenant"
	tenant.metadata.name == object.get(agent.metadata, "tenant", "default")
	allowed := tenant.spec.priorityClasses
	class := object.get(agent.spec, "priorityClass", "standard")
	not class in allowed
	reason := sprintf(
		"agent %s is of the priority class %s, and tenant %s may have %s only; an operator of the fleet can list it in the Tenant",
		[agent.metadata.name, class, tenant.metadata.name, concat(", ", allowed)],
	)
}
