# METADATA
# title: self approval
# description: who started a session does not approve its calls
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/self_approval/README.md
package agentos.syscall.rules.self_approval

# METADATA
# title: alone
# description: the only approval of this call is by the one who started the session
results contains {"rule": "self_approval.alone", "effect": "deny", "reason": reason} if {
	count(approvers) > 0
	count(approvers - {input.session.actor}) == 0
	reason := sprintf("%s started this session and cannot approve its calls; somebody else has to", [input.session.actor])
}

approvers contains given.by if {
	some given in input.approvals
	given.tool == input.syscall.tool
	given.args_digest == input.syscall.args_digest
}
