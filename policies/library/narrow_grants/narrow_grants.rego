# METADATA
# title: narrow grants
# description: a grant of a tool that reaches outside is bounded by arguments or by a person
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/narrow_grants/README.md
package agentos.admission.rules.narrow_grants

effects := {"external"}

# Constraints that hold for nearly everything and so bound nothing.
wide := {"glob": {"*", "**"}, "pattern": {"", ".*", ".+", "^.*$", "(?s).*"}}

# METADATA
# title: open
# description: such a grant covers whatever arguments the model proposes
results contains {"rule": "narrow_grants.open", "effect": "deny", "reason": reason} if {
	some grant in input.resources
	grant.kind == "ToolGrant"
	not grant.spec.approval == "required"
	not bounded(grant)
	some tool in grant.spec.tools
	[tenant_of(grant), tool] in concerned
	reason := sprintf(
		"toolgrant %s lets agents call tool %s with any arguments; constrain one, or set approval: required",
		[grant.metadata.name, tool],
	)
}

bounded(grant) if {
	some constraint in object.get(grant.spec, "args", {})
	some kind, want in constraint
	kind in {"equals", "glob", "oneOf", "pattern"}
	not want in object.get(wide, kind, set())
}

concerned contains [tenant_of(tool), tool.metadata.name] if {
	some tool in input.resources
	tool.kind == "Tool"
	tool.spec.effect in effects
}

tenant_of(resource) := object.get(resource.metadata, "tenant", "default")
