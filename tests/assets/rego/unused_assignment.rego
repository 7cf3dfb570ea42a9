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
	limit := 3
	input.now > 1
}
