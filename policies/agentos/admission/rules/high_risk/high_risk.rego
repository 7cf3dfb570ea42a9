# METADATA
# title: high risk
# description: an agent of high risk reaches outside only after a person approved the call
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/agentos/admission/rules/high_risk/README.md
package agentos.admission.rules.high_risk

# METADATA
# title: unattended
# description: a grant gives an agent of high risk an external tool without approval
results contains {"rule": "high_risk.unattended", "effect": "deny", "reason": reason} if {
	some grant in input.resources
	grant.kind == "ToolGrant"
	not grant.spec.approval == "required"
	tenant := tenant_of(grant)
	some agent in grant.spec.agents
	[tenant, agent] in risky
	some tool in grant.spec.tools
	[tenant, tool] in external
	reason := sprintf(
		"toolgrant %s gives agent %s (risk: high) the external tool %s without approval; set approval: required",
		[grant.metadata.name, agent, tool],
	)
}

risky contains [tenant_of(resource), resource.metadata.name] if {
	some resource in input.resources
	resource.kind == "Agent"
	resource.spec.governance.risk == "high"
}

external contains [tenant_of(resource), resource.metadata.name] if {
	some resource in input.resources
	resource.kind == "Tool"
	resource.spec.effect == "external"
}

tenant_of(resource) := object.get(resource.metadata, "tenant", "default")
