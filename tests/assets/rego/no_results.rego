# METADATA
# title: care
# description: it decides nothing
package agentos.syscall.rules.care

deny if input.now > 1
