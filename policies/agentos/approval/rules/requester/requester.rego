# METADATA
# title: requester
# description: who asked for the work does not approve what comes of it
# schemas:
#   - input: schema["approval-input"]
# related_resources:
#   - ref: policies/agentos/approval/rules/requester/README.md
package agentos.approval.rules.requester

# METADATA
# title: same
# description: the approver started the session
results contains {"rule": "requester.same", "effect": "deny", "reason": reason} if {
	input.approval.by == input.session.actor
	reason := sprintf("%s started this session and cannot approve its calls; somebody else has to", [input.session.actor])
}
