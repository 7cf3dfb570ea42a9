# METADATA
# title: irreversible
# description: a call outside that may not be repeated waits for a person
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/irreversible/README.md
package agentos.syscall.rules.irreversible

# METADATA
# title: asks
# description: a tool that reaches outside and is not declared idempotent
results contains {"rule": "irreversible.asks", "effect": "ask", "reason": reason} if {
	input.syscall.effect == "external"
	not input.syscall.tool == "model-call"
	not input.syscall.tool == "net-request"
	not data.agentos.tools[input.syscall.tool].idempotent == true
	reason := sprintf("tool %s reaches outside and cannot be repeated harmlessly; a person looks first", [input.syscall.tool])
}
