# METADATA
# title: external asks
# description: two pairs of eyes on everything that reaches outside
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/external_asks/README.md
package agentos.syscall.rules.external_asks

# Effects that a second person looks at, and tools of such an effect that need none.
effects := {"external"}

exempt_tools := {"model-call", "net-request"}

# METADATA
# title: asks
# description: a call of such an effect waits for a person
results contains {"rule": "external_asks.asks", "effect": "ask", "reason": reason} if {
	input.syscall.effect in effects
	not exempt
	reason := sprintf("tool %s has the effect %s; a person looks at each such call", [input.syscall.tool, input.syscall.effect])
}

exempt if input.syscall.tool in exempt_tools
