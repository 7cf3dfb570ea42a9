# METADATA
# title: distinct
# description: two approvers are two people
# schemas:
#   - input: schema["approval-input"]
# related_resources:
#   - ref: policies/agentos/approval/rules/distinct/README.md
package agentos.approval.rules.distinct

# METADATA
# title: again
# description: the approver has approved this call already, and that approval still holds
results contains {"rule": "distinct.again", "effect": "deny", "reason": reason} if {
	some given in input.approvals
	given.by == input.approval.by
	input.now < given.expires
	reason := sprintf("%s has approved this call already; it waits for somebody else", [given.by])
}
