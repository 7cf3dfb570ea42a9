# METADATA
# title: care
# description: it decides nothing
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.care

deny if input.now > 1
