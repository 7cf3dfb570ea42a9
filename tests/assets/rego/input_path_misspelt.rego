# METADATA
# title: care
# description: a policy with a flaw
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.care

# METADATA
# title: no
# description: never
results contains {"rule": "care.no", "effect": "deny", "reason": "no"} if {
	# input.sycall.tool in a comment is nobody's business
	input.syscall.tol == "send"
	input["sesion"].tenant == "default"
	input.approvals[_].who == "al"
	input.config_revision.number == 1
}
