# METADATA
# title: self granted
# description: who gave an agent a tool does not use it alone
# schemas:
#   - input: schema["policy-input"]
# related_resources:
#   - ref: policies/library/self_granted/README.md
package agentos.syscall.rules.self_granted

effects := {"external", "write"}

# METADATA
# title: asks
# description: a grant of this tool was applied by the one who started the session
results contains {"rule": "self_granted.asks", "effect": "ask", "reason": reason} if {
	input.syscall.effect in effects
	own := sort({grant.name | some grant in data.agentos.grants[input.agent.name][input.syscall.tool]; grant.by == input.session.actor})
	count(own) > 0
	reason := sprintf(
		"%s started this session and applied grant %s of tool %s; a person looks first",
		[input.session.actor, concat(", ", own), input.syscall.tool],
	)
}
