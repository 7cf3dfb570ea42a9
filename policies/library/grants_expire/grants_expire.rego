# METADATA
# title: grants expire
# description: a grant of a tool that reaches outside has an end
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/grants_expire/README.md
package agentos.admission.rules.grants_expire

effects := {"external"}

# METADATA
# title: endless
# description: such a grant has no end
results contains {"rule": "grants_expire.endless", "effect": "deny", "reason": reason} if {
	some grant in input.resources
	grant.kind == "ToolGrant"
	object.get(grant.spec, "until", null) == null
	some tool in grant.spec.tools
	[tenant_of(grant), tool] in concerned
	reason := sprintf("toolgrant %s of tool %s has no end; write until: with a date", [grant.metadata.name, tool])
}

concerned contains [tenant_of(tool), tool.metadata.name] if {
	some tool in input.resources
	tool.kind == "Tool"
	tool.spec.effect in effects
}

tenant_of(resource) := object.get(resource.metadata, "tenant", "default")
