# METADATA
# title: mandatory policies
# description: a policy that is labelled mandatory binds, and stays
# schemas:
#   - input: schema["admission-input"]
# related_resources:
#   - ref: policies/library/mandatory_policies/README.md
package agentos.admission.rules.mandatory_policies

# The label of the Policy.
label := {"name": "mandatory", "value": "true"}

# METADATA
# title: weak
# description: a mandatory policy only watches
results contains {"rule": "mandatory_policies.weak", "effect": "deny", "reason": reason} if {
	some policy in input.resources
	mandatory(policy)
	mode := object.get(policy.spec, "mode", "enforce")
	not mode == "enforce"
	reason := sprintf("policy %s is mandatory and has mode %s; it must enforce", [policy.metadata.name, mode])
}

# METADATA
# title: removed
# description: a mandatory policy would be deleted
results contains {"rule": "mandatory_policies.removed", "effect": "deny", "reason": reason} if {
	some change in input.changes
	change.action == "delete"
	mandatory(change.before)
	reason := sprintf("policy %s is mandatory and cannot be deleted", [change.before.metadata.name])
}

# METADATA
# title: unlabelled
# description: a mandatory policy would lose its label
results contains {"rule": "mandatory_policies.unlabelled", "effect": "deny", "reason": reason} if {
	some change in input.changes
	change.action == "update"
	mandatory(change.before)
	not mandatory(change.resource)
	reason := sprintf("policy %s is mandatory and must keep the label %s", [change.before.metadata.name, label.name])
}

mandatory(policy) if {
	policy.kind == "Policy"
	policy.metadata.labels[label.name] == label.value
}
