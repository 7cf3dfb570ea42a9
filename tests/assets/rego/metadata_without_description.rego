# METADATA
# title: care
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.care

# METADATA
# title: a
# description: b
results contains {"rule": "care.no", "effect": "deny", "reason": "no"} if input.now > 1
